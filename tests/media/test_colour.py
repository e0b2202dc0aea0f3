"""HDR and wide colours, on pictures whose ordinary form is known: it is put into HDR here and has to come back."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from minigpt4_video.media import read_clip
from minigpt4_video.media.colour import (
    BRIGHTNESS,
    PEAK,
    TO_ORDINARY_PRIMARIES,
    WHITE,
    hlg_light,
    ordinary,
    pq_light,
    pq_signal,
    to_ordinary_colours,
)

HEIGHT, WIDTH = 48, 64
PQ, HLG, GAMMA = ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67, ColorTrc.BT709


def hlg_signal(light: np.ndarray) -> np.ndarray:
    shown = light / PEAK
    scene = shown * np.maximum(shown @ BRIGHTNESS, 1e-9)[..., None] ** (0.2 / -1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


SIGNAL: dict[ColorTrc, Callable[[np.ndarray], np.ndarray]] = {
    PQ: pq_signal,
    HLG: hlg_signal,
    GAMMA: lambda light: (light / WHITE) ** (1 / 2.4),
}


def patches(brightest: float) -> np.ndarray:
    """Float (48, 64, 3) from 0 to `brightest`: 48 patches of 8 x 8 in many colours, greys in the first row."""
    colours = np.random.default_rng(0).uniform(0.1, brightest, (6, 8, 3))
    colours[0] = np.linspace(0.0, brightest, 8)[:, None]
    return colours.repeat(8, 0).repeat(8, 1)


def in_wide_colours(picture: np.ndarray) -> np.ndarray:
    """cd/m2 by the primaries of BT.2020 of an ordinary picture."""
    return (WHITE * picture**2.4 @ np.linalg.inv(TO_ORDINARY_PRIMARIES).T).clip(0)


def write_colours(path: Path, signal: np.ndarray, transfer: ColorTrc, primaries: ColorPrimaries) -> Path:
    """A video of one picture in 10 bits and lossless RGB, with its colours named."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gbrp10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = int(transfer), int(primaries)
        deep = np.round(signal.clip(0, 1) * 65535).astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(deep, format="rgb48le").reformat(format="gbrp10le")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("transfer", [PQ, HLG, GAMMA])
def test_what_is_no_brighter_than_a_screen_looks_as_on_a_screen(tmp_path: Path, transfer: ColorTrc) -> None:
    picture = patches(0.65)
    signal = SIGNAL[transfer](in_wide_colours(picture))
    path = write_colours(tmp_path / "deep.mkv", signal, transfer, ColorPrimaries.BT2020)
    found = read_clip(path, 1).frames[0]
    error = np.abs(found - picture * 255)
    assert error.max() <= 10 and error.mean() <= 1.5
    assert np.abs(signal - picture).mean() > 0.02, "shown as it is, it would have looked the same"


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_what_is_brighter_keeps_its_order_and_its_hue(tmp_path: Path, transfer: ColorTrc) -> None:
    light = np.zeros((HEIGHT, WIDTH, 3))
    light[:24] = np.geomspace(1, PEAK, WIDTH)[:, None]
    light[24:] = np.geomspace(1, 400, WIDTH)[:, None] * (1.0, 0.8, 0.6)
    path = write_colours(tmp_path / "deep.mkv", SIGNAL[transfer](light), transfer, ColorPrimaries.BT709)
    found = read_clip(path, 1).frames[0].astype(int)
    grey, warm = found[12], found[36]
    assert (np.diff(grey[:, 0]) >= 0).all() and grey[0, 0] < 40 and grey[-1, 0] >= 253
    assert len(np.unique(grey[light[12, :, 0] > 100, 0])) > 8, "what is brighter than white is all one"
    assert (np.ptp(grey, axis=1) <= 1).all()
    share = (warm[32:] / 255) ** 2.4
    assert np.abs(share[:, 1] / share[:, 0] - 0.8).max() < 0.05 and np.abs(share[:, 2] / share[:, 0] - 0.6).max() < 0.05


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_phones_and_cameras_files_are_brought_to_ordinary_colours(tmp_path: Path, transfer: ColorTrc) -> None:
    """10-bit HEVC in 4:2:0, as they write it; not in MP4, whose muxer now and then refuses what x265 gives it."""
    path = tmp_path / "camera.ts"
    name = {PQ: "smpte2084", HLG: "arib-std-b67"}[transfer]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        tags = f"log-level=none:crf=1:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc:range=limited"
        stream.options = {"x265-params": tags}
        picture = patches(0.65)
        signal = SIGNAL[transfer](in_wide_colours(picture)).clip(0, 1)
        luma = signal @ BRIGHTNESS
        blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
        planes = [64 + 876 * luma, 512 + 896 * blue[::2, ::2], 512 + 896 * red[::2, ::2]]
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
        for plane, values in zip(frame.planes, planes, strict=True):
            row = np.zeros((plane.height, plane.line_size // 2), dtype="<u2")
            row[:, : plane.width] = np.round(values)
            plane.update(row.tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_clip(path, 1).frames[0]
    middles = np.abs(found - picture * 255)[4::8, 4::8]
    assert middles.max() <= 24 and middles.mean() <= 4


def test_ordinary_pictures_are_left_alone() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    for transfer in (ColorTrc.UNSPECIFIED, ColorTrc.BT709, ColorTrc.IEC61966_2_1):
        assert to_ordinary_colours(picture, transfer, ColorPrimaries.BT709) is picture


def test_every_row_of_a_picture_is_brought_over() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (101, 30, 3), dtype=np.uint8)
    for transfer in (PQ, HLG):
        wanted = 255 * ordinary(picture / 255, transfer, ColorPrimaries.BT2020)
        found = to_ordinary_colours(picture, transfer, ColorPrimaries.BT2020)
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 0.6


def test_the_curves_meet_the_points_that_their_standards_give() -> None:
    assert pq_light(np.array([0.0, 0.508078, 0.580689, 0.751827, 1.0])) == pytest.approx(
        [0, 100, 203, 1000, 10000], rel=1e-4
    )
    assert pq_signal(pq_light(np.linspace(0, 1, 50))) == pytest.approx(np.linspace(0, 1, 50), abs=1e-6)
    assert hlg_light(np.full((1, 3), 0.75))[0] == pytest.approx([203] * 3, rel=1e-2)
    assert hlg_light(np.ones((1, 3)))[0] == pytest.approx([PEAK] * 3, rel=1e-4)
