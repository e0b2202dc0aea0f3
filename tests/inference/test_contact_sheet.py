"""The frames of a video on one picture."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFont

from minigpt4_video.inference.contact_sheet import FRAME_WIDTH, GAP, clock, draw_sheet, wrapped

LEVELS = [10, 90, 170, 250, 40]


def sheet(subtitles: list[str], columns: int = 0) -> np.ndarray:
    frames = np.stack([np.full((48, 64, 3), level, np.uint8) for level in LEVELS])
    return np.asarray(Image.open(BytesIO(draw_sheet(frames, range(5), subtitles, columns).png)))


def test_the_frames_lie_in_reading_order():
    picture = sheet([""] * 5, columns=2)
    step = FRAME_WIDTH + GAP
    line = (picture.shape[0] - GAP) // 3
    found = [int(picture[GAP + 20 + (i // 2) * line, GAP + 20 + (i % 2) * step, 0]) for i in range(5)]

    assert found == LEVELS
    assert picture.shape[1] == GAP + 2 * step


def test_there_is_room_for_words_only_where_something_is_said():
    assert sheet([""] * 5).shape[0] < sheet(["", "hello", "", "", ""]).shape[0]


def test_the_subtitle_is_drawn_under_its_own_frame():
    silent, said = sheet(["x", "", "", "", ""], columns=5), sheet(["x", "", "hello there", "", ""], columns=5)
    changed = np.argwhere((silent != said).any(axis=-1))

    assert len(changed)
    left = GAP + 2 * (FRAME_WIDTH + GAP)
    assert changed[:, 1].min() >= left and changed[:, 1].max() < left + FRAME_WIDTH
    assert changed[:, 0].min() > GAP + FRAME_WIDTH * 48 // 64


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00.0"), (0.25, "0:00.2"), (59.99, "0:59.9"), (75.25, "1:15.2"), (3725.5, "1:02:05.5")]
)
def test_times_read_like_a_clock(seconds, said):
    assert clock(seconds) == said


def test_long_texts_are_broken_at_spaces_and_end_in_an_ellipsis():
    font = ImageFont.load_default(14)
    lines = wrapped("one two three four five six seven eight nine ten " * 4, font, 120, 3)

    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(font.getlength(line) <= 120 for line in lines)
    assert "one two three four five six seven eight nine ten".startswith(" ".join(lines[:2]))


@pytest.mark.parametrize("text", ["很" * 60, "w" * 60, "a\x00b\nc" * 20])
def test_texts_without_spaces_and_with_control_characters_fit_too(text):
    font = ImageFont.load_default(14)
    lines = wrapped(text, font, 120, 3)

    assert 1 < len(lines) <= 3
    assert all(font.getlength(line) <= 120 and line.isprintable() for line in lines)


def test_no_words_take_no_lines():
    assert wrapped("  ", ImageFont.load_default(14), 100, 3) == []


def test_characters_that_no_font_has_are_named():
    frames = np.zeros((1, 48, 64, 3), np.uint8)
    assert draw_sheet(frames, [0.0], ["plain words, é"]).undrawn == ""
    assert draw_sheet(frames, [0.0], ["a \U00013080 b"]).undrawn == "\U00013080"
