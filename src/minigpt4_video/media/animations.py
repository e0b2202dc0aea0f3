"""Animated pictures, where FFmpeg is not enough: it decodes no animated WebP, and takes a cut GIF for a whole one."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from minigpt4_video.errors import MediaError
from minigpt4_video.media.pictures import Form, Shown
from minigpt4_video.media.sources import DECODER_ERRORS, not_media, shown

logger = logging.getLogger(__name__)

PICTURE_ERRORS = (*DECODER_ERRORS, SyntaxError, Image.DecompressionBombError)


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


def webp_frames(file: Path, form: Form) -> Iterator[Shown]:
    time = 0.0
    try:
        with Image.open(file, formats=["WEBP"]) as animation:
            for picture in ImageSequence.Iterator(animation):
                frame = np.asarray(picture.convert("RGB"))
                lasts = picture.info.get("duration", 0) / 1000 or 0.1
                yield Shown(time, lasts, 0.0, partial(form.of_picture, frame))
                time += lasts
    except PICTURE_ERRORS as error:
        if time == 0.0:
            raise not_media(file, "a picture") from error
        logger.warning("%s is damaged; the frames that can be decoded are used.", shown(file))
