"""At which seconds of a video to look."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.media.probing import VideoInfo
from minigpt4_video.media.sources import shown

Times = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


Rule = Literal["even", "original"]


def sample_times(info: VideoInfo, n: int, rule: Rule = "even") -> Times:
    """Seconds, float64 `(n,)`, at which to look at a video.

    "even": the middles of `n` equal spans of the whole video. "original": the original's frames 0, step, 2 * step, ...
    with the step rounded down, so that the video's tail may not be seen; fewer than `n` where the video has fewer.
    """
    if n < 1:
        raise ValueError(f"cannot sample {n} frames")
    if rule == "even":
        return np.asarray(info.duration * (2 * np.arange(n) + 1) / (2 * n), dtype=np.float64)
    total = int(round(info.duration, 2) * info.fps)  # it read the duration from a text with two decimals
    step = max(1, total // n)
    return np.arange(0, max(total, 1), step, dtype=np.float64)[:n] / info.fps


def clip_times(file: Path, info: VideoInfo, n: int, rule: Rule, start: float | None, end: float | None) -> Times:
    if start is None and end is None:
        return sample_times(info, n, rule)
    begin, until = start or 0.0, info.duration if end is None else min(end, info.duration)
    if not 0 <= begin < until:
        raise MediaError(
            f"{shown(file)} lasts {info.duration:.1f} s, so there is nothing from {begin:g} s to"
            f" {'its end' if end is None else f'{end:g} s'}; choose a part within it."
        )
    part = replace(info, duration=until - begin)
    return begin + sample_times(part, n, rule)
