"""Files that clients send once and refer to by an id. They outlive the process, and expire.

An upload is two files: its content, written aside and renamed, and then the same way what is known of it. Without the
second it does not exist, so a process that is killed leaves whole uploads and rests that are cleared away.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO

from minigpt4_video.errors import UserError
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.limits import Limits

FORM = re.compile(r"file-[0-9a-f]{32}")
PIECE = 1 << 20
ABANDONED_AFTER = 3600.0
"""Seconds after which what is being written is something that nobody writes any more."""


@dataclass(frozen=True)
class Upload:
    """What is known of an uploaded file."""

    id: str
    filename: str
    purpose: str
    bytes: int
    digest: str
    """SHA-256 of the content."""
    created_at: int
    expires_at: int


class Uploads:
    """The uploads in a folder, which processes may share; each tenant sees its own."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = Lock()
        self._arriving = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.clear_away()

    def add(self, tenant: str, filename: str, purpose: str, content: IO[bytes], seconds: float | None) -> Upload:
        """Keep a file. Raises Fault where it is too large, empty, or there is no room."""
        size = content.seek(0, 2)
        content.seek(0)
        if not size:
            raise Fault(400, "The file is empty.", param="file")
        if size > self._limits.media_bytes:
            raise Fault(413, f"The file has more than the {self._limits.media_bytes} bytes allowed.", param="file")
        with self._lock:
            if self._taken() + self._arriving + size > self._limits.uploads_bytes:
                self.clear_away()
            if self._taken() + self._arriving + size > self._limits.uploads_bytes:
                raise Fault(507, "There is no room for more uploads; delete some, or try later.", kind="server_error")
            self._arriving += size
        try:
            return self._write(tenant, filename, purpose, content, seconds)
        finally:
            with self._lock:
                self._arriving -= size

    def get(self, tenant: str, upload: str) -> tuple[Upload, Path]:
        """What is known of an upload, and its file. Raises Fault where this tenant has none of that id."""
        if FORM.fullmatch(upload):
            place = self._folder / tenant / f"{upload}.json"
            if (known := _known(place)) is not None and known.expires_at > time.time():
                return known, place.with_suffix(".media")
        raise Fault(404, "There is no such file.", param="file_id", code="file_not_found")

    def all(self, tenant: str) -> list[Upload]:
        """Those of a tenant, the newest first."""
        found = (_known(place) for place in (self._folder / tenant).glob("*.json"))
        now = time.time()
        return sorted((one for one in found if one and one.expires_at > now), key=lambda one: -one.created_at)

    def delete(self, tenant: str, upload: str) -> None:
        _, path = self.get(tenant, upload)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def clear_away(self) -> None:
        """Remove what has expired, and what a killed process has left."""
        now = time.time()
        for file in self._files():
            with suppress(OSError):
                known = _known(file.with_suffix(".json"))
                if known is None and now - file.stat().st_mtime > ABANDONED_AFTER:
                    file.unlink(missing_ok=True)
                elif known is not None and known.expires_at <= now:
                    file.with_suffix(".json").unlink(missing_ok=True)
                    file.with_suffix(".media").unlink(missing_ok=True)

    def _write(self, tenant: str, filename: str, purpose: str, content: IO[bytes], seconds: float | None) -> Upload:
        folder = self._folder / tenant
        name = f"file-{secrets.token_hex(16)}"
        aside, place = folder / f"{name}.part", folder / f"{name}.media"
        made = hashlib.sha256()
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            with aside.open("xb") as file:
                while piece := content.read(PIECE):
                    made.update(piece)
                    file.write(piece)
                size = file.tell()
            aside.replace(place)
            now = int(time.time())
            lasting = min(self._limits.upload_seconds, seconds or self._limits.upload_seconds)
            known = Upload(name, filename, purpose, size, made.hexdigest(), now, now + int(lasting))
            write_whole(folder / f"{name}.json", json.dumps(asdict(known)).encode())
        except (OSError, UserError) as error:  # whose words name the place
            with suppress(OSError):
                aside.unlink(missing_ok=True)
                place.unlink(missing_ok=True)
            raise Fault(507, "The file could not be kept.", kind="server_error") from error
        return known

    def _taken(self) -> int:
        taken = 0
        for file in self._files():
            with suppress(OSError):
                taken += file.stat().st_size
        return taken

    def _files(self) -> Iterator[Path]:
        return self._folder.glob("*/*")


def _known(place: Path) -> Upload | None:
    try:
        return Upload(**json.loads(place.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
