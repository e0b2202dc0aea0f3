"""Answers to items by a model of this package, all questions about a video behind one prefix."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from minigpt4_video.errors import UserError
from minigpt4_video.evaluation.files import Row
from minigpt4_video.evaluation.items import LETTERS, Item
from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.batching import BuiltIn, Question, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.store import key
from minigpt4_video.inference.video import Video
from minigpt4_video.media import Cue, Rule, align, probe_picture_folder, read_picture_folder, read_subtitles
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


class Answerer(Protocol):
    def identity(self) -> Mapping[str, Any]:
        """All that decides the answers, for the report and to see that a run goes on as it was begun."""

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        """For each group of items that show the same the rows of their answers, in the order of the groups."""


class ModelAnswerer:
    """A model of this package, greedily. Raises UserError for a template that its processor does not have."""

    def __init__(self, chat: VideoChat, settings: Settings, rows: int = 8) -> None:
        self.chat = with_template(chat, settings.template)
        self.settings = settings
        self.rows = rows

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
        waiting: list[tuple[Sequence[Item], list[Video]]] = []
        most = self.settings.max_new_tokens

        def requests() -> Iterator[Request]:
            for group in groups:
                held: list[Video] = []
                waiting.append((group, held))
                questions = [Question(one.question, most, openings=tuple(LETTERS[: len(one.choices)])) for one in group]
                yield Request(partial(self._open, group[0], held), questions)

        for reply in BuiltIn(self.chat, self.rows).answer(requests()):
            group, held = waiting.pop(0)
            if reply.error is not None:
                yield [failed(item, reply.error) for item in group]
            else:
                yield [self._row(item, answer, held[0]) for item, answer in zip(group, reply.answers, strict=True)]

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


def open_item(chat: VideoChat, item: Item, settings: Settings) -> Video:
    """An item's video as the settings have it shown. Raises MediaError and PlanError."""
    part = item.video
    subtitles = part.get("subtitles") or "off"
    if settings.shown == "no subtitles":
        subtitles = "off"
    if not isinstance(subtitles, (str, Path)):
        subtitles = [Cue(float(cue["start"]), float(cue["end"]), cue["text"]) for cue in subtitles]
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
