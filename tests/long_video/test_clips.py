"""A stream of frames is cut where its scenes change, and nowhere else."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making import write_video
from minigpt4_video.errors import UserError
from minigpt4_video.long_video.clips import Cutting, pieces
from minigpt4_video.media import streaming
from minigpt4_video.media.selection import Unreliable
from minigpt4_video.media.streaming import stream_frames


def scenes(*lengths: float, rate: float = 4.0):
    """Plain pictures, dark and light by turns, with a small thing that wanders."""
    time = 0.0
    for number, length in enumerate(lengths):
        for _ in range(round(length * rate)):
            picture = np.full((64, 64, 3), 20 if number % 2 else 60, np.uint8)
            at = round(time * rate) % 40
            picture[at : at + 20, at : at + 20] = 230
            yield time, picture
            time += 1 / rate


def cut(*lengths: float, frames: int = 8, **how) -> list:
    return list(pieces(scenes(*lengths), frames, Cutting(**how), sum(lengths)))


def test_clips_are_the_scenes_whatever_moves_in_them():
    found = cut(4, 6, 5)
    assert [(one.start, one.end) for one in found] == [(0, 4), (4, 10), (10, 15)]
    for one in found:
        assert len(set(one.shown.frames[:, 63, 0, 0].tolist())) == 1  # no frame of another scene


def test_frames_are_spread_over_their_clip():
    (one,) = cut(12)
    np.testing.assert_allclose(one.shown.times, 12 * (np.arange(8) + 0.5) / 8, atol=0.25)


def test_a_clip_with_fewer_frames_than_wanted_shows_each_once():
    (one,) = cut(3, frames=45)
    assert one.shown.times.tolist() == [index / 4 for index in range(12)]


def test_a_long_scene_becomes_several_clips_and_a_flash_none_of_its_own():
    assert [one.end for one in cut(25, longest=10)] == [10, 20, 25]
    assert [one.end for one in cut(4, 1, 4)] == [4, 9]


def test_windows_have_one_length_wherever_scenes_change():
    assert [one.end for one in cut(4, 6, 5, by="windows", longest=7)] == [7, 14, 15]


@settings(deadline=None)
@given(st.lists(st.integers(2, 80).map(lambda frames: frames / 4), min_size=1, max_size=8), st.floats(2, 15))
def test_clips_follow_one_another_without_gaps(lengths, longest):
    found = cut(*lengths, longest=longest)
    assert found[0].start == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert all(one.start <= time < one.end for one in found for time in one.shown.times)
    assert all(one.end - one.start <= longest + 0.25 for one in found[:-1])


def test_a_length_that_is_none_is_refused():
    with pytest.raises(UserError, match="3600"):
        Cutting(longest=0)


@pytest.fixture(params=["selected", "in order"])
def reading(request, monkeypatch):
    """Both ways to read a file."""
    if request.param == "in order":

        def unreliable(*_):
            raise Unreliable

        monkeypatch.setattr(streaming, "read_selected", unreliable)
    monkeypatch.setattr(streaming, "PIECE", 16)


def test_a_stream_gives_the_frame_shown_at_each_tick_once(reading, tmp_path):
    file = write_video(tmp_path / "clip.mp4", seconds=10, rate=8)
    times = [time for time, _ in stream_frames(file, 4.0, (16, 16))]
    np.testing.assert_allclose(times, np.arange(40) / 4)
    slow = write_video(tmp_path / "slow.mp4", seconds=10, rate=2)
    frames = list(stream_frames(slow, 4.0, (16, 16)))
    np.testing.assert_allclose([time for time, _ in frames], np.arange(20) / 2)
    greys = [float(picture.mean()) for _, picture in frames]
    assert greys == sorted(greys) and greys[-1] > 240 and frames[0][1].shape == (16, 16, 3)


def test_a_stream_goes_on_from_any_frame_with_the_same_ones(reading, tmp_path):
    file = write_video(tmp_path / "clip.mp4", seconds=9, rate=5)
    whole = list(stream_frames(file, 4.0, (16, 16)))
    for begin in (1, 7, 20, len(whole) - 1):
        rest = list(stream_frames(file, 4.0, (16, 16), start=whole[begin][0]))
        assert [time for time, _ in rest] == [time for time, _ in whole[begin:]]
        assert all((a == b).all() for (_, a), (_, b) in zip(rest, whole[begin:], strict=True))
