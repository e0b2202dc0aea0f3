"""What random damage found, once each, in the smallest file that shows it. `tools/fuzz_media.py` looks for more."""

import struct
from pathlib import Path

from minigpt4_video.media import probe, read_clip
from numbered import numbers_of, write_video


def test_a_damaged_time_that_goes_back_does_not_turn_time_around(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ivf", range(10), codec="libvpx-vp9", lossless="1")
    content = bytearray(path.read_bytes())
    place = 32
    for _ in range(4):  # a header of 32 bytes, then for each frame its size, its time and its bytes
        place += 12 + int.from_bytes(content[place : place + 4], "little")
    content[place + 4 : place + 12] = b"\xff\xff\xff\xff\xff\xff\xff\xb8"
    path.write_bytes(content)
    clip = read_clip(path, 20)
    assert numbers_of(clip.frames) == list(range(10))
    assert (clip.times[1:] > clip.times[:-1]).all() and clip.times[0] == 0.0
    assert 0.0 < clip.duration < 1.0 and 0.0 < probe(path).duration < 1.0


def test_a_film_of_which_one_frame_is_left_lasts_as_long_as_that_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm", range(2), codec="libvpx")
    # without the statistics' duration, and without a frame's usual one
    content = bytearray(path.read_bytes().replace(b"DURATION", b"XURATION").replace(b"\x23\xe3\x83", b"\x23\xe3\x84"))
    place = content.index(b"\x44\x89\x88") + 3  # the duration, in milliseconds
    content[place : place + 8] = struct.pack(">d", 65536000.0)
    block = content.index(b"\xa3", content.index(b"\x1f\x43\xb6\x75"))
    second = content.index(b"\xa3", block + 1)
    path.write_bytes(content[:second])
    for frames in (1, 4):
        clip = read_clip(path, frames)
        assert numbers_of(clip.frames) == [0] and 0.0 < clip.duration < 0.1
