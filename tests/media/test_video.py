import gc
import json
import logging
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minigpt4_video.media import MediaError, probe, read_clip, read_frames, sample_times, unique_frames
from minigpt4_video.media import pictures as pictures_module
from minigpt4_video.media.decoding import Decoder
from minigpt4_video.media.in_order import read_in_order
from minigpt4_video.media.pictures import Form, orientation_of
from minigpt4_video.media.probing import probe_beginning
from minigpt4_video.media.selection import Selection, read_selected
from minigpt4_video.media.sources import open_media
from numbered import numbers_of, write_animation, write_sound, write_video


@pytest.fixture(scope="module")
def long_gop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of 25 frames a second, B-frames, a key frame every 2 s."""
    path = tmp_path_factory.mktemp("videos") / "long.mp4"
    return write_video(path, range(250), g="50", bf="3", sc_threshold="0")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames at 0, 40, 80, 1000, 1040, 2500, 2510 and 4000 ms."""
    path = tmp_path_factory.mktemp("videos") / "uneven.mkv"
    return write_video(path, [0, 40, 80, 1000, 1040, 2500, 2510, 4000], Fraction(1, 1000))


def test_probe_tells_what_is_in_the_file(long_gop: Path) -> None:
    info = probe(long_gop)
    assert (info.duration, info.width, info.height, info.fps, info.frames) == (10.0, 64, 48, 25.0, 250)
    assert (info.codec, info.rotation, info.mirrored, info.has_audio, info.subtitle_tracks) == (
        "h264",
        0,
        False,
        False,
        (),
    )


def test_even_times_are_the_middles_of_equal_spans_of_the_whole_video(long_gop: Path) -> None:
    assert sample_times(probe(long_gop), 4).tolist() == [1.25, 3.75, 6.25, 8.75]


def test_a_clip_is_spread_over_the_whole_video(long_gop: Path) -> None:
    clip = read_clip(long_gop, 10)
    assert numbers_of(clip.frames) == [12, 37, 62, 87, 112, 137, 162, 187, 212, 237]
    assert clip.times == pytest.approx(np.array(numbers_of(clip.frames)) / 25)
    assert (clip.frames.dtype, clip.frames.shape, clip.duration) == (np.uint8, (10, 48, 64, 3), 10.0)


def test_a_part_of_a_video_keeps_the_times_of_the_whole(long_gop: Path) -> None:
    clip = read_clip(long_gop, 2, start=4.0, end=6.0)
    assert numbers_of(clip.frames) == [112, 137]
    assert clip.times == pytest.approx([4.48, 5.48])


def test_the_frame_shown_then_comes_whatever_the_rate(uneven: Path) -> None:
    clip = read_frames(uneven, [0.0, 0.039, 0.04, 0.999, 1.02, 2.505, 2.6, 3.999])
    assert numbers_of(clip.frames) == [0, 0, 1, 2, 3, 5, 6, 6]
    again = read_frames(uneven, [2.6, 0.999])
    assert numbers_of(again.frames) == [6, 2]
    assert again.times == pytest.approx([2.51, 0.08])


def test_times_before_and_after_the_video_get_its_first_and_last_frame(long_gop: Path) -> None:
    assert numbers_of(read_frames(long_gop, [-3.0, 99.0]).frames) == [0, 249]


def test_a_video_with_fewer_frames_than_asked_for_gives_each_once(uneven: Path) -> None:
    clip = read_clip(uneven, 20)
    assert numbers_of(clip.frames) == list(range(8))
    assert clip.times == pytest.approx([0, 0.04, 0.08, 1.0, 1.04, 2.5, 2.51, 4.0])


def test_the_same_frame_comes_again_where_the_video_has_enough(long_gop: Path) -> None:
    assert numbers_of(read_frames(long_gop, [1.0, 1.01, 1.02]).frames) == [25, 25, 25]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 12), min_size=1, max_size=6))
def test_seeking_and_passing_over_frames_gives_what_decoding_all_gives(long_gop: Path, times: list[float]) -> None:
    times = sorted(times)
    quick, *_ = read_selected(long_gop, times, Form(), probe_beginning(long_gop)[1])
    slow, _, _ = read_in_order(long_gop, times, Form())
    assert [time for time, _ in quick] == [time for time, _ in slow]
    assert all((one == other).all() for (_, one), (_, other) in zip(quick, slow, strict=True))


def test_far_apart_frames_are_reached_by_seeking(long_gop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[int] = []
    seek = Selection._seek
    monkeypatch.setattr(Selection, "_seek", lambda self, limit: (sought.append(limit), seek(self, limit))[1])
    assert numbers_of(read_frames(long_gop, [1.0, 9.0]).frames) == [25, 225]
    assert len(sought) == 1


def test_rotated_frames_are_turned_upright(tmp_path: Path) -> None:
    plain = read_clip(write_video(tmp_path / "plain.mp4", [0, 1], start_number="1"), 2).frames
    path = write_video(tmp_path / "turned.mp4", [0, 1], rotation=90)
    info, turned = probe(path), read_clip(path, 2).frames
    assert (info.width, info.height, info.rotation) == (48, 64, 270)
    assert (turned == np.rot90(plain, 1, axes=(1, 2))).all()


def test_mirrored_and_turned_frames_follow_the_display_matrix(tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", range(3), rotation=90)
    plain = np.rot90(read_clip(path, 3).frames, -1, axes=(1, 2))
    quarter = struct.pack(">9i", 0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    beginning = data.index(quarter[:20])
    transposed = struct.pack(">9i", 0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:beginning] + transposed[:20] + data[beginning + 20 :])
    assert (read_clip(path, 3).frames == plain.swapaxes(1, 2)).all()
    assert probe(path).mirrored


def moved(pictures: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Each pixel (x, y) at (ax + cy, bx + dy)."""
    a, b, c, d = matrix
    y, x = np.mgrid[: pictures.shape[1], : pictures.shape[2]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    found = np.zeros((len(pictures), down.max() + 1, across.max() + 1, 3), dtype=np.uint8)
    found[:, down, across] = pictures
    return found


@pytest.mark.parametrize(
    "matrix",
    [
        *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)),
        *((0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)),
    ],
)
def test_every_way_of_turning_and_mirroring_is_undone(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = write_video(tmp_path / "clip.mp4", range(100, 103))
    plain, usual = read_clip(path, 3).frames, struct.pack(">5i", 65536, 0, 0, 0, 65536)
    content = bytearray(path.read_bytes())
    place = content.index(usual, content.index(b"tkhd"))
    a, b, c, d = (65536 * part for part in matrix)
    content[place : place + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(content)
    found, info = read_clip(path, 3).frames, probe(path)
    assert (found == moved(plain, matrix)).all() and (info.height, info.width) == found.shape[1:3]
    mirrored = plain[:, :, ::-1] if info.mirrored else plain
    assert (found == np.rot90(mirrored, -info.rotation // 90, axes=(1, 2))).all()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turning_is_known_where_a_frames_extras_cannot_be_listed(tmp_path: Path, degrees: int) -> None:
    path = write_video(tmp_path / "clip.mp4", range(3), rotation=degrees)
    with open_media(path) as container:
        frame = next(container.decode(video=0))

    class Refusing:
        def reformat(self, *_: object, **__: object) -> None:
            raise ValueError("of a kind that is not known")

    assert orientation_of(frame, Refusing()) == orientation_of(frame, VideoReformatter())


def test_size_is_the_bicubic_resize_of_the_whole_frame(long_gop: Path) -> None:
    whole = read_clip(long_gop, 3).frames
    small = read_clip(long_gop, 3, size=(28, 20)).frames
    expected = [np.asarray(Image.fromarray(frame).resize((20, 28), Image.Resampling.BICUBIC)) for frame in whole]
    assert (small == np.stack(expected)).all()


def test_a_picture_of_very_many_pixels_is_made_small_by_the_decoder(
    long_gop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled = read_clip(long_gop, 3, size=(28, 20), scaler="decoder").frames
    assert (scaled != read_clip(long_gop, 3, size=(28, 20)).frames).any()
    monkeypatch.setattr(pictures_module, "LARGEST_TWICE", 64 * 48 - 1)
    assert (read_clip(long_gop, 3, size=(28, 20)).frames == scaled).all()
    assert read_clip(long_gop, 3).frames.shape == (3, 48, 64, 3)


def test_the_decoder_scales_each_frame_as_it_would_the_first(long_gop: Path) -> None:
    """What it has set up for a frame serves the next, of whatever size that is."""
    with open_media(long_gop) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(3), strict=False)]
    frames.insert(1, frames[0].reformat(40, 30))
    form = Form((28, 20), "decoder")
    made = [form.of_frame(frame, long_gop) for frame in frames]

    expected = [frame.reformat(20, 28, "rgb24", interpolation="BICUBIC").to_ndarray() for frame in frames]
    assert (np.stack(made) == np.stack(expected)).all()


@pytest.mark.parametrize("rotation", [None, 90])
def test_the_decoders_scaling_shows_the_same_upright_picture(tmp_path: Path, rotation: int | None) -> None:
    path = write_video(tmp_path / "clip.mp4", range(30), rotation=rotation)
    exact, quick = (read_clip(path, 5, size=(36, 28), scaler=scaler) for scaler in ("pillow", "decoder"))
    assert (exact.times == quick.times).all() and exact.frames.shape == quick.frames.shape
    assert np.abs(exact.frames.astype(int) - quick.frames).mean() < 6


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.webp", "still.bmp", "image%03d.png"])
def test_a_picture_is_a_video_of_one_frame(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (20, 10), (200, 30, 30)).save(tmp_path / name)
    clip = read_clip(tmp_path / name, 8)
    assert clip.frames.shape == (1, 10, 20, 3)
    assert np.abs(clip.frames[0, 5, 5].astype(int) - (200, 30, 30)).max() < 8
    assert clip.times.tolist() == [0.0]


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp"])
def test_animated_pictures_are_videos(tmp_path: Path, name: str) -> None:
    path = write_animation(tmp_path / name, [100, 300, 50, 1000])
    assert probe(path).duration == pytest.approx(1.45)
    assert numbers_of(read_frames(path, [0.05, 0.2, 1.2]).frames) == [0, 1, 3]
    assert read_clip(path, 8).times == pytest.approx([0.0, 0.1, 0.4, 0.45])


@given(st.lists(st.integers(0, 3), max_size=12))
def test_equal_frames_are_one_and_every_other_byte_tells_frames_apart(numbers: list[int]) -> None:
    frames = np.zeros((len(numbers), 3, 5, 3), dtype=np.uint8)
    frames[:, 2, 4, 2] = numbers
    unique, places = unique_frames(frames)
    assert [frame[2, 4, 2] for frame in unique] == list(dict.fromkeys(numbers))
    assert (unique[places] == frames).all()


def test_a_still_scene_is_one_frame(tmp_path: Path) -> None:
    still = write_animation(tmp_path / "still.webp", [100, 100])
    frames = read_frames(still, [0.0, 0.05, 0.15, 0.16]).frames
    assert unique_frames(frames[[0, 1, 0, 1]])[1].tolist() == [0, 1, 0, 1]
    assert unique_frames(frames)[0] is frames


def test_the_original_rule_takes_frames_at_a_step_rounded_down(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", range(89))
    assert numbers_of(read_clip(path, 45, rule="original").frames) == list(range(45))
    assert numbers_of(read_clip(path, 4, rule="original").frames) == [0, 22, 44, 66]


@pytest.mark.parametrize("name", ["llama2_A", "mistral_A"])
def test_the_original_rule_gives_the_frames_the_original_saw(shared: Path, name: str) -> None:
    folder = shared / "golden" / name
    recorded = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    case = recorded["video_sampling"]
    clip = read_clip(folder / case["video"], case["max_frames"], rule="original")
    assert np.round(clip.times * case["fps"]).tolist() == case["frame_indices"]
    assert (clip.frames == np.load(folder / "inputs.npz")["frames"]).all()
    for variant in recorded["prompt_variants"]:
        times = sample_times(probe(folder / case["video"]), variant["max_frames"], "original")
        assert np.round(times * case["fps"]).tolist() == [
            index * variant["sampling_interval"] for index in range(variant["n_frames"])
        ]


def test_a_truncated_file_is_used_as_far_as_it_goes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "whole.mkv", range(250), g="25")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        clip = read_clip(cut, 5)
    assert "cut.mkv ends after" in caplog.text
    numbers = numbers_of(clip.frames)
    assert len(numbers) == 5 and numbers == sorted(set(numbers))
    assert clip.duration < 7
    assert numbers[0] < 20 and numbers[-1] / 25 > 0.8 * clip.duration
    caplog.clear()
    assert numbers_of(read_frames(cut, [0.4, 9.0]).frames)[0] == 10
    assert "cut.mkv ends after" in caplog.text


@pytest.mark.parametrize(
    ("there", "said", "is_cut"),
    [(5, 5.9, False), (5, 6.3, True), (60, 62.9, False), (60, 63.4, True)],
)
def test_an_end_is_missed_where_more_than_a_second_and_a_twentieth_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, there: int, said: float, is_cut: bool
) -> None:
    path = write_video(tmp_path / "clip.mkv", range(there), Fraction(1, 1))
    content = bytearray(path.read_bytes().replace(b"DURATION", b"XURATION"))
    place = content.index(b"\x44\x89\x88") + 3  # the duration, in milliseconds
    content[place : place + 8] = struct.pack(">d", said * 1000)
    path.write_bytes(content)
    clip = read_clip(path, 10)
    assert clip.duration == pytest.approx(there if is_cut else said)
    assert ("clip.mkv ends after" in caplog.text) == is_cut


def test_a_damaged_piece_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "whole.ts", range(100), g="10", codec="mpeg2video")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(data)
    numbers = numbers_of(read_clip(path, 4).frames)
    assert numbers[0] == 12 and numbers[-1] == 87


def test_a_cut_gif_and_damaged_pictures_give_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = write_animation(tmp_path / "whole.gif", [100] * 6)
    write_video(tmp_path / "whole.mkv", range(50), g="50")
    for path, keep in ((whole, whole.stat().st_size // 2), (tmp_path / "whole.mkv", 0)):
        read_clip(path, 4)
        assert not caplog.text
        data = bytearray(path.read_bytes())
        if keep:
            data = data[:keep]
        else:
            for place in range(len(data) // 2, len(data) // 2 + 60, 7):
                data[place] ^= 0xFF
        damaged = tmp_path / f"damaged{path.suffix}"
        damaged.write_bytes(data)
        assert len(read_clip(damaged, 4).frames)
        assert f"damaged{path.suffix} " in caplog.text
        caplog.clear()


@pytest.mark.parametrize("keep", [0.4, 0.7, 0.99])
def test_an_animation_that_breaks_off_is_used_as_far_as_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: float
) -> None:
    whole = write_animation(tmp_path / "whole.webp", [100] * 20).read_bytes()
    path = tmp_path / "cut.webp"
    path.write_bytes(whole[: int(len(whole) * keep)])
    clip = read_clip(path, 20)
    assert numbers_of(clip.frames) == list(range(len(clip.frames)))
    assert keep * 20 - 4 < len(clip.frames) < 20 and clip.duration == pytest.approx(len(clip.frames) / 10)
    assert "cut.webp is damaged" in caplog.text


def test_an_animation_without_its_last_filling_byte_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_animation(tmp_path / "whole.webp", [100] * 6)
    data = path.read_bytes() + b"more\3\0\0\0abc"
    path.write_bytes(data[:4] + (len(data) - 8 + 1).to_bytes(4, "little") + data[8:])
    assert numbers_of(read_clip(path, 6).frames) == list(range(6))
    assert not caplog.text


def test_frames_are_freed_as_soon_as_they_are_done_with(long_gop: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        read_frames(long_gop, [1.0, 2.0])
        assert not any(isinstance(thing, av.VideoFrame) and thing.width > 8 for thing in gc.get_objects())
    finally:
        gc.enable()


def test_reading_goes_on_behind_packets_that_cannot_be_read(long_gop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty:
        """A container whose every tenth packet raises, as those of streams that begin late do."""

        def __init__(self, container: av.container.InputContainer) -> None:
            self.container = container

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            for number, packet in enumerate(self.container.demux(stream), 1):
                yield packet
                if number % 10 == 0:
                    raise IndexError("list index out of range")

    with open_media(long_gop) as container:
        stream = container.streams.video[0]
        assert len(list(Decoder(Faulty(container), stream).frames())) == 250


def test_encrypted_pictures_are_refused(long_gop: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(long_gop.read_bytes().replace(b"avc1\0\0\0\0", b"encv\0\0\0\0", 1))
    with pytest.raises(MediaError, match=r"secret\.mp4 is encrypted, so its pictures cannot be seen"):
        read_clip(path, 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"just some words\n" * 50, "is not a video file that can be read"),
        (bytes(range(256)) * 40, "is not a video file that can be read"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "is not a video file that can be read"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "is not a video file that can be read"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is not a picture file that can be read"),
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.txt"])
def test_what_is_no_video_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (probe, lambda path: read_clip(path, 4), lambda path: read_frames(path, [0.0])):
        with pytest.raises(MediaError) as error:
            read(path)
        assert says in str(error.value) and name in str(error.value)
        assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"There is no file .*absent\.mp4; check its name"):
        read_clip(tmp_path / "absent.mp4", 4)
    with pytest.raises(MediaError, match="is a folder; name a video file in it"):
        read_clip(tmp_path, 4)
    with pytest.raises(MediaError, match="is not an ordinary file"):
        probe("/dev/null")


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds only sound, not a video"):
        probe(write_sound(tmp_path / "sound.wav"))


def test_a_part_outside_the_video_is_refused_with_its_length(long_gop: Path) -> None:
    with pytest.raises(MediaError, match=r"lasts 10\.0 s, so there is nothing from 12 s to its end"):
        read_clip(long_gop, 4, start=12.0)


@pytest.mark.parametrize("raised", [MemoryError(), IndexError(), PermissionError(), EOFError(), ValueError()])
def test_whatever_the_decoder_raises_becomes_a_media_error(
    long_gop: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr("minigpt4_video.media.sources.av.open", fail)
    with pytest.raises(MediaError, match="is not a video file that can be read"):
        probe(long_gop)


def test_odd_names_are_opened_as_they_are(tmp_path: Path) -> None:
    for name in ("-dash.mp4", "concat:a|b.mp4", "http:x.mp4", "100%d.mp4", "视频 clip.mp4"):
        write_video(tmp_path / "made.mp4", range(10)).rename(tmp_path / name)
        assert len(read_clip(tmp_path / name, 2).frames) == 2
