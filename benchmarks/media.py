"""CPU seconds and memory to get 45 frames of 224 x 224 out of a video, against other ways of getting the same frames.

python benchmarks/media.py --output benchmarks/results/media.json

The ways take turns in one run, each time in a process of its own, so that the ratios hold on a machine that does other
things as well; seconds are comparable only within one run. `every frame` stands for the original's way: it reads and
converts every frame, with OpenCV where that is installed, else with PyAV in its place, and resizes 45 with Pillow.
`key frames` is not exact: it is the limit of what seeking can give. Memory is read from Linux's /proc; that of the
ffmpeg command line is not counted.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
from PIL import Image

from minigpt4_video.media import probe, read_clip, sample_times

FRAMES, SIZE = 45, 224
FILES = {"5 minutes 1280x720": (300, 1280, 720), "60 s 640x360": (60, 640, 360), "10 s 640x360": (10, 640, 360)}
RATE, GROUP = 30, 250


def make(path: Path, seconds: int, width: int, height: int) -> None:
    """A picture that drifts under noise, so that motion and residuals cost what they do in filmed video."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (height // 16 * 3, width // 16 * 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((width * 3, height * 3), Image.Resampling.BICUBIC))
    noise = generator.integers(0, 12, (2, height, width), dtype=np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2 * width * height
        stream.options = {"preset": "veryfast", "g": str(GROUP), "bf": "3"}
        colours = np.full((height // 2, width), 128, dtype=np.uint8)
        for number in range(seconds * RATE):
            top, left = number * 3 % (height * 2), number * 5 % (width * 2)
            bright = scene[top : top + height, left : left + width] // 2 + noise[number % 2] + 40
            frame = av.VideoFrame.from_ndarray(np.concatenate([bright, colours]), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def resized(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def wanted_frames(path: Path) -> list[int]:
    info = probe(path)
    return [int(seconds * info.fps + 1e-6) for seconds in sample_times(info, FRAMES)]


def every_frame(path: Path) -> Iterator[np.ndarray]:
    wanted = set(wanted_frames(path))
    if find_spec("cv2") is not None:
        import cv2

        video, number = cv2.VideoCapture(str(path)), 0
        while True:
            there, picture = video.read()
            if not there:
                return
            if number in wanted:
                yield resized(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            number += 1
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            picture = frame.to_ndarray(format="rgb24")
            if number in wanted:
                yield resized(picture)


def linear(path: Path) -> Iterator[np.ndarray]:
    wanted = set(wanted_frames(path))
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield resized(frame.to_ndarray(format="rgb24"))


def seek_each(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number in wanted_frames(path):
            container.seek(int(number / RATE / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if round(frame.time * RATE) >= number:
                    yield resized(frame.to_ndarray(format="rgb24"))
                    break


def key_frames(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = "NONKEY"
        for frame in container.decode(stream):
            yield resized(frame.to_ndarray(format="rgb24"))


def ffmpeg(path: Path) -> Iterator[np.ndarray]:
    chosen = "+".join(f"eq(n,{number})" for number in wanted_frames(path))
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", f"select='{chosen}',scale={SIZE}:{SIZE}:flags=bicubic"]
    command += ["-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    yield from np.frombuffer(data, np.uint8).reshape(-1, SIZE, SIZE, 3)


def ours(path: Path) -> Iterator[np.ndarray]:
    yield from read_clip(path, FRAMES, size=(SIZE, SIZE)).frames


WAYS = {way.__name__: way for way in (every_frame, ours, linear, seek_each, ffmpeg, key_frames)}
EXACT = ("every_frame", "ours", "linear", "seek_each")


def run_one(name: str, path: Path) -> None:
    """In the child: one way on one file."""
    began, start = time.process_time(), time.perf_counter()
    frames = np.stack(list(WAYS[name](path)))
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - began + of_children.ru_utime + of_children.ru_stime
    told = {"cpu": cpu, "wall": time.perf_counter() - start, "frames": len(frames)}
    # ru_maxrss of a new process begins with what its parent had; this does not.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    told["memory"] = int(peak[1]) / 1024 if peak else 0.0
    told["checksum"] = int(frames.astype(np.int64).sum())
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_one(options.run[0], Path(options.run[1]))
        return
    ways = [name for name in WAYS if name != "ffmpeg" or shutil.which("ffmpeg")]
    reader = "OpenCV" if find_spec("cv2") is not None else "PyAV in place of OpenCV, which is not installed"
    print(f"every_frame reads with {reader}; the ffmpeg command line is {'' if 'ffmpeg' in ways else 'not '}installed")
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title in options.files:
            path = Path(folder) / "video.mp4"
            make(path, *FILES[title])
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for _ in range(options.repeats):
                for name in ways:
                    command = [sys.executable, __file__, "--run", name, str(path)]
                    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    runs[name].append(json.loads(told))
            checksums = {runs[name][0]["checksum"] for name in EXACT if name in runs and find_spec("cv2") is None}
            assert len(checksums) <= 1, "the exact ways disagree about the frames"
            results[title] = {
                name: {key: statistics.median(run[key] for run in runs[name]) for key in ("cpu", "wall", "memory")}
                | {
                    "ratio": statistics.median(
                        run["cpu"] / base["cpu"] for run, base in zip(runs[name], runs["every_frame"], strict=True)
                    )
                }
                for name in ways
            }
            print(f"\n{title}\n{'way':12} {'ratio':>6} {'cpu s':>7} {'wall s':>7} {'MiB':>6}")
            for name, told in results[title].items():
                print(f"{name:12} {told['ratio']:6.2f} {told['cpu']:7.2f} {told['wall']:7.2f} {told['memory']:6.0f}")
    if options.output:
        machine = {"python": platform.python_version(), "av": av.__version__, "cores": os.cpu_count(), "reader": reader}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
