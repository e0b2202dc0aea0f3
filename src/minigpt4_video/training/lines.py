"""Packed lines of samples as a data set: line number i is always the same, so a run can be resumed and repeated."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from minigpt4_video.data.sample import Sample
from minigpt4_video.data.world.pictures import DensePicture, dense_picture
from minigpt4_video.data.world.samples import dialogue_sample, picture_sample, video_sample
from minigpt4_video.errors import RecipeError
from minigpt4_video.model.branches import Places, visible
from minigpt4_video.model.processing import MiniGPT4VideoProcessor
from minigpt4_video.training.packing import Row, pack, row
from minigpt4_video.training.recipe import Source

TRIED = 10
"""How many samples are looked at to fill one line; some have nothing to ask."""
SEARCHED = 200
"""How many are looked at before a line without any is given up."""


@dataclass(frozen=True)
class Line:
    samples: tuple[Sample, ...]
    rows: tuple[Row, ...]


class WorldLines(Dataset[Line]):  # type: ignore[misc]
    """Lines drawn from the world: one video with as many of its turns as fit, or several short samples."""

    def __init__(
        self,
        processor: MiniGPT4VideoProcessor,
        sources: Sequence[Source],
        *,
        width: int,
        count: int,
        seed: int,
        speech: bool = True,
    ) -> None:
        self.processor = processor
        self.sources = list(sources)
        self.width = width
        self.count = count
        self.seed = seed
        self.speech = speech

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Line:
        rng = random.Random(f"line/{self.seed}/{index}")
        open_now = [source for source in self.sources if source.since <= index]
        source = rng.choices(open_now, [source.weight for source in open_now])[0]
        if source.kind == "videos" and not source.kinds:
            sample = self._sample(source, source.first + index)
            return Line((sample,), (self._fitting(sample),))
        first = source.first + index * TRIED
        kept: list[tuple[Sample, Row]] = []
        room = self.width
        for number in range(first, first + SEARCHED):
            if kept and number >= first + TRIED:
                break
            sample = self._sample(source, number)
            if not sample.turns:
                continue
            one = row(self.processor, sample)
            if len(one) > room:
                if kept:
                    break
                one = self._fitting(sample)
            kept.append((sample, one))
            room -= len(one)
        if not kept:
            raise RecipeError(
                f"none of {SEARCHED} {source.kind} has anything to ask; give their source more captions, questions, "
                "kinds or things"
            )
        samples, rows = zip(*kept, strict=True)
        return Line(samples, rows)

    def _sample(self, source: Source, number: int) -> Sample:
        """Sample `number` of a source; it may have no turns."""
        size = self.processor.image_size
        if source.kind == "pictures":
            return picture_sample(number, "train", size, questions=source.questions, captions=source.captions)
        if source.kind == "dialogues":
            return dialogue_sample(number, "train", size, questions=source.questions, things=source.things)
        return video_sample(
            number,
            "train",
            size,
            questions=source.questions,
            captions=source.captions,
            speech=self.speech,
            things=source.things,
            kinds=source.kinds,
        )

    def _fitting(self, sample: Sample) -> Row:
        """The sample's row with as many of its turns as the line holds; turns are left out whole."""
        whole = row(self.processor, sample)
        branches = list(whole.branches)
        while len(whole.prefix) + sum(len(ids) for ids, _ in branches) > self.width:
            branches.pop()
        return replace(whole, branches=branches)


class Collator:
    """Lines to tensors, with pixels for a model that sees or words for one that is told.

    What is told is learnt whole, questions and answers: foretelling what will be asked is what teaches to look.
    """

    def __init__(self, processor: MiniGPT4VideoProcessor, width: int, *, told: bool) -> None:
        self.processor = processor
        self.width = width
        self.told = told

    def __call__(self, batch: Sequence[Line]) -> dict[str, torch.Tensor]:
        rows = [line.rows for line in batch]
        # Always the same width: each new shape costs the CPU's kernels a compilation.
        packed = pack(rows, self.processor.tokenizer.pad_token_id, self.width, questions=self.told)
        samples = [sample for line in batch for sample in line.samples]
        if self.told:
            dense = [sample.truth["dense"] for sample in samples if sample.truth is not None]
            packed["words"] = torch.from_numpy(np.concatenate(dense))
            places = Places(packed.pop("branch"), packed["position_ids"], packed.pop("film"))
            packed["attention_mask"] = visible(places, places)[:, None]
        else:
            packed["pixel_values"] = self.processor.pixels([frame for sample in samples for frame in sample.frames])
        return packed


class DensePictures(Dataset[DensePicture]):  # type: ignore[misc]
    """Pictures for pretraining the tower."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DensePicture:
        return dense_picture(index, self.size)


class DenseCollator:
    def __init__(self, processor: MiniGPT4VideoProcessor) -> None:
        self.processor = processor

    def __call__(self, batch: Sequence[DensePicture]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": self.processor.pixels([picture.pixels for picture in batch]),
            "middle": torch.from_numpy(np.stack([picture.middle for picture in batch])),
        }


def world_texts(scenes: int) -> list[str]:
    """The world's words, for learning a tokenizer: questions, answers, subtitles and captions of so many scenes."""
    from minigpt4_video.instructions import CAPTION_STYLE, IMAGE_CAPTION, VIDEO_CAPTION

    texts: list[str] = []
    for seed in range(scenes):
        for sample in (video_sample(seed, "train", 8, questions=100, captions=3), picture_sample(seed, "train", 8)):
            texts += [text for turn in sample.turns for text in turn]
            texts += sample.subtitles
    for pool in (
        IMAGE_CAPTION,
        VIDEO_CAPTION,
        {spoken: tuple(CAPTION_STYLE[spoken].values()) for spoken in CAPTION_STYLE},
    ):
        for instructions in pool.values():
            texts += list(instructions) * 30
    return texts
