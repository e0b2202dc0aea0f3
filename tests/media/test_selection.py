"""The quick way to the wanted frames gives, bit for bit, what decoding every frame in order gives, or gives up."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from minigpt4_video.media import read_frames
from minigpt4_video.media.in_order import read_in_order
from minigpt4_video.media.pictures import Form, Frames
from minigpt4_video.media.probing import probe_beginning
from minigpt4_video.media.selection import Selection, Unreliable, read_selected
from numbered import numbers_of, write_video

FRAMES, GROUP = 250, 50
CONTAINERS = {
    "h264.ts": ("libx264", {"bf": "3"}),
    "open.ts": ("libx264", {"bf": "3", "x264-params": "open-gop=1"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}),
    "hevc.ts": ("libx265", {"x265-params": f"log-level=none:open-gop=1:keyint={GROUP}"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}),
    "mpeg1.mpg": ("mpeg1video", {"bf": "2"}),
    "h264.flv": ("libx264", {"bf": "3"}),
    "sorenson.flv": ("flv", {}),
    "motion.avi": ("mjpeg", {"pixels": "yuvj420p"}),
    "mpeg4.avi": ("mpeg4", {"bf": "0"}),
    "h264.mkv": ("libx264", {"bf": "3"}),
    "h264.mp4": ("libx264", {"bf": "3"}),
}


SEQUENCE, PICTURE = b"\0\0\1\xb3", b"\0\0\1\0"


def packet_of_pack(data: bytes, time: int) -> bytes:
    """The payload of an MPEG-1 pack of video whose first picture is shown at `time`, in 1/90000 s."""
    told = bytes(
        [0x21 | time >> 29 & 0x0E, time >> 22 & 0xFF, time >> 14 & 0xFE | 1, time >> 7 & 0xFF, time << 1 & 0xFE | 1]
    )
    return b"\0\0\1\xe0" + (len(told) + len(data)).to_bytes(2) + told + data


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Ten seconds of 25 frames a second, a key frame every 2 s, by name of `CONTAINERS`."""
    folder = tmp_path_factory.mktemp("containers")

    def made(name: str) -> Path:
        if not (folder / name).exists():
            codec, options = CONTAINERS[name]
            write_video(folder / name, range(FRAMES), codec=codec, g=str(GROUP), sc_threshold="0", **options)
        return folder / name

    return made


def quick(path: Path, times: list[float]) -> list[tuple[float, Frames]]:
    return read_selected(path, times, Form(), probe_beginning(path)[1])[0]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The presentation times of the packets that were given to the decoder."""
    packets: list[int] = []
    collect = Selection._collect

    def counting(self: Selection, packet: av.Packet | None) -> None:
        if packet is not None:
            packets.append(packet.pts)
        collect(self, packet)

    monkeypatch.setattr(Selection, "_collect", counting)
    return packets


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_found_quickly_is_what_decoding_all_finds(ten_seconds: Callable[[str], Path], name: str) -> None:
    path = ten_seconds(name)
    random = np.random.default_rng(0)
    for number in (1, 3, 8, 40):
        times = sorted(random.uniform(-0.2, 10.2, number).tolist())
        fast, (slow, _, _) = quick(path, times), read_in_order(path, times, Form())
        assert [time for time, _ in fast] == [time for time, _ in slow]
        assert all((one == other).all() for (_, one), (_, other) in zip(fast, slow, strict=True))


@pytest.mark.parametrize("name", CONTAINERS)
def test_only_the_groups_of_the_wanted_frames_are_decoded(
    ten_seconds: Callable[[str], Path], sent: list[int], name: str
) -> None:
    assert numbers_of(read_frames(ten_seconds(name), [4.9, 9.0]).frames) == [122, 225]
    assert 2 <= len(sent) <= 1.5 * GROUP


def test_frames_close_together_are_decoded_one_after_the_other(
    ten_seconds: Callable[[str], Path], sent: list[int]
) -> None:
    times = [number / 25 for number in range(47, 55)]
    assert numbers_of(read_frames(ten_seconds("h264.ts"), times).frames) == list(range(47, 55))
    assert len(sent) == len(set(sent)) <= 60


def test_packets_that_are_jumped_over_are_not_kept(ten_seconds: Callable[[str], Path], sent: list[int]) -> None:
    waiting: list[int] = []

    class Watched(Selection):
        def _decode_up_to(self, wanted: int) -> None:
            waiting.append(len(self._waiting))
            super()._decode_up_to(wanted)

    path = ten_seconds("h264.ts")
    with av.open(path) as container:
        stream = container.streams.video[0]
        first = probe_beginning(path)[1]
        assert first is not None
        Watched(container, stream, first, lambda frame: frame.to_ndarray(format="rgb24")).want(9.9)
    assert 0 < waiting[0] <= GROUP + 20


def test_reordered_frames_without_times_of_their_own_are_left_to_decoding_in_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "reordered.avi", range(60), codec="mpeg4", bf="2", g="20")
    with pytest.raises(Unreliable, match="does not tell when reordered frames are shown"):
        quick(path, [1.0])
    assert numbers_of(read_frames(path, [0.5, 2.0]).frames) == [12, 50]


def test_a_frame_that_only_says_that_it_is_a_key_frame_is_found_out(tmp_path: Path) -> None:
    """As in old phones' files: the times are right after such a jump, and the pictures are not."""
    path = write_video(tmp_path / "lying.flv", range(100), codec="flv", g="100", sc_threshold="1000000000")
    data = bytearray(path.read_bytes())
    place, pictures = 13, 0
    while place < len(data):
        length = int.from_bytes(data[place + 1 : place + 4])
        if data[place] == 9:
            if pictures % 25 == 0:
                data[place + 11] = 0x12
            pictures += 1
        place += 11 + length + 4
    path.write_bytes(data)
    with av.open(path) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 4
    with pytest.raises(Unreliable, match="not the key frame"):
        quick(path, [3.9])
    assert numbers_of(read_frames(path, [1.2, 3.9]).frames) == [30, 97]


def test_a_time_that_belongs_to_a_later_picture_is_found_out(tmp_path: Path) -> None:
    """Where a picture begins in the last bytes of a pack, FFmpeg gives the next pack the time of the next picture."""
    frames = 100
    stream = write_video(tmp_path / "a.m1v", range(frames), codec="mpeg1video", bf="2", g="50", sc_threshold="0")
    data = stream.read_bytes()
    second_group = data.index(SEQUENCE, 1)
    assert data.count(SEQUENCE) >= 2
    # the second key frame is shown two pictures after those that follow it
    first = sum(1 for _ in re.finditer(PICTURE, data[:second_group]))
    path = tmp_path / "straddling.mpg"
    pack = bytes.fromhex("000001ba2100010001800001")
    path.write_bytes(
        pack
        + packet_of_pack(data[: second_group + 2], 3600)
        + pack
        + packet_of_pack(data[second_group + 2 :], 3600 * (first + 1))
        + bytes.fromhex("000001b9")
    )
    with pytest.raises(Unreliable, match="times go back"):
        quick(path, [3.0])
    assert numbers_of(read_frames(path, [number / 25 for number in range(frames)]).frames) == list(range(frames))


@pytest.mark.parametrize("suffix", ["ts", "mp4"])
def test_pictures_that_are_refreshed_piece_by_piece_have_no_key_frames(tmp_path: Path, suffix: str) -> None:
    parameters = "intra-refresh=1:keyint=25:bframes=0:scenecut=0"
    path = write_video(tmp_path / f"refreshed.{suffix}", range(100), **{"x264-params": parameters})
    (slow, _, _) = read_in_order(path, [3.5], Form())
    assert (read_frames(path, [3.5]).frames[0] == slow[0][1]).all()


def test_times_that_begin_again_are_noticed_before_a_frame_is_chosen(
    ten_seconds: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "twice.ts"
    path.write_bytes(ten_seconds("h264.ts").read_bytes() * 2)
    with pytest.raises(Unreliable, match="has no time"):
        quick(path, [9.9])
    (slow, _, _) = read_in_order(path, [9.9], Form())
    assert (read_frames(path, [9.9]).frames[0] == slow[0][1]).all()


def test_a_frame_that_comes_later_than_was_promised_is_waited_for(ten_seconds: Callable[[str], Path]) -> None:
    """Decoding times say how far one must read for all frames up to a time; some writers make them up."""

    class Promising:
        """A container whose decoding times are two frames later than those that hold."""

        def __init__(self, container: av.container.InputContainer) -> None:
            self.format = container.format
            self._container = container

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            for packet in self._container.demux(stream):
                if packet.dts is not None:
                    packet.dts += round(Fraction(2, 25) / stream.time_base)
                yield packet

    with av.open(ten_seconds("h264.mp4")) as container:
        stream = container.streams.video[0]
        selection = Selection(Promising(container), stream, 0, lambda frame: frame.to_ndarray(format="rgb24"))
        with pytest.raises(Unreliable, match="times go back"):
            selection.want(1 / 25)
