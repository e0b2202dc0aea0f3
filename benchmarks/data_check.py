"""How long `data check` takes on a csv file of the shape of Panda-70M's, and how much memory.

python benchmarks/data_check.py --rows 1000000 --output benchmarks/results/data_check.json

Rows are invented: two to four clips each, every seventh caption with an apostrophe, every eleventh in Chinese, one row
in a thousand broken. The file is written first and is no part of the time.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection"
CAPTIONS = (
    "A red kite flies over a beach, and two people watch it.",
    "Someone is cutting onions on a wooden board in a bright kitchen.",
    "A group of cyclists rides up a mountain road between pine trees.",
    "The camera moves over a city at night, with lights on the river.",
)
APOSTROPHE = "A man's dog runs along the sand."
CHINESE = "一只棕色的狗在沙滩上奔跑。"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{seconds % 60:06.3f}"


def row(number: int) -> str:
    clips = 2 + number % 3
    begins = [7.5 * clip + number % 500 for clip in range(clips)]
    spans = [[clock(begin), clock(begin + 6.28)] for begin in begins]
    texts = []
    for clip in range(number, number + clips):
        texts.append(APOSTROPHE if clip % 7 == 0 else CHINESE if clip % 11 == 0 else CAPTIONS[clip % 4])
    lists = [
        spans, texts, [0.451416015625 + clip / 100 for clip in range(clips)],
        ["desirable" if clip else "1_still_foreground_image" for clip in range(clips)],
        [[["0:00:00.000", "0:00:02.702"], ["0:00:02.736", "0:00:06.340"]] for _ in range(clips)],
    ]  # fmt: skip
    if number % 1000 == 999:
        lists[1] = texts[:-1]
    name = f"v{number:010}"
    cells = [str(values).replace('"', '""') for values in lists]
    return f"{name},https://www.youtube.com/watch?v={name}," + ",".join(f'"{cell}"' for cell in cells) + "\n"


def write(path: Path, rows: int) -> int:
    """Writes the file; gives the number of clips that can be used."""
    with path.open("w", encoding="utf-8") as file:
        file.write(COLUMNS + "\n")
        for number in range(rows):
            file.write(row(number))
    return sum(2 + number % 3 for number in range(rows) if number % 1000 != 999)


def measure(path: Path) -> dict[str, object]:
    """The verb in a process of its own: wall-clock and CPU seconds, peak memory in MiB, and what it found."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "minigpt4_video", "data", "check", "panda-70m", str(path), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": round(after.ru_maxrss / 1024),
        "report": json.loads(done.stdout),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "panda.csv"
        usable = write(path, given.rows)
        megabytes = path.stat().st_size / 1e6
        measured = measure(path)
    report = measured.pop("report")
    assert isinstance(report, dict) and report["records"] == usable, report
    result = {
        "rows": given.rows,
        "samples": report["records"],
        "flawed_rows": report["flawed rows"],
        "file_megabytes": round(megabytes),
        **measured,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(result, indent=2))
    if given.output is not None:
        given.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
