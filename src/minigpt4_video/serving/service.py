"""The model behind the server: what the interface and the page ask for."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from minigpt4_video.errors import PlanError
from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.footage import Footage
from minigpt4_video.inference.store import Store
from minigpt4_video.long_video.choosing import Long
from minigpt4_video.messages import Message
from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.films import Films
from minigpt4_video.serving.keys import NOBODY
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.metrics import Metrics
from minigpt4_video.serving.scheduler import GIB, Asked, Closing, Scheduler, Tell, Ticket
from minigpt4_video.serving.watching import Wanted, Watcher

ROWS = 8
MEMORY = 8 * GIB


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; `answers` of them, whose seeds follow each other."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    answers: int = 1
    rivals: int = 0


class Service:
    """Opens videos and answers, for many at once."""

    def __init__(
        self,
        chat: VideoChat,
        limits: Limits | None = None,
        *,
        rows: int = ROWS,
        memory: int = MEMORY,
        reuse: bool = True,
        long: Long = "auto",
    ) -> None:
        """`rows` videos are answered about at the same time; `memory` is for what the model has read, in bytes; without
        `reuse` every request is computed anew, which is for measuring; `long` videos are asked about by their clips.
        """
        self.chat = chat
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.watcher = Watcher(chat.processor, self.limits, self.metrics, reuse=reuse)
        self.scheduler = Scheduler(chat, self.metrics, rows=rows, memory=memory, reuse=reuse)
        self._tokenizing = Lock()
        self._lock = Lock()
        self._admitted = 0
        self._lasts = 1.0
        """Seconds of a request, on average over the last ones."""
        self._stores: dict[str, Store | None] = {NOBODY: chat.store}
        self.films = Films(chat, self.watcher, self.scheduler.submit, self._store, long)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place among those that wait or are being answered. Raises Fault with a time to wait where there is none."""
        with self._lock:
            if self._admitted >= self.limits.waiting:
                wait = min(60, max(1, round(self._lasts)))
                raise Fault(
                    429,
                    f"{self.limits.waiting} requests are waiting; try again in {wait} s.",
                    kind="rate_limit_error",
                    code="queue_full",
                    retry_after=wait,
                )
            self._admitted += 1
            self.metrics.waiting.set(self._admitted)
        begun = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            with self._lock:
                self._admitted -= 1
                self.metrics.waiting.set(self._admitted)
                self._lasts += 0.1 * (took - self._lasts)

    def see(self, tenant: str, path: Path, wanted: Wanted, digest: str) -> Footage:
        """The frames of a video with their texts; `digest` is of the file's content. Raises UserError without paths."""
        return self.watcher.watch(tenant, path, wanted, digest)

    def prepare(self, tenant: str, messages: Sequence[Message], sampling: Sampling) -> Asked:
        """A conversation whose videos are frames, as the model reads it. Raises UserError."""
        most = min(sampling.max_new_tokens or self.chat.processor.answer_reserve, self.limits.answer_tokens)
        settings = self.chat.settings(most, sampling.temperature, sampling.seed, sampling.top_p)
        processor = self.chat.with_reserve(most)
        with self._tokenizing:
            prepared = processor.prepare(messages)
            ids = processor.encode(prepared.text)
        limit = self.limits.prompt_tokens
        if limit is not None and len(ids) > limit:
            raise PlanError(f"the prompt has {len(ids)} tokens and {limit} are allowed; say less or show fewer frames")
        _check_frames(messages, prepared.plans)
        frames = np.stack([np.asarray(frame) for frame in prepared.frames]) if prepared.frames else None
        first = sampling.seed
        seeds = [None if first is None else (first + number) % 2**63 for number in range(sampling.answers)]
        return Asked(tenant, self._store(tenant), ids, frames, settings, seeds, sampling.rivals)

    def submit(self, asked: Asked, tell: Tell) -> Ticket:
        """Answer a prompt; `tell` is called in the scheduler's thread. Raises Fault once the server is closing."""
        try:
            return self.scheduler.submit(asked, tell)
        except Closing as error:
            raise closing() from error

    def close(self) -> None:
        """Let what is being answered come to its end, and stop."""
        self.films.close()
        self.scheduler.close(self.limits.drain_seconds)
        self.watcher.close()

    def _store(self, tenant: str) -> Store | None:
        """Where what is computed for a tenant is kept: apart from what is for others."""
        if tenant not in self._stores:
            base = self.chat.store
            self._stores[tenant] = base and base.part(tenant)
        return self._stores[tenant]


def _check_frames(messages: Sequence[Message], plans: Sequence[Any]) -> None:
    """Frames that were asked for by number are refused, not dropped."""
    parts = [part for message in messages for part in message["content"] if not isinstance(message["content"], str)]
    videos = [part for part in parts if part["type"] == "video"]
    for part, plan in zip(videos, plans, strict=True):
        shown = len(part["frames"].times)
        if part.get("num_frames") and plan.frames < shown:
            raise PlanError(f"of {shown} frames that were asked for {plan.frames} fit; ask for fewer")


def too_late() -> Fault:
    return Fault(504, "The answer took longer than is allowed.", kind="server_error", code="timeout")


def still_indexing(share: float) -> Fault:
    """For a client whose time ended before a long video was indexed, which goes on."""
    return Fault(
        503, f"The video is long and is being indexed, {share:.0%} so far; ask again later.", kind="server_error",
        code="indexing", retry_after=30,
    )  # fmt: skip


def closing() -> Fault:
    return Fault(503, "The server is stopping; ask another, or try again.", kind="server_error", retry_after=5)
