"""One test for each thing in real files that makes readers give a wrong frame, each with a file of its own making."""

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from minigpt4_video.media import MediaError, find_subtitles, probe, read_clip, read_frames
from minigpt4_video.media.pictures import Converters, Form, upright
from minigpt4_video.media.probing import probe_beginning, rate_of
from minigpt4_video.media.selection import Unreliable, read_selected
from minigpt4_video.media.sources import _OneFile
from minigpt4_video.media.streaming import stream_frames
from numbered import HEIGHT, WIDTH, number_of, numbered, numbers_of, write_video

TENTHS = [0.02, 0.5, 0.98]


def encoded(
    container: av.container.OutputContainer, stream: av.VideoStream, pictures: list[np.ndarray], first: int = 0
) -> None:
    for number, picture in enumerate(pictures, first):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("ten.mp4", "libx264", "yuv420p10le"),
        ("full.mkv", "ffv1", "yuv444p10le"),
        ("gray.mkv", "ffv1", "gray16le"),
        ("studio.mov", "prores_ks", "yuv422p10le"),
    ],
)
def test_deep_colours_become_eight_bits_of_the_same_picture(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = write_video(tmp_path / name, range(25), codec=codec, pixels=pixels)
    clip = read_frames(path, TENTHS)
    assert numbers_of(clip.frames) == [0, 12, 24]
    assert abs(float(np.percentile(clip.frames, 99)) - 235) < 6 and abs(float(np.percentile(clip.frames, 1)) - 16) < 6


def test_colours_by_a_matrix_that_ffmpeg_cannot_undo_are_shown_by_the_nearest(tmp_path: Path) -> None:
    usual = write_video(tmp_path / "usual.mkv", range(5), **{"x264-params": "colormatrix=bt2020nc"})
    for name, primaries in {
        **{"bt2020c": "undef", "smpte2085": "undef", "ICtCp": "undef"},
        **{"chroma-derived-nc": "bt2020", "chroma-derived-c": "bt2020"},
    }.items():
        said = f"colormatrix={name}:colorprim={primaries}"
        path = write_video(tmp_path / f"{name}.mkv", range(5), **{"x264-params": said})
        for scaler in ("pillow", "decoder"):
            assert numbers_of(read_clip(path, 5, size=(24, 32), scaler=scaler).frames) == list(range(5))
        if primaries == "undef":
            assert (read_clip(path, 5).frames == read_clip(usual, 5).frames).all()
    path = write_video(tmp_path / "YCgCo.mkv", range(5), pixels="yuv444p", **{"x264-params": "colormatrix=YCgCo"})
    assert numbers_of(read_clip(path, 5).frames) == list(range(5))


def test_colours_by_a_matrix_of_ordinary_primaries_are_those_of_their_standard(tmp_path: Path) -> None:
    pictures = []
    for matrix in ("bt709", "chroma-derived-nc"):
        path = tmp_path / f"{matrix}.mkv"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"x264-params": f"colormatrix={matrix}:colorprim=bt709", "qp": "0"}
            picture = np.full((HEIGHT, WIDTH, 3), (200, 30, 90), dtype=np.uint8)
            encoded(container, stream, [picture] * 3)
        pictures.append(read_clip(path, 1).frames)
    assert (pictures[0] == pictures[1]).all()


def test_colours_of_a_range_that_does_not_exist_are_shown() -> None:
    """As a damaged header names it."""
    frame = av.VideoFrame.from_ndarray(numbered(37), format="rgb24").reformat(format="yuv420p")
    frame.color_range = 7
    assert numbers_of(upright(frame, Path("clip.mp4"), Converters())[None]) == [37]


def test_a_rate_of_ticks_is_not_taken_for_that_of_frames(tmp_path: Path) -> None:
    """As in Matroska and FLV with times of whole milliseconds and no rate."""

    class Stream:
        average_rate, guessed_rate = Fraction(1000), Fraction(30)

    assert rate_of(Stream()) == 30
    Stream.average_rate, Stream.guessed_rate = Fraction(30), Fraction(1000)
    assert rate_of(Stream()) == 30
    Stream.average_rate = None
    assert rate_of(Stream()) == 1000


def test_the_frames_of_all_fragments_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "fragments.mp4"
    whole = write_video(tmp_path / "whole.mp4", range(50), g="10", bf="0")
    with (
        av.open(whole) as source,
        av.open(path, "w", options={"movflags": "frag_every_frame"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert (probe(path).frames, probe(whole).frames) == (50, 50)


def test_a_number_of_frames_that_no_length_accounts_for_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", range(10), bf="0")
    content = bytearray(path.read_bytes())
    place = content.index(b"stts") + 12
    content[place : place + 4] = (2**31 - 1).to_bytes(4)
    path.write_bytes(content)
    assert probe(path).frames == 10
    assert numbers_of(read_clip(path, 5).frames) == [1, 3, 5, 7, 9]


def test_transparent_pictures_keep_their_colours(tmp_path: Path) -> None:
    picture = np.full((HEIGHT, WIDTH, 4), 255, dtype=np.uint8)
    picture[..., :3] = numbered(37)
    picture[:, : WIDTH // 2, 3] = 128
    Image.fromarray(picture).save(tmp_path / "still.png")
    assert (read_clip(tmp_path / "still.png", 1).frames[0] == numbered(37)).all()
    path = write_video(tmp_path / "alpha.webm", range(5), codec="libvpx-vp9", pixels="yuva420p")
    assert numbers_of(read_clip(path, 5).frames) == list(range(5))


@pytest.mark.parametrize(("name", "codec"), [("clip.ts", "mpeg2video"), ("clip.mkv", "mpeg2video")])
def test_interlaced_frames_are_whole_frames(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, range(25), codec=codec, flags="+ilme+ildct", g="12", bf="2")
    assert numbers_of(read_frames(path, TENTHS).frames) == [0, 12, 24]


def test_pixels_that_are_not_square_keep_every_pixel(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        encoded(container, stream, [numbered(number) for number in range(5)])
    clip = read_clip(path, 5)
    assert numbers_of(clip.frames) == list(range(5)) and clip.frames.shape[1:3] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_a_size_that_changes_in_mid_stream_is_brought_to_the_first(tmp_path: Path, suffix: str) -> None:
    data = b""
    for part, factor in enumerate((1, 2)):
        path = tmp_path / f"part{part}.{suffix}"
        with av.open(path, "w", format="mpegts" if suffix == "ts" else "h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH * factor, HEIGHT * factor, "yuv420p"
            stream.options = {"bf": "0"}
            pictures = [
                numbered(number).repeat(factor, 0).repeat(factor, 1) for number in range(part * 5, part * 5 + 5)
            ]
            encoded(container, stream, pictures, part * 5)
        data += path.read_bytes()
    whole = tmp_path / f"whole.{suffix}"
    whole.write_bytes(data)
    clip = read_clip(whole, 40)
    assert clip.frames.shape[1:3] == (HEIGHT, WIDTH)
    assert numbers_of(clip.frames) == list(range(10))


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mkv"
    with av.open(path, "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        encoded(container, stream, [numbered(number) for number in range(5)])
    assert numbers_of(read_clip(path, 5).frames) == list(range(5))


def test_of_several_videos_the_one_marked_as_default_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(path, "w") as container:
        streams = []
        for factor in (2, 1):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH * factor, HEIGHT * factor, "yuv420p"
            streams.append(stream)
        streams[0].disposition = av.stream.Disposition(0)
        streams[1].disposition = av.stream.Disposition.default
        for stream, factor, first in zip(streams, (2, 1), (100, 0), strict=True):
            encoded(container, stream, [numbered(first + n).repeat(factor, 0).repeat(factor, 1) for n in range(5)])
    assert probe(path).width == WIDTH
    assert numbers_of(read_clip(path, 5).frames) == list(range(5))


def test_frames_without_pictures_of_their_own_repeat_the_one_before(tmp_path: Path) -> None:
    """As Theora's and old AVI's empty packets do: they are no error and no end."""
    path = tmp_path / "drops.avi"
    whole = write_video(tmp_path / "whole.avi", range(20), codec="mpeg4", g="100", bf="0")
    with av.open(whole) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            copy = packet
            if packet.dts >= 15:
                copy = av.Packet(0)
                copy.pts = copy.dts = packet.dts
                copy.time_base = packet.time_base
            copy.stream = stream
            target.mux(copy)
    assert numbers_of(read_frames(path, [0.1, 0.5, 0.7]).frames) == [2, 12, 14]


def test_a_packet_without_a_picture_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Theora's: a picture that is the one before, in no bytes at all, which decoders refuse."""
    path = tmp_path / "drops.nut"
    whole = write_video(tmp_path / "whole.nut", range(20), codec="mpeg4", g="1", bf="0")
    with av.open(whole) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:
                continue
            copy = packet
            if number % 5 == 2:
                copy = av.Packet(0)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.stream = stream
            target.mux(copy)
    with av.open(path) as container:
        assert [packet.size for packet in container.demux(video=0) if packet.dts is not None].count(0) == 4
    frames = read_frames(path, [number / 25 for number in range(20)]).frames
    assert numbers_of(frames) == [number for number in range(20) if number % 5 != 2]
    assert not caplog.text


def test_times_that_begin_late_or_before_zero_count_from_the_first_frame(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.ts", range(90_000, 90_025), codec="libx264", g="12")
    early = write_video(tmp_path / "early.mkv", range(-5, 20), codec="libx264", g="12", bf="0")
    for path in (late, early):
        clip = read_frames(path, [0.0, 0.5, 0.96])
        assert numbers_of(clip.frames) == [0, 12, 24]
        assert clip.times == pytest.approx([0.0, 0.48, 0.96], abs=0.002)


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video")])
def test_recordings_put_one_behind_the_other_are_seen_to_the_end_of_the_last(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    """Their times begin again with each, and those of decoding before the last frames of the one before are shown."""
    numbers, path = [], tmp_path / f"both.{suffix}"
    with path.open("wb") as both:
        for count in (300, 100):
            part = tmp_path / f"{count}.{suffix}"
            both.write(write_video(part, range(count), codec=codec, g="50", bf="2", sc_threshold="0").read_bytes())
            numbers += [number % 256 for number in range(count)]
    assert probe(path).duration == pytest.approx(16.0, abs=0.001) and probe(path).frames == 400
    assert numbers_of(read_clip(path, 8).frames) == numbers[25::50]
    assert [number_of(picture) for _, picture in stream_frames(path, 1.0, (HEIGHT, WIDTH))] == numbers[::25]


def test_a_part_that_a_player_does_not_show_is_not_read(tmp_path: Path) -> None:
    """A cut without encoding keeps the frames from the key frame on, and tells in an edit list where to begin."""
    whole = write_video(tmp_path / "whole.mp4", range(100), g="50", bf="2", sc_threshold="0")
    cut = tmp_path / "cut.mp4"
    with av.open(whole) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        base = source.streams.video[0].time_base
        offset = round(Fraction(60, 25) / base)
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts < round(Fraction(50, 25) / base):
                continue
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = stream
            target.mux(packet)
    clip = read_clip(cut, 4)
    assert numbers_of(clip.frames) == [65, 75, 85, 95]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_far_frames_of_every_usual_codec_are_exact(tmp_path: Path, codec: str) -> None:
    quiet = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"svtav1-params": "enable-stat-report=0"}}
    path = write_video(tmp_path / "clip.mkv", range(120), codec=codec, g="30", **quiet.get(codec, {}))
    assert numbers_of(read_frames(path, [0.5, 2.5, 4.5]).frames) == [12, 62, 112]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi", "clip.flv", "clip.mpg"])
def test_a_file_cut_anywhere_is_read_or_refused(tmp_path: Path, name: str, cut: float) -> None:
    codec = {"avi": "mpeg4", "mpg": "mpeg2video"}.get(name[-3:], "libx264")
    path = write_video(tmp_path / name, range(50), codec=codec, g="25")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    try:
        numbers = numbers_of(read_clip(path, 5).frames)
    except MediaError as error:
        assert name in str(error)
    else:
        assert numbers == sorted(numbers) and len(numbers)


@pytest.mark.parametrize("name", ["clip.asf", "clip.mxf"])
def test_presentation_times_that_the_container_does_not_have_are_not_believed(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, range(100), g="50", bf="3", sc_threshold="0")
    clip = read_frames(path, [0.13, 0.17, 1.01, 2.01, 3.93])
    assert numbers_of(clip.frames) == [3, 4, 25, 50, 98]
    assert clip.times == pytest.approx(np.array([3, 4, 25, 50, 98]) / 25, abs=0.002)
    assert numbers_of(read_frames(path, [0.13]).frames) == [3]


@pytest.mark.parametrize("name", ["clip.flv", "clip.mkv", "clip.ts"])
def test_decoding_times_in_the_place_of_presentation_times_are_noticed(tmp_path: Path, name: str) -> None:
    whole, path = write_video(tmp_path / "whole.ts", range(100), g="50", bf="3", sc_threshold="0"), tmp_path / name
    with av.open(whole) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.stream = packet.dts, stream
                target.mux(packet)
    for times, numbers in (([0.13, 2.21, 3.93], [3, 55, 98]), ([2.21], [55]), ([0.01, 0.05, 0.09], [0, 1, 2])):
        assert numbers_of(read_frames(path, times).frames) == numbers


def test_packets_of_two_pictures_are_left_to_decoding_in_order(tmp_path: Path) -> None:
    """As DivX packs B-frames for AVI: copied to MP4 the times are those of other pictures."""
    whole, path = write_video(tmp_path / "whole.mp4", range(40), codec="mpeg4", g="20", bf="2"), tmp_path / "packed.mp4"
    with av.open(whole) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for one, other in zip(packets[::2], packets[1::2], strict=True):
            packed = av.Packet(bytes(one) + bytes(other))
            packed.pts, packed.dts, packed.time_base, packed.stream = one.pts, one.dts, one.time_base, stream
            packed.is_keyframe = one.is_keyframe
            target.mux(packed)
    with pytest.raises(Unreliable, match="two pictures in one packet"):
        read_selected(path, [0.5], Form(), probe_beginning(path)[1])


@pytest.mark.parametrize("left", range(50, 58))
def test_what_a_player_ends_before_is_neither_shown_nor_counted(tmp_path: Path, left: int) -> None:
    """Frames behind the end of an edit that others before it refer to are decoded, and not shown."""
    path = write_video(tmp_path / "clip.mp4", range(100), bf="3", g="250", sc_threshold="0")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12
    assert int.from_bytes(content[place : place + 4]) == 4000  # milliseconds
    content[place : place + 4] = (left * 40).to_bytes(4)
    path.write_bytes(content)
    assert probe(path).duration == pytest.approx(left / 25, abs=0.001)
    found, end, _ = read_selected(path, [1.0, 99.0], Form(), probe_beginning(path)[1])
    assert [number_of(picture) for _, picture in found] == [25, left - 1] and end == pytest.approx(left / 25)
    assert numbers_of(read_frames(path, [1.0, 99.0]).frames) == [25, left - 1]


def test_a_video_that_begins_before_zero_is_seen_to_its_end(tmp_path: Path) -> None:
    whole, path = write_video(tmp_path / "whole.mkv", range(100), bf="0", g="10"), tmp_path / "early.mkv"
    with av.open(whole) as source, av.open(path, "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - 2000, packet.dts - 2000, stream
                target.mux(packet)
    assert probe(path).duration == pytest.approx(4.0, abs=0.05)
    assert numbers_of(read_clip(path, 4).frames) == [12, 37, 62, 87]


def test_a_pause_before_the_last_frames_is_part_of_the_video(tmp_path: Path) -> None:
    """MP4 adds up decoding times, which are over before reordered frames at the end are shown."""
    path = write_video(tmp_path / "clip.mp4", [*range(50), 80, 110, 140], bf="3", g="250")
    assert probe(path).duration >= 140 / 25
    assert numbers_of(read_clip(path, 4).frames)[-1] == 51
    assert numbers_of(read_clip(path, 60).frames)[-1] == 52


@pytest.mark.parametrize("suffix", ["mkv", "h264", "ts", "mp4"])
def test_gigabytes_of_zeros_behind_a_video_are_not_looked_through(tmp_path: Path, suffix: str) -> None:
    """As a download leaves them that took its place on the disk and broke off."""
    path = write_video(tmp_path / f"clip.{suffix}", range(30), g="10", bf="0")
    with path.open("r+b") as opened:
        opened.truncate(1 << 32)
    began = time.process_time()
    assert numbers_of(read_frames(path, [0.1, 0.9]).frames) == [2, 22]
    assert time.process_time() - began < 10


def test_zeros_between_pictures_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigpt4_video.media.sources.LONGEST_ZEROS", 1 << 18)
    path = tmp_path / "black.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH * 8, HEIGHT * 8, "bgr24"
        black = np.zeros((HEIGHT * 8, WIDTH * 8, 3), dtype=np.uint8)
        encoded(container, stream, [*[black] * 40, numbered(5).repeat(8, 0).repeat(8, 1)])
    assert numbers_of(read_frames(path, [0.5, 1.6]).frames) == [0, 5]


@pytest.mark.parametrize("tail", [b"", b"end"])
def test_a_file_ends_where_only_zeros_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes) -> None:
    monkeypatch.setattr("minigpt4_video.media.sources.LONGEST_ZEROS", 1 << 18)
    path, content = tmp_path / "clip.bin", b"begin" + bytes(1 << 20) + tail
    path.write_bytes(content)
    with path.open("rb") as opened:
        file = _OneFile(opened)
        found = b"".join(iter(lambda: file.read(1 << 16), b""))
    assert found == content if tail else len(found) < 1 << 19 and content.startswith(found)


@pytest.mark.parametrize("name", ["clip.jpg", "clip.srt", "clip.webp", "clip.m3u8", "clip.wav", "clip"])
def test_a_wrong_suffix_changes_nothing(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "clip.mkv", range(50)).rename(tmp_path / name)
    assert numbers_of(read_clip(path, 2).frames) == [12, 37]
    assert find_subtitles(path) is None and not caplog.text


def test_a_thousand_frames_a_second_and_one_an_hour_are_told_apart(tmp_path: Path) -> None:
    fast = write_video(tmp_path / "fast.mp4", range(200), Fraction(1, 1000))
    assert numbers_of(read_frames(fast, [0.0101, 0.0999, 0.1, 0.1501]).frames) == [10, 99, 100, 150]
    slow = write_video(tmp_path / "slow.mp4", [0, 3600, 7200], Fraction(1))
    assert numbers_of(read_frames(slow, [3599.0, 3600.0, 9999.0]).frames) == [0, 1, 2]
    assert numbers_of(read_clip(slow, 8).frames) == [0, 1, 2]


def test_of_frames_with_the_same_time_one_is_shown_then(tmp_path: Path) -> None:
    whole, path = write_video(tmp_path / "whole.mkv", range(60), bf="0"), tmp_path / "pairs.mkv"
    with av.open(whole) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None:
                packet.pts = packet.dts = number // 2 * 80
                packet.stream = stream
                target.mux(packet)
    clip = read_frames(path, [0.5, 1.0, 2.3])
    assert [number // 2 for number in numbers_of(clip.frames)] == [6, 12, 28]
    assert clip.times == pytest.approx([0.48, 0.96, 2.24])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (16_000, 2), (2, 16_000)])
def test_pictures_of_odd_proportions_are_read(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "odd.mkv"
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    picture[-1, -1] = 200
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        encoded(container, stream, [picture] * 3)
    Image.fromarray(picture).save(tmp_path / "odd.png")
    for file in (path, tmp_path / "odd.png"):
        assert (read_clip(file, 3).frames == picture).all() and probe(file).width == width
        assert read_clip(file, 3, size=(24, 32)).frames.shape[1:] == (24, 32, 3)
