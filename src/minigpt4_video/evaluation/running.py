"""A run of a benchmark in a folder: answers first, then scores and reports; it goes on where it stopped.

`run.json` says how it was begun and what it was begun with, `answers.jsonl` has a row for each answer as soon as it is
there, `flaws.jsonl` what could not be asked, `scores.json` and the reports are made from these.
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from minigpt4_video import __version__
from minigpt4_video.data import world
from minigpt4_video.data.formats.rows import TABLES
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.answering import Answerer, groups_of
from minigpt4_video.evaluation.benchmarks import BENCHMARKS
from minigpt4_video.evaluation.files import Row, add_rows, read_json, read_rows, write_json
from minigpt4_video.evaluation.items import Benchmark, Item, media_folder, source
from minigpt4_video.inference.store import file_digest, source_digest

RUN, ANSWERS, FLAWS, SCORES = "run.json", "answers.jsonl", "flaws.jsonl", "scores.json"

Progress = Callable[[int, int], None]
"""Hears how many of how many items have been answered."""


@dataclass(frozen=True)
class Task:
    """What is asked: a benchmark by its name, where its files are, and how much of it."""

    benchmark: str
    annotations: Path
    media: Path | None = None
    subtitles: str = "auto"
    """ "auto" (as the benchmark has them, or beside the videos), "off", or a file or folder of them."""
    limit: int | None = None
    """Only so many items, the first."""
    made: bool = False
    """Whether the files were made by the benchmark itself."""


@dataclass(frozen=True)
class Asked:
    """A benchmark that has been read."""

    items: list[Item]
    flaws: list[Flaw]
    """Rows and videos that cannot be used."""


def find(name: str) -> Benchmark:
    """Raises DataError where there is no benchmark of that name."""
    if name not in BENCHMARKS:
        raise DataError(f"there is no benchmark {name}; choose {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def task(
    name: str, output: Path, annotations: Path | None, media: Path | None, subtitles: str, limit: int | None
) -> Task:
    """What is asked, with files that the benchmark makes where it can. Raises DataError where files are missing."""
    benchmark = find(name)
    output.mkdir(parents=True, exist_ok=True)
    made = annotations is None
    if annotations is None:
        if benchmark.make is None:
            raise DataError(
                f"{name} is read from {benchmark.annotations}; name that with --annotations, and the folder of its "
                f"videos with --media ({benchmark.origin})"
            )
        annotations = benchmark.make(output / "files", limit)
    for named in (annotations, media):
        if named is not None and not named.exists():
            raise DataError(f"there is no {named}; {name} is read from {benchmark.annotations}")
    return Task(name, annotations, media, subtitles, limit, made)


def read(task: Task) -> Asked:
    """All items of a task, and what could not be made one. Raises DataError where there is no item at all."""
    place = source(task.benchmark, task.annotations, task.media, task.subtitles)
    items: list[Item] = []
    flaws: list[Flaw] = []
    for one in find(task.benchmark).read(place):
        if isinstance(one, Flaw):
            flaws.append(one)
            continue
        items.append(replace(one, video={**one.video, "subtitles": "off"}) if task.subtitles == "off" else one)
        if len(items) == task.limit:
            break
    if not items:
        why = f": {flaws[0].where} {flaws[0].problem} {flaws[0].detail}".rstrip() if flaws else ""
        raise DataError(f"{task.annotations} gives no question of {task.benchmark} that can be asked{why}")
    return Asked(items, flaws)


def begin(task: Task, output: Path, identity: Mapping[str, Any]) -> None:
    """Note how a run is begun. Raises DataError where it was begun otherwise: its answers would not belong together."""
    told = {
        "benchmark": task.benchmark,
        "annotations": {"path": str(task.annotations), "sha256": _digest(task)},
        # What the benchmark makes itself lies in the run's own folder, which may be moved.
        "media": None if task.made else str(media_folder(task.annotations, task.media).resolve()),
        "subtitles": task.subtitles,
        "answered_by": identity,
    }
    file = output / RUN
    if file.exists():
        earlier = read_json(file)
        for name in ("benchmark", "annotations", "media", "subtitles", "answered_by"):
            before, now = earlier.get(name), told[name]
            if name == "annotations":
                before, now = before.get("sha256"), told[name]["sha256"]  # type: ignore[index]
            if before != now:
                moved = f', or, if these are the same videos, write {now} into {file} as "media"'
                raise DataError(
                    f"the run in {output} was begun with other {name.replace('_', ' ')} ({_shown(before, now)}); name "
                    f"another folder{moved if name == 'media' else ''}"
                )
        return
    about = {"version": __version__, "python": platform.python_version(), "machine": platform.machine()}
    write_json(file, told | {"begun_with": about})


def _shown(before: Any, now: Any) -> str:
    """What differs, in short."""
    if isinstance(before, dict) and isinstance(now, dict):
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return "; ".join(f"{name} {_shown(before.get(name), now.get(name))}" for name in differing)
    return f"{before}, now {now}"


def _digest(task: Task) -> str:
    """Of a file, of all tables in a folder, or, where the benchmark makes its files, of what makes them: it may make
    more of them later."""
    if task.made:
        return source_digest(Path(str(world.__file__)).parent)
    if task.annotations.is_file():
        return file_digest(task.annotations)
    files = sorted(file for file in task.annotations.rglob("*") if file.suffix in TABLES and file.is_file())
    told = [(str(file.relative_to(task.annotations)), file_digest(file)) for file in files]
    return sha256(repr(told).encode()).hexdigest()


def answered(output: Path) -> dict[str, Row]:
    """The rows of a run by the ids of their items, of several for one the last."""
    return {row["id"]: row for row in read_rows(output / ANSWERS)}


def unanswered(items: Sequence[Item], rows: Mapping[str, Row]) -> list[Item]:
    """Items without an answer; those that failed are among them, for what was wrong may have been mended."""
    return [item for item in items if "answer" not in rows.get(item.id, {})]


def answer(asked: Asked, output: Path, answerer: Answerer, progress: Progress | None = None) -> dict[str, Row]:
    """Ask what has not been answered yet; the rows of all items. An interruption loses the videos in work."""
    rows = answered(output)
    left = unanswered(asked.items, rows)
    done = len(asked.items) - len(left)
    write_flaws(output, asked.flaws)
    for made in answerer.answer(iter(groups_of(left))):
        add_rows(output / ANSWERS, made)
        rows |= {row["id"]: row for row in made}
        done += len(made)
        if progress is not None:
            progress(done, len(asked.items))
    return {item.id: rows[item.id] for item in asked.items}


def write_flaws(output: Path, flaws: Iterable[Flaw]) -> None:
    file = output / FLAWS
    file.unlink(missing_ok=True)
    rows = ({"where": flaw.where, "problem": flaw.problem, "detail": flaw.detail} for flaw in flaws)
    while batch := list(islice(rows, 1000)):
        add_rows(file, batch)
