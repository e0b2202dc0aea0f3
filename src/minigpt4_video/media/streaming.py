"""A whole video at a steady rate, in pieces: each piece is in memory once, and the video is decoded once."""

from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.media.decoding import MadeUpTimes
from minigpt4_video.media.in_order import all_frames
from minigpt4_video.media.pictures import Form, Frames, Shown
from minigpt4_video.media.probing import probe_beginning
from minigpt4_video.media.selection import Unreliable, read_selected
from minigpt4_video.media.sources import shown

PIECE = 128
"""Frames that are held at once."""
EARLIER = 1e-6
"""Seconds by which two times that mean the same frame may differ."""
SETTLED_AFTER = 256
"""Frames after which it shows whether presentation times are made up."""


def stream_frames(
    path: str | PathLike[str], rate: float, size: tuple[int, int], start: float = 0.0
) -> Iterator[tuple[float, Frames]]:
    """Times in seconds and frames, uint8 `(height, width, 3)` of the (height, width) `size`: at every multiple of
    1 / `rate` the frame shown then, each frame once, from the one shown at `start` on.

    Begun again at the time of any of its frames it goes on with the same ones. They are scaled by the decoder, which
    never makes a large picture of them. A file that ends before its headers say ends there. Raises `MediaError` where
    nothing can be decoded.
    """
    file = Path(path)
    info, first_pts = probe_beginning(file)
    form = Form(size, "decoder")
    last = start - EARLIER
    ticks = np.arange(int(start * rate), max(1, int(np.ceil(info.duration * rate)))) / rate
    for begin in range(0, len(ticks), PIECE):
        piece = ticks[begin : begin + PIECE].tolist()
        try:
            found, end, _ = read_selected(file, piece, form, first_pts)
        except Unreliable:
            yield from _in_order(file, form, ticks[begin:].tolist(), last)
            return
        for time, picture in found:
            if time > last:
                last = time
                yield time, picture
        if end is not None and end < piece[-1]:
            return


def _in_order(file: Path, form: Form, ticks: list[float], last: float) -> Iterator[tuple[float, Frames]]:
    """The same for the frames after `last` by decoding every one, where nothing less is exact."""
    due = iter([*ticks, np.inf])
    tick = next(due)
    current: Shown | None = None
    for frame in all_frames(file, form, _has_made_up_times(file, form)):
        is_passed = False
        while tick < frame.time - frame.tolerance:
            is_passed, tick = True, next(due)
        if is_passed and current is not None and current.time > last:
            last = current.time
            yield last, current.picture()
        current = frame
    if current is None:
        raise MediaError(f"{shown(file)} holds no frame that can be decoded; it is damaged: download it again.")
    if current.time > last and tick < np.inf:
        yield current.time, current.picture()


def _has_made_up_times(file: Path, form: Form) -> bool:
    try:
        for _ in islice(all_frames(file, form), SETTLED_AFTER):
            pass
    except MadeUpTimes:
        return True
    return False
