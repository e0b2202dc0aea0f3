"""An import only ever points to a lower floor, and programs never import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import minigpt4_video

PACKAGE = Path(minigpt4_video.__file__).parent

FLOORS = [
    {"errors"},
    {"media", "messages", "instructions", "planning"},
    {"model"},
    {"inference", "data"},
    {"long_video"},
    {"training", "labelling", "evaluation", "serving"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

SHARED_FLOOR = FLOOR["media"]
"""The only floor whose rooms may use each other: small, pure, and without torch."""

WITHOUT_TORCH = {"errors", "media", "messages", "instructions", "planning"}
HEAVY = {"torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "ray", "gradio", "fastapi"}


class Import(NamedTuple):
    file: str
    line: int
    room: str
    target: str
    """Dotted name of what is imported."""


def imports_of(file: Path, room: str, name: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, room, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; write the full name"
            for alias in node.names:
                yield Import(name, node.lineno, room, f"{node.module}.{alias.name}")


def all_imports(package: Path) -> list[Import]:
    found = []
    for file in sorted(package.rglob("*.py")):
        relative = file.relative_to(package)
        found += imports_of(file, relative.parts[0].removesuffix(".py"), str(relative))
    return found


def offences(imports: list[Import]) -> list[str]:
    """What breaks the rule, in words; names that the package root defines (`__version__`) belong to no room."""
    found = []
    for file, line, room, target in imports:
        parts = target.split(".")
        if room not in FLOOR:
            found.append(f"{file}: {room} has no floor; give it one in FLOORS")
        elif parts[0] != "minigpt4_video":
            if room in WITHOUT_TORCH and parts[0] in HEAVY:
                found.append(f"{file}:{line} imports {parts[0]}, which {room} must do without")
        elif parts[1] in FLOOR:
            lower = FLOOR[parts[1]] < FLOOR[room]
            beside = FLOOR[parts[1]] == FLOOR[room] == SHARED_FLOOR
            if not (lower or beside or parts[1] == room):
                found.append(f"{file}:{line} on floor {FLOOR[room]} imports {target} on floor {FLOOR[parts[1]]}")
        elif parts[1] != "__version__" and room != "__main__":
            found.append(f"{file}:{line} takes {parts[1]} from the package root; take it from its room")
    return found


def test_imports_point_down():
    assert offences(all_imports(PACKAGE)) == []


def test_an_import_that_points_up_or_sideways_is_found(tmp_path):
    for room, line in {
        "media/video.py": "import torch",
        "model/modeling.py": "from minigpt4_video.inference.chat import VideoChat",
        "training/train.py": "from minigpt4_video import evaluation",
        "data/mixture.py": "import minigpt4_video.inference.chat",
        "novelty/new.py": "import os",
        "serving/api.py": "from minigpt4_video import VideoChat",
        "long_video/index.py": "from minigpt4_video.serving import limits",
    }.items():
        file = tmp_path / room
        file.parent.mkdir()
        file.write_text(f"def late():\n    {line}\n", encoding="utf-8")

    found = "\n".join(offences(all_imports(tmp_path)))

    for name in [
        "media/video.py",
        "model/modeling.py",
        "training/train.py",
        "data/mixture.py",
        "novelty",
        "serving/api",
        "long_video/index.py",
    ]:
        assert name in found
