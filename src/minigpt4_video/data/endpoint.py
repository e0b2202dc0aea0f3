"""A language model behind an OpenAI-compatible address.

Requests go to that address and nowhere else: no redirect is followed and no proxy is taken from the environment.
"""

import http.client
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from minigpt4_video.errors import EndpointError

LARGEST_ANSWER = 4 * 2**20
LONGEST_WAIT = 60.0
"""Seconds between two tries, also where the endpoint asks for more."""
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""What may be over a moment later."""


@dataclass(frozen=True)
class Endpoint:
    address: str
    """As `http://localhost:8000/v1`; `/chat/completions` is added."""
    model: str
    api_key: str | None = None
    timeout: float = 120.0
    tries: int = 6
    tell: Callable[[str], None] = lambda reason: None
    """Hears of every try that is repeated."""
    sleep: Callable[[float], None] = time.sleep
    sending: Callable[[], None] = lambda: None
    """Is called before every request, repeated ones too; it may count them, and raise where no more may be sent."""
    max_tokens: int | None = None
    """Longest answer; None leaves it to the endpoint."""

    def __post_init__(self) -> None:
        """Raises EndpointError for an address that cannot be one."""
        try:
            parts = urlsplit(self.address)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not self.address.isascii() or not self.address.isprintable() or " " in self.address:
            raise EndpointError(
                f"{self.address!r} is no address of an endpoint; give one such as http://localhost:8000/v1"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise EndpointError(
                "the endpoint's address must have no name, password or query; a key goes into the environment"
            )

    def ask(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The answer to a conversation. What may pass is tried again, at longer and longer intervals.

        Raises EndpointError where the endpoint refuses, cannot be reached or does not answer as one.
        """
        asked: dict[str, Any] = {"model": self.model, "messages": messages, "temperature": 0}
        if self.max_tokens is not None:
            asked["max_tokens"] = self.max_tokens
        body = json.dumps(asked).encode()
        for attempt in range(self.tries):
            asked_to_wait = None
            self.sending()
            try:
                status, headers, content = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                reason = f"cannot be reached: {error or type(error).__name__}"
            else:
                if status == 200:
                    return self._content(content)
                said = _message(content)
                reason = f"refused with {status} {http.client.responses.get(status, '')}{said}".rstrip()
                if status not in PASSING:
                    if 300 <= status < 400:
                        reason = f"leads on to {headers.get('Location')}; name that address itself if you trust it"
                    elif status in (401, 403):
                        reason += "; check the key (--api-key, or MINIGPT4_VIDEO_API_KEY)"
                    raise EndpointError(f"the endpoint {self.address} {reason}")
                asked_to_wait = _seconds(headers.get("Retry-After"))
            if attempt + 1 < self.tries:
                wait = 2.0**attempt * random.uniform(0.5, 1.0) if asked_to_wait is None else asked_to_wait
                wait = min(max(wait, 0.0), LONGEST_WAIT)
                self.tell(f"the endpoint {reason}; trying again in {wait:.0f} s")
                self.sleep(wait)
        raise EndpointError(f"the endpoint {self.address} {reason} ({self.tries} tries); run again to go on")

    def _post(self, body: bytes) -> tuple[int, Any, bytes]:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request("POST", parts.path.rstrip("/") + "/chat/completions", body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read(LARGEST_ANSWER)
        finally:
            connection.close()

    def _content(self, content: bytes) -> str:
        try:
            answer = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            answer = None
        if not isinstance(answer, str):
            raise EndpointError(
                f"the endpoint {self.address} does not answer as an OpenAI-compatible one; check the address, which "
                "mostly ends in /v1"
            )
        return answer


def _message(content: bytes) -> str:
    """What a refusal says of itself, in one line."""
    try:
        said = json.loads(content)["error"]
        text = said["message"] if isinstance(said, dict) else said
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f": {' '.join(str(text).split())[:200]}"


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
