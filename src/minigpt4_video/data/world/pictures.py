"""Single pictures with dense truth, more varied than the world: what a vision tower is pretrained on.

Things of the world stand among things of other colours and other shapes, so that colour and shape are learnt apart: a
tower that has never met a red star must still see one. Held-out pairs do not occur, nor any colour near one of the
world's that is not one of them.
"""

import random
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from minigpt4_video.data.world.render import RGB, OddShape, Pixels, draw
from minigpt4_video.data.world.samples import GRID, PLACES
from minigpt4_video.data.world.scene import COLOURS, HELD_OUT, RADIUS, SHAPES, SIZES, Colour, Shape

UNKNOWN = -1
"""The truth of a colour or shape that the world has no word for."""
FAR = 75.0
"""How far an odd colour keeps from each of the world's, in RGB."""


@dataclass(frozen=True)
class DensePicture:
    pixels: Pixels
    """(size, size, 3)."""
    middle: npt.NDArray[np.int64]
    """(patches, 5): colour, shape, size, row and column, counted from 1, of the thing whose middle a patch holds; 0 for
    none."""


def dense_picture(seed: int, size: int) -> DensePicture:
    """Picture number `seed` with one to four things."""
    rng = random.Random(f"dense/{seed}")
    noise = np.random.default_rng(seed)
    frame = np.empty((size, size, 3), np.float32)
    frame[:] = rng.randint(4, 66) + np.array([rng.randint(-8, 8) for _ in range(3)])
    middle = np.zeros((GRID * GRID, 5), np.int64)
    placed: list[tuple[float, float, float]] = []
    for _ in range(rng.choice((1, 2, 3, 4))):
        measure = rng.choice(SIZES)
        radius = RADIUS[measure]
        x, y = rng.uniform(radius, 1 - radius), rng.uniform(radius, 1 - radius)
        patch = int(y * GRID) * GRID + int(x * GRID)
        if middle[patch].any() or any((x - a) ** 2 + (y - b) ** 2 < (radius + c + 0.02) ** 2 for a, b, c in placed):
            continue
        placed.append((x, y, radius))
        rgb, shape, colour_number, shape_number = _look(rng)
        draw(frame, shape, rgb, x, y, radius)
        place = (1 + int(y * PLACES), 1 + int(x * PLACES))
        middle[patch] = (colour_number, shape_number, 1 + SIZES.index(measure), *place)
    worn = frame * (1 + rng.uniform(-0.05, 0.05)) + noise.normal(0, 1, frame.shape) * rng.choice((0.0, 1.5, 3.0))
    return DensePicture(np.clip(worn, 0, 255).astype(np.uint8), middle)


def _look(rng: random.Random) -> tuple[tuple[int, int, int], Shape | OddShape, int, int]:
    colour: Colour | None = rng.choice(COLOURS) if rng.random() < 0.6 else None
    shape: Shape | None = rng.choice(SHAPES) if rng.random() < 0.75 else None
    if colour is not None and shape is not None and (colour, shape) in HELD_OUT:
        if rng.random() < 0.5:
            colour = None
        else:
            shape = None
    rgb = RGB[colour] if colour is not None else _odd_colour(rng)
    drawn = shape if shape is not None else rng.choice(get_args(OddShape))
    return (
        rgb,
        drawn,
        UNKNOWN if colour is None else 1 + COLOURS.index(colour),
        UNKNOWN if shape is None else 1 + SHAPES.index(shape),
    )


def _odd_colour(rng: random.Random) -> tuple[int, int, int]:
    while True:
        rgb = (rng.randint(30, 250), rng.randint(30, 250), rng.randint(30, 250))
        near = min(sum((a - b) ** 2 for a, b in zip(rgb, known, strict=True)) for known in RGB.values())
        if near > FAR**2 and max(rgb) > 110:
            return rgb
