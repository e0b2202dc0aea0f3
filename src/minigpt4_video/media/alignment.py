"""Which subtitle text goes with which frame."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np


class Cue(NamedTuple):
    """One subtitle: what is said or written from `start` to `end`, in seconds from the video's beginning."""

    start: float
    end: float
    text: str


def align(
    cues: Iterable[Cue],
    times: Sequence[float] | np.ndarray,
    rule: Literal["interval", "original"] = "interval",
    words: int | None = None,
    *,
    fps: float | None = None,
) -> list[str]:
    """One text for each frame ("" for none); `times` are the frames' seconds, increasing.

    "interval": every cue once, with the frame that closes its interval: the first at or after the cue's start; what
    begins after the last frame goes to the last frame.

    "original": what the original's inference did. It looked at every decoded frame, `fps` a second, for a cue shown
    then; a text was taken the first time it was met and given to the next sampled frame. What it missed is missed: a
    text said again, cues after the last frame, cues that begin while another is found. Texts stop once `words` have
    been spent, counted by splitting at spaces, which counts one more for each frame, and checked before a frame's text
    is added. Without `fps` no cue is missed between frames.
    """
    if rule == "original":
        return _align_original(sorted(cues, key=lambda cue: cue.start), times, words, fps)
    if words is not None or fps is not None:
        raise ValueError("words and fps belong to the original's rule; the planner fits texts to the window")
    texts: list[list[str]] = [[] for _ in times]
    if texts:
        for cue in sorted(cues, key=lambda cue: cue.start):
            texts[min(bisect_left(times, cue.start), len(texts) - 1)].append(cue.text)
    return [" ".join(said) for said in texts]


def _align_original(
    cues: list[Cue], times: Sequence[float] | np.ndarray, words: int | None, fps: float | None
) -> list[str]:
    said: set[str] = set()
    spent = 0
    frame = 0
    following = 0
    waiting = ""
    texts = []
    for time in times:
        met: list[Cue] = []
        if fps is None:
            while following < len(cues) and cues[following].start <= time:
                met.append(cues[following])
                following += 1
        else:
            while frame <= round(time * fps):
                found = _shown_at(cues, frame / fps)
                met += [found] if found else []
                frame += 1
        for cue in met:
            if cue.text not in said:
                said.add(cue.text)
                waiting += cue.text + " "
        if waiting and (words is None or spent < words):
            texts.append(waiting.removesuffix(" "))
            spent += len(waiting.split(" "))
            waiting = ""
        else:
            texts.append("")
    return texts


def _shown_at(cues: list[Cue], time: float) -> Cue | None:
    """A cue that is shown at `time`, found by halving as the original did: of several that overlap it may miss all."""
    low, high = 0, len(cues) - 1
    while low <= high:
        middle = (low + high) // 2
        if cues[middle].start <= time <= cues[middle].end:
            return cues[middle]
        if time < cues[middle].start:
            high = middle - 1
        else:
            low = middle + 1
    return None
