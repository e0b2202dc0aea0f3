"""Video files to frames with their times.

Times come from the decoder: a frame's presentation time less that of the first frame, in seconds. A frame's index over
the frame rate is a time only where the rate never changes.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from minigpt4_video.media.in_order import read_in_order
from minigpt4_video.media.pictures import Form, Frames, resized
from minigpt4_video.media.probing import VideoInfo, probe_beginning
from minigpt4_video.media.sampling import Times, clip_times
from minigpt4_video.media.selection import Unreliable, read_selected
from minigpt4_video.media.sources import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """Frames of a video, as shown: turned upright, RGB."""

    frames: Frames
    """uint8 `(frames, height, width, 3)`."""
    times: Times
    """float64 `(frames,)`: seconds from the video's first frame at which each begins to be shown."""
    duration: float
    """Seconds of the whole video."""


def read_frames(
    path: str | PathLike[str],
    times: Sequence[float] | Times,
    size: tuple[int, int] | None = None,
    scaler: Literal["pillow", "decoder"] = "pillow",
) -> Clip:
    """For each of `times` (seconds from the first frame, in any order) the frame that is shown then.

    A time before the first or after the last frame gets that frame. Where the whole video has fewer frames than there
    are times, each frame that was asked for comes once. `size` is (height, width): the whole frame is squashed to it by
    PIL's bicubic resize, or by the decoder's, which never makes a large picture of the frame: it takes less time and
    memory, and its pixels differ by a few levels. Raises `MediaError` where nothing can be decoded.
    """
    file = Path(path)
    info, first_pts = probe_beginning(file)
    reading = _read(file, first_pts, np.asarray(times, dtype=np.float64), Form(size, scaler))
    return Clip(reading.frames, reading.times, _true_duration(file, info, reading))


def read_clip(
    path: str | PathLike[str],
    frames: int,
    *,
    rule: Literal["even", "original"] = "even",
    start: float | None = None,
    end: float | None = None,
    size: tuple[int, int] | None = None,
    scaler: Literal["pillow", "decoder"] = "pillow",
) -> Clip:
    """`frames` frames spread over a video, or over its part from `start` to `end` in seconds; fewer only if the video
    has fewer. `size` and `scaler` are as for `read_frames`; times are relative to the video's first frame.

    A file that ends before its headers say, as a broken download does, is spread over what is there, with a warning.
    """
    file = Path(path)
    return read_probed_clip(file, probe_beginning(file), frames, rule, start, end, Form(size, scaler))


def read_probed_clip(
    file: Path,
    beginning: tuple[VideoInfo, int | None],
    frames: int,
    rule: Literal["even", "original"],
    start: float | None,
    end: float | None,
    form: Form,
) -> Clip:
    """The same of a file whose `beginning` has been read, by `probe_beginning`."""
    info, first_pts = beginning
    reading = _read(file, first_pts, clip_times(file, info, frames, rule, start, end), form)
    duration = _true_duration(file, info, reading)
    if duration < info.duration:
        info = replace(info, duration=duration)
        reading = _read(file, first_pts, clip_times(file, info, frames, rule, start, end), form)
    if reading.counted is not None and rule == "even" and start is None and end is None:
        reading = _read(file, first_pts, np.array(reading.counted), form)  # those shown too briefly to be met as well
    return Clip(reading.frames, reading.times, info.duration)


def unique_frames(frames: Frames) -> tuple[Frames, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The frames that differ from all before them, uint8 `(unique, height, width, 3)`, in their order, and for each
    of the given frames its place among them, int64 `(frames,)`: `unique[places]` are the given frames.

    Frames are the same only where every byte is. Nothing is copied where all differ.
    """
    places: dict[bytes, int] = {}
    found = np.array(
        [places.setdefault(sha256(frame.tobytes()).digest(), len(places)) for frame in frames],
        dtype=np.int64,
    )
    if len(places) == len(frames):
        return frames, found
    return frames[np.unique(found, return_index=True)[1]], found


def _true_duration(file: Path, info: VideoInfo, reading: "_Reading") -> float:
    """Seconds, where a file that ends well before its headers say lasts as long as what can be read of it."""
    end = None if reading.end is None else max(reading.end, 1 / info.fps)  # one frame can say that it lasts no time
    if end is None or end >= info.duration - max(1.0, 0.05 * info.duration):
        return info.duration
    logger.warning(
        "%s ends after %.1f s although it says %.1f s; what is there is used.", shown(file), end, info.duration
    )
    return end


class _Reading(NamedTuple):
    frames: Frames
    times: Times
    end: float | None
    """Seconds at which the last frame ends, where reading went that far."""
    counted: list[float] | None
    """The times of all frames, where the whole video has fewer than were asked for."""


def _read(file: Path, first_pts: int | None, times: Times, form: Form) -> _Reading:
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError("times must be a list of at least one finite number of seconds")
    order = np.argsort(times, kind="stable")
    targets = [float(time) for time in times[order]]
    counted = None
    found: list[tuple[float, Frames]] = []
    with suppress(Unreliable):
        found, end, met = read_selected(file, targets, form, first_pts)
        # Where times mean the same frame, it matters how many frames there are.
        if met < len(targets) > len({time for time, _ in found}):
            found = []
    if not found:
        found, end, counted = read_in_order(file, targets, form)
    chosen = [found[place] for place in np.argsort(order)]
    if counted is not None:
        chosen = list({time: (time, frame) for time, frame in chosen}.values())
    del found
    moments = np.array([time for time, _ in chosen], dtype=np.float64)
    height, width, _ = chosen[0][1].shape
    frames = np.empty((len(chosen), height, width, 3), dtype=np.uint8)
    for index in reversed(range(len(chosen))):
        _, picture = chosen.pop()  # so that large frames are not all held twice
        frames[index] = picture if picture.shape[:2] == (height, width) else resized(picture, (height, width))
    return _Reading(frames, moments, end, counted)
