"""Answers to items by a model of this package, all questions about a video behind one prefix."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from minigpt4_video.errors import DataError, UserError
from minigpt4_video.evaluation.files import Row
from minigpt4_video.evaluation.items import LETTERS, Item
from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.batching import BuiltIn, Question, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.store import Store, key
from minigpt4_video.inference.video import Video
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.long_video.choosing import Long, open_video, takes_clips
from minigpt4_video.media import Cue, Rule, align, probe, probe_picture_folder, read_picture_folder, read_subtitles
from minigpt4_video.planning import Plan

Shown = Literal["all", "no subtitles", "no frames", "nothing"]
SHOWN: tuple[Shown, ...] = get_args(Shown)

GREY = 40
"""The level of the pictures that stand where frames are withheld."""


@dataclass(frozen=True)
class Settings:
    """All but the model and the items that decides the answers."""

    frames: int | None = None
    """None is the model's own number."""
    rule: Rule = "even"
    shown: Shown = "all"
    """What of a video is withheld: that shows what an answer rests on."""
    template: str = "default"
    """The form of the prompt, one of the processor's."""
    max_new_tokens: int = 64
    speech: str = "off"
    """The speech model for videos without subtitles."""
    long: Long = "auto"
    """Which videos are answered about by the clips that a question is about, where nothing that those need is
    withheld."""

    @property
    def may_take_clips(self) -> bool:
        """Clips are described by their frames, and chosen evenly."""
        return self.long != "off" and self.rule == "even" and self.shown in ("all", "no subtitles")


class Answerer(Protocol):
    def identity(self) -> Mapping[str, Any]:
        """All that decides the answers, for the report and to see that a run goes on as it was begun."""

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        """For each group of items that show the same the rows of their answers, in the order of the groups."""


class ModelAnswerer:
    """A model of this package, greedily. Raises UserError for a template that its processor does not have, and for
    `long` "on" with settings under which there can be no clips."""

    def __init__(self, chat: VideoChat, settings: Settings, rows: int = 8, indexes: Store | None = None) -> None:
        """`indexes` is where those of long videos are kept."""
        if settings.long == "on" and not settings.may_take_clips:
            raise DataError(
                "clips are described by their frames, taken evenly; leave out --long on, or --rule and --shown"
            )
        self.chat = with_template(chat, settings.template)
        self.settings = settings
        self.rows = rows
        self._long_chat = copy(self.chat)
        self._long_chat.store = indexes

    def identity(self) -> Mapping[str, Any]:
        processor = self.chat.processor
        form = {name: getattr(processor, name) for name in ("frames", "window", "tokens_per_frame", "image_size")}
        words = processor.tokenizer.backend_tokenizer.to_str() if processor.tokenizer.is_fast else ""
        penalties = self.chat.settings(1, 0.0).to_diff_dict()
        told = [self.chat.identity(), form, processor.chat_template, words, penalties]
        fingerprint = key("prefix", told).partition("-")[2][:16]
        return {
            "model": self.chat.name,
            "fingerprint": fingerprint,
            "dtype": str(self.chat.model.dtype).removeprefix("torch."),
            "device": self.chat.model.device.type,
            "context": form,
            "settings": asdict(self.settings),
        }

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        if self.settings.shown == "nothing":
            yield from ([self._unseen(item) for item in group] for group in groups)
            return
        for is_long, some in groupby(groups, key=lambda group: self._takes_clips(group[0])):
            way = self._from_clips if is_long else self._from_whole
            yield from way(some)

    def _from_whole(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        waiting: list[tuple[Sequence[Item], list[Video]]] = []
        most = self.settings.max_new_tokens

        def requests() -> Iterator[Request]:
            for group in groups:
                held: list[Video] = []
                waiting.append((group, held))
                questions = [Question(one.question, most, openings=openings(one)) for one in group]
                yield Request(partial(self._open, group[0], held), questions)

        for reply in BuiltIn(self.chat, self.rows).answer(requests()):
            group, held = waiting.pop(0)
            if reply.error is not None:
                yield [failed(item, reply.error) for item in group]
            else:
                yield [self._row(item, answer, held[0]) for item, answer in zip(group, reply.answers, strict=True)]

    def _takes_clips(self, item: Item) -> bool:
        if not self.settings.may_take_clips or item.rate is not None:
            return False
        try:
            info = probe(item.video["path"])
        except UserError:
            return False  # whose row tells what is wrong
        part, settings = item.video, self.settings
        return takes_clips(self.chat, info, settings.long, settings.frames, part.get("start"), part.get("end"))

    def _from_clips(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        yield from map(self._rows_from_clips, groups)

    def _rows_from_clips(self, group: Sequence[Item]) -> list[Row]:
        part, settings = group[0].video, self.settings
        asked = [Question(one.question, settings.max_new_tokens, openings=openings(one)) for one in group]
        try:
            video = open_video(
                self._long_chat, part["path"], long="on", subtitles=_subtitles(group[0], settings),
                speech=settings.speech, frames=settings.frames, start=part.get("start"), end=part.get("end"),
            )  # fmt: skip
            assert isinstance(video, LongVideo)
            answers = video.answer_all(asked)
        except UserError as error:
            return [failed(item, error) for item in group]
        return [
            row_of(item)
            | {
                "answer": answer.text,
                "openings": [round(value, 6) for value in answer.openings],
                "confidence": round(answer.confidence, 6),
                "plan": _plan(answer.plan),
                "evidence": [[one.start, one.end, one.score] for one in answer.evidence],
                "duration": round(video.span[1] - video.span[0], 3),
                "subtitles": video.said.source,
            }
            for item, answer in zip(group, answers, strict=True)
        ]

    def _open(self, item: Item, held: list[Video]) -> Video:
        video = open_item(self.chat, item, self.settings)
        held.append(video)
        return video

    def _row(self, item: Item, answer: Answer, video: Video) -> Row:
        footage = video.footage
        return row_of(item) | {
            "answer": answer.text,
            "openings": [round(value, 6) for value in answer.openings],
            "confidence": round(answer.confidence, 6),
            "prompt": video.question(item.question, self.settings.max_new_tokens).text,
            "plan": _plan(answer.plan),
            "times": [round(float(footage.clip.times[at]), 3) for at in answer.plan.kept_frames],
            "duration": round(footage.clip.duration, 3),
            "subtitles": footage.said_in,
        }

    def _unseen(self, item: Item) -> Row:
        messages = [{"role": "user", "content": item.question}]
        try:
            answer = self.chat.answer(messages, max_new_tokens=self.settings.max_new_tokens)
        except UserError as error:
            return failed(item, error)
        prompt = self.chat.processor.prepare(messages).text
        return row_of(item) | {"answer": answer.text, "confidence": round(answer.confidence, 6), "prompt": prompt}


def with_template(chat: VideoChat, name: str) -> VideoChat:
    """The same model, asked in another of its processor's forms. Raises UserError where there is none of that name."""
    forms = chat.processor.chat_template
    if name == "default":
        return chat
    if not isinstance(forms, dict) or name not in forms:
        known = ", ".join(forms) if isinstance(forms, dict) else "default"
        raise UserError(f"the model has no template {name}; choose {known}")
    other = copy(chat)
    other.processor = copy(chat.processor)
    other.processor.chat_template = {**forms, "default": forms[name]}
    return other


def openings(item: Item) -> tuple[str, ...]:
    """The letters of its choices."""
    return tuple(LETTERS[: len(item.choices)])


def open_item(chat: VideoChat, item: Item, settings: Settings) -> Video:
    """An item's video as the settings have it shown. Raises MediaError and PlanError."""
    part = item.video
    subtitles = _subtitles(item, settings)
    if item.rate is not None:
        video = Video(chat, _from_pictures(chat, item, settings, subtitles))
        return Video(chat, _grey(video.footage)) if settings.shown == "no frames" else video
    video = chat.open(
        part["path"],
        subtitles=subtitles,
        speech=settings.speech,
        frames=settings.frames,
        start=part.get("start"),
        end=part.get("end"),
        rule=settings.rule,
    )
    return Video(chat, _grey(video.footage)) if settings.shown == "no frames" else video


def _subtitles(item: Item, settings: Settings) -> str | Path | list[Cue]:
    subtitles = item.video.get("subtitles") or "off"
    if settings.shown == "no subtitles":
        return "off"
    if isinstance(subtitles, (str, Path)):
        return subtitles
    return [Cue(float(cue["start"]), float(cue["end"]), cue["text"]) for cue in subtitles]


def _from_pictures(chat: VideoChat, item: Item, settings: Settings, subtitles: str | Path | list[Cue]) -> Footage:
    """As `take_footage` has it, of a folder of pictures."""
    part, rate = item.video, item.rate
    assert rate is not None
    start, end = part.get("start"), part.get("end")
    size = (chat.processor.image_size, chat.processor.image_size)
    clip = read_picture_folder(
        part["path"],
        settings.frames or chat.processor.frames,
        rate=rate,
        rule=settings.rule,
        start=start,
        end=end,
        size=size,
    )
    said = Said(missing="none given")
    if isinstance(subtitles, list):
        said = Said(subtitles, "cues")
    elif subtitles not in ("auto", "off"):
        said = Said(read_subtitles(subtitles, fps=rate), Path(subtitles).name)
    cues = [cue for cue in said.cues if cue.end > (start or 0.0) and (end is None or cue.start < end)]
    info = probe_picture_folder(part["path"], rate)
    return Footage(Path(part["path"]), info, clip, align(cues, clip.times), said, settings.frames)


def _grey(footage: Footage) -> Footage:
    """The same with nothing to be seen."""
    clip = replace(footage.clip, frames=np.full_like(footage.clip.frames, GREY))
    other = copy(footage)
    other.clip = clip
    return other


def groups_of(items: Iterable[Item]) -> list[list[Item]]:
    """Items that show the same together, in the order in which their videos first come."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.shows, []).append(item)
    return list(groups.values())


def failed(item: Item, error: UserError) -> Row:
    return row_of(item) | {"error": str(error)}


def row_of(item: Item) -> Row:
    """What the row of an answer says of its item."""
    return {
        "id": item.id,
        "video": str(item.video["path"]),
        "question": item.question,
        "reference": item.reference,
    }


def _plan(plan: Plan) -> Row:
    """A plan without the subtitles, which the prompt has."""
    told = asdict(plan)
    del told["kept_subtitles"]
    return told
