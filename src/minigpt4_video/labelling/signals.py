"""Numbers about a clip's sampled frames, for filtering: movement, sharpness, black and frozen shares, a hash."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Grey = np.ndarray[Any, np.dtype[np.float32]]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BLACK = 16 / 255
"""Mean brightness under which a frame counts as black."""
FROZEN = 0.5 / 255
"""Mean difference to the frame before under which a frame counts as the same."""
HASHED = (0.25, 0.5, 0.75)
"""Where in a clip the frames are that its hash is made of."""


class Signals(NamedTuple):
    """All from the frames that the model is shown, at its size; fractions between 0 and 1."""

    motion: float
    """Mean absolute difference of a frame to the one before, of the range of brightness; 0 for a single frame. The
    frames are seconds apart, so this is change, not speed."""
    sharpness: float
    """Median over frames of the standard deviation of the Laplacian, of the range of brightness."""
    black: float
    """Share of black frames."""
    frozen: float
    """Share of frames that are the same as the one before; 0 for a single frame."""
    frame_hash: str
    """48 hexadecimal digits. Clips that look alike differ in few of these 192 bits."""


def signals(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> Signals:
    """Of uint8 (N, H, W, 3) RGB, N at least 1."""
    greys = [(frame @ LUMA) / np.float32(255) for frame in frames]
    steps = np.array([np.abs(b - a).mean() for a, b in pairwise(greys)])
    return Signals(
        motion=round(float(steps.mean()), 5) if len(steps) else 0.0,
        sharpness=round(float(np.median([_sharpness(grey) for grey in greys])), 5),
        black=round(float(np.mean([grey.mean() < BLACK for grey in greys])), 4),
        frozen=round(float((steps < FROZEN).mean()), 4) if len(steps) else 0.0,
        frame_hash="".join(_hash(greys[min(int(at * len(greys)), len(greys) - 1)]) for at in HASHED),
    )


def _sharpness(grey: Grey) -> float:
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * inner - around).std())


def _hash(grey: Grey) -> str:
    """Whether each of 8 x 8 places is brighter than its neighbour on the right: 16 hexadecimal digits."""
    rows = np.array_split(np.arange(grey.shape[0]), 8)
    columns = np.array_split(np.arange(grey.shape[1]), 9)
    small = np.array([[grey[np.ix_(row, column)].mean() for column in columns] for row in rows])
    bits = np.packbits(small[:, 1:] > small[:, :-1] + 1e-4)
    return bits.tobytes().hex()
