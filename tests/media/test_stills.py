"""Pictures alone, in files and in bytes of them, as strangers have them."""

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from minigpt4_video.data.reading import read_picture
from minigpt4_video.errors import MediaError
from minigpt4_video.media import read_picture_folder
from minigpt4_video.media.picture_folder import picture_files
from minigpt4_video.media.stills import read_still

PIXELS = np.random.default_rng(0).integers(0, 255, (4, 3, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
PICTURE = Image.fromarray(PIXELS)


def saved(form: str, **options) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, form, **options)
    return file.getvalue()


def remarks(*entries: tuple[int, int, bytes]) -> bytes:
    """EXIF of entries (tag, kind, four bytes)."""
    ifd = struct.pack("<H", len(entries))
    ifd += b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + ifd + bytes(12)


def turned(orientation: int) -> tuple[int, int, bytes]:
    return 0x0112, 3, struct.pack("<HH", orientation, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_upright(form, orientation):
    content = saved(form, exif=remarks(turned(orientation)))
    with Image.open(io.BytesIO(content)) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))

    assert np.array_equal(np.asarray(read_still("x.jpg", content)), wanted)


def test_remarks_that_pillow_cannot_write_again_do_not_spoil_a_picture():
    """A height as a fraction, which Pillow reads and, after turning the picture, fails to write."""
    content = saved("JPEG", exif=remarks((0x0101, 5, struct.pack("<I", 38)), turned(6)))
    with Image.open(io.BytesIO(content)) as opened, pytest.raises(struct.error):
        ImageOps.exif_transpose(opened)

    assert read_still("x.jpg", content).size == (PICTURE.height, PICTURE.width)
    assert read_picture("x.jpg", 8, content).shape == (8, 8, 3)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_a_damaged_picture_is_read_or_refused(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    whole = saved(form)
    assert read_still("x.jpg", whole).size == PICTURE.size
    draw = random.Random(form)
    refused = 0
    for length in range(1, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[draw.randrange(min(len(whole), 400))] = draw.choice([0, 1, 128, 255])
        for content in (whole[:length], bytes(damaged)):
            try:
                read_still("x.jpg", content)
            except MediaError as error:
                refused += 1
                assert str(error).startswith("x.jpg ")
    assert refused


@pytest.mark.parametrize("form", ["DDS", "PPM", "TGA", "PCX"])
def test_what_is_seldom_a_picture_of_somebody_is_refused(form, tmp_path):
    (tmp_path / "1.jpg").write_bytes(saved(form))

    with pytest.raises(MediaError, match="is not a picture that can be read"):
        read_still(tmp_path / "1.jpg")
    with pytest.raises(MediaError):
        read_picture_folder(tmp_path, 1, rate=1.0)


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(tmp_path / f"frame {number}.png")

    clip = read_picture_folder(tmp_path, 12, rate=1.0)

    assert clip.frames[:, 0, 0, 0].tolist() == [number * 20 for number in range(12)]


@pytest.mark.parametrize(
    "names",
    [["2.png", "10.png"], ["a2b10.png", "a10b2.png"], ["01.png", "1.png", "2.png"], ["1.png", "a1.png", "b.png"]],
)
def test_every_name_has_its_place(names, tmp_path):
    for name in names:
        (tmp_path / name).touch()

    assert [file.name for file in picture_files(tmp_path)] == names


def test_a_picture_too_large_to_hold_is_refused_by_its_header():
    huge = bytearray(saved("BMP"))
    huge[18:26] = struct.pack("<ii", 30_000, 30_000)

    with pytest.raises(MediaError, match="too large"):
        read_still(Path("x.jpg"), bytes(huge))
