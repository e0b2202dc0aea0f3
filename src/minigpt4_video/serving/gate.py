"""What every request passes before anything else looks at it: who asks, from where, and how much they send."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPLOADS = "/v1/files"
BUSY = "rate_limit_error"
LARGEST_HEAD = 32 * 2**10
ALLOWANCE = 1 << 20
"""Bytes by which an upload's form may be larger than the file in it."""
ROUTES = ("/v1/chat/completions", UPLOADS, "/v1/models", "/health", "/ready", "/metrics", "/openapi.json")


class Gate:
    """ASGI middleware. `/v1` and `/metrics` are for those with a key; without keys, for this machine's own programs,
    not for pages of other sites in its browser.
    """

    def __init__(self, app: App, *, keys: Keys, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._metrics = metrics
        self._arriving = 0
        self._uploading: Counter[str] = Counter()
        """Files that are being received, by whose they are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        upload = scope["method"] == "POST" and scope["path"].rstrip("/") == UPLOADS
        body = _Body(self, receive, upload)
        try:
            self._check(scope, body)
            with self._place(scope["tenant"]) if upload else nullcontext():
                await self._app(scope, body.receive, noted)
        except Fault as fault:
            response = fault.response()
            response.headers["Connection"] = "close"
            await response(scope, receive, noted)
        finally:
            self._arriving -= body.held
            self._metrics.requests.labels(_route(scope["path"]), str(status)).inc()

    def _check(self, scope: Scope, body: "_Body") -> None:
        headers = _single(scope)
        path = scope["path"]
        if not self._keys:
            _check_local(headers)
        if path == "/metrics" or path == "/v1" or path.startswith("/v1/"):
            who = self._keys.who(headers.get("authorization"))
            if who is None:
                raise Fault(401, "The API key is missing or wrong; send it as a bearer token.", code="invalid_api_key")
            scope["tenant"] = who
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:18]) > body.most:
            raise too_large(body.most)

    @contextmanager
    def _place(self, tenant: str) -> Iterator[None]:
        """One of the places for uploads, of which no key can take all where there are others. Raises Fault."""
        most = self._limits.uploads_at_once
        share = max(1, most // 2) if len(self._keys) > 1 else most
        if self._uploading.total() >= most or self._uploading[tenant] >= share:
            raise Fault(429, "Too many files are being received; try again soon.", kind=BUSY, retry_after=10)
        self._uploading[tenant] += 1
        try:
            yield
        finally:
            self._uploading[tenant] -= 1

    def _arrived(self, count: int) -> None:
        self._arriving += count
        if self._arriving > self._limits.arriving_bytes:
            raise Fault(429, "Too much is being received; try again soon.", kind=BUSY, retry_after=5)


class _Body:
    """A request's body as it arrives, within limits of size and time."""

    def __init__(self, gate: Gate, receive: Receive, is_upload: bool) -> None:
        limits = gate._limits
        self.most = limits.media_bytes + ALLOWANCE if is_upload else limits.request_bytes
        self.held = 0
        self._gate = gate
        self._receive = receive
        self._is_upload = is_upload
        self._limits = limits
        self._begun: float | None = None
        self._size = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._begun is None:
            self._begun = asyncio.get_running_loop().time()
        deadline = self._begun + self._limits.body_seconds
        if self._is_upload:  # which may take long, but not as long as its sender likes
            deadline += self._size / self._limits.slowest
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise Fault(408, "The request did not arrive in time.") from error
        count = len(message.get("body", b""))
        self._size += count
        if self._size > self.most:
            raise too_large(self.most)
        if not self._is_upload:  # which goes to the disk
            self.held += count
            self._gate._arrived(count)
        self._complete = not message.get("more_body", False)
        return message


def too_large(most: int) -> Fault:
    return Fault(413, f"The request has more than the {most} bytes allowed.")


def _single(scope: Scope) -> dict[str, str]:
    """Headers by name. What decides something must be there once."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["path"]) > LARGEST_HEAD:
        raise Fault(431, "The head of the request is too large.")
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "authorization", "origin", "content-length", "content-type"):
            raise Fault(400, f"The header {key} is there twice.")
        found[key] = value.decode("latin-1")
    return found


def _check_local(headers: dict[str, str]) -> None:
    """Refuse what a page of another site makes a browser send here, by its origin or by a name of its own."""
    if not is_local(headers.get("host", "")):
        raise Fault(403, "This server answers to localhost alone.")
    origin = headers.get("origin")
    if origin is not None and not (origin.startswith(("http://", "https://")) and is_local(origin.split("//", 1)[1])):
        raise Fault(403, "This server answers no pages of other sites.")


def is_local(place: str) -> bool:
    """Whether a host, with or without a port, is this machine by a name that nobody else can give it."""
    try:
        host = urlsplit(f"//{place}").hostname or ""
        urlsplit(f"//{place}").port  # noqa: B018  (raises where it is none)
    except ValueError:
        return False
    if "@" in place or "/" in place:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _route(path: str) -> str:
    """A path without what differs from request to request."""
    return next((route for route in ROUTES if path == route or path.startswith(route + "/")), "other")
