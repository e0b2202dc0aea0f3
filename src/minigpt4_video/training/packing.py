"""One prefix, many branches: all questions of a video behind its frames, which are then read once.

A row is the prefix (frames, subtitles) and after it every turn (question and answer). Positions restart behind the
prefix and a mask hides turns from each other, so each turn is computed as if it stood alone. Several rows share a
line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minigpt4_video.data.sample import Sample
from minigpt4_video.errors import RecipeError
from minigpt4_video.model.processing import IGNORED, IMAGE, MiniGPT4VideoProcessor

QUESTION = "\u241e"
"""Stands for the question while the chat template is filled once for all turns of a sample."""


@dataclass(frozen=True)
class Row:
    """One sample as token ids."""

    prefix: list[int]
    branches: list[tuple[list[int], int]]
    """Token ids behind the prefix, and how many of them belong to the question; the rest is learned."""

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(ids) for ids, _ in self.branches)


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
    shared = processor.encode(head + IMAGE)
    tokenize, end = processor.tokenizer, processor.tokenizer.eos_token
    asked = [
        list(tokenize(tail.replace(QUESTION, processor.plain(question)), add_special_tokens=False)["input_ids"])
        for question, _ in sample.turns
    ]
    answers = [list(tokenize(answer + end, add_special_tokens=False)["input_ids"]) for _, answer in sample.turns]
    common = _common(asked) if len(asked) > 1 else 0
    branches = [(ids[common:] + answer, len(ids) - common) for ids, answer in zip(asked, answers, strict=True)]
    return Row(shared + asked[0][:common], branches)


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


def pack(packed: Sequence[Sequence[Row]], pad: int, width: int, *, questions: bool = False) -> dict[str, torch.Tensor]:
    """Lines of rows as tensors, padded on the right to `width` (each new shape costs the CPU's kernels a compilation).

    `input_ids`, `position_ids` and `labels` (lines, width), `attention_mask` (lines, 1, width, width) of bool. Labels
    are not shifted; with `questions` they hold every token of a branch but its first, which the prefix foretells for
    all branches alike. Frames are read in the order of lines, and of rows in a line.
    """
    shape = (len(packed), width)
    input_ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    position_ids = torch.zeros(shape, dtype=torch.long)
    owner = torch.full(shape, -1)  # the number of the row, -1 in the padding
    branch = torch.zeros(shape, dtype=torch.long)  # 0 in a row's prefix, then 1, 2, ... in its branches
    for line, rows in enumerate(packed):
        at = 0
        for number, one in enumerate(rows):
            end = at + len(one.prefix)
            owner[line, at : at + len(one)] = number
            input_ids[line, at:end] = torch.tensor(one.prefix)
            position_ids[line, at:end] = torch.arange(len(one.prefix))
            at = end
            for turn, (ids, question) in enumerate(one.branches, start=1):
                end = at + len(ids)
                input_ids[line, at:end] = torch.tensor(ids)
                position_ids[line, at:end] = torch.arange(len(one.prefix), len(one.prefix) + len(ids))
                learned = at + 1 if questions else at + question
                labels[line, learned:end] = input_ids[line, learned:end]
                branch[line, at:end] = turn
                at = end
    same_row = owner[:, :, None] == owner[:, None, :]
    same_branch = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    seen = same_row & same_branch & torch.ones(width, width, dtype=torch.bool).tril()
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "labels": labels,
        "attention_mask": seen[:, None],
    }
