"""One prefix, many branches: all questions of a video behind its frames, which are then read once.

A row is the prefix (frames, subtitles) and after it every turn (question and answer), laid out by `model.branches`:
positions restart behind the prefix and a mask hides turns from each other, so each turn is computed as if it stood
alone. Several rows share a line, and a line ends with its last row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from minigpt4_video.data.sample import Sample
from minigpt4_video.errors import RecipeError
from minigpt4_video.model.branches import PACKED, Places, lay_out, masks
from minigpt4_video.model.packed_attention import pieces
from minigpt4_video.model.processing import IGNORED, IMAGE, MiniGPT4VideoProcessor

QUESTION = "\u241e"
"""Stands for the question while the chat template is filled once for all turns of a sample."""


class Branch(NamedTuple):
    """What stands behind a prefix: a question with its answer, or a conversation of several of them."""

    ids: list[int]
    learned: tuple[tuple[int, int], ...]
    """First and last-but-one index of each answer with its end token; nothing else is learnt."""

    @property
    def question(self) -> int:
        """How many tokens come before the first answer."""
        return self.learned[0][0]


@dataclass(frozen=True)
class Row:
    """One sample as token ids."""

    prefix: list[int]
    branches: list[Branch]

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(branch.ids) for branch in self.branches)


def row(processor: MiniGPT4VideoProcessor, sample: Sample) -> Row:
    """The sample in the form of the processor's chat template. Raises RecipeError where it would not fit the window."""
    part: dict[str, object] = {"type": "image", "image": sample.frames[0]}
    if not sample.picture:
        part = {"type": "video", "frames": sample.frames, "subtitles": list(sample.subtitles)}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]
    prepared = processor.prepare(messages)
    if len(prepared.frames) != len(sample.frames):
        raise RecipeError(
            f"{sample.id}: {len(sample.frames)} frames do not fit the window of {processor.window} tokens; "
            "train on fewer frames or with a larger window"
        )
    head, _, tail = prepared.text.rpartition(IMAGE)
    tokenize, end = processor.tokenizer, processor.tokenizer.eos_token
    behind = []
    for question, answer in sample.turns:
        asked = tokenize(tail.replace(QUESTION, processor.plain(question)), add_special_tokens=False)["input_ids"]
        answered = tokenize(answer + end, add_special_tokens=False)["input_ids"]
        behind.append(Branch([*asked, *answered], ((len(asked), len(asked) + len(answered)),)))
    return shared(processor.encode(head + IMAGE), behind)


def shared(prefix: Sequence[int], branches: Sequence[Branch]) -> Row:
    """A row whose prefix goes as far as all branches begin the same; a lone branch keeps its question.

    Of the same question, answered several times, the last token stays with each: what foretells an answer's first word
    must stand before it in its own branch, or it would be learnt from the end of the answer before.
    """
    asked = [branch.ids[: branch.question] for branch in branches]
    common = min(_common(asked), min(map(len, asked)) - 1) if len(asked) > 1 else 0
    shorter = [
        Branch(branch.ids[common:], tuple((start - common, end - common) for start, end in branch.learned))
        for branch in branches
    ]
    return Row([*prefix, *asked[0][:common]], shorter)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many ids all rows begin with."""
    length = 0
    for ids in zip(*rows, strict=False):
        if len(set(ids)) > 1:
            break
        length += 1
    return length


def lines(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Rows one behind the other in as few lines of `width` tokens as first-fit finds, in the order of the rows.

    Raises RecipeError for a row that is longer than a line: it is for the planner to shorten, never cut here.
    """
    packed: list[list[Row]] = []
    room: list[int] = []
    for one in rows:
        if len(one) > width:
            raise RecipeError(
                f"a sample has {len(one)} tokens and a line {width}; ask less of one video or widen the line"
            )
        line = next((index for index, free in enumerate(room) if free >= len(one)), None)
        if line is None:
            packed.append([one])
            room.append(width - len(one))
        else:
            packed[line].append(one)
            room[line] -= len(one)
    return packed


def pack(
    packed: Sequence[Sequence[Row]], pad: int, width: int | None = None, *, questions: bool = False
) -> dict[str, torch.Tensor]:
    """Lines of rows as tensors, padded on the right to the longest line, or to `width`.

    All are (lines, tokens): `input_ids`, `position_ids`, `labels`, and `branch` and `film` as in
    `model.branches.Places`. Labels are not shifted; with `questions` they hold every token of a branch but its first,
    which the prefix foretells for all branches alike. Frames are read in the order of lines, and of rows in a line.
    """
    films = [[(one.prefix, [branch.ids for branch in one.branches]) for one in rows] for rows in packed]
    input_ids, places = lay_out(films, pad, width=width)
    labels = torch.full_like(input_ids, IGNORED)
    for line, rows in enumerate(packed):
        at = 0
        for one in rows:
            at += len(one.prefix)
            for ids, learned in one.branches:
                for start, end in ((1, len(ids)),) if questions else learned:
                    labels[line, at + start : at + end] = input_ids[line, at + start : at + end]
                at += len(ids)
    assert places.film is not None
    return {
        "input_ids": input_ids,
        "position_ids": places.position,
        "labels": labels,
        "branch": places.branch,
        "film": places.film,
    }


def attention(packed: Mapping[str, torch.Tensor], text_config: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What of packed lines sees what, as arguments of the model: in pieces where its attention is told to work so."""
    places = Places(packed["branch"], packed["position_ids"], packed["film"])
    if text_config._attn_implementation == PACKED and (found := pieces(places, text_config, dtype)) is not None:
        # A mask of four dimensions is taken for a ready one, so that the library makes none.
        return {"attention_mask": torch.zeros(1, 1, 1, 1, device=packed["branch"].device), "pieces": found}
    return {"attention_mask": masks(places, places, text_config, dtype)}


def widened(length: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step
