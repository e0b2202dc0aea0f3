"""Answers about a long video, from the clips that a question is about.

Three ways: "frames" shows the model those clips anew, closely sampled; "texts" gives it their descriptions and
subtitles alone, as Goldfish does (arXiv 2407.12679); "map" asks each of them by itself and brings the answers together.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np

from minigpt4_video.errors import PlanError
from minigpt4_video.inference.answer import Answer, Evidence, Timings
from minigpt4_video.inference.batching import BuiltIn, Engine, Question, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.contact_sheet import clock
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.video import Video
from minigpt4_video.inference.words import Stream
from minigpt4_video.long_video.index import Index, cues_within
from minigpt4_video.long_video.questions import asks_for_several, is_yes, moment_question, presence_question
from minigpt4_video.long_video.retrieve import Passage, Retriever
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.media import Clip, VideoInfo, align, read_clip
from minigpt4_video.messages import Message, answered
from minigpt4_video.planning import UNSPACED

Way = Literal["auto", "frames", "texts", "map"]
CLIPS = 3
"""How many clips an answer is drawn from at most, as in Goldfish."""
COUNTED = 256
"""How many clips are asked at most where something is counted, and `COUNTED_SHARE` of the best one's score that they
must have: each is asked, so that one too many does no harm."""
COUNTED_SHARE = 0.5
PRESENCE_TOKENS = 8
"""Of an answer that is a yes or a no, whatever comes after it."""

Complete = Callable[[list[dict[str, str]]], str]
"""A language model elsewhere: messages of texts to an answer, as `data.endpoint.Endpoint.ask`."""


class Told(Iterator[str]):
    """An answer that is there already, read as a `Stream` is."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._left = [answer.text]

    def __next__(self) -> str:
        if not self._left:
            raise StopIteration
        return self._left.pop()

    def close(self) -> None:
        """Nothing is held."""


class LongVideo:
    """An indexed video. Threads may share one."""

    def __init__(
        self,
        chat: VideoChat,
        path: Path,
        info: VideoInfo,
        index: Index,
        *,
        encoder: Encoder | None = None,
        frames: int | None = None,
        start: float | None = None,
        end: float | None = None,
        complete: Complete | None = None,
        engine: Engine | None = None,
        read: Callable[..., Clip] = read_clip,
    ) -> None:
        """`frames` is how many the model is shown for an answer, None its own number; from `start` to `end` is the part
        that is asked about, None the whole; `complete` answers from texts in the place of the model, `engine` where
        several clips are asked, and `read` is as `read_clip`."""
        self.model = chat
        self.path = path
        self.info = info
        self.span = (start or 0.0, info.duration if end is None else end)
        self.index = index if start is None and end is None else index.between(*self.span)
        self._retriever = Retriever(self.index, encoder)
        self._asked = frames
        self._complete = complete
        self._engine = engine or BuiltIn(chat)
        self.read = read

    @property
    def said(self) -> Said:
        """The subtitles of the whole video."""
        source = self.index.about["subtitles"]
        cues = [cue for clip in self.index.clips for cue in clip.cues]
        return Said(cues, source, "" if source else "none were found when the video was indexed")

    def find(self, question: str, most: int = CLIPS) -> list[Passage]:
        """What of the video a question is about, in the order of time; empty where no word of it occurs."""
        return self._retriever.passages(question, most)

    def ask(self, question: str, way: Way = "auto", **options: Any) -> Answer:
        """One answer with its evidence; options as for `Video.ask`."""
        return self.stream(question, way, **options).answer

    def stream(self, question: str, way: Way = "auto", **options: Any) -> Stream | Told:
        """The pieces of an answer. "auto" is "map" where `asks_apart` says so, else "frames"."""
        if way == "map" or (way == "auto" and self.asks_apart(question)):
            return Told(self._map(question, **options))
        passages = self.find(question)
        if way == "texts":
            return self._from_texts(question, passages, **options)
        evidence = self.evidence(passages, question)
        stream = self.show(evidence).stream(question, **options)
        stream.evidence = evidence
        return stream

    def asks_apart(self, question: str) -> bool:
        """Whether clips are asked one by one: to count moments, and where one of several clips must be the one that is
        meant. Shown side by side, a thing that is in one of them alone seems to appear, or to go.
        """
        return bool(moment_question(question)) or self._means_one(question, self.find(question))

    def meant(self, question: str) -> tuple[tuple[Evidence, ...], Video]:
        """For who will answer about it otherwise: the clips that a question is about, none where no word of it occurs,
        and what to show of them. Where one of several is meant, they are asked, and the surest is shown.
        """
        passages = self.find(question)
        evidence = self.evidence(passages, question)
        if not self._means_one(question, passages):
            return evidence, self.show(evidence)
        asked = self._asked_apart(question, passages, self._presence(question, passages))
        surest = self.evidence([_surest(asked).passage], question)
        return self.evidence([one.passage for one in _agreeing(asked)], question), self.show(surest)

    def _means_one(self, question: str, passages: Sequence[Passage]) -> bool:
        return len(passages) > 1 and not asks_for_several(question)

    def answer_all(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer with its evidence to each question, as `ask` gives it, several at a time. Raises UserError."""
        answers: dict[int, Answer] = {}
        shown: dict[int, tuple[Evidence, ...]] = {}
        for number, one in enumerate(questions):
            if self.asks_apart(one.text):
                options = one._asdict() | {"openings": ()}
                answers[number] = self._map(options.pop("text"), **options)
            else:
                shown[number] = self.evidence(self.find(one.text), one.text)
        requests = (Request(partial(self.show, evidence), [questions[number]]) for number, evidence in shown.items())
        for (number, evidence), reply in zip(shown.items(), self._engine.answer(requests), strict=True):
            if reply.error is not None:
                raise reply.error
            answers[number] = replace(reply.answers[0], evidence=evidence)
        return [answers[number] for number in range(len(questions))]

    def show(self, evidence: Sequence[Evidence]) -> Video:
        """The frames of some clips as one video, closely sampled; of none, the whole evenly."""
        frames = self._asked or self.model.processor.frames
        clips = self.index.clips
        spans = [(one.start, one.end) for one in evidence][:frames]
        parts, texts = [], []
        for number, (start, end) in enumerate(spans or [self.span]):
            share = frames // max(1, len(spans)) + (number < frames % max(1, len(spans)))
            part = self._read(start, end, share)
            cues = cues_within([cue for clip in clips for cue in clip.cues], start, end)
            parts.append(part)
            texts += align(cues, part.times)
        shown = Clip(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.times for part in parts]),
            self.info.duration,
        )
        return Video(self.model, Footage(self.path, self.info, shown, texts, self.said, self._asked))

    def evidence(self, passages: Sequence[Passage], question: str) -> tuple[Evidence, ...]:
        """Where passages are and what is known of them, in the language of the question where the index has that."""
        found = []
        for one in passages:
            clips = self.index.clips[one.first : one.last + 1]
            told = "\n".join(self._told(number, question) for number in range(one.first, one.last + 1))
            found.append(Evidence(clips[0].start, clips[-1].end, round(one.score, 4), told))
        return tuple(found)

    def chat(self) -> "LongConversation":
        """A conversation in which each question knows of those before it."""
        return LongConversation(self)

    def _read(self, start: float, end: float, frames: int) -> Clip:
        size = (self.model.processor.image_size, self.model.processor.image_size)
        return self.read(self.path, frames, start=start, end=end, size=size)

    def _told(self, number: int, question: str) -> str:
        clip = self.index.clips[number]
        language = "zh" if re.search(f"[{UNSPACED}]", question) else "en"
        spoken = [text for text, (_, one) in zip(clip.descriptions, self.index.prompts, strict=True) if one == language]
        return "\n".join(filter(None, (*(spoken or clip.descriptions)[:1], clip.said)))

    def _from_texts(self, question: str, passages: Sequence[Passage], **options: Any) -> Stream | Told:
        """The best passages' texts before the question, as many as fit the window; of one that does not, a part."""
        kept = sorted(passages, key=lambda one: -one.score)
        letters: int | None = None
        while True:
            evidence = self.evidence(sorted(kept), question)
            lines = [f"[{clock(one.start)} - {clock(one.end)}] {one.text[:letters]}" for one in evidence]
            prompt = "\n".join([*lines, question])
            if self._complete is not None:
                return self._elsewhere(prompt, evidence)
            try:
                stream = self.model.stream([{"role": "user", "content": prompt}], **options)
                break
            except PlanError:
                if len(kept) > 1:
                    kept.pop()
                elif kept and letters != 0:
                    letters = (len(evidence[0].text) if letters is None else letters) * 3 // 4
                else:
                    raise
        left_out = list(stream.plan.left_out)
        if len(kept) < len(passages):
            left_out.append(f"{len(passages) - len(kept)} of {len(passages)} passages were left out")
        if letters is not None:
            whole = len(evidence[0].text)
            left_out.append(f"{whole - letters} of the passage's {whole} letters were left out")
        stream.plan = replace(stream.plan, left_out=tuple(left_out))
        stream.evidence = evidence
        return stream

    def _elsewhere(self, prompt: str, evidence: tuple[Evidence, ...]) -> Told:
        assert self._complete is not None
        begun = perf_counter()
        text = self._complete([{"role": "user", "content": prompt}])
        took = perf_counter() - begun
        return Told(Answer(text, 0.0, self.show([]).plan(), Timings(0.0, took, took), evidence))

    def _map(self, question: str, **options: Any) -> Answer:
        """Each passage asked by itself: moments are counted by clips that say yes, else the surest answers."""
        begun = perf_counter()
        counted = moment_question(question)
        if counted:
            found = self._retriever.clips(counted, COUNTED, COUNTED_SHARE)
            passages = [Passage(number, number, score) for number, score in found]
            asked = [one for one in self._asked_apart(counted, passages, None, **options) if is_yes(one.answer.text)]
            text = str(len(asked))
        else:
            passages = self.find(question)
            if not passages:
                return self.show([]).ask(question, **options)
            asked = _agreeing(self._asked_apart(question, passages, self._presence(question, passages), **options))
            text = asked[0].answer.text
        took = perf_counter() - begun
        plan = asked[0].answer.plan if asked else self.show([]).plan(question)
        confidence = float(np.mean([one.answer.confidence for one in asked])) if asked else 0.0
        evidence = self.evidence(sorted(one.passage for one in asked), question)
        return Answer(text, confidence, plan, Timings(0.0, took, took), evidence)

    def _presence(self, question: str, passages: Sequence[Passage]) -> str | None:
        """What tells apart passages of which one is meant. Descriptions name things that are not there, and of such a
        thing too a model says what it does.
        """
        clips = [clip for one in passages for clip in self.index.clips[one.first : one.last + 1]]
        described = [text for clip in clips for text in clip.descriptions]
        return presence_question(question, described, [clip.said for clip in clips]) if len(passages) > 1 else None

    def _asked_apart(
        self, question: str, passages: Sequence[Passage], present: str | None, **options: Any
    ) -> list["_Asked"]:
        """The answer of each passage, and how sure it is: by how well the passage matches, how certain the model is of
        the answer, and how likely it says yes to `present`.
        """
        questions = [Question(question, **options), *([Question(present, PRESENCE_TOKENS)] if present else [])]
        requests = (Request(self.show(self.evidence([one], question)), questions) for one in passages)
        found = []
        for one, reply in zip(passages, self._engine.answer(requests), strict=True):
            if reply.error is not None:
                raise reply.error
            answer, *more = reply.answers
            sureness = one.score * answer.certainty
            for seen in more:
                sureness *= seen.certainty if is_yes(seen.text) else 1 - seen.certainty
            found.append(_Asked(one, answer, sureness))
        return found


class _Asked(NamedTuple):
    passage: Passage
    answer: Answer
    sureness: float


def _surest(asked: Sequence[_Asked]) -> _Asked:
    return max(asked, key=lambda one: one.sureness)


def _agreeing(asked: Sequence[_Asked]) -> list[_Asked]:
    """Those that say what the surest says, in the order of time."""
    text = _surest(asked).answer.text
    return [one for one in asked if one.answer.text == text]


class LongConversation:
    """Questions and answers about a long video, each shown the clips that it is about.

    A question that names nothing that occurs is asked about the clips of the one before.
    """

    def __init__(self, video: LongVideo) -> None:
        self.video = video
        self.messages: list[Message] = []
        self.left_out: tuple[str, ...] = ()
        """What did not fit beside the last question."""
        self.evidence: tuple[Evidence, ...] = ()
        """The clips that the last question was about."""
        self._shown: Video | None = None

    def stream(self, text: str, **options: Any) -> Iterator[str]:
        """The pieces of the next answer; it joins the conversation once it has been read to its end."""
        evidence, shown = self.video.meant(text)
        if evidence or self._shown is None:
            self.evidence, self._shown = evidence, shown
        shown = self._shown
        turn = {"role": "user", "content": [{"type": "text", "text": text}]}
        messages = [*self.messages, turn] if self.messages else shown.footage.conversation(text)
        stream = shown.continue_(messages, **options)
        self.left_out = stream.plan.left_out
        try:
            yield from stream
        finally:
            stream.close()
        if said := stream.answer.text:
            self.messages = answered(messages, said)

    def ask(self, text: str, **options: Any) -> str:
        return "".join(self.stream(text, **options))
