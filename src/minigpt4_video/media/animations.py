"""Animated pictures, where FFmpeg is not enough: it decodes no animated WebP, and takes a cut GIF for a whole one."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from minigpt4_video.errors import MediaError
from minigpt4_video.media.pictures import Form, Shown
from minigpt4_video.media.sources import (
    DECODER_ERRORS,
    HELD_PICTURES,
    LARGEST_PICTURE,
    check_size,
    largest_picture,
    not_media,
    shown,
)

logger = logging.getLogger(__name__)

PICTURE_ERRORS = (*DECODER_ERRORS, SyntaxError, TypeError, struct.error, Image.DecompressionBombError)
PICTURES = ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF"]


def is_cut_gif(file: Path) -> bool:
    """FFmpeg makes no difference between a GIF that ends and one that breaks off."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GIF8":
            return False
        opened.seek(max(0, file.stat().st_size - 64))
        return not opened.read().rstrip(b"\0\r\n ").endswith(b";")


def is_webp(file: Path) -> bool:
    """FFmpeg decodes WebP pictures, but not WebP animations, which PIL does."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(12)
    except OSError as error:
        raise MediaError(f"{shown(file)} cannot be read ({error.strerror}); check its permissions.") from error
    return beginning.startswith(b"RIFF") and beginning.endswith(b"WEBP")


def missing_of_webp(file: Path) -> int:
    """Bytes by which a WebP file is shorter than it says."""
    with file.open("rb") as opened:
        return max(0, 8 + int.from_bytes(opened.read(8)[4:], "little") - file.stat().st_size)


def opened_webp(file: Path) -> AbstractContextManager[Image.Image]:
    """A WebP picture or animation; one that breaks off without the frame in which it does, which PIL would refuse."""
    if not missing_of_webp(file):
        return opened_picture(file, file, ["WEBP"])
    data = bytearray(file.read_bytes() + b"\0")  # some writers leave out the last filling byte
    end, following = 12, 12
    while following <= len(data):
        end, length = following, int.from_bytes(data[following + 4 : following + 8], "little")
        following += 8 + length + length % 2
    data[4:8] = (end - 8).to_bytes(4, "little")
    return opened_picture(file, io.BytesIO(data[:end]), ["WEBP"])


@contextmanager
def opened_picture(file: Path, source: Path | io.BytesIO, formats: list[str]) -> Iterator[Image.Image]:
    """A picture of which the header has been read. Raises `MediaError` where it is larger than is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # PIL's limit is below ours
        try:
            picture = Image.open(source, formats=formats)
        except Image.DecompressionBombError as error:
            raise MediaError(f"{shown(file)} is too large a picture to read; scale it.") from error
    with picture:
        # WebP's reader holds several pictures, and PIL its own
        most = largest_picture(32, HELD_PICTURES) if picture.format == "WEBP" else LARGEST_PICTURE
        check_size(file, *picture.size, most)
        yield picture


def check_picture_size(file: Path) -> None:
    """Raise `MediaError` where a file is a picture larger than is read, which FFmpeg reports as it does damage."""
    with suppress(*PICTURE_ERRORS), opened_picture(file, file, PICTURES):
        pass


def webp_frames(file: Path, form: Form) -> Iterator[Shown]:
    time, is_damaged = 0.0, False
    try:
        with opened_webp(file) as animation:
            for picture in ImageSequence.Iterator(animation):
                frame = np.asarray(picture.convert("RGB"))
                lasts = picture.info.get("duration", 0) / 1000 or 0.1
                yield Shown(time, lasts, 0.0, partial(form.of_picture, frame))
                time += lasts
    except PICTURE_ERRORS as error:
        if time == 0.0:
            raise not_media(file, "a picture") from error
        is_damaged = True
    if is_damaged or missing_of_webp(file) > 1:
        logger.warning("%s is damaged; the frames that can be decoded are used.", shown(file))
