"""Clips to labels: all requests of a clip in one pass behind one shared prefix, and every failure a status."""

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from minigpt4_video import __version__
from minigpt4_video.errors import UserError
from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.batching import Engine, Question, Reply, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.video import Video
from minigpt4_video.labelling.agreement import Agreement
from minigpt4_video.labelling.checks import notes
from minigpt4_video.labelling.films import Films
from minigpt4_video.labelling.manifest import Row, Work
from minigpt4_video.labelling.reading import Reading, Seen
from minigpt4_video.labelling.requests import Asked
from minigpt4_video.labelling.rows import Label, Stage, Status
from minigpt4_video.labelling.structured import as_asked, checked, found, question

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How the model is asked."""

    requests: tuple[Asked, ...]
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    revision: str = ""
    attempt: int = 0


@dataclass
class _Held:
    """A clip in the engine's hands."""

    reading: Reading
    video: Video | None = None
    """Once it was opened: its features serve what is asked later."""


class Captioner:
    """A model with its engine, and what it is asked. One call of `label` at a time."""

    def __init__(
        self,
        chat: VideoChat,
        engine: Engine,
        settings: Settings,
        agreement: Agreement | None = None,
        films: Films | None = None,
    ) -> None:
        self.chat = chat
        self.engine = engine
        self.settings = settings
        self.agreement = agreement
        self.films = films

    def label(self, readings: Iterable[Reading]) -> Iterator[list[Label]]:
        """The labels of each clip, in the order of the clips; they are taken as the engine needs them.

        Answers are matched by the clip that they were asked of, not by when they come. What is wrong with a clip, even
        what stops the engine, is in its labels: the clips that were in its hands are then asked one by one.
        """
        coming = iter(readings)
        while True:
            held: deque[_Held] = deque()
            try:
                for reply in self.engine.answer(self._requests(coming, held)):
                    yield self._labels(held.popleft(), reply)
                return
            except (RuntimeError, MemoryError, ValueError, LookupError, TypeError) as failure:
                logger.warning("the engine stopped (%s); %d clips are asked one by one", brief(failure), len(held))
                for one in held:
                    yield self._alone(one)

    def _requests(self, readings: Iterator[Reading], held: "deque[_Held]") -> Iterator[Request]:
        for reading in readings:
            held.append(one := _Held(reading))
            yield self._request(one)

    def _request(self, one: _Held) -> Request:
        given = self.settings
        asked = [
            Question(given.requests[row.request].text, given.max_new_tokens, given.temperature, given.seed)
            for row in one.reading.work.rows
        ]

        def opened() -> Video:
            one.video = Video(self.chat, one.reading.seen.result().footage)
            return one.video

        return Request(opened, asked)

    def _alone(self, one: _Held) -> list[Label]:
        reading = one.reading
        try:
            return self._labels(one, next(iter(self.engine.answer([self._request(one)]))))
        except (RuntimeError, MemoryError, ValueError, LookupError, TypeError) as failure:
            return [self._failed(reading, row, "caption", brief(failure)) for row in reading.work.rows]

    def _labels(self, one: _Held, reply: Reply) -> list[Label]:
        reading, rows = one.reading, one.reading.work.rows
        if reply.error is not None:
            stage: Stage = "read" if reading.seen.exception() is not None else "caption"
            return [self._failed(reading, row, stage, str(reply.error)) for row in rows]
        labels = [self._label(reading, row, answer) for row, answer in zip(rows, reply.answers, strict=True)]
        self._ask_films(one, labels)
        self._check_objects(one, labels)
        self._compare(reading.seen.result(), labels)
        return labels

    def _check_objects(self, one: _Held, labels: list[Label]) -> None:
        """Put the objects that schemas ask for into their labels; each field that is wrong is asked for by itself, all
        of a clip's together."""
        asked = [self.settings.requests[row.request] for row in one.reading.work.rows]
        objects = [
            _Object(label, json.loads(a.schema), a.language) for label, a in zip(labels, asked, strict=True) if a.schema
        ]
        again = [(at, name) for at in objects for name in at.to_ask()]
        if again and one.video is not None:
            questions = [question(name, at.schema, at.language) for at, name in again]
            given = self.settings
            answers = one.video.ask_many(
                questions, max_new_tokens=given.max_new_tokens, temperature=given.temperature, seed=given.seed
            )
            for (at, name), answer in zip(again, answers, strict=True):
                at.take(name, answer.text)
        for at in objects:
            at.settle()

    def _compare(self, seen: Seen, labels: list[Label]) -> None:
        told = [label for label in labels if label.text]
        if self.agreement is not None and told:
            found = self.agreement(seen.footage.clip.frames, [label.text for label in told])
            for label, value in zip(told, found, strict=True):
                label.agreement = value

    def _failed(self, reading: Reading, row: Row, stage: Stage, why: str) -> Label:
        label = self._begun(reading, row)
        label.status, label.stage, label.error = "error", stage, why
        if reading.seen.exception() is None:
            _describe(label, reading.seen.result())
        return label

    def _label(self, reading: Reading, row: Row, answer: Answer) -> Label:
        label, seen = self._begun(reading, row), reading.seen.result()
        _describe(label, seen)
        label.frames = [round(float(seen.footage.clip.times[at]), 3) for at in answer.plan.kept_frames]
        _take(label, seen, answer)
        return label

    def _ask_films(self, one: _Held, labels: list[Label]) -> None:
        """Of a long clip, questions are answered anew, from the parts of it that they are about."""
        reading = one.reading
        asked = [
            label
            for label, row in zip(labels, reading.work.rows, strict=True)
            if self.settings.requests[row.request].is_question
        ]
        if self.films is None or not asked or not self.films.takes(reading.work, reading.seen.result()):
            return
        given = self.settings
        questions = [Question(label.prompt, given.max_new_tokens, given.temperature, given.seed) for label in asked]
        try:
            answers = self.films.answers(reading.work, reading.seen.result(), questions)
        except UserError as error:
            for label in asked:
                label.status, label.stage, label.error, label.text = "error", "caption", str(error), ""
            return
        for label, answer in zip(asked, answers, strict=True):
            label.status, label.stage, label.error, label.frames = "success", "", "", []
            label.evidence = json.dumps([[one.start, one.end, one.score] for one in answer.evidence])
            _take(label, reading.seen.result(), answer)

    def _begun(self, reading: Reading, row: Row) -> Label:
        label = Label.begun(row, reading.work.source, self.settings.requests[row.request], "success")
        label.model, label.revision, label.made_by = self.chat.name, self.settings.revision, __version__
        label.attempt = self.settings.attempt
        return label


def _take(label: Label, seen: Seen, answer: Answer) -> None:
    """Put an answer into a label."""
    plan = answer.plan
    label.text, label.confidence, label.tokens = answer.text, answer.confidence, answer.tokens
    label.said = "\n".join(text for text in plan.kept_subtitles if text)
    label.subtitles = "auto" if label.said else "off"
    label.said_in = seen.footage.said_in if label.said else ""
    label.prompt_tokens = plan.total - plan.answer_reserve
    label.seconds = round(answer.timings.total, 3)
    if answer.cut_off:
        label.status, label.stage = "truncated", "caption"
        label.error = f"the model was not at its end after {answer.tokens} tokens"
    elif not answer.text:
        label.status, label.stage, label.error = "error", "check", "the model said nothing"
    label.notes = notes(label.text, label.language)


class _Object:
    """The object that a label is to hold."""

    def __init__(self, label: Label, schema: dict[str, Any], language: str) -> None:
        self.label = label
        self.schema = schema
        self.language = language
        self.found = found(label.text, schema)

    def to_ask(self) -> list[str]:
        return [name for name in self.found.wrong if name in self.schema["properties"]]

    def take(self, name: str, text: str) -> None:
        """The answer to the question for one field."""
        value = self.found.value | {name: as_asked(text, self.schema["properties"][name])}
        self.found = checked(value, self.schema)
        self.label.notes.append(f"asked again: {name}")

    def settle(self) -> None:
        label = self.label
        label.notes = [note for note in label.notes if note != "other language"]  # the names of fields are no text
        if self.found.wrong:
            name, why = next(iter(self.found.wrong.items()))
            label.status, label.stage = "error", "check"
            label.error = f"the answer is not as the schema says: {name or 'object'} {why}"
        else:
            label.status, label.stage, label.error = "success", "", ""
            label.data = json.dumps(self.found.value, ensure_ascii=False)


def brief(failure: BaseException) -> str:
    """What an exception says, in one line."""
    return f"{type(failure).__name__}: {' '.join(str(failure).split())}"[:500]


def _describe(label: Label, seen: Seen) -> None:
    info = seen.footage.info
    label.duration, label.fps = round(info.duration, 3), round(info.fps, 3)
    label.width, label.height = info.width, info.height
    label.measured(seen.signals)


def unasked(work: Work, settings: Settings) -> list[Label]:
    """The labels of a clip that the plan says cannot be captioned."""
    source = work.source
    return _unanswered(work, settings, "error" if source.faulty else "skipped", "plan", source.unfit)


def lost(work: Work, settings: Settings, stage: Stage, why: str) -> list[Label]:
    """The labels of a clip of which no captioner could say what is wrong with it."""
    return _unanswered(work, settings, "error", stage, why)


def _unanswered(work: Work, settings: Settings, status: Status, stage: Stage, why: str) -> list[Label]:
    labels = []
    for row in work.rows:
        label = Label.begun(row, work.source, settings.requests[row.request], status)
        label.stage, label.error, label.attempt, label.made_by = stage, why, settings.attempt, __version__
        labels.append(label)
    return labels
