"""Opening files that somebody else made: one file and nothing beside it, and every failure as a `MediaError`."""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import av

from minigpt4_video.errors import MediaError

# What PyAV raises on damaged files: its own errors, and these from its wrappers and from reading the file.
DECODER_ERRORS = (
    av.error.FFmpegError,
    OSError,
    EOFError,
    MemoryError,
    LookupError,
    ValueError,
    ArithmeticError,
    RuntimeError,
)

# A table of sample descriptions whose first entry is encrypted video.
ENCRYPTED_VIDEO = re.compile(rb"stsd.{12}encv", re.DOTALL)
LARGEST_HEADER = 64 * 2**20
MOST_BOXES = 10_000  # before the header; a file of nothing but the smallest boxes would be walked through for minutes

# Containers that are lists of other files, or no pictures: a text drawn as a terminal would is nobody's video.
REFUSED_FORMATS = {"hls", "dash", "concat", "imf", "sdp", "rtsp", "tty", "bin", "xbin", "adf", "idf", "ffmetadata"}

# Pixels of one picture, four times those of 8K; a small file can claim any number, and each takes several bytes.
LARGEST_PICTURE = 2**27
# Bytes of all pictures that a decoder holds at once: one, or where pictures refer to others about as many as here.
LARGEST_HELD = 900 * 2**20
HELD_PICTURES = 6

UNSHOWN = {"Cc", "Cf", "Zl", "Zp"}  # kinds of characters that steer a terminal, turn the writing or end a line


BUFFER = 1 << 18
ZEROS = bytes(BUFFER)
LONGEST_ZEROS = 64 * 2**20
ZERO_SAMPLES = 256


class _OneFile:
    """A file without its name: the decoder can then neither read a pattern or a protocol in it nor look beside it.

    It ends where nothing but zeros follows, as in a download that had taken its place on the disk and broke off:
    decoders look through gigabytes of them for the next picture.
    """

    name = "media"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zeros = 0
        self._end: int | None = None
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if self._end is not None and self._file.tell() >= self._end:
            return b""
        data = self._file.read(size)
        self._zeros = self._zeros + len(data) if data and data == ZEROS[: len(data)] else 0
        if self._zeros >= LONGEST_ZEROS:
            if self._is_zero_from_here():
                self._end = self._file.tell()
            self._zeros = 0
        return data

    def _is_zero_from_here(self) -> bool:
        """By samples: black pictures without compression are long runs of zeros too, and something follows."""
        begin = self._file.tell()
        left = self._file.seek(0, os.SEEK_END) - begin
        try:
            for sample in range(ZERO_SAMPLES):
                self._file.seek(begin + left * sample // ZERO_SAMPLES)
                if self._file.read(4096).strip(b"\0"):
                    return False
        finally:
            self._file.seek(begin)
        return True


def check_file(path: str | PathLike[str], what: str) -> Path:
    """The path of a file that exists and holds something; `what` names what is wanted of it, as "a video"."""
    file = Path(path)
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        raise MediaError(f"There is no file {shown(file)}; check its name and folder.") from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{shown(file)} is a folder; name {what} file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{shown(file)} is not an ordinary file; name {what} file.")
    if status.st_size == 0:
        raise MediaError(f"{shown(file)} is empty (0 bytes); copy or download it again.")
    return file


@contextmanager
def open_media(path: str | PathLike[str], what: str = "a video") -> Iterator[av.container.InputContainer]:
    """A media file opened for decoding. No other file and no address is opened, whatever its content asks for."""
    file = check_file(path, what)
    try:
        source = file.open("rb")
    except OSError as error:
        raise MediaError(f"{shown(file)} cannot be read ({error.strerror}); check its permissions.") from error
    with source:
        try:
            container = av.open(
                _OneFile(source),
                metadata_errors="replace",
                buffer_size=BUFFER,
                options={"max_pixels": str(LARGEST_PICTURE)},
                container_options={"protocol_whitelist": "none"},
            )
        except DECODER_ERRORS as error:
            raise not_media(file, what) from error
        with container:
            if set(container.format.name.split(",")) & REFUSED_FORMATS:
                raise not_media(file, what)
            yield container


def is_encrypted(file: Path) -> bool:
    """Whether an MP4 file says that its pictures are encrypted. The decoder would show them as noise."""
    try:
        with file.open("rb") as opened:
            position, size = 0, file.stat().st_size
            for _ in range(MOST_BOXES):
                if position + 8 > size:
                    break
                opened.seek(position)
                header = opened.read(16)
                length = int.from_bytes(header[:4])
                if length == 1:
                    length = int.from_bytes(header[8:16])
                if header[4:8] == b"moov":
                    opened.seek(position)
                    return ENCRYPTED_VIDEO.search(opened.read(min(length or size, LARGEST_HEADER))) is not None
                position += length if length >= 8 else size
    except (OSError, OverflowError) as error:
        raise not_media(file, "a video") from error
    return False


def largest_picture(bits: int, held: int) -> int:
    """Pixels that a picture may have, by the bits of a pixel and the number of pictures that are held at once."""
    return min(LARGEST_PICTURE, 8 * LARGEST_HELD // max(1, bits * held))


def check_size(file: Path, width: int, height: int, most: int) -> None:
    """Raise a `MediaError` where pictures have more pixels than `most`."""
    if width * height > most:
        raise MediaError(f"{shown(file)} has pictures of {width}x{height}, too large to read; scale it.")


def not_media(file: Path, what: str) -> MediaError:
    return MediaError(f"{shown(file)} is not {what} file that can be read; check that it plays, or convert it to .mp4.")


def shown(file: Path) -> str:
    """A file's name as it can stand in a one-line message, whatever characters it holds."""
    name = str(file).encode(errors="backslashreplace").decode()
    return "".join("?" if unicodedata.category(letter) in UNSHOWN else letter for letter in name)
