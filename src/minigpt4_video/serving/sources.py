"""What an address in a request stands for: bytes in the request, an upload, a file or a host that the server allows."""

import base64
import binascii
import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from minigpt4_video.errors import MediaError
from minigpt4_video.inference.store import file_digest
from minigpt4_video.media import SourceRules, source_file
from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.uploads import FORM, Uploads

DATA = re.compile(r"data:(?:video|image|application)/[\w.+-]{1,60}(?:;[\w.+-]{1,40}=[\w.+-]{1,40})*;base64,", re.ASCII)
NO_FILE = "There is no file under this address that may be read."


class Source(NamedTuple):
    path: Path
    digest: str
    """SHA-256 of the content."""


class Sources:
    """What requests may name. Without `folder` no files, without `hosts` nothing on the network."""

    def __init__(self, limits: Limits, uploads: Uploads | None, folder: Path | None, hosts: tuple[str, ...]) -> None:
        self._limits = limits
        self._uploads = uploads
        self._folder = folder.resolve() if folder else None
        self._rules = SourceRules(hosts=hosts, largest=limits.media_bytes, seconds=min(60.0, limits.seconds))

    @contextmanager
    def opened(self, tenant: str, url: str, param: str) -> Iterator[Source]:
        """A file with what `url` stands for, which may be gone afterwards. Raises Fault."""
        if FORM.fullmatch(url) and self._uploads is not None:
            known, path = self._uploads.get(tenant, url)
            yield Source(path, known.digest)
        elif url[:5].lower() == "data:":
            with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
                content = self._decoded(url, param)
                path = Path(folder) / "media"
                path.write_bytes(content)
                yield Source(path, hashlib.sha256(content).hexdigest())
        elif url[:5].lower() == "file:":
            path = self._in_folder(url, param)
            yield Source(path, file_digest(path))
        elif url[:5].lower() in ("http:", "https"):
            if not self._rules.hosts:
                raise Fault(
                    400, "This server fetches nothing; send the media as a data: address, or upload it.", param=param
                )
            try:
                with source_file(url, self._rules) as path:
                    yield Source(path, file_digest(path))
            except MediaError as error:
                raise Fault(400, str(error), param=param) from error
        else:
            raise Fault(
                400, "An address must be a data: address, the id of an upload, or one that is allowed.", param=param
            )

    def _decoded(self, url: str, param: str) -> bytes:
        head = DATA.match(url[:256])
        if head is None:
            raise Fault(400, "A data: address must be data:TYPE;base64,... with a video or a picture.", param=param)
        if (len(url) - head.end()) * 3 // 4 > self._limits.media_bytes:
            raise Fault(413, f"The media have more than the {self._limits.media_bytes} bytes allowed.", param=param)
        try:
            content = base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise Fault(400, "The data: address is no valid base64.", param=param) from error
        if not content:
            raise Fault(400, "The data: address is empty.", param=param)
        return content

    def _in_folder(self, url: str, param: str) -> Path:
        """A file in the folder that is allowed, links followed. What is elsewhere and what is not are told alike."""
        refused = Fault(400, NO_FILE, param=param)
        if self._folder is None:
            raise Fault(
                400, "This server reads no files; send the media as a data: address, or upload it.", param=param
            )
        try:
            parts = urlsplit(url)
            if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                raise refused
            path = Path(unquote(parts.path, errors="strict")).resolve(strict=True)
            if not path.is_relative_to(self._folder) or not path.is_file():
                raise refused
            size = path.stat().st_size
        except (OSError, ValueError, RuntimeError) as error:
            raise refused from error
        if size > self._limits.media_bytes:
            raise Fault(413, f"The file has more than the {self._limits.media_bytes} bytes allowed.", param=param)
        return path
