"""One training sample, what is shown and all that is said of it: read already (`Sample`) or on disk (`Record`)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigpt4_video.instructions import Language
from minigpt4_video.messages import Message


@dataclass(frozen=True)
class Sample:
    id: str
    source: str
    frames: npt.NDArray[np.uint8]
    """(frames, height, width, 3), RGB."""
    subtitles: tuple[str, ...]
    """What was said since the frame before, one text a frame, empty where nothing was said."""
    turns: tuple[tuple[str, str], ...]
    """(instruction or question, answer) pairs; each is asked of the video by itself."""
    picture: bool = False
    """A picture is one frame without subtitles, asked in the form of image-text training."""
    truth: dict[str, Any] | None = None
    """What a procedural sample knows of itself beyond pixels and words, for pretraining; None for files."""


class Record(NamedTuple):
    """A sample of a data set on disk, with nothing shown read yet: `data.reading.shown` reads it."""

    id: str
    """Unique in its set, unless the set says the same twice."""
    source: str
    """Name of its format."""
    messages: list[Message]
    """A conversation as in `messages.py`: the user shows and asks, the assistant answers, and an answer is last. Media
    are paths: of a file, or of a member of a tar as `shard.tar:offset:size` in bytes. `start` and `end` are seconds
    from the beginning of that file. `subtitles` is "auto" (beside the video or in it), "off", a path or cues."""
    language: Language
    """Of the answers."""


class Flaw(NamedTuple):
    """A row of a data set that cannot be used, or not wholly: a value, for one bad row must not end the reading."""

    where: str
    """File and row."""
    problem: str
    """What is wrong, the same words for all rows that have it."""
    detail: str = ""
    """What was found in this row."""
