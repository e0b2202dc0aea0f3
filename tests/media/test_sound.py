"""The sound of a file: when each sample is heard, whatever the container says, and never more than memory holds."""

import logging
import random
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from minigpt4_video.media import MediaError, probe
from minigpt4_video.media import sound as sound_module
from minigpt4_video.media.sound import Sound, read_sound
from numbered import without_its_beginning, write_video
from speaking import RATE, tone, write_talking


def loud_from(pieces: list[Sound]) -> list[float]:
    """The seconds at which something begins to be heard after at least a fifth of a second of quiet."""
    heard = np.concatenate(
        [start + np.flatnonzero(np.abs(samples) > 0.1) / RATE for start, samples in pieces] or [np.zeros(0)]
    )
    return [float(time) for time in heard[np.flatnonzero(np.diff(heard, prepend=-1.0) > 0.2)]]


@pytest.mark.parametrize(("name", "codec"), [("clip.mp4", "aac"), ("clip.mkv", "pcm_s16le"), ("clip.mkv", "aac")])
def test_what_sounds_later_is_heard_later_even_where_nothing_fills_the_gap(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = write_talking(tmp_path / name, [(1.0, tone(1)), (5.0, tone(1))], seconds=8, codec=codec)
    pieces = list(read_sound(path))
    assert loud_from(pieces) == pytest.approx([1.0, 5.0], abs=0.07)
    assert sum(len(samples) for _, samples in pieces) / RATE < 2.3  # the gap was not filled


def test_times_count_from_the_first_picture(tmp_path: Path) -> None:
    path = write_talking(tmp_path / "clip.mkv", [(1.0, tone(1))], seconds=3, codec="pcm_s16le", begin=0.5)
    (piece,) = read_sound(path)
    assert piece.start == pytest.approx(0.5) and len(piece.samples) == RATE
    before = write_talking(tmp_path / "late.mkv", [(0.0, tone(1))], seconds=3, codec="pcm_s16le", begin=0.5)
    assert next(read_sound(before)).start == pytest.approx(-0.5)


def test_times_of_a_recording_that_begins_inside_a_group_of_pictures_count_from_the_first_that_is_shown(
    tmp_path: Path,
) -> None:
    whole = write_talking(tmp_path / "whole.ts", [(4.0, tone(1)), (6.0, tone(1))], seconds=8, rate=25, g="75")
    path = without_its_beginning(whole, tmp_path / "cut.ts")
    assert probe(path).duration == pytest.approx(5.0, abs=0.1)
    assert loud_from(list(read_sound(whole))) == pytest.approx([4.0, 6.0], abs=0.1)
    assert loud_from(list(read_sound(path))) == pytest.approx([1.0, 3.0], abs=0.1)


def test_recordings_put_one_behind_the_other_are_heard_one_behind_the_other(tmp_path: Path) -> None:
    quiet = np.zeros(RATE, np.float32)
    part = write_talking(tmp_path / "part.ts", [(0.0, np.concatenate([quiet, tone(1), quiet, quiet]))], seconds=4)
    path = tmp_path / "three.ts"
    path.write_bytes(part.read_bytes() * 3)
    assert probe(path).duration == pytest.approx(12.0)
    assert loud_from(list(read_sound(path))) == pytest.approx([1.0, 5.0, 9.0], abs=0.3)


def test_sound_that_begins_long_after_the_first_picture_is_heard(tmp_path: Path) -> None:
    path = write_talking(tmp_path / "clip.ts", [(8.0, tone(1))], seconds=20, rate=25, codec="mp2")
    assert loud_from(list(read_sound(path))) == pytest.approx([8.0], abs=0.1)


def test_a_file_without_sound_gives_none(tmp_path: Path) -> None:
    assert list(read_sound(write_video(tmp_path / "clip.mp4", range(5)))) == []


def test_sound_alone_counts_from_its_own_beginning(tmp_path: Path) -> None:
    path = written_wave(tmp_path / "sound.wav", bytes(2 * RATE), form=1, width=2)
    (piece,) = read_sound(path)
    assert piece.start == 0.0 and len(piece.samples) == RATE and piece.samples.dtype == np.float32


def test_the_track_in_the_language_that_is_asked_for_is_heard(tmp_path: Path) -> None:
    path = write_talking(
        tmp_path / "clip.mkv", [(0.0, tone(1))], seconds=2, codec="pcm_s16le", languages=("eng", "ger")
    )
    lengths = [sum(len(samples) for _, samples in read_sound(path, language)) for language in (None, "en", "de", "fr")]
    assert lengths == [RATE, RATE, RATE // 2, RATE]


def test_long_sound_comes_in_pieces_cut_where_it_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_module, "LONGEST_PIECE", 4)
    monkeypatch.setattr(sound_module, "CUT_WITHIN", 2)
    quiet = np.zeros(RATE // 2, np.float32)
    samples = np.concatenate([tone(3.2), quiet, tone(5.5), quiet, tone(1)])
    path = write_talking(tmp_path / "clip.mkv", [(0.0, samples)], seconds=2, codec="pcm_s16le")
    pieces = list(read_sound(path))
    assert max(len(piece.samples) for piece in pieces) <= 4 * RATE
    assert 3.2 < pieces[1].start < 3.7
    assert np.concatenate([piece.samples for piece in pieces]) == pytest.approx(samples, abs=1e-4)
    ends = [piece.start + len(piece.samples) / RATE for piece in pieces]
    assert [piece.start for piece in pieces[1:]] == pytest.approx(ends[:-1])


def test_sound_without_an_end_is_heard_for_so_many_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sound_module, "LONGEST_SOUND", 1)
    path = write_talking(tmp_path / "clip.mkv", [(0.0, tone(3))], seconds=2, codec="pcm_s16le")
    with caplog.at_level(logging.WARNING):
        heard = sum(len(samples) for _, samples in read_sound(path))
    assert heard <= RATE and "the rest is not heard" in caplog.text


def written_wave(path: Path, samples: bytes, *, form: int, width: int, rate: int = RATE) -> Path:
    """A RIFF file whose header says what it is told to: 1 is whole numbers, 3 floating point."""
    header = b"fmt " + (16).to_bytes(4, "little") + form.to_bytes(2, "little") + (1).to_bytes(2, "little")
    header += rate.to_bytes(4, "little") + (rate * width).to_bytes(4, "little") + width.to_bytes(2, "little")
    header += (8 * width).to_bytes(2, "little") + b"data" + len(samples).to_bytes(4, "little") + samples
    path.write_bytes(b"RIFF" + (len(header) + 4).to_bytes(4, "little") + b"WAVE" + header)
    return path


def test_samples_that_are_no_numbers_become_numbers(tmp_path: Path) -> None:
    wild = np.full(RATE, 0.25, np.float32)
    wild[:100], wild[100:200], wild[200:300] = np.nan, np.inf, 1e30
    path = written_wave(tmp_path / "wild.wav", wild.tobytes(), form=3, width=4)
    (piece,) = read_sound(path)
    assert np.isfinite(piece.samples).all() and np.abs(piece.samples).max() <= 1.0
    assert piece.samples[1000:] == pytest.approx(0.25, abs=1e-4)


def test_a_rate_at_which_few_bytes_would_be_hours_is_taken_for_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written_wave(tmp_path / "slow.wav", bytes(200_000), form=1, width=2, rate=1)
    with caplog.at_level(logging.WARNING):
        assert list(read_sound(path)) == []
    assert "is damaged" in caplog.text


def test_a_frame_that_would_fill_the_memory_is_taken_for_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=2000)
        track.layout = "mono"
        for samples in (2000, 2000 * 61, 2000):
            frame = av.AudioFrame.from_ndarray(np.full((1, samples), 9000, np.int16), format="s16", layout="mono")
            frame.sample_rate = 2000
            container.mux(track.encode(frame))
    with caplog.at_level(logging.WARNING):
        assert sum(len(samples) for _, samples in read_sound(path)) == pytest.approx(2 * RATE, rel=0.01)
    assert "is damaged" in caplog.text


def test_damage_costs_only_the_damaged_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_talking(tmp_path / "clip.mkv", [(0.0, tone(8))], seconds=2)
    whole = sum(len(samples) for _, samples in read_sound(path))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = random.Random(0).randbytes(200)
    path.write_bytes(data)
    heard = sum(len(samples) for _, samples in read_sound(path))
    assert whole * 0.5 < heard <= whole


def test_no_damage_does_worse_than_a_media_error(tmp_path: Path) -> None:
    path = write_talking(tmp_path / "clip.mkv", [(0.0, tone(1))], seconds=1)
    data, draw = path.read_bytes(), random.Random(1)
    for _ in range(60):
        damaged = bytearray(data[: draw.choice([len(data), draw.randrange(1, len(data))])])
        for _ in range(draw.randrange(1, 40)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            pieces = list(read_sound(path))
        except MediaError:
            continue
        assert all(np.isfinite(samples).all() and len(samples) <= 310 * RATE for _, samples in pieces)


def test_what_is_no_media_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no sound")
    with pytest.raises(MediaError, match=r"notes\.wav is not a video or sound file"):
        list(read_sound(tmp_path / "notes.wav"))


def test_other_rates_and_channels_become_one_channel_at_one_rate(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(np.tile((0.5 * 32767 * np.ones(44_100)).astype("<i2")[:, None], 2).tobytes())
    (piece,) = read_sound(path)
    assert len(piece.samples) == pytest.approx(RATE, abs=50)
    assert np.median(piece.samples) == pytest.approx(0.5, abs=0.01)
