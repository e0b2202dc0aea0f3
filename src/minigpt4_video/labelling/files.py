"""Where the file of a clip lies on this machine: on its disk, in a tar, or in an object store."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from minigpt4_video.data.reading import tar_member
from minigpt4_video.errors import LabellingError, MediaError
from minigpt4_video.labelling.sources import Source

REFUSED = ("http", "https", "ftp")
"""A collection of links would have this machine fetch whatever a table says; they are for a downloader with rules."""


@contextmanager
def at_hand(source: Source) -> Iterator[tuple[Source, Path]]:
    """A clip with its subtitles, and its video, in files of this machine; what was made for that is deleted afterwards.
    Raises MediaError."""
    remote = "://" in source.subtitles and not source.subtitles.startswith("[")
    with local_file(source.path) as path, local_file(source.subtitles) if remote else nullcontext() as subtitles:
        yield (source._replace(subtitles=str(subtitles)) if remote else source), path


@contextmanager
def local_file(path: str) -> Iterator[Path]:
    """A file of its own for what `path` names. Raises MediaError."""
    member = tar_member(path)
    if member is None and "://" not in path:
        yield Path(path)
        return
    suffix = PurePosixPath(path).suffix if member is None else ""
    with tempfile.NamedTemporaryFile(prefix="minigpt4-video-", suffix=suffix) as aside:
        try:
            if member is None:
                _fetch(path, aside)
            else:
                _take(*member, aside)
            aside.flush()
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror or error}") from error
        yield Path(aside.name)


def _fetch(address: str, aside: Any) -> None:
    system, name = filesystem(address)
    try:
        with system.open(name, "rb") as file:
            shutil.copyfileobj(file, aside)
    except OSError:
        raise
    except Exception as error:  # every kind of store has errors of its own
        raise MediaError(f"{address} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _take(archive: str, offset: int, size: int, aside: Any) -> None:
    with open(archive, "rb") as file:
        file.seek(offset)
        left = size
        while left and (piece := file.read(min(left, 1 << 20))):
            aside.write(piece)
            left -= len(piece)
    if left:
        raise MediaError(f"{archive} ends within a file that it holds; copy or download it again")


def filesystem(address: str) -> tuple[Any, str]:
    """An object store and a name in it, by fsspec. Raises LabellingError for one that cannot be had."""
    if address.split("://")[0] in REFUSED:
        raise LabellingError(f"{address} is a link; download it first, with video2dataset or yt-dlp")
    try:
        from fsspec.core import url_to_fs

        system, name = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise LabellingError(f"{address} cannot be used: {' '.join(str(error).split())}") from error
    return system, str(name)
