"""One training sample: a video or picture with its subtitles and everything that is asked about it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


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
