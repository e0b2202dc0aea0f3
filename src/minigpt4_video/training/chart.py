"""The losses of a run as a picture."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 540)
LEFT, TOP, RIGHT, BOTTOM = 70, 40, 20, 50
TRAINED, HELD_OUT, GREY = (31, 95, 160), (205, 92, 20), (200, 200, 200)

Point = tuple[float, float]


def draw_losses(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the trainer's log: losses over steps, of what is learnt and of what is held out."""
    lines = {
        "loss": (TRAINED, _points(history, "loss")),
        "held-out loss": (HELD_OUT, _points(history, "eval_loss")),
    }
    every = [point for _, points in lines.values() for point in points]
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    steps = max((step for step, _ in every), default=1.0)
    low, high = min((loss for _, loss in every), default=0.0), max((loss for _, loss in every), default=1.0)
    margin = (high - low or 1.0) * 0.05
    low, high = low - margin, high + margin

    def place(step: float, loss: float) -> Point:
        width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM
        return LEFT + width * step / steps, TOP + height * (high - loss) / (high - low)

    for loss in _ticks(low, high):
        _, y = place(0, loss)
        draw.line([(LEFT, y), (SIZE[0] - RIGHT, y)], fill=GREY)
        draw.text((LEFT - 8, y), f"{loss:.4g}", fill="black", font=font, anchor="rm")
    for step in _ticks(0, steps):
        x, _ = place(step, low)
        draw.text((x, SIZE[1] - BOTTOM + 8), f"{step:g}", fill="black", font=font, anchor="mt")
    draw.text((SIZE[0] - RIGHT, SIZE[1] - 8), "steps", fill="black", font=font, anchor="rb")
    at = LEFT
    for name, (colour, points) in lines.items():
        if not points:
            continue
        where = [place(*point) for point in points]
        if len(where) > 1:
            draw.line(where, fill=colour, width=2)
        for x, y in where if len(where) < 40 else where[-1:]:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        draw.text((at, TOP - 26), f"{name} {points[-1][1]:.4g}", fill=colour, font=font)
        at += 220
    made = BytesIO()
    picture.save(made, "PNG")
    return made.getvalue()


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(float(one["step"]), float(one[name])) for one in history if math.isfinite(one.get(name, math.nan))]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range, about five."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next(times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= 6)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]
