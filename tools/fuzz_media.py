"""Damages media and subtitle files at random and reads them, to find what is not told as a `MediaError`.

    python tools/fuzz_media.py --minutes 30 --corpus FOLDER --output FOLDER
    python tools/fuzz_media.py --case 1234 --corpus FOLDER --output FOLDER       one case again, by its number

Reported are exceptions of any other kind, results that contradict themselves, crashes, reading that takes too long or
too much memory, and processes that grow while they read one file after the other. Files that did so are kept in the
output folder beside `report.json`. The exit status is 1 where there are any. The same seed, files and packages give the
same cases.
"""

import argparse
import itertools
import json
import logging
import math
import os
import random
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "media"), str(ROOT / "tests")]

from damage import damaged  # noqa: E402

SUBTITLES = {".srt", ".vtt", ".ass", ".ssa", ".sub"}
LARGEST_FILE = 8 * 2**20  # reading the same large file for long finds little
USUAL_FILE = 100_000
FILES_A_READER = 400
SETTLED_AFTER = 100  # files; until then libraries load and caches fill
MOST_CPU_SECONDS = 20.0
MOST_SECONDS = 90.0
MOST_MEMORY = 1536 * 2**20
MOST_GROWTH = 150 * 2**20
ADDRESS_SPACE = 6 * 2**30


class Reader:
    """A process that reads files; a new one takes its place where it ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, seed: str) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, str(Path(__file__).resolve()), "--reader"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self.files, self.settled = 0, 0
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"path": str(path), "seed": seed}).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], MOST_SECONDS)[0]:
            self.end()
            return {"fault": f"hangs for more than {MOST_SECONDS:g} s", "seconds": MOST_SECONDS}
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self.end()
            return {"fault": f"crashes with status {status}"}
        told: dict[str, Any] = json.loads(line)
        self.files += 1
        if self.files == SETTLED_AFTER:
            self.settled = told["held"]
        told["growth"] = told["held"] - self.settled if self.files >= SETTLED_AFTER else 0
        return told

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def own_files(folder: Path) -> list[Path]:
    """One small file of each kind, made here."""
    from PIL import Image

    from numbered import write_animation, write_video

    made = [
        write_video(folder / f"own.{suffix}", range(30), codec=codec, g="10")
        for suffix, codec in {
            **{"mp4": "libx264", "ts": "libx264", "flv": "libx264", "mov": "libx264", "avi": "mpeg4", "3gp": "mpeg4"},
            **{"mpg": "mpeg2video", "mxf": "mpeg2video", "webm": "libvpx-vp9", "h264": "libx264", "m2ts": "libx264"},
        }.items()
    ]
    said = [("eng", 0.2, 0.5, "one"), ("zho", 0.4, 1.0, "two")]
    made.append(write_video(folder / "own.mkv", range(30), g="10", subtitles=said))
    made.append(write_video(folder / "own_text.mp4", range(30), g="10", subtitles=said, subtitle_codec="mov_text"))
    made += [write_animation(folder / f"own.{suffix}", [100] * 8) for suffix in ("gif", "webp")]
    for suffix in ("png", "jpg", "bmp", "tiff"):
        made.append(folder / f"own.{suffix}")
        Image.new("RGB", (64, 48), (200, 30, 30)).save(made[-1])
    cues = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},500\n<i>words {n}</i>\n\n" for n in range(1, 12))
    event = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,Anna,0,0,0,,{\\i1}words\\Nmore {\\p1}m 0 0{\\p0}\n"
    names = "Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text"
    for suffix, text in {
        "srt": cues,
        "vtt": f"WEBVTT\n\nSTYLE\n::cue {{}}\n\n{cues.replace(',', '.')}<v Anna>said</v>\n",
        "ass": f"[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: {names}\n{event * 8}",
        "sub": "{1}{1}25\n" + "".join(f"{{{25 * n}}}{{{25 * n + 20}}}words|more {n}\n" for n in range(1, 12)),
    }.items():
        made.append(folder / f"own.{suffix}")
        made[-1].write_text(text)
    made.append(folder / "own_utf16.srt")
    made[-1].write_text(cues, encoding="utf-16")
    return made


def write_case(number: int, seed: str, files: list[Path], folder: Path) -> tuple[Path, Path]:
    """The damaged file of a case and the whole one that it is made of."""
    chance = random.Random(f"{seed}:{number}")
    weights = [1 / (1 + file.stat().st_size / USUAL_FILE) for file in files]
    whole, other = chance.choices(files, weights, k=2)
    path = folder / f"case-{number}{whole.suffix}"
    is_text = whole.suffix.lower() in SUBTITLES
    path.write_bytes(damaged(whole.read_bytes(), chance, other.read_bytes(), words=is_text))
    return path, whole


def faults_of(told: dict[str, Any]) -> list[str]:
    """What is wrong with a reading, each in words that are the same for the same cause."""
    if "fault" in told:
        return [told["fault"]]
    faults = list(told["errors"])
    if told["seconds"] > MOST_CPU_SECONDS:
        faults.append(f"takes more than {MOST_CPU_SECONDS:g} CPU seconds")
    if told["peak"] > MOST_MEMORY:
        faults.append(f"takes more than {MOST_MEMORY >> 20} MB")
    if told["growth"] > MOST_GROWTH:
        faults.append(f"the process has grown by more than {MOST_GROWTH >> 20} MB")
    return faults


def fuzz(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {}
    endings: Counter[str] = Counter()
    slowest, largest, most_growth = 0.0, 0, 0
    reader = Reader()
    with tempfile.TemporaryDirectory(prefix="fuzz-media-") as temporary:
        folder = Path(temporary)
        (folder / "own").mkdir()
        files = own_files(folder / "own")
        if arguments.corpus is not None:
            corpus = [path for path in sorted(arguments.corpus.iterdir()) if path.is_file()]
            files += [path for path in corpus if 0 < path.stat().st_size <= LARGEST_FILE]
        began = time.monotonic()
        numbers = itertools.islice(itertools.count(), arguments.cases) if arguments.case is None else [arguments.case]
        for number in numbers:
            if time.monotonic() - began > 60 * arguments.minutes:
                break
            path, whole = write_case(number, arguments.seed, files, folder)
            told = reader.read(path, f"{arguments.seed}:{number}")
            endings[told.get("ending", "ended")] += 1
            slowest, largest = max(slowest, told.get("seconds", 0.0)), max(largest, told.get("peak", 0))
            most_growth = max(most_growth, told.get("growth", 0))
            faults = dict.fromkeys(faults_of(told))
            if told.get("seconds", 0.0) > MOST_CPU_SECONDS:
                unhurt = reader.read(whole, f"{arguments.seed}:{number}").get("seconds", 0.0)
                if told["seconds"] < 2 * unhurt:  # a large file, and it takes as long without the damage
                    faults = dict.fromkeys(fault for fault in faults if "seconds" not in fault and "hangs" not in fault)
                    endings["slow, as without damage"] += 1
            for fault in faults:
                found.setdefault(fault, []).append({"case": number, "of": whole.name, "told": told.get("details")})
                if len(found[fault]) <= 3:
                    (output / path.name).write_bytes(path.read_bytes())
                    print(f"case {number} of {whole.name}: {fault}", flush=True)
            if "growth" not in told or reader.files >= FILES_A_READER or told["growth"] > MOST_GROWTH:
                reader.end()
            path.unlink()
        reader.end()
    report = {
        "seed": arguments.seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "files": len(files),
        "cases": sum(endings.values()),
        "endings": dict(endings),
        "slowest_cpu_seconds": round(slowest, 2),
        "largest_megabytes": largest >> 20,
        "largest_growth_megabytes": most_growth >> 20,
        "faults": {fault: {"times": len(cases), "cases": cases[:3]} for fault, cases in found.items()},
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "faults"} | {"faults": len(found)}))
    return 1 if found else 0


def serve() -> None:
    """The reader: a path and a seed in, what came of reading it out."""
    import resource

    # all imported before the first file is read, or their memory would look like growth
    import minigpt4_video.media

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.getLogger("minigpt4_video").addHandler(logging.NullHandler())
    assert minigpt4_video.media
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a decoder prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of this file
        told = read(Path(request["path"]), random.Random(request["seed"]))
        told |= {"peak": memory("VmHWM"), "held": memory("VmRSS")}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def memory(name: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def read(path: Path, chance: random.Random) -> dict[str, Any]:
    """Read a file in all the ways there are; each must give what is right in itself or one `UserError`."""
    from minigpt4_video.errors import UserError
    from minigpt4_video.media import align, find_subtitles, probe, read_clip, read_frames, read_subtitles

    errors: list[str] = []
    details: list[str] = []
    endings: list[str] = []
    seconds: list[float] = []

    def attempt(reading: Callable[[], None]) -> None:
        began = time.process_time()
        try:
            reading()
            endings.append("read")
        except UserError as error:
            endings.append("refused")
            if not str(error) or "\n" in str(error):
                errors.append(f"no message of one line: {str(error)[:80]!r}")
        except BaseException as error:  # whatever it is, it is what is looked for
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "minigpt4_video" in frame.filename
            ]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "check"
            errors.append(f"{type(error).__name__} in {where}")
            details.append(traceback.format_exc())
        seconds.append(time.process_time() - began)

    def subtitles(**options: Any) -> None:
        cues = read_subtitles(path, **options)
        for cue in cues:
            assert 0 <= cue.start <= cue.end < math.inf and cue.text and "\n" not in cue.text, cue
        assert cues == sorted(cues, key=lambda cue: cue.start), "cues out of order"
        align(cues, [0.0, 1.0, 2.0])

    def look_for_subtitles() -> None:
        source = find_subtitles(path, chance.choice([None, "en", "zh"]))
        assert source is None or source.path == path, source

    def clip(scaler: Any) -> None:
        found = read_clip(path, chance.choice([1, 8, 50]), size=(48, 64), scaler=scaler)
        check(found, (48, 64))

    def part() -> None:
        begin = chance.choice([0.0, 0.1, 1.0])
        check(read_clip(path, 4, size=(48, 64), start=begin, end=begin + chance.choice([0.01, 0.5, 1e6])), (48, 64))

    def frames() -> None:
        times = [chance.choice([0.0, -1.0, 1e9, chance.random(), 10 * chance.random()]) for _ in range(4)]
        check(read_frames(path, times), None)

    def look() -> None:
        info = probe(path)
        assert 0 < info.duration < math.inf and 0 < info.fps < math.inf and info.frames >= 1, info
        assert info.width > 0 and info.height > 0 and info.rotation in (0, 90, 180, 270), info

    if path.suffix.lower() in SUBTITLES:
        attempt(subtitles)
        attempt(lambda: subtitles(encoding=chance.choice(["utf-8", "gbk", "utf-16", "cp1252"]), fps=24.0))
    else:
        attempt(look)
        attempt(look_for_subtitles)
        attempt(lambda: clip("pillow"))
        attempt(chance.choice([lambda: clip("decoder"), part, frames, subtitles, lambda: subtitles(track=0)]))
    return {"ending": endings[0] if endings else "fault", "errors": errors, "details": details, "seconds": max(seconds)}


def check(clip: Any, size: tuple[int, int] | None) -> None:
    assert clip.frames.ndim == 4 and clip.frames.shape[3] == 3 and len(clip.frames) == len(clip.times) > 0, clip
    assert size is None or clip.frames.shape[1:3] == size, clip.frames.shape
    assert all(math.isfinite(time) for time in clip.times) and 0 < clip.duration < math.inf, (clip.times, clip.duration)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cases", type=int, help="end after so many, where the time is not up before")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--case", type=int, help="read this one only")
    parser.add_argument("--corpus", type=Path, help="folder of files to damage, beside those that are made here")
    parser.add_argument("--output", type=Path, default=Path("runs/fuzz"), help="folder for the report and the files")
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        serve()
        return 0
    return fuzz(arguments)


if __name__ == "__main__":
    sys.exit(main())
