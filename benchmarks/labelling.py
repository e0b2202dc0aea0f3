"""What labelling costs: against loops over `ask` and `ask_many`, against the original's order of work (decode, encode
and read everything for each question), on Ray, and in the memory of what drives a job.

    taskset -c 0 python benchmarks/labelling.py --output benchmarks/results/labelling.json

Every clip is asked four things (brief, tags; English, Chinese) unless it is said otherwise. The models are the embedded
one, on videos of the world, and that of benchmarks/inference.py, of middle size and with random weights, on its videos
of a minute. Processor seconds are of all processes of a side together, so that ratios hold on a machine that does other
things as well; loading is left out on all sides, on Ray by the difference between a long and a short job. Sides take
turns. Shares of waiting are of the clock on the wall and need a core for each process (`taskset -c 0,1`): they are
measured by `--only idle-tiny idle-mid`. A driver is measured with a stand-in for the model that answers at once, from
the plan to the table. `--quick` takes a few clips and rows: to see that it runs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import minigpt4_video as mv
from inference import MID, Reference, make_model, make_video, processor
from minigpt4_video.data.world.files import QUESTIONS, render
from minigpt4_video.inference.loading import find_model
from minigpt4_video.labelling.alarms import Alarms
from minigpt4_video.labelling.captioner import Settings
from minigpt4_video.labelling.cluster import Cluster
from minigpt4_video.labelling.job import planned
from minigpt4_video.labelling.label import Order, captioner, finish, form_of, found, given, label, sources
from minigpt4_video.labelling.local import labels_here
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.requests import Asked, requests
from minigpt4_video.labelling.rows import Label
from minigpt4_video.labelling.run import carry_out

FOUR = requests(("brief", "tags"), ("en", "zh"))
PARTS = ("plan", "tiny", "mid", "ray", "idle-tiny", "idle-mid")
TICK = os.sysconf("SC_CLK_TCK")


def ended() -> float:
    """Processor seconds of this process and its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measured(work: Callable[[], Any]) -> float:
    begun = ended()
    work()
    return ended() - begun


class Bench:
    """A model, videos for it, and the ways to have four answers about each."""

    def __init__(self, model: str, videos: Path, most: int | None) -> None:
        self.model, self.videos, self.most = model, videos, most
        self.files = sorted(videos.glob("*.mp4"))
        self.chat = mv.VideoChat.from_pretrained(model, device="cpu")
        self.captioner = captioner(self.order(FOUR), self.settings(FOUR))
        self.texts = [asked.text for asked in FOUR]
        self.reference = Reference(self.chat)
        self.used = 0.0
        """Processor seconds of this process for the captioning of the last job."""

    def order(self, asked: tuple[Asked, ...], output: Path = Path()) -> Order:
        return Order(
            str(self.videos), output, asked, model=self.model, device="cpu", max_new_tokens=self.most, max_alike=1
        )

    def settings(self, asked: tuple[Asked, ...]) -> Settings:
        return Settings(asked, self.most)

    def labelled(self, asked: tuple[Asked, ...], readers: int = 1) -> float:
        """A whole job but for loading the model; seconds on the wall of captioning."""
        self.captioner.settings = self.settings(asked)
        took = 0.0

        def engine(works: Iterator[Work]) -> Iterator[list[Label]]:
            nonlocal took
            begun, used = time.perf_counter(), time.process_time()
            yield from labels_here(works, self.captioner, form, order.limits, readers)
            took, self.used = time.perf_counter() - begun, time.process_time() - used

        with tempfile.TemporaryDirectory() as output:
            order = self.order(asked, Path(output))
            form = form_of(order, self.chat.processor)
            job = planned(
                order.output, given(order, find_model(self.model)), lambda: found(order), lambda: sources(order)
            )
            carry_out(job, self.captioner.settings, engine, Alarms(1, 1, lambda one: True))
            finish(job)
        return took

    def loop_ask(self) -> None:
        for file in self.files:
            video = self.chat.open(file)
            for text in self.texts:
                video.ask(text, max_new_tokens=self.most)

    def loop_ask_many(self) -> None:
        for file in self.files:
            self.chat.open(file).ask_many(self.texts, max_new_tokens=self.most)

    def original(self, clips: int, tokens: int) -> None:
        for file in self.files[:clips]:
            for text in self.texts:
                self.reference.ask(file, text, tokens)


def throughput(bench: Bench, rounds: int) -> dict[str, Any]:
    """Processor seconds a clip of each way. The reference gives as many tokens as asked, so it is asked for as many as
    the answers have; it is tried on a few clips."""
    first = bench.chat.open(bench.files[0]).ask_many(bench.texts, max_new_tokens=bench.most)
    tokens = round(statistics.fmean(answer.tokens for answer in first))
    few = max(1, len(bench.files) // 8)
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "label": (lambda: bench.labelled(FOUR), len(bench.files)),
        "label, one request": (lambda: bench.labelled(FOUR[:1]), len(bench.files)),
        "loop over ask_many": (bench.loop_ask_many, len(bench.files)),
        "loop over ask": (bench.loop_ask, len(bench.files)),
        "original's order": (lambda: bench.original(few, tokens), few),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, clips) in ways.items():
            took[name].append(measured(way) / clips)
    best = {name: min(runs) for name, runs in took.items()}
    ours = best["label"]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    bench.labelled(FOUR)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reading = sum(after[:2]) - sum(children[:2])
    return {
        "clips": len(bench.files),
        "tokens_an_answer": tokens,
        "processor_seconds_a_clip": best,
        "clips_a_minute_and_core": 60 / ours,
        "share_of_reading": reading / len(bench.files) / ours,
        "times_the_original": best["original's order"] / ours,
        "times_the_loop_over_ask": best["loop over ask"] / ours,
        "times_the_loop_over_ask_many": best["loop over ask_many"] / ours,
        "four_requests_over_one": ours / best["label, one request"],
    }


def idle(bench: Bench) -> dict[str, Any]:
    """The share of its time that the model has nothing to do, with one process that reads beside it."""
    engine: Any = bench.captioner.engine
    engine.waited = 0.0
    took = bench.labelled(FOUR)
    return {
        "clips": len(bench.files),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": took,
        "clips_a_minute": 60 * len(bench.files) / took,
        "share_of_waiting": engine.waited / took,
        "share_of_a_core_that_it_got": bench.used / took,
    }


def alive() -> float:
    """Processor seconds of this process and all below it, those that have ended included."""
    spent: dict[int, float] = {}
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            told = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(place.name)] = int(told[1])
        spent[int(place.name)] = sum(map(int, told[11:15])) / TICK

    def is_below(number: int) -> bool:
        while number in parents and number != os.getpid():
            number = parents[number]
        return number == os.getpid()

    return sum(seconds for number, seconds in spent.items() if is_below(number))


def on_ray(bench: Bench, clips: Iterable[int], videos: Path) -> float:
    """Processor seconds that a clip adds to a job on Ray: the difference between jobs of two sizes."""
    spent = []
    for count in clips:
        some = videos / f"some-{count}"
        some.mkdir(exist_ok=True)
        for file in bench.files[:count]:
            for one in (file, file.with_suffix(".srt")):
                if one.exists() and not (some / one.name).exists():
                    (some / one.name).symlink_to(one)
        with tempfile.TemporaryDirectory() as output:
            order = replace(
                bench.order(FOUR, Path(output) / "out"), collection=str(some), cluster=Cluster(), keep_every=0
            )
            last = [0.0]
            begun = alive()
            label(order, lambda progress, last=last: last.__setitem__(0, alive()))  # type: ignore[misc]
            spent.append(last[0] - begun)
    less, more = clips
    return (spent[1] - spent[0]) / (more - less)


DRIVER = """
import json, resource, sys, tempfile, time
from pathlib import Path
from minigpt4_video.labelling.alarms import Alarms
from minigpt4_video.labelling.captioner import Settings
from minigpt4_video.labelling.job import Given, planned
from minigpt4_video.labelling.label import finish
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.rows import Label
from minigpt4_video.labelling.run import carry_out
from minigpt4_video.labelling.sources import Source

rows = int(sys.argv[1])
asked = requests(("brief", "tags"), ("en", "zh"))
clips = rows // len(asked)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sources = lambda: (Source(f"shard-{n // 1000:05d}/{n:09d}.mp4", f"/videos/{n:09d}.mp4") for n in range(clips))

class Stopped(Exception):
    pass

def labels(works):
    for work in works:
        said = [Label.begun(row, work.source, asked[row.request], "success") for row in work.rows]
        for one in said:
            one.text, one.confidence, one.frame_hash = f"a thing called {one.number}", -0.1, f"{one.number:048x}"
            one.tokens, one.frames, one.model, one.revision = 8, [0.1 * n for n in range(8)], "tiny", "0" * 16
        yield said

def half(progress):
    if progress.clips == clips // 2:
        raise Stopped

with tempfile.TemporaryDirectory() as place:
    output = Path(place)
    given = Given(collection="/videos", requests=asked, model="tiny", revision="0" * 16)
    told = {"rows": rows, "loaded_mib": peak()}
    begun = time.process_time()
    job = planned(output, given, sources, sources)
    told |= {"plan_s": time.process_time() - begun, "plan_mib": peak()}
    try:
        carry_out(job, Settings(asked), labels, Alarms(1, 1, lambda one: True), None, half)
    except Stopped:
        pass
    job = planned(output, given, sources, sources)
    done = carry_out(job, Settings(asked), labels, Alarms(1, 1, lambda one: True))
    assert done.done_before == rows // 2 and done.done == rows
    begun = time.process_time()
    finish(job)
    told |= {"table_s": time.process_time() - begun, "driver_mib": peak()}
    lines = sum(1 for _ in (output / "labels.jsonl").open())
    assert lines == rows
print(json.dumps(told))
"""


def drivers(sizes: list[int]) -> list[dict[str, Any]]:
    """Seconds of a plan, and the peak of memory of a process that carries a job of so many rows out: plans it, is
    interrupted in the middle, goes on, and writes the table."""
    found = []
    for rows in sizes:
        line = [sys.executable, "-c", DRIVER, str(rows)]
        found.append(json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))
        print(json.dumps(found[-1]), flush=True)
    return found


def tiny(place: Path, clips: int) -> Bench:
    render(place / "world", count=clips, language="en")
    (place / "world" / QUESTIONS).unlink()
    for beside in (place / "world").glob("*.srt"):
        beside.unlink()
    return Bench("tiny", place / "world", None)


def mid(place: Path, clips: int) -> Bench:
    make_model(place / "model", MID)
    (place / "films").mkdir()
    for number in range(clips):
        make_video(place / "films" / f"{number}.mp4", MID.seconds, number)
    return Bench(str(place / "model"), place / "films", 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the figures as JSON, beside those of other parts there")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=["plan", "tiny", "mid", "ray"])
    parser.add_argument("--clips", type=int, default=48, help="for the embedded model; a twelfth for the other")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes = [1_000, 2_000] if options.quick else [1_000, 100_000, 1_000_000]
    clips, rounds = (4, 1) if options.quick else (options.clips, options.rounds)
    torch.set_num_threads(1)
    for part in options.only:
        with tempfile.TemporaryDirectory() as aside:
            place = Path(aside)
            if part == "plan":
                found: Any = drivers(sizes)
            elif part == "ray":
                few, many = max(1, clips // 24), max(2, clips // 6)
                bench = mid(place, many)
                ray, loop = on_ray(bench, (few, many), place), measured(bench.loop_ask_many) / many
                found = {"clips": many - few, "processor_seconds_a_clip": {"label on Ray": ray, "loop": loop}}
                found |= {"over_the_loop_over_ask_many": ray / loop}
            else:
                bench = tiny(place, clips) if part.endswith("tiny") else mid(place, max(2, clips // 12))
                found = idle(bench) if part.startswith("idle") else throughput(bench, rounds)
        print(part, json.dumps(found, indent=1), flush=True)
        keep(options.output, part, found)


def keep(output: Path | None, part: str, found: Any) -> None:
    """A part's figures at once, for all parts together take long."""
    if output is None:
        return
    told = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    told["machine"] = f"two shared x86-64 cores ({processor()}), 1 thread, torch {torch.__version__}"
    told.setdefault("load", {})[part] = os.getloadavg()[0]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(told | {part: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
