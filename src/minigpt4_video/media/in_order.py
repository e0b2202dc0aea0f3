"""Every frame of a file, decoded one after the other: slow, but right whatever the file."""

import logging
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.media.animations import is_cut_gif, is_webp, webp_frames
from minigpt4_video.media.decoding import Clock, Decoder, MadeUpTimes, thread_type, tolerance_of, video_stream
from minigpt4_video.media.pictures import Form, Frames, Shown
from minigpt4_video.media.sources import open_media, shown

logger = logging.getLogger(__name__)

MOST_REORDERED = 16
"""Frames after which it shows that times are made up."""
TOLD_AFTER = 10.0
"""Seconds of reading after which it is said why it takes long."""


def read_in_order(
    file: Path, targets: list[float], form: Form
) -> tuple[list[tuple[float, Frames]], float | None, list[float] | None]:
    """Decode every frame from the first on: slower than the selected ones, but right for every file.

    Gives a time and a frame for each of the increasing `targets`, the video's end where it was reached, and the times
    of all frames where the whole video has fewer of them than there are targets.
    """
    try:
        return _read(file, targets, form, by_decoding_time=False)
    except MadeUpTimes:
        return _read(file, targets, form, by_decoding_time=True)


def _read(
    file: Path, targets: list[float], form: Form, by_decoding_time: bool
) -> tuple[list[tuple[float, Frames]], float | None, list[float] | None]:
    found: list[tuple[float, Frames]] = []
    passed: list[float] = []
    current: Shown | None = None
    left = 1 if by_decoding_time else MOST_REORDERED

    def take(until: float) -> None:
        if current is not None and len(found) < len(targets) and targets[len(found)] < until:
            picture = current.picture()
            while len(found) < len(targets) and targets[len(found)] < until:
                found.append((current.time, picture))

    for shown_frame in all_frames(file, form, by_decoding_time):
        take(shown_frame.time - shown_frame.tolerance)
        current = shown_frame
        passed.append(current.time)
        if len(found) == len(targets) <= len(passed):
            left -= 1
            if not left:
                return found, None, None
    if current is None:
        raise MediaError(f"{shown(file)} holds no frame that can be decoded; it is damaged: download it again.")
    take(np.inf)
    return found, current.time + current.lasts, passed if len(passed) < len(targets) else None


def all_frames(file: Path, form: Form, by_decoding_time: bool = False) -> Iterator[Shown]:
    """Every frame of a file, in order. Raises `MadeUpTimes`, but not where decoding times are taken."""
    if is_webp(file):
        yield from webp_frames(file, form)
        return
    with open_media(file) as container:
        stream = video_stream(container, file)
        stream.thread_type = thread_type(stream)
        tolerance = tolerance_of(stream)
        decoder, clock = Decoder(container, stream), Clock(container, stream, by_decoding_time)
        first: Fraction | None = None
        began, is_told = time.monotonic(), False
        try:
            for frame in decoder.frames():
                absolute = clock.time(frame)
                first = absolute if first is None else first
                if not is_told and time.monotonic() - began > TOLD_AFTER:
                    is_told = True
                    logger.info(
                        "%s has to be decoded frame by frame, which takes long: %.0f s of it are read.",
                        shown(file),
                        float(absolute - first),
                    )
                lasts = float(clock.lasts(frame))
                yield Shown(float(absolute - first), lasts, tolerance, partial(form.of_frame, frame, file))
        finally:
            if decoder.damaged or is_cut_gif(file):
                logger.warning("%s is damaged; the frames that can be decoded are used.", shown(file))
