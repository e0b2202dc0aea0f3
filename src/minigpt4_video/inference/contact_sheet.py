"""The sampled frames on one picture: each with its time and what was said until then."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAME_WIDTH = 224
GAP = 12
TEXT_LINES = 3
FONT_SIZE = 14
BACKGROUND, TIME_COLOUR, TEXT_COLOUR = (250, 250, 248), (110, 110, 110), (30, 30, 30)

FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)
"""Tried in turn wherever the system keeps its fonts; those that hold Chinese come first."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Sheet:
    png: bytes
    undrawn: str
    """The characters that no font on this machine could draw, each once."""


def clock(seconds: float) -> str:
    """`75.25` as `1:15.2`, with hours only where there are any."""
    tenths = math.floor(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def draw_sheet(frames: np.ndarray, times: Sequence[float], subtitles: Sequence[str], columns: int = 0) -> Sheet:
    """PNG of `frames` (N, H, W, 3) uint8 in reading order; 0 columns means as many as fill the sheet best."""
    columns = columns or min(range(1, 7), key=lambda count: _waste(len(frames), count))
    font = _font()
    texts = [wrapped(text, font, FRAME_WIDTH, TEXT_LINES) for text in subtitles]
    line = _line_height(font)
    height = max(1, round(FRAME_WIDTH * frames.shape[1] / frames.shape[2]))
    cell = height + line * (1 + max(map(len, texts), default=0)) + GAP
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (GAP + columns * (FRAME_WIDTH + GAP), GAP + rows * (cell + GAP)), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for index, (frame, time, said) in enumerate(zip(frames, times, texts, strict=True)):
        x = GAP + (index % columns) * (FRAME_WIDTH + GAP)
        y = GAP + (index // columns) * (cell + GAP)
        sheet.paste(Image.fromarray(frame).resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS), (x, y))
        pen.text((x, y + height + 2), clock(time), font=font, fill=TIME_COLOUR)
        for number, words in enumerate(said):
            pen.text((x, y + height + 2 + line * (number + 1)), words, font=font, fill=TEXT_COLOUR)
    file = BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return Sheet(file.getvalue(), _undrawn("".join(subtitles), font))


def wrapped(text: str, font: Font, width: float, lines: int) -> list[str]:
    """`text` broken at spaces, and inside words (Chinese has no spaces) where it must be; the last line ends in `…`."""
    # Control characters of a subtitle file would be drawn as boxes or break the lines.
    left = " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())
    found: list[str] = []
    while left and len(found) < lines:
        end = len(left)
        while end > 1 and font.getlength(left[:end]) > width:
            end -= max(1, (end - 1) // 8) if font.getlength(left[:end]) > 2 * width else 1
        if end < len(left):
            space = left.rfind(" ", 1, end + 1)
            end = space if space > 0 else end
        found.append(left[:end].rstrip())
        left = left[end:].lstrip()
    if left:
        last = found[-1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        found[-1] = last + "…"
    return found


def _waste(frames: int, columns: int) -> float:
    """How far a sheet is from having no empty places and being half as wide again as high, in places."""
    rows = math.ceil(frames / columns)
    return rows * columns - frames + abs(columns - 1.5 * rows)


def _font() -> Font:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(FONT_SIZE)


def _line_height(font: Font) -> int:
    box = font.getbbox("Ág|")
    return math.ceil(box[3]) + 4


def _undrawn(text: str, font: Font) -> str:
    """A character is undrawn when it looks as one that no font has."""
    nothing = bytes(font.getmask("\U0010fffe"))
    characters = sorted({c for c in text if not c.isspace() and unicodedata.category(c)[0] != "C"})
    return "".join(c for c in characters if bytes(font.getmask(c)) == nothing)
