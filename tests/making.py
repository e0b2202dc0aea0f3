"""Small real files, made on the spot."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SUBTITLES = """1
00:00:00,000 --> 00:00:00,900
hello from the start

2
00:00:01,000 --> 00:00:01,800
we are nearly done
"""


def write_video(path: Path, seconds: float = 2.0, rate: int = 8, size: tuple[int, int] = (64, 48)) -> Path:
    """An H.264 file whose brightness rises from black to white; `size` is (width, height)."""
    width, height = size
    count = round(seconds * rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, rate)
        for index in range(count):
            grey = np.full((height, width, 3), round(255 * index / max(1, count - 1)), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file with an audio track and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for index in range(round(seconds * 16000 / 1024)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, index * 1024
            container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path
