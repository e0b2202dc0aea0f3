"""The documents' commands are run, their links are followed, and what they leave unrun is at least valid usage."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GROUPS = ("data", "world", "store")
"""Verbs that have verbs of their own."""
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    document: str
    line: int
    language: str
    text: str
    is_run: bool


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(document.relative_to(ROOT)), line, match[2], match[3], match[1] is None))
    return found


def commands(text: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: Path) -> Path:
    """A folder with the repository's examples, where commands may write."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """One command line in this process; importing torch anew for each would take most of the time."""
    from minigpt4_video.cli import main

    before, _, after = line.rpartition(" | ")
    if before:
        assert shlex.split(before)[0] == "echo"
        monkeypatch.setattr(sys, "stdin", io.StringIO(shlex.split(before)[1] + "\n"))
    words = shlex.split(after)
    if words == ["make", "ask"]:
        return run(made_by("ask"), monkeypatch)
    if words[0] == "make":
        return subprocess.call(["make", "-n", words[1]], cwd=ROOT, timeout=60)
    if words[:3] == [".venv/bin/python", "-m", "pytest"]:  # these tests run anyway; they must be there
        return int(not all((ROOT / word).exists() for word in words[3:] if not word.startswith("-")))
    assert words[0] == "minigpt4-video"
    return main(words[1:])


def made_by(target: str) -> str:
    """The last command that a make target runs."""
    # This test may itself have been started by make, which would speak differently to a make inside it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    told = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return re.sub(r"^\S*/bin/", "", told.splitlines()[-1])


@pytest.mark.parametrize("block", [b for b in blocks() if b.is_run], ids=lambda b: f"{b.document}:{b.line}")
def test_what_a_document_shows_can_be_run(block, place, monkeypatch, capfd):
    if block.language == "python":
        exec(compile(block.text, block.document, "exec"), {})
    else:
        for line in commands(block.text):
            assert run(line, monkeypatch) == 0, f"{line}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("block", [b for b in blocks() if not b.is_run], ids=lambda b: f"{b.document}:{b.line}")
def test_what_is_not_run_is_valid_usage(block, capfd):
    """Verb and options exist; the files are somebody else's."""
    from minigpt4_video.cli import main

    for line in commands(block.text):
        if line.startswith("minigpt4-video "):
            words = shlex.split(line)[1:]
            verb = words[:2] if words[0] in GROUPS else words[:1]
            assert main([*verb, "--help"]) == 0
            told = capfd.readouterr().out
            for option in [word for word in words if word.startswith("--")]:
                assert f"{option} " in told, f"{' '.join(verb)} has no {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (document.parent / link).exists(), f"{document.name} links to {link}, which is not there"


def test_the_two_commands_of_the_readme_do_what_it_says():
    assert made_by("ask").startswith("minigpt4-video ask examples/clip.mp4 ")
    assert made_by("test").endswith('pytest -m "not slow"')
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert text.index("make ask") < text.index("make test") < text.index("minigpt4-video ask")


def test_both_readmes_show_the_same_verbs():
    verbs = [
        set(re.findall(r"minigpt4-video (\w+)", (ROOT / readme).read_text(encoding="utf-8")))
        for readme in ("README.md", "README.zh-CN.md")
    ]
    assert verbs[0] == verbs[1]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_figures_of_both_engines_are_those_that_are_kept(readme):
    kept = (ROOT / "benchmarks" / "results" / "inference_vllm.json").read_text(encoding="utf-8")
    built_in, vllm = (row["value"] for row in json.loads(kept)["rows"])
    text = (ROOT / readme).read_text(encoding="utf-8")
    (told,) = [part for part in text.split("\n\n") if "inference_vllm.json" in part]

    assert re.findall(r"(\d\.\d)(?: times|,| 倍|:)", told) == [f"{vllm:.1f}", f"{built_in:.1f}"]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_nine_figures_of_inference_are_those_that_are_kept(readme):
    rows = json.loads((ROOT / "benchmarks" / "results" / "inference.json").read_text(encoding="utf-8"))["rows"]
    text = (ROOT / readme).read_text(encoding="utf-8")
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    first = next(at for at, cells in enumerate(table) if cells[1].strip() in ("measured", "实测"))
    told = table[first + 1 : first + 10]

    assert len(rows) == 9
    for (name, measured, target), row in zip(told, rows, strict=True):
        number, percent = re.search(r"([\d.]+)( %)?", measured).groups()
        digits = len(number.partition(".")[2])
        assert float(number) == round(row["value"] * (100 if percent else 1), digits), name
        assert float(re.search(r"[\d.]+", target)[0]) == row["target"] * (100 if percent else 1), name
        assert any(word in target for word in ("missed", "未达到")) != row["met"], name
