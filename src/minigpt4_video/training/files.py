"""Training from files: records that show the same, to packed lines.

Everything that is asked of a video stands behind its frames, which are read once for all of it. What does not fit the
window is planned by the planner that answering uses: subtitles give way first, then frames, and no answer is ever cut.
What cannot be read or planned is left out, told by name and replaced by the next draw.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from minigpt4_video.data.mixture import Mixture
from minigpt4_video.data.reading import shown
from minigpt4_video.errors import DataError, PlanError, UserError
from minigpt4_video.inference.store import Store
from minigpt4_video.messages import Message, parts
from minigpt4_video.model.processing import IMAGE, MiniGPT4VideoProcessor
from minigpt4_video.training.kept import Keep, Medium, Reader
from minigpt4_video.training.packing import Branch, Row, lines, pack, shared, widened
from minigpt4_video.training.sets import Group, Groups, Skipped

SUBSTITUTES = 16
"""How many further draws are tried for one that cannot be used."""
BUCKET = 128
"""On the CPU lines are widened to a multiple of this: each new shape costs its kernels a compilation."""


@dataclass(frozen=True)
class Item:
    """A group as token ids, with what it shows."""

    id: str
    rows: tuple[Row, ...]
    shows: tuple[tuple[int, ...], ...]
    """For each row the numbers of its frames, counted through `media`."""
    media: tuple[Medium, ...]
    skipped: tuple[Skipped, ...] = ()


def item(group: Group, processor: MiniGPT4VideoProcessor, reader: Reader, *, frames: int, width: int) -> Item:
    """Reads, plans and tokenises a group. Raises MediaError where it cannot be read.

    Rows hold at most `width` tokens: what is more than one holds goes on in a further row with the same prefix.
    """
    first = shown(group.records[0].messages, frames, processor.image_size, clip=reader.clip, picture=reader.picture)
    conversations = [_with_media(record.messages, first) for record in group.records]
    window = min(width, processor.window)
    planned, skipped = _planned(group, conversations, processor, window)
    heads: dict[str, list[int]] = {}
    told = []
    for name, messages in planned:
        made = _branch(messages, processor, heads)
        if (length := len(made[0].ids)) > window:  # the planner may count a little less than is tokenised
            skipped.append(Skipped(name, f"it is {length} tokens long, and {window} fit; ask less at once"))
            continue
        told.append(made)
    if not told:
        return Item(group.id, (), (), tuple(reader.media), tuple(skipped))
    one = shared([], [branch for branch, _ in told])
    frames_of = told[0][1]
    alike = all(numbers == frames_of for _, numbers in told)
    rows: list[Row] = []
    if alike and all(processor.image_token_id not in branch.ids for branch in one.branches):
        for branch in one.branches:
            if rows and len(rows[-1]) + len(branch.ids) <= width:
                rows[-1].branches.append(branch)
            else:
                rows.append(Row(one.prefix, [branch]))
        shows = [frames_of] * len(rows)
    else:  # a single conversation, pictures between turns, or words before a picture: nothing to share
        rows = [shared([], [branch]) for branch, _ in told]
        shows = [numbers for _, numbers in told]
    return Item(group.id, tuple(rows), tuple(shows), tuple(reader.media), tuple(skipped))


def _without_subtitles(messages: Sequence[Message]) -> list[Message]:
    return [
        {**message, "content": [{**p, "subtitles": "off"} if p["type"] == "video" else p for p in parts(message)]}
        for message in messages
    ]


def _with_media(messages: Sequence[Message], filled: Sequence[Message]) -> list[Message]:
    """The conversation with media parts as they were read for another one that shows the same."""
    found = iter([part for message in filled for part in parts(message) if part["type"] != "text"])
    return [
        {"role": message["role"], "content": [p if p["type"] == "text" else next(found) for p in parts(message)]}
        for message in messages
    ]


def _planned(
    group: Group, conversations: Sequence[list[Message]], processor: MiniGPT4VideoProcessor, window: int
) -> tuple[list[tuple[str, list[Message]]], list[Skipped]]:
    """The conversations, by the ids of their records, with the frames and subtitles that leave room for the longest.

    One that is too long even for a single frame is skipped and told.
    """
    planner = copy.copy(processor)
    planner.window = window
    fits: dict[int, int] = {}
    skipped = []
    for number, messages in enumerate(conversations):
        planner.answer_reserve = _reserve(messages, processor)
        try:
            plans = planner.prepare(_without_subtitles(messages[:-1])).plans
        except PlanError as error:
            skipped.append(Skipped(group.records[number].id, str(error)))
            continue
        fits[number] = plans[0].question_tokens + planner.answer_reserve if plans else 0
    if not fits:
        return [], skipped
    longest = conversations[max(fits, key=fits.__getitem__)]
    planner.answer_reserve = _reserve(longest, processor)
    prepared = planner.prepare(longest[:-1])
    clips = iter(zip(prepared.clips, prepared.subtitles, strict=True))
    filled = []
    for message in longest:
        filled.append({"role": message["role"], "content": [_kept(p, clips) for p in parts(message)]})
    return [(group.records[at].id, _with_media(conversations[at], filled)) for at in fits], skipped


def _kept(part: dict[str, Any], clips: Any) -> dict[str, Any]:
    """A video part with what the planner kept of it."""
    if part["type"] != "video":
        return part
    clip, texts = next(clips)
    return {"type": "video", "frames": clip, "subtitles": list(texts)}


def _reserve(messages: Sequence[Message], processor: MiniGPT4VideoProcessor) -> int:
    """Room for the last answer, in tokens."""
    return max(processor.answer_reserve, len(_answer(messages[-1], processor)))


def _answer(message: Message, processor: MiniGPT4VideoProcessor) -> list[int]:
    said = processor.plain("".join(part["text"] for part in parts(message) if part["type"] == "text"))
    ids: list[int] = processor.tokenizer(said + processor.tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return ids


def _branch(
    messages: Sequence[Message], processor: MiniGPT4VideoProcessor, heads: dict[str, list[int]]
) -> tuple[Branch, tuple[int, ...]]:
    """A whole conversation as ids, with its answers marked, and the numbers of its frames. `heads` remembers the ids of
    what stands before questions, which is long and mostly the same.
    """
    loose = copy.copy(processor)
    loose.window, loose.answer_reserve = 1 << 30, 0  # planned already
    tokenizer = processor.tokenizer
    ids: list[int] = []
    learned: list[tuple[int, int]] = []
    text = ""
    frames: Sequence[Any] = ()
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prepared = loose.prepare(messages[:turn])
        piece = prepared.text[len(text) :].removeprefix(tokenizer.eos_token if learned else "")
        if not prepared.text.startswith(text):
            raise DataError("the chat template writes earlier turns in another way when later ones follow")
        head, mark, tail = piece.rpartition(IMAGE)
        if mark and not learned:
            if head not in heads:
                heads[head] = processor.encode(head + IMAGE)
            ids += [*heads[head], *tokenizer(tail, add_special_tokens=False)["input_ids"]]
        else:
            ids += processor.encode(piece, add_special_tokens=not learned)
        answer = processor.plain("".join(part["text"] for part in parts(message) if part["type"] == "text"))
        answered = _answer(message, processor)
        learned.append((len(ids), len(ids) + len(answered)))
        ids += answered
        text, frames = prepared.text + answer, prepared.frames
    return Branch(ids, tuple(learned)), tuple(int(frame.flat[0]) for frame in frames)


class Files(Dataset[Item]):  # type: ignore[misc]
    """Item n is what the mixture draws n-th: always the same, so a run can be resumed and repeated."""

    def __init__(
        self,
        sets: Sequence[Groups],
        mixture: Mixture | None,
        processor: MiniGPT4VideoProcessor,
        *,
        frames: int,
        width: int,
        count: int,
        store: Store | None = None,
        keep: Keep = "nothing",
        tower: str = "",
        speech: bool = True,
    ) -> None:
        """Without a mixture item n is the n-th of all groups, and one that cannot be used stays empty. Without `speech`
        videos are shown without their subtitles."""
        self.sets = sets
        self.mixture = mixture
        self.processor = processor
        self.frames = frames
        self.width = width
        self.count = count
        self.store = store
        self.keep = keep
        self.tower = tower
        self.speech = speech

    def __len__(self) -> int:
        return self.count

    def group(self, index: int) -> Group:
        found = self._drawn(index)
        if self.speech:
            return found
        return Group(tuple(record._replace(messages=_without_subtitles(record.messages)) for record in found.records))

    def _drawn(self, index: int) -> Group:
        if self.mixture is not None:
            draw = self.mixture[index]
            return self.sets[draw.part][draw.item]
        for held in self.sets:
            if index < len(held):
                return held[index]
            index -= len(held)
        raise IndexError(index)

    def __getitem__(self, index: int) -> Item:
        skipped: list[Skipped] = []
        made = None
        for attempt in range(1 if self.mixture is None else SUBSTITUTES):
            # Substitutes lie behind the run's end: what is drawn for other places stays what it was.
            group = self.group(index if attempt == 0 else self.count + index * SUBSTITUTES + attempt)
            reader = Reader(self.store, self.keep, self.tower)
            try:
                made = item(group, self.processor, reader, frames=self.frames, width=self.width)
            except UserError as error:
                skipped += [Skipped(record.id, str(error), group.id) for record in group.records]
                continue
            skipped += made.skipped
            if made.rows:
                return Item(made.id, made.rows, made.shows, made.media, tuple(skipped))
        if self.mixture is None:
            return Item(group.id, (), (), (), tuple(skipped))
        raise DataError(
            f"{SUBSTITUTES} samples in a row cannot be used, the last because {skipped[-1].reason}; "
            "`minigpt4-video data check` looks through the set"
        )


class FilesCollator:
    """Items to packed lines and what they show.

    `media` are uint8 frames or features, each medium once; `order` are the numbers of the frames that the lines read,
    in reading order, counted through `media`.
    """

    def __init__(self, processor: MiniGPT4VideoProcessor, width: int, bucket: int = 1) -> None:
        self.processor = processor
        self.width = width
        self.bucket = bucket

    def __call__(self, batch: Sequence[Item]) -> dict[str, Any]:
        rows: list[Row] = []
        shows: dict[int, list[int]] = {}
        media: list[Medium] = []
        count = 0
        for one in batch:
            for held, numbers in zip(one.rows, one.shows, strict=True):
                rows.append(held)
                shows[id(held)] = [count + number for number in numbers]
            media += one.media
            count += sum(medium.count for medium in one.media)
        packed = lines(rows, self.width)
        pad = self.processor.tokenizer.pad_token_id
        longest = max((sum(map(len, line)) for line in packed), default=1)
        made: dict[str, Any] = dict(pack(packed or [[Row([pad], [])]], pad, widened(longest, self.bucket)))
        order = [number for line in packed for held in line for number in shows[id(held)]]
        made["order"] = torch.tensor(order, dtype=torch.long)
        made["media"] = media
        made["ids"] = [one.id for one in batch]
        made["skipped"] = [skip for one in batch for skip in one.skipped]
        return made
