"""A stream of frames to clips: between cuts, or windows of one length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from minigpt4_video.errors import UserError
from minigpt4_video.media import Clip
from minigpt4_video.media.pictures import Frames

RATE = 4.0
"""Frames a second that are looked at: for cuts, and to choose among for the model."""
CUT = 12
"""Levels by which more than half of the pixels differ across a cut. A thing that comes or goes, or moves, changes fewer
of them, a cut nearly all."""
LOOKED_AT = 32
"""Pixels along a side of the picture that are compared."""


@dataclass(frozen=True)
class Cutting:
    """Where clips begin and end."""

    by: Literal["cuts", "windows"] = "cuts"
    longest: float = 60.0
    """Seconds; a scene that lasts longer becomes several clips. The length of every window."""
    least: float = 2.0
    """Seconds; a cut sooner than that after the one before is passed over."""

    def __post_init__(self) -> None:
        """Raises UserError for lengths that are none."""
        if not 1.0 <= self.longest <= 3600.0:
            raise UserError(f"clips of {self.longest:g} s cannot be made; give 1 to 3600 seconds")


class Piece(NamedTuple):
    """One clip of a video: where it is, and what a model is shown of it."""

    start: float
    end: float
    shown: Clip


def pieces(stream: Iterable[tuple[float, Frames]], frames: int, cutting: Cutting, duration: float) -> Iterator[Piece]:
    """Clips with at most `frames` frames each, as `read_clip` would choose them among those of the stream.

    A clip begins with its first frame. At most `longest` seconds of the stream are held.
    """
    held: list[tuple[float, Frames]] = []
    before: np.ndarray | None = None
    for time, picture in stream:
        now = _few_pixels(picture)
        is_cut = before is not None and cutting.by == "cuts" and _differ(now, before)
        before = now
        if held and ((is_cut and time - held[0][0] >= cutting.least) or time - held[0][0] >= cutting.longest - 1e-6):
            yield _piece(held, time, frames, duration)
            held = []
        held.append((time, picture))
    if held:
        yield _piece(held, max(duration, held[-1][0]), frames, duration)


def _few_pixels(picture: Frames) -> np.ndarray:
    """The picture in few grey pixels, (rows, columns) int16."""
    height, width, _ = picture.shape
    some = picture[:: max(1, height // LOOKED_AT), :: max(1, width // LOOKED_AT)].astype(np.int16)
    grey: np.ndarray = (some[..., 0] + some[..., 1] + some[..., 2]) // 3
    return grey


def _differ(now: np.ndarray, before: np.ndarray) -> bool:
    return bool(2 * np.count_nonzero(np.abs(now - before) > CUT) > now.size)


def _piece(held: list[tuple[float, Frames]], end: float, frames: int, duration: float) -> Piece:
    times = np.array([time for time, _ in held])
    start = float(times[0])
    chosen = np.arange(len(held))
    if len(held) > frames:
        wanted = start + (end - start) * (2 * np.arange(frames) + 1) / (2 * frames)
        chosen = np.searchsorted(times, wanted, side="right") - 1
    return Piece(start, end, Clip(np.stack([held[index][1] for index in chosen]), times[chosen], duration))
