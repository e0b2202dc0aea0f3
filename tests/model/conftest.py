"""Tiny real models and, where it is at hand, what the original project's own code computed."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import SHARED, TEXT_CONFIGS, tiny_model, tiny_tokenizer

from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.conversion import convert

GOLDEN_SETS = [
    Path(__file__).parent / "parity" / "llama2",
    *sorted(path.parent for path in (SHARED / "golden").glob("*/MANIFEST.json")),
]
"""A trimmed set that is always here, and the whole ones beside the repository."""


class Golden:
    """One recorded set: its files, and the same weights converted by this project."""

    def __init__(self, path: Path, converted: Path) -> None:
        self.path = path
        self.cases: dict[str, Any] = json.loads((path / "cases.json").read_text(encoding="utf-8"))
        self.config: dict[str, Any] = json.loads((path / "MANIFEST.json").read_text(encoding="utf-8"))["config"]
        self.merged, self.kept = converted / "merged", converted / "kept"
        for folder, adapter in ((self.merged, "merge"), (self.kept, "keep")):
            convert(
                path / "official.pth",
                path / "base_llm",
                path / "eva_vit_g.pth",
                folder,
                dtype="float32",
                adapter=adapter,
                vision_heads=self.config["vit"]["heads"],
            )

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.path / f"{name}.npz") as file:
            return dict(file)

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.npz").is_file()

    @cached_property
    def frames(self) -> list[np.ndarray]:
        return list(self.arrays("inputs")["frames"])

    @cached_property
    def model(self) -> MiniGPT4VideoForConditionalGeneration:
        return MiniGPT4VideoForConditionalGeneration.from_pretrained(self.merged).eval()

    @cached_property
    def processor(self) -> MiniGPT4VideoProcessor:
        return MiniGPT4VideoProcessor.from_pretrained(self.merged)

    def rows(self, case: dict[str, Any]) -> list[list[np.ndarray]]:
        """The frames of each row of a recorded case."""
        texts = case.get("prompts") or case["instruction_input"]
        index = case.get("image_index") or (self.cases["train"]["image_index"] if case.get("length") else None)
        if index is None and len(texts) > 1:  # one picture a row, in order
            return [[frame] for frame in self.frames[: len(texts)]]
        if index is None:
            return [self.frames[: texts[0].count("<ImageHere>")]]
        index = index if isinstance(index, list) else [index]
        rows = [[row] if isinstance(row, int) else row for row in index]
        return [
            [self.frames[number] for number in row][: text.count("<ImageHere>")]
            for row, text in zip(rows, texts, strict=True)
        ]

    def inputs(self, name: str) -> Any:
        case = self.cases[name]
        return self.processor(text=case["prompts"], images=self.rows(case), return_tensors="pt")


@pytest.fixture(scope="session", params=GOLDEN_SETS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="module", params=sorted(TEXT_CONFIGS))
def model(request: pytest.FixtureRequest) -> MiniGPT4VideoForConditionalGeneration:
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def processor() -> MiniGPT4VideoProcessor:
    return MiniGPT4VideoProcessor(
        tiny_tokenizer(), image_token_id=112, tokens_per_frame=4, image_size=28, frames=4, window=400, answer_reserve=16
    )


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Six unlike pictures, uint8 (height, width, 3)."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (36, 48, 3), dtype=np.uint8) for _ in range(6)]
