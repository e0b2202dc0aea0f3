"""Long videos behind a server: an index of each, made beside answering, and the clips that a conversation is about."""

import os
import shutil
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from minigpt4_video.errors import UserError
from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.answer import Answer, Evidence
from minigpt4_video.inference.batching import Question, Reply, Request
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.prompts import Prompt
from minigpt4_video.inference.store import Store
from minigpt4_video.inference.words import finished_answer
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.long_video.choosing import Long, index_place, takes_clips
from minigpt4_video.long_video.index import ABOUT, Settings, index_key, load_index, make_index
from minigpt4_video.long_video.questions import moment_question
from minigpt4_video.media import Clip
from minigpt4_video.messages import Message
from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.scheduler import Asked, Closing, Tell, Ticket
from minigpt4_video.serving.scheduler import Said as Spoken
from minigpt4_video.serving.watching import Wanted, Watcher

MOST = 8
"""Videos that are being indexed or wait for it; one is at a time."""
OPEN = 16
"""Indexes that are held in memory, the last used ones."""
TOGETHER = 4
"""Clips that are being described at a time, so that who asks something meanwhile is not behind more."""

Submit = Callable[[Asked, Tell], Ticket]


@dataclass(eq=False)
class Making:
    """An index that is being made."""

    folder: Path
    """Of the video's copy."""
    work: "Future[None] | None" = None
    done: "Future[None]" = field(default_factory=Future)
    share: float = 0.0


class Indexing(Exception):
    """A video cannot be asked about before its index is there."""

    def __init__(self, making: Making) -> None:
        super().__init__("the video is being indexed")
        self.making = making


class Films:
    """Opens long videos; their indexes are in each tenant's own store."""

    def __init__(
        self, chat: VideoChat, watcher: Watcher, submit: Submit, store: Callable[[str], Store | None], long: Long
    ) -> None:
        self._chat = copy(chat)
        self._chat.processor = deepcopy(chat.processor)  # a tokenizer is not to be shared between threads
        self._watcher = watcher
        self._submit = submit
        self._store = store
        self._long = long
        self._lock = Lock()
        self._making: dict[str, Making] = {}
        self._open: OrderedDict[str, LongVideo] = OrderedDict()
        self._places: dict[str, Path] = {}
        """Of indexes where there is no store."""
        self._worker = ThreadPoolExecutor(1, "index")

    def wants(self, footage: Footage, wanted: Wanted, long: Long | None) -> bool:
        """Whether answers come from clips; a server without long videos does not make them for a request."""
        chosen = self._long if long is None or self._long == "off" else long
        return takes_clips(self._chat, footage.info, chosen, wanted.frames, wanted.start, wanted.end)

    def open(self, tenant: str, path: Path, digest: str, wanted: Wanted, footage: Footage) -> LongVideo:
        """The video with its index. Raises Indexing where that is not there yet, and Fault where too many are made."""
        said = Said(footage.cues, footage.said_in, footage.unsaid)
        name = index_key(self._chat, digest, said, Settings())
        held = f"{tenant} {name} {wanted.frames} {wanted.start} {wanted.end}"
        with self._lock:
            if (known := self._open.get(held)) is not None:
                self._open.move_to_end(held)
                return self._at(known, tenant, path, digest)
            place = self._place(tenant, name)
            if not (place / ABOUT).is_file():
                raise Indexing(self._begun(tenant, name, path, digest, footage, said, place))
        index = load_index(place)
        os.utime(place / ABOUT)
        video = LongVideo(
            self._chat, path, footage.info, index, frames=wanted.frames, start=wanted.start, end=wanted.end,
            engine=InLine(self._chat, self._submit, tenant),
        )  # fmt: skip
        with self._lock:
            self._open[held] = video
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
        return self._at(video, tenant, path, digest)

    def seen(self, video: LongVideo, questions: Sequence[str]) -> tuple[Footage, tuple[Evidence, ...]]:
        """What the model is shown of a video with a conversation, of whose questions the last that names something
        which occurs counts."""
        question = next((question for question in reversed(questions) if video.find(question)), "")
        evidence, shown = video.meant(question)
        return shown.footage, evidence

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = [(key, making) for key, making in self._making.items() if making.work and making.work.cancelled()]
        for key, making in left:
            self._ended(key, making, Closing())

    def _at(self, video: LongVideo, tenant: str, path: Path, digest: str) -> LongVideo:
        """The same, read from where the file is now."""
        at = copy(video)
        at.path = path
        at.read = partial(self._read, tenant, digest)
        return at

    def _read(
        self, tenant: str, digest: str, path: Path, frames: int, *, start: float, end: float, size: tuple[int, int]
    ) -> Clip:
        del size  # the model's own
        return self._watcher.watch(tenant, path, Wanted("off", frames, start, end), digest).clip

    def _place(self, tenant: str, name: str) -> Path:
        store = self._store(tenant)
        if store is not None:
            return index_place(store, name)
        held = f"{tenant} {name}"
        if held not in self._places:
            self._places[held] = index_place(None, name)
        return self._places[held]

    def _begun(
        self, tenant: str, name: str, path: Path, digest: str, footage: Footage, said: Said, place: Path
    ) -> Making:
        key = f"{tenant} {name}"
        if (making := self._making.get(key)) is not None:
            return making
        if len(self._making) >= MOST:
            raise Fault(
                429, f"{MOST} videos are being indexed; try again later.", kind="rate_limit_error",
                code="queue_full", retry_after=60,
            )  # fmt: skip
        making = self._making[key] = Making(Path(tempfile.mkdtemp(prefix="minigpt4-video-")))
        try:
            kept = _kept(path, making.folder)
            making.work = self._worker.submit(self._make, tenant, key, kept, digest, footage, said, place, making)
        except BaseException:
            del self._making[key]
            shutil.rmtree(making.folder, ignore_errors=True)
            raise
        return making

    def _make(
        self, tenant: str, key: str, path: Path, digest: str, footage: Footage, said: Said, place: Path, making: Making
    ) -> None:
        def progress(seconds: float, whole: float) -> None:
            making.share = min(1.0, seconds / whole) if whole else 1.0

        failure: BaseException | None = None
        try:
            make_index(
                self._chat, path, footage.info, said, place, content=digest, progress=progress,
                engine=InLine(self._chat, self._submit, tenant), stream=self._watcher.stream,
            )  # fmt: skip
        except BaseException as error:
            failure = error
        self._ended(key, making, failure)

    def _ended(self, key: str, making: Making, failure: BaseException | None) -> None:
        shutil.rmtree(making.folder, ignore_errors=True)
        with self._lock:
            del self._making[key]
        if failure is None:
            making.done.set_result(None)
        else:
            making.done.set_exception(failure)


def counted(video: LongVideo, question: str, **options: Any) -> Answer | None:
    """The answer to a question that counts moments, each of which is asked; None for any other question."""
    return video.ask(question, **options) if moment_question(question) else None


def _kept(path: Path, folder: Path) -> Path:
    """The file under a name that stays when a request or an upload ends."""
    kept = folder / "video"
    try:
        os.link(path, kept)
    except OSError:
        shutil.copyfile(path, kept)
    return kept


class InLine:
    """An `Engine` whose questions stand in the scheduler's line with everybody else's; nothing of them is kept."""

    def __init__(self, chat: VideoChat, submit: Submit, tenant: str) -> None:
        self._chat = chat
        self._submit = submit
        self._tenant = tenant
        self._tokenizing = Lock()

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        waiting: deque[tuple[Request, list[_Told] | UserError]] = deque()
        for request in requests:
            waiting.append((request, self._begun(request)))
            if len(waiting) >= TOGETHER:
                yield _reply(*waiting.popleft())
        while waiting:
            yield _reply(*waiting.popleft())

    def _begun(self, request: Request) -> "list[_Told] | UserError":
        try:
            video = request.video() if callable(request.video) else request.video
            assert not isinstance(video, (str, Path))  # files are opened by those who read them in children
            with self._tokenizing:
                asked = [one if isinstance(one, Question) else Question(one) for one in request.questions]
                prompts = [video.question(one.text, one.max_new_tokens) for one in asked]
        except UserError as error:
            return error
        return [self._told(video.footage.clip.frames, one, prompt) for one, prompt in zip(asked, prompts, strict=True)]

    def _told(self, frames: np.ndarray[Any, Any], question: Question, prompt: Prompt) -> "_Told":
        shown = np.ascontiguousarray(frames[list(prompt.plan.kept_frames)])
        settings = question.settings(self._chat)
        asked = Asked(self._tenant, None, prompt.ids, shown, settings, [question.seed], once=True)
        ended: Future[None] = Future()

        def tell(said: Spoken | Exception) -> None:
            if isinstance(said, Exception):
                ended.set_exception(said)
            elif said.finished:
                ended.set_result(None)

        return _Told(prompt, self._submit(asked, tell), ended)


class _Told(NamedTuple):
    """A question in the scheduler's line."""

    prompt: Prompt
    ticket: Ticket
    ended: "Future[None]"

    def answer(self) -> Answer:
        self.ended.result()
        return finished_answer(self.ticket.utterances[0], self.prompt.plan, 0.0)


def _reply(request: Request, found: "list[_Told] | UserError") -> Reply:
    if isinstance(found, UserError):
        return Reply(request, error=found)
    try:
        return Reply(request, tuple(one.answer() for one in found))
    except UserError as error:
        return Reply(request, error=error)


def questions_of(messages: Sequence[Message]) -> list[str]:
    """What the user has said in a conversation, in order."""
    return [
        content if isinstance(content, str) else "\n".join(part["text"] for part in content if part["type"] == "text")
        for content in (message["content"] for message in messages if message["role"] == "user")
    ]
