"""What is killed while a job runs on Ray costs nothing but time: drivers, actors and whole nodes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt4_video.data.world.files import render
from minigpt4_video.labelling.job import ROWS
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests

pytest.importorskip("ray")
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's name; niced actors starve on a busy machine)

ASKED = requests(("brief", "tags"))
DRIVER = """
import sys
from pathlib import Path
from minigpt4_video.labelling.cluster import Cluster
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests

asked = requests(("brief", "tags"))
label(Order(sys.argv[1], Path(sys.argv[2]), asked, keep_every=0, cluster=Cluster(sys.argv[3], captioners=2)))
"""
FILMS = 170
BETWEEN = 2
"""Clips that are labelled between two kills, at least."""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many as the kills of the longest test need, and some."""
    folder = tmp_path_factory.mktemp("films")
    render(folder, count=FILMS, language="en")
    (folder / "questions.jsonl").unlink()
    for subtitles in folder.glob("*.srt"):
        subtitles.unlink()
    return folder


@pytest.fixture(scope="module")
def undisturbed(films: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    label(Order(str(films), output, ASKED))
    return told(output)


def told(output: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (output / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["id"], row["status"], row["text"]) for row in rows]


def labelled(output: Path) -> int:
    """Clips whose labels are on disk: each is a piece."""
    return len(list((output / ROWS).glob("*.parquet")))


def processes(below: int, title: str) -> list[int]:
    """Those that `below` or what it started has started, of a title such as ray::CaptioningActor."""
    parents, titles = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(place.name)] = (place / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            continue  # it has ended

    def is_below(number: int) -> bool:
        while number in parents and number != below:
            number = parents[number]
        return number == below

    return sorted(number for number in titles if titles[number].startswith(title) and is_below(number))


class Killing:
    """A job, what it runs on, and ways to disturb it."""

    def __init__(self, films: Path, output: Path) -> None:
        from ray.cluster_utils import Cluster

        self.output = output
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **self.small()}
        )
        self.nodes = [self.add(), self.add()]
        self.line = [sys.executable, "-c", DRIVER, str(films), str(output), self.cluster.address]
        self.driver = self.begun()
        self.killed: list[str] = []
        self.chance = random.Random(7)

    @staticmethod
    def small() -> dict[str, Any]:
        return {"object_store_memory": 100 * 2**20}

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=3, **self.small())

    def begun(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self.line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait_for(self, clips: int, seconds: float = 400.0) -> None:
        deadline = time.monotonic() + seconds
        while labelled(self.output) < clips:
            assert self.driver.poll() is None, self.driver.communicate()[1].decode()
            assert time.monotonic() < deadline, f"{labelled(self.output)} clips, {self.killed}"
            time.sleep(0.05)

    def kill(self, what: str) -> None:
        if what == "driver":
            self.driver.kill()
            assert self.driver.wait() == -signal.SIGKILL
            self.driver = self.begun()
        elif what == "node":
            self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
            self.nodes.append(self.add())
        else:
            while not (actors := processes(os.getpid(), f"ray::{what}")):
                assert self.driver.poll() is None, self.driver.communicate()[1].decode()
                time.sleep(0.05)
            os.kill(self.chance.choice(actors), signal.SIGKILL)
        self.killed.append(what)

    def close(self) -> None:
        self.driver.kill()
        self.driver.communicate()
        self.cluster.shutdown()


@pytest.fixture
def killing(films: Path, embedded: Path, tmp_path: Path) -> Iterator[Killing]:
    made = Killing(films, tmp_path / "out")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_nothing_is_lost_or_doubled_when_drivers_actors_and_nodes_are_killed_in_one_job(killing, undisturbed):
    kills = ["driver"] * 10 + ["CaptioningActor"] * 8 + ["ReadingActor"] * 2 + ["node"] * 3
    killing.chance.shuffle(kills)

    for what in kills:
        killing.wait_for(labelled(killing.output) + BETWEEN)
        time.sleep(killing.chance.uniform(0, 1))
        killing.kill(what)
    _, said = killing.driver.communicate(timeout=600)

    assert killing.driver.returncode == 0, said.decode()
    assert sorted(killing.killed) == sorted(kills)
    rows = told(killing.output)
    assert len(rows) == 2 * FILMS == len({id_ for id_, _, _ in rows})
    assert rows == undisturbed
