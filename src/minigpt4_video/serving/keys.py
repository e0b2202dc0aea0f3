"""Who may ask: keys, compared so that the time tells nothing of them."""

import hashlib
import hmac
from collections.abc import Sequence

NOBODY = "open"
"""Whoever asks a server without keys."""


class Keys:
    """The keys of a server; without any, everybody may ask."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def who(self, authorization: str | None) -> str | None:
        """The name under which what this key's owner has sent is kept apart from others'; None for no valid key."""
        if not self._digests:
            return NOBODY
        scheme, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip())
        found = None
        for known in self._digests:  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = known
        return found.hex()[:32] if found is not None and scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(b"minigpt4-video key\0" + key.encode("utf-8", "surrogateescape")).digest()
