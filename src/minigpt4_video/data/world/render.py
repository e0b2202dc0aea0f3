"""Scenes as pixels: smooth-edged shapes on a plain background, any size, at any moments."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minigpt4_video.data.world.scene import RADIUS, Colour, Scene, Shape

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 225, 60),
    "green": (45, 175, 70),
    "blue": (50, 90, 230),
    "purple": (155, 60, 195),
    "white": (240, 240, 240),
}
OddShape = Literal["diamond", "cross", "ring"]
"""Shapes outside the world, for pretraining alone."""
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]


def render(scene: Scene, times: Sequence[float], size: int = 128) -> Pixels:
    """The frames at `times` (0 to 1), uint8 (frames, size, size, 3)."""
    frames = np.empty((len(times), size, size, 3), np.float32)
    frames[:] = scene.background
    for thing in scene.things:
        for frame, time in zip(frames, times, strict=True):
            state = thing.at(time)
            if state.visible:
                draw(frame, thing.shape, RGB[state.colour], state.x, state.y, RADIUS[thing.size])
    return frames.round().astype(np.uint8)


def draw(frame: Floats, shape: Shape | OddShape, rgb: tuple[int, int, int], x: float, y: float, radius: float) -> None:
    """Draws one shape into a frame (size, size, 3), in place; only the square around the shape is touched."""
    size = frame.shape[0]
    rows = slice(max(0, int((y - radius) * size) - 2), int((y + radius) * size) + 3)
    columns = slice(max(0, int((x - radius) * size) - 2), int((x + radius) * size) + 3)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    across, down = (grid[columns][None, :] - x) / radius, (grid[rows][:, None] - y) / radius
    cover = np.clip(_inside(shape, across, down) * radius * size + 0.5, 0, 1)[..., None]
    patch = frame[rows, columns]
    patch += cover * (np.asarray(rgb, np.float32) - patch)


def _inside(shape: Shape | OddShape, x: Floats, y: Floats) -> Floats:
    """How far inside the outline of a shape of radius 1 a point is, negative outside."""
    if shape == "circle":
        return 0.95 - np.hypot(x, y)
    if shape == "square":
        return 0.82 - np.maximum(np.abs(x), np.abs(y))
    if shape == "triangle":
        # Apex (0, -1), base from (-0.95, 0.8) to (0.95, 0.8).
        return np.minimum(0.8 - y, (y + 1 - np.abs(x) * (1.8 / 0.95)) * 0.467)
    if shape == "diamond":
        return (0.95 - np.abs(x) - np.abs(y)) * 0.707
    if shape == "cross":
        wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.minimum(0.9 - wide, 0.3 - narrow)
    if shape == "ring":
        return 0.25 - np.abs(np.hypot(x, y) - 0.7)
    angle = np.abs((np.arctan2(x, -y) / (2 * np.pi) * 5 + 0.5) % 1 - 0.5) * (2 * np.pi / 5)
    # A five-pointed star: in each tenth the outline runs straight from the tip (radius 1) to the notch (radius 0.42).
    tip, notch, turn = 1.0, 0.42, np.pi / 5
    px, py = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    nx, ny = notch * np.cos(turn), notch * np.sin(turn)
    length = np.hypot(tip - nx, ny)
    inside: Floats = ((tip - px) * ny - py * (tip - nx)) / length
    return inside
