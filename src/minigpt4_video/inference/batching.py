"""Many videos with many questions each: videos are decoded ahead, and their answers found together.

A request takes a row of keys and values for its video's prefix; its questions are branches there. Every pass finds one
token of every answer. A finished branch leaves its memory to one that waits, and a finished video its row to the next.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, Protocol

from transformers import GenerationConfig

from minigpt4_video.errors import PlanError, UserError
from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.prompts import Prompt
from minigpt4_video.inference.shown import Reading, begin_all
from minigpt4_video.inference.video import Video
from minigpt4_video.inference.words import Round, Utterance, finished_answer
from minigpt4_video.model.branches import Branches, bytes_per_slot

GIB = 2**30


class Question(NamedTuple):
    """A question with options of its own; they are those of `Video.ask`, and `openings`."""

    text: str
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    openings: tuple[str, ...] = ()
    """Beginnings of an answer, such as the letters of a choice; `Answer.openings` says how likely each was. Each counts
    by its first token; where these are not distinct nothing is said."""

    def settings(self, chat: VideoChat) -> GenerationConfig:
        """How to generate its answer."""
        return chat.settings(self.max_new_tokens, self.temperature, self.seed)


class Request(NamedTuple):
    """What is asked about one video."""

    video: str | Path | Video | Callable[[], Video]
    """A file, a video that is open, or how to open one; that is called where others are decoded too."""
    questions: Sequence[str | Question]
    subtitles: str | Path = "auto"
    frames: int | None = None


@dataclass(frozen=True)
class Reply:
    """The answers to one request in the order of its questions, or why there are none."""

    request: Request
    answers: tuple[Answer, ...] = ()
    error: UserError | None = None


class Engine(Protocol):
    """Whoever asks many questions of many videos asks one of these."""

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """A reply to each request, in the order of the requests; they are taken as they are needed."""


class BuiltIn:
    """The engine that needs nothing but the model: `rows` videos at once, as far as `memory` bytes hold them.

    `memory` is for keys and values, and `self.memory` says how much of it each call of `answer` will take. Raises
    UserError where it does not hold one video.
    """

    def __init__(self, chat: VideoChat, rows: int = 8, memory: int = 8 * GIB, ahead: int = 2) -> None:
        self.chat = chat
        self.slots = chat.processor.window + chat.processor.window // 2
        """Of a row: one question fits behind any planned video, and as a rule many."""
        row = (self.slots + 1) * bytes_per_slot(chat.model.config.text_config, chat.model.dtype)
        if memory < row:
            raise UserError(
                f"{memory / GIB:.2f} GiB do not hold the keys and values of one video, which need {row / GIB:.2f} GiB; "
                "give more, or take a smaller model"
            )
        self.rows = max(1, min(rows, memory // row))
        self.memory = self.rows * row
        self.ahead = ahead
        """How many videos are decoded before there is a row for them."""
        self.waited = 0.0
        """Seconds for which there was nothing to compute because the next video was not decoded yet."""

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """A reply to each request, in their order. What is wrong with one request is in its reply."""
        with self.chat.lock:
            board = Branches(self.chat.model, self.rows, self.slots)
        with (
            ThreadPoolExecutor(1, "decode") as decoder,
            closing(opened(self.chat, requests, decoder, self.ahead)) as openings,
        ):
            work = _Work(self.chat, board, openings)
            while not work.is_done():
                work.step()
                self.waited, work.waited = self.waited + work.waited, 0.0
                yield from work.replies()


class Opening(NamedTuple):
    request: Request
    video: "Future[Video]"


def opened(
    chat: VideoChat, requests: Iterable[Request], decoder: ThreadPoolExecutor, ahead: int
) -> Generator[Opening, None, None]:
    """Requests in their order with their videos, of which a few are being decoded before they are taken.

    Videos that nobody has begun to decode when it is closed stay undecoded.
    """

    def promised(request: Request) -> "Future[Video]":
        video = request.video
        if isinstance(video, Video):
            there: Future[Video] = Future()
            there.set_result(video)
            return there
        if callable(video):
            return decoder.submit(video)
        return decoder.submit(chat.open, video, subtitles=request.subtitles, frames=request.frames)

    coming: deque[Opening] = deque()
    try:
        for request in requests:
            coming.append(Opening(request, promised(request)))
            if len(coming) > ahead:
                yield coming.popleft()
        while coming:
            yield coming.popleft()
    finally:
        for opening in coming:
            opening.video.cancel()


def check_length(prompt: Prompt, most: int, slots: int) -> None:
    """Raises PlanError where a prompt and an answer of `most` tokens take more than `slots`."""
    if len(prompt.ids) + most > slots:
        raise PlanError(
            f"a question with its video and an answer needs {len(prompt.ids) + most} tokens, more than the "
            f"{slots} of a row; ask for fewer frames or a shorter answer"
        )


class _Asked(NamedTuple):
    """A question as the model reads it."""

    number: int
    question: Question
    settings: GenerationConfig
    prompt: Prompt


class _Group(NamedTuple):
    """Questions of one request that are shown the same: they share a row."""

    pending: "Pending"
    video: Video
    asked: list[_Asked]


@dataclass
class Pending:
    """A request that has not been answered whole."""

    request: Request
    answers: dict[int, Answer] = field(default_factory=dict)
    error: UserError | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.answers) == len(self.request.questions)

    def reply(self) -> Reply:
        ordered = tuple(answer for _, answer in sorted(self.answers.items()))
        return Reply(self.request, () if self.error else ordered, self.error)


@dataclass
class _Seat:
    """A row in use."""

    group: _Group
    frames_took: float
    left: dict[Utterance, _Asked]


class _Work:
    """The state of one call: who has a row, who waits for one, and which replies are still to come."""

    def __init__(self, chat: VideoChat, board: Branches, openings: Iterator[Opening]) -> None:
        self.chat = chat
        self.board = board
        self.round = Round(board)
        self.seats: dict[int, _Seat] = {}
        self.groups: deque[_Group] = deque()
        self.order: deque[Pending] = deque()
        self.waited = 0.0
        self._openings = openings
        self._opening = next(openings, None)
        """The next that nobody has taken."""

    def is_done(self) -> bool:
        return self._opening is None and not self.order

    def replies(self) -> Iterator[Reply]:
        """Those that are due: none comes before those asked for earlier."""
        while self.order and self.order[0].is_done:
            yield self.order.popleft().reply()

    def step(self) -> None:
        """Fill the empty rows, then find one token of every answer."""
        seated: list[tuple[int, _Group]] = []
        for row in self.board.empty():
            group = self._next_group(is_idle=not (self.round or seated))
            if group is None:
                break
            seated.append((row, group))
        if seated:
            self._sit(seated)
        if not self.round:
            return
        with self.chat.lock:
            for one in self.round.step():
                self._finish(one)

    def _next_group(self, is_idle: bool) -> _Group | None:
        """The next for a row; None at the end, or where its video is being decoded and there is something to do."""
        while not self.groups and (opening := self._opening) is not None:
            if not is_idle and not opening.video.done():
                return None
            pending = Pending(opening.request)
            self.order.append(pending)
            begun = perf_counter()
            wait([opening.video])
            self.waited += perf_counter() - begun
            try:
                self.groups.extend(self._plan(pending, opening.video.result()))
            except UserError as error:
                pending.error = error
            self._opening = next(self._openings, None)
            if pending.is_done:  # its reply goes out first
                return None
        return self.groups.popleft() if self.groups else None

    def _plan(self, pending: Pending, video: Video) -> list[_Group]:
        """All questions of a request, by what they are shown. Raises UserError where one of them cannot be asked."""
        groups: dict[object, _Group] = {}
        for number, asked in enumerate(pending.request.questions):
            question = Question(asked) if isinstance(asked, str) else asked
            prompt = video.question(question.text, question.max_new_tokens)
            settings = question.settings(self.chat)
            check_length(prompt, settings.max_new_tokens, self.board.slots)
            group = groups.setdefault(prompt.shows, _Group(pending, video, []))
            group.asked.append(_Asked(number, question, settings, prompt))
        return list(groups.values())

    def _sit(self, seated: Sequence[tuple[int, _Group]]) -> None:
        """Read what groups are shown into their rows; their questions wait there."""
        with self.chat.lock:
            begun = perf_counter()
            readings = []
            for row, group in seated:
                ids = group.video.shared([one.prompt for one in group.asked])
                readings.append(Reading(group.video.shown, ids, group.asked[0].prompt.plan.kept_frames, row))
            frames_took = begin_all(self.board, readings)
            for (row, group), reading, took in zip(seated, readings, frames_took, strict=True):
                group.video.save()
                left = {}
                for one in group.asked:
                    behind = one.prompt.ids[len(reading.ids) :]
                    openings = one.question.openings
                    utterance = self.chat.utterance(behind, one.settings, one.question.seed, begun + took, openings)
                    left[utterance] = one
                    self.round.waiting.append((row, utterance))
                self.seats[row] = _Seat(group, took, left)

    def _finish(self, utterance: Utterance) -> None:
        assert utterance.branch is not None  # it has spoken
        row = utterance.branch.row
        seat = self.seats[row]
        one = seat.left.pop(utterance)
        seat.group.pending.answers[one.number] = finished_answer(utterance, one.prompt.plan, seat.frames_took)
        self.board.leave(utterance.branch)
        if not seat.left:
            self.board.end(row)
            del self.seats[row]
