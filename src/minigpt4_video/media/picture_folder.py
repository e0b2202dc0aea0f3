"""A folder of pictures that were taken from a video at a fixed rate, as some data sets publish their videos."""

import re
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.media.pictures import resized
from minigpt4_video.media.probing import VideoInfo, probe
from minigpt4_video.media.sampling import Rule, clip_times
from minigpt4_video.media.sources import shown
from minigpt4_video.media.stills import read_still
from minigpt4_video.media.video import Clip

NUMBER = re.compile(r"([^0-9]*)([0-9]*)")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def picture_files(folder: str | PathLike[str]) -> list[Path]:
    """The pictures of a folder by name, 2.png before 10.png. Raises MediaError where there is none."""
    place = Path(folder)
    found = [file for file in place.iterdir() if file.suffix.lower() in SUFFIXES] if place.is_dir() else []
    if not found:
        raise MediaError(f"{shown(place)} is no folder with pictures; name one that holds the frames of a video.")
    return sorted(found, key=lambda file: (_by_number(file.name), file.name))


def _by_number(name: str) -> list[tuple[str, int]]:
    """Numbers in a name, each with what stands before it."""
    return [(before, int(number or -1)) for before, number in NUMBER.findall(name)]


def probe_picture_folder(folder: str | PathLike[str], rate: float) -> VideoInfo:
    """What is known of a video from its pictures, `rate` a second. Raises MediaError."""
    files = picture_files(folder)
    duration = len(files) / rate
    return replace(probe(files[0]), duration=duration, fps=rate, frames=len(files), container="pictures")


def read_picture_folder(
    folder: str | PathLike[str],
    frames: int,
    *,
    rate: float,
    rule: Rule = "even",
    start: float | None = None,
    end: float | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """As `read_clip`: `frames` of the pictures, spread over all of them or over the part from `start` to `end` in
    seconds; fewer where there are fewer. Raises MediaError."""
    files = picture_files(folder)
    info = probe_picture_folder(folder, rate)
    times = clip_times(Path(folder), info, frames, rule, start, end)
    # A time on the border of two pictures must not fall to the one before by rounding.
    numbers = np.unique(np.clip(np.floor(times * rate + 1e-6).astype(int), 0, len(files) - 1))
    size = size or (info.height, info.width)
    pictures = np.stack([resized(np.asarray(read_still(files[number])), size) for number in numbers])
    return Clip(pictures, numbers / rate, info.duration)
