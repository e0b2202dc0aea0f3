"""Decoded frames to pictures as they are shown: upright, RGB, of the wanted size."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, VideoReformatter
from PIL import Image

from minigpt4_video.errors import MediaError
from minigpt4_video.media.colour import to_ordinary_colours
from minigpt4_video.media.sources import DECODER_ERRORS, shown

# By the numbers of ITU-T H.273, of which PyAV names some only.
BT709_MATRIX, UNSPECIFIED_MATRIX, BT2020_MATRIX = 1, 2, 9
CONVERTIBLE_MATRICES = {0, BT709_MATRIX, UNSPECIFIED_MATRIX, 4, 5, 6, 7, BT2020_MATRIX}
CONVERTIBLE_RANGES = {0, 1, 2}
WIDE_MATRICES = {10, 11, 14}  # BT.2020 with constant luminance, SMPTE ST 2085, ICtCp
DERIVED_MATRICES = {12, 13}  # from the primaries, which for those of BT.2020 and BT.709 are their own matrices

LARGEST_TWICE = 2**25
"""Pixels beyond which a picture is not held in two forms at once: the decoder scales it."""

Frames = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Converters:
    """What FFmpeg sets up for frames of one kind, which takes longer than a small picture does: kept for the next frame
    of a reading. One thread at a time may use them.
    """

    pictures: VideoReformatter = field(default_factory=VideoReformatter)
    extras: VideoReformatter = field(default_factory=VideoReformatter)


@dataclass(frozen=True)
class Form:
    """What is made of the decoded frames of one reading: pictures of their own size, or of another."""

    size: tuple[int, int] | None = None
    scaler: Literal["pillow", "decoder"] = "pillow"
    converters: Converters = field(default_factory=Converters, repr=False, compare=False)

    def of_frame(self, frame: av.VideoFrame, file: Path) -> Frames:
        is_huge = frame.width * frame.height > LARGEST_TWICE
        if self.size is not None and (self.scaler == "decoder" or is_huge):
            picture = upright(frame, file, self.converters, self.size)
        else:
            picture = self.of_picture(upright(frame, file, self.converters))
        return to_ordinary_colours(picture, frame.color_trc, frame.color_primaries)

    def of_picture(self, picture: Frames) -> Frames:
        return picture if self.size is None else resized(picture, self.size)


class Shown(NamedTuple):
    """One frame of a file read from its beginning."""

    time: float
    """Seconds from the first frame."""
    lasts: float
    tolerance: float
    """Seconds by which a time that means this frame may lie before it."""
    picture: Callable[[], Frames]


class Orientation(NamedTuple):
    """How a decoded frame is put upright: swap rows with columns, then flip."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @property
    def mirrored(self) -> bool:
        return (self.transposed + self.left_right + self.up_down) % 2 == 1

    @property
    def rotation(self) -> int:
        """Degrees clockwise, after mirroring left to right where it is mirrored."""
        if self.transposed:
            return 90 if self.left_right else 270
        return 180 if self.up_down else 0

    def apply(self, frame: Frames) -> Frames:
        if self.transposed:
            frame = frame.swapaxes(0, 1)
        if self.left_right:
            frame = frame[:, ::-1]
        return frame[::-1] if self.up_down else frame


def upright(frame: av.VideoFrame, file: Path, converters: Converters, size: tuple[int, int] | None = None) -> Frames:
    """A decoded frame upright, RGB, uint8 `(height, width, 3)`, scaled to `size` where that is given."""
    orientation = orientation_of(frame, converters.extras)
    _name_convertible_colours(frame)
    try:
        if size is None:
            made = converters.pictures.reformat(frame, format="rgb24")
        else:
            height, width = reversed(size) if orientation.transposed else size
            made = converters.pictures.reformat(frame, width, height, "rgb24", interpolation="BICUBIC")
        return np.ascontiguousarray(orientation.apply(np.asarray(made.to_ndarray(), np.uint8)))
    except DECODER_ERRORS as error:
        raise MediaError(
            f"{shown(file)} holds pictures in a form ({frame.format.name}) that cannot be shown; convert it to .mp4."
        ) from error


def _name_convertible_colours(frame: av.VideoFrame) -> None:
    """Where a frame names a matrix that FFmpeg cannot undo, or none that there is, name the nearest that it can."""
    if frame.colorspace not in CONVERTIBLE_MATRICES:
        is_wide = frame.color_primaries == ColorPrimaries.BT2020 or frame.colorspace in WIDE_MATRICES
        is_derived = frame.colorspace in DERIVED_MATRICES
        frame.colorspace = BT2020_MATRIX if is_wide else BT709_MATRIX if is_derived else UNSPECIFIED_MATRIX
    if frame.color_range not in CONVERTIBLE_RANGES:
        frame.color_range = 0


def resized(picture: Frames, size: tuple[int, int]) -> Frames:
    height, width = size
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def orientation_of(frame: av.VideoFrame, converter: VideoReformatter) -> Orientation:
    """From the display matrix, which takes x to (a, b) and y to (c, d); PyAV's own rotation misses mirroring."""
    try:
        # PyAV's list refers back to its frame, which memory then holds for long: a tiny copy's matrix does as well.
        small: Any = converter.reformat(frame, 8, 8, interpolation="POINT")
        kinds = list(small.side_data)
    except DECODER_ERRORS:  # PyAV refuses them all where it does not know one; its rotation is counter-clockwise
        quarters = round(frame.rotation / 90) % 4
        return (
            Orientation(),
            Orientation(True, False, True),
            Orientation(False, True, True),
            Orientation(True, True),
        )[quarters]
    for side_data in kinds:
        if side_data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side_data), dtype="<i4")[:5].tolist()
            if a * d == b * c:
                return Orientation()
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return Orientation(False, a < 0, d < 0)
            return Orientation(True, c < 0, b < 0)
    return Orientation()
