"""CPU seconds and memory to get 45 frames of 224 x 224 out of a video, against other ways of getting the same frames.

python benchmarks/media.py --output benchmarks/results/media.json

The ways take turns in one run, each time in a process of its own, and CPU time is counted, the children's with it, so
that the ratios hold on a machine that does other things as well; seconds are comparable only within one run.
`every_frame` is the original's way: OpenCV reads every frame up to the end, and Pillow resizes 45. `ffmpeg` is the
command line selecting the same frames by number. `key_frames` is not exact: it is the limit of what jumping can give.
OpenCV is in the extra `bench`; without it PyAV reads in its place. Memory is the peak that Linux's /proc tells.
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
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from minigpt4_video.media import probe, read_clip, sample_times

FRAMES, SIZE = 45, 224
RATE, GROUP = 30, 250


class Kind(NamedTuple):
    seconds: int
    width: int
    height: int
    suffix: str = "mp4"


FILES = {
    "5 minutes 1280x720": Kind(300, 1280, 720),
    "60 s 640x360": Kind(60, 640, 360),
    "60 s 640x360 MPEG-TS": Kind(60, 640, 360, "ts"),
    "10 s 640x360": Kind(10, 640, 360),
}


def made(folder: Path, kind: Kind) -> Path:
    path = folder / f"{kind.width}_{kind.seconds}.mp4"
    if not path.exists():
        make(path, kind)
    if kind.suffix == "mp4":
        return path
    copy = path.with_suffix(f".{kind.suffix}")
    with av.open(path) as source, av.open(copy, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return copy


def make(path: Path, kind: Kind) -> None:
    """A picture that drifts under noise, so that motion and residuals cost what they do in filmed video."""
    generator = np.random.default_rng(0)
    seconds, width, height, _ = kind
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
    """Numbers of the frames that are asked for."""
    info = probe(path)
    return [int(seconds * info.fps + 1e-6) for seconds in sample_times(info, FRAMES)]


def every_frame(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
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


def linear(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield resized(frame.to_ndarray(format="rgb24"))


def seek_each(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number in wanted:
            container.seek(int(number / RATE / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if round(frame.time * RATE) >= number:
                    yield resized(frame.to_ndarray(format="rgb24"))
                    break


def key_frames(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = "NONKEY"
        for frame in container.decode(stream):
            yield resized(frame.to_ndarray(format="rgb24"))


def ours(path: Path, wanted: list[int]) -> Iterator[np.ndarray]:
    yield from read_clip(path, FRAMES, size=(SIZE, SIZE)).frames


def ffmpeg(path: Path, wanted: list[int]) -> tuple[np.ndarray, float]:
    """The frames and the peak of the command's memory."""
    chosen = "+".join(f"eq(n,{number})" for number in wanted)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", f"select='{chosen}',scale={SIZE}:{SIZE}:flags=bicubic"]
    command += ["-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data, most = b"", 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(SIZE * SIZE * 3):
            data += piece
            most = max(most, peak(process.pid))
    return np.frombuffer(data, np.uint8).reshape(-1, SIZE, SIZE, 3), most


WAYS = {way.__name__: way for way in (every_frame, ours, linear, seek_each, key_frames)}
ALL = [*WAYS, "ffmpeg"]
EXACT = ("ours", "linear", "seek_each")


def peak(process: int | str) -> float:
    """MiB; ru_maxrss would begin with what the parent of a new process had."""
    told = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(told[1]) / 1024 if told else 0.0


def run_one(name: str, path: Path) -> None:
    """In the child: one way on one file."""
    wanted = wanted_frames(path)
    began, start = time.process_time(), time.perf_counter()
    if name == "ffmpeg":
        frames, memory = ffmpeg(path, wanted)
    else:
        frames = np.stack(list(WAYS[name](path, wanted)))
        memory = peak("self")
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - began + of_children.ru_utime + of_children.ru_stime
    told = {"cpu": cpu, "wall": time.perf_counter() - start, "memory": memory}
    print(json.dumps(told | {"frames": len(frames), "checksum": int(frames.astype(np.int64).sum())}))


def measured(path: Path, ways: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Medians over the repeats, in which the ways take turns."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name in ways:
            command = [sys.executable, __file__, "--run", name, str(path)]
            runs[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert len({runs[name][0]["checksum"] for name in EXACT if name in runs}) == 1, "the ways found other frames"

    def ratio(name: str) -> float:
        pairs = zip(runs[name], runs["every_frame"], strict=True)
        return statistics.median(run["cpu"] / base["cpu"] for run, base in pairs)

    return {
        name: {"ratio": round(ratio(name), 3)}
        | {key: round(statistics.median(run[key] for run in runs[name]), 3) for key in ("cpu", "wall", "memory")}
        for name in ways
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--folder", type=Path, help="where files are made and kept for another run")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_one(options.run[0], Path(options.run[1]))
        return
    ways = [name for name in ALL if name != "ffmpeg" or shutil.which("ffmpeg")]
    results = {}
    with tempfile.TemporaryDirectory() as passing:
        for title in options.files:
            kind = FILES[title]
            exact = [name for name in ways if name != "seek_each" or kind.suffix == "mp4"]  # in MPEG-TS it lands late
            found = measured(made(options.folder or Path(passing), kind), exact, options.repeats)
            results[title] = {"repeats": options.repeats, "ways": found}
            print(f"\n{title}\n{'way':12} {'ratio':>6} {'cpu s':>7} {'wall s':>7} {'MiB':>6}")
            for name, told in found.items():
                print(f"{name:12} {told['ratio']:6.2f} {told['cpu']:7.2f} {told['wall']:7.2f} {told['memory']:6.0f}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": machine(), "results": results}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def machine() -> dict[str, str | int | None]:
    """What the figures depend on."""
    told = {"python": platform.python_version(), "PyAV": av.__version__, "cores": os.cpu_count()}
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    told["processor"] = processor[1] if processor else platform.machine()
    told["usable cores"] = len(os.sched_getaffinity(0))
    told["every_frame reads with"] = "PyAV"
    if find_spec("cv2") is not None:
        import cv2

        told["every_frame reads with"] = f"OpenCV {cv2.__version__}"
    if shutil.which("ffmpeg"):
        told["ffmpeg"] = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout.split()[2]
    return told


if __name__ == "__main__":
    main()
