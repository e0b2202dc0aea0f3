"""A process that serves: the model, the interface, the page, and uvicorn around them."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from minigpt4_video.errors import UserError
from minigpt4_video.inference import VideoChat
from minigpt4_video.long_video.choosing import Long
from minigpt4_video.serving.api import create_app
from minigpt4_video.serving.gate import LARGEST_HEAD
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.page import add_page
from minigpt4_video.serving.service import MEMORY, Service
from minigpt4_video.serving.sources import Sources
from minigpt4_video.serving.uploads import Uploads

KEEP_ALIVE = 10
SHORTEST_KEY = 16


@dataclass(frozen=True)
class Serving:
    """Where and to whom a model is served, and what of the world a request may name."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    keys: Sequence[str] = ()
    uploads: Path | None = None
    """Folder of uploads; None for one in the user's data."""
    media_folder: Path | None = None
    media_hosts: tuple[str, ...] = ()
    page: bool = False
    memory: int = MEMORY
    """Bytes for keys and values."""
    reuse: bool = True
    long: Long = "auto"
    """Which videos are answered about by their clips."""
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raise UserError where others than this machine could ask and no key is demanded of them, and the like."""
        if not self.keys and not is_loopback(self.host):
            raise UserError(
                f"{self.host} can be reached from other machines; give --api-key, or leave --host out to serve this "
                "machine only"
            )
        if any(
            len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key for key in self.keys
        ):
            raise UserError(f"a key must have at least {SHORTEST_KEY} letters and digits, because it can be guessed")
        if self.media_folder is not None and not self.media_folder.is_dir():
            raise UserError(f"{self.media_folder} is no folder; name one with media that requests may read")


def serve(chat: VideoChat, serving: Serving, listening: Callable[[int], None] = lambda port: None) -> None:
    """Serve until interrupted; `listening` is told the port once clients can connect.

    Raises UserError for what cannot be served so, and where the port is taken.
    """
    serving.check()
    limits = serving.limits
    uploads = Uploads(serving.uploads or default_uploads(), limits)
    sources = Sources(limits, uploads, serving.media_folder, serving.media_hosts)
    with _bound(serving.host, serving.port) as bound:
        service = Service(chat, limits, memory=serving.memory, reuse=serving.reuse, long=serving.long)
        app = create_app(service, sources, uploads, keys=Keys(serving.keys))
        if serving.page:
            add_page(app, service, uploads)
        config = uvicorn.Config(
            app,
            http=partial(Patient, limits=limits),  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(limits.drain_seconds),
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )
        listening(bound.getsockname()[1])
        uvicorn.Server(config).run([bound])


class Patient(H11Protocol):
    """Waits for the head of a request for some seconds and no longer, and reads none that is too large: h11 bounds a
    head that arrives in pieces, but takes thousands of headers apart that arrive at once. Whoever does not take what
    it is sent is given up as well."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._waiting: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # all that lies here is waited for, the end of an answer too
        self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = self._limits.body_seconds + self.transport.get_write_buffer_size() / self._limits.slowest
        # Closing would wait for the client to take the rest.
        self._sending = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def data_received(self, data: bytes) -> None:
        if self._between_requests() and not _has_whole_head(data) and len(data) > LARGEST_HEAD:
            self.send_400_response("The head of the request is too large.")
            return
        super().data_received(data)
        if not self._between_requests():
            self._wait_no_more()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        self._sent()
        super().connection_lost(exc)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self._limits.head_seconds, self._late)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _late(self) -> None:
        self._waiting = None
        if self._between_requests() and not self.transport.is_closing():
            self.transport.close()


def _has_whole_head(data: bytes) -> bool:
    return any(end in data[:LARGEST_HEAD] for end in (b"\r\n\r\n", b"\n\n"))


def default_uploads() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "minigpt4-video" / "uploads"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family, backlog=512)
    except OSError as error:
        raise UserError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
