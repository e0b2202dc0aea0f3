"""What the server gains, as ratios against itself without reuse and against `transformers serve` on the same folder.

python benchmarks/serving.py --output benchmarks/results/serving.json

Clients on loopback ask for streams of at most 16 tokens about videos of the world, 8 frames each, named by their paths:
all about one video, or each about one that no server has seen before. The three servers run at the same time and take
turns, one thread each; a run of one is between the runs of the others. For each round there are requests a second and
the middle and the slowest twentieth of the times to the first word; ratios are the middle of the rounds'. Answers are
compared. The tiny model is the embedded one; the mid model, with random weights, is that of benchmarks/inference.py,
and no answer of it ends early. At last the memory of a server with the tiny model is looked at while it answers
thousands of requests about many videos, some of which cannot be read. `--quick` takes a tenth of everything, to see
that it runs; `--add` adds rounds to those that are in the file, for machines that are not quiet for long.

`transformers serve` needs three lines of registration (`other_side`); it opens any path that a request names.
"""

import argparse
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.data.world.files import render

REQUESTS = {"tiny": {1: 16, 8: 32, 32: 64}, "mid": {1: 3, 8: 8, 32: 32}}
"""By model and number of clients, in a round."""
FRAMES = 8
TOKENS = 16
SIDES = ("reuse", "plain", "transformers")
QUESTIONS = ("Describe the video.", "What color is the triangle?", "Which object appears first?", "What is moving?")


class Answered(NamedTuple):
    text: str
    first_word: float
    """Seconds."""


class Run(NamedTuple):
    per_second: float
    first_words: list[float]
    texts: list[str]


def our_side(model: str, folder: Path, port: int, reuse: bool) -> None:
    from minigpt4_video.inference import VideoChat
    from minigpt4_video.inference.store import Store
    from minigpt4_video.serving.limits import Limits
    from minigpt4_video.serving.server import Serving, serve

    chat = VideoChat.from_pretrained(model, device="cpu", store=Store(folder / "store") if reuse else None)
    where = Serving(
        port=port,
        uploads=folder / f"uploads-{reuse}",
        media_folder=folder,
        reuse=reuse,
        limits=Limits(seconds=3000.0),
    )
    serve(chat, where)


def other_side(model: str, port: int) -> None:
    import transformers
    from transformers.cli.transformers import app
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration

    transformers.MiniGPT4VideoForConditionalGeneration = MiniGPT4VideoForConditionalGeneration
    KNOWN["minigpt4_video"] = "MiniGPT4VideoForConditionalGeneration"
    app(["serve", model, "--port", str(port), "--host", "127.0.0.1", "--device", "cpu", "--log-level", "error"])


class Side:
    """A server in a process of its own."""

    def __init__(self, name: str, model: str, folder: Path) -> None:
        self.name = name
        self.model = model
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, __file__, "--side", name, "--model", model, "--folder", str(folder)]
        self.log = (folder / f"{name}.log").open("w")
        self.process = subprocess.Popen([*command, "--port", str(self.port)], stdout=self.log, stderr=self.log)

    def __enter__(self) -> "Side":
        return self

    def wait(self) -> None:
        """Until it listens."""
        deadline = time.monotonic() + 900
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{self.name} did not start: {Path(self.log.name).read_text()[-2000:]}")
                time.sleep(0.5)

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

    def ask(self, video: Path, question: str, refused_too: bool = False) -> Answered:
        theirs = self.name == "transformers"
        part = {"type": "video_url", "video_url": {"url": str(video) if theirs else f"file://{video}"}}
        body: dict[str, Any] = {
            "model": self.model if theirs else Path(self.model).name,
            "messages": [{"role": "user", "content": [part, {"type": "text", "text": question}]}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "stream": True,
        }
        body |= (
            {"chat_template_kwargs": {"num_frames": FRAMES}} if theirs else {"num_frames": FRAMES, "subtitles": "off"}
        )
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3000)
        begun = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if refused_too and answer.status == 400:
            return Answered("", 0.0)
        if answer.status != 200:
            sys.exit(f"{self.name} refused: {answer.read()!r}")
        text, first = "", 0.0
        while line := answer.readline():
            told = line.strip().removeprefix(b"data: ")
            if not told or told == b"[DONE]":
                continue
            chunk = json.loads(told)
            if "error" in chunk:
                sys.exit(f"{self.name} failed: {chunk}")
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
            first = first or (time.perf_counter() - begun if text else 0.0)
        connection.close()
        return Answered(text.strip(), first or time.perf_counter() - begun)


def load(side: Side, clients: int, videos: list[Path]) -> Run:
    """One request for each of `videos`, by so many clients."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda at: side.ask(videos[at], QUESTIONS[at % len(QUESTIONS)]), range(len(videos))))
    took = time.perf_counter() - begun
    return Run(len(videos) / took, [one.first_word for one in answers], [one.text for one in answers])


def compare(model: str, folder: Path, counts: dict[int, int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    with ExitStack() as running:
        servers = [running.enter_context(Side(name, model, folder)) for name in SIDES]
        pool = iter(render(folder / "videos", seed=1000, count=rounds * sum(counts.values()) + 1))
        shared = next(pool)
        for server in servers:
            server.wait()
            server.ask(shared, QUESTIONS[0])  # loaded, and the shared video read
        for kind in ("same", "different"):
            for clients, count in counts.items():
                made: list[dict[str, Run]] = []
                for _ in range(rounds):
                    videos = [shared] * count if kind == "same" else [next(pool) for _ in range(count)]
                    made.append({server.name: load(server, clients, videos) for server in servers})
                row = {"videos": kind, "clients": clients, "requests": count, "rounds": [described(m) for m in made]}
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def described(runs: dict[str, Run]) -> dict[str, Any]:
    """One round."""
    told = {}
    for name, run in runs.items():
        words = sorted(run.first_words)
        same = sum(a == b for a, b in zip(run.texts, runs["reuse"].texts, strict=True))
        told[name] = {
            "requests_per_second": round(run.per_second, 3),
            "first_word_s": round(statistics.median(words), 4),
            "first_word_s_p95": round(words[int(0.95 * (len(words) - 1))], 4),
            "same_answers": same / len(words),
        }
    return told


def summed_up(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the middles of its rounds."""

    def middle(values: Any) -> float:
        return round(statistics.median(values), 3)

    for name in SIDES:
        sides = [made[name] for made in row["rounds"]]
        row[name] = {key: middle(side[key] for side in sides) for key in ("requests_per_second", "first_word_s")}
        row[name]["same_answers"] = min(side["same_answers"] for side in sides)
        if name != "reuse":
            key = "requests_per_second"
            row[f"requests_over_{name}"] = middle(made["reuse"][key] / made[name][key] for made in row["rounds"])
            key = "first_word_s"
            row[f"first_word_{name}_over_ours"] = middle(made[name][key] / made["reuse"][key] for made in row["rounds"])
    return row


def memory(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Memory of the server's process, in MiB, after every eighth of so many requests by 8 clients about 40 videos, one
    in ten of which cannot be read."""
    with Side("reuse", model, folder) as server:
        videos = list(render(folder / "videos", seed=2000, count=40))
        for video in videos[::10]:
            video.write_bytes(b"no video")
        server.wait()

        def ask(number: int) -> None:
            server.ask(videos[number * 7 % len(videos)], QUESTIONS[number % len(QUESTIONS)], refused_too=True)

        held = []
        with ThreadPoolExecutor(8) as pool:
            for part in range(8):
                list(pool.map(ask, range(part * count // 8, (part + 1) * count // 8)))
                lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
                held.append(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")))
        return {"requests": count, "mib_after_every_eighth": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", choices=list(REQUESTS), default=list(REQUESTS))
    parser.add_argument("--memory", type=int, default=2000, help="requests over which memory is looked at")
    parser.add_argument("--add", action="store_true", help="to the rounds that --output has")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--model")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.side == "transformers":
        other_side(given.model, given.port)
        return
    if given.side:
        our_side(given.model, given.folder, given.port, given.side == "reuse")
        return
    results: dict[str, Any] = {"models": {}}
    if given.add and given.output.exists():
        results = json.loads(given.output.read_text())
    results |= {
        "machine": f"{len(os.sched_getaffinity(0))} of the cores of {platform.machine()}, one thread a server",
        "frames": FRAMES,
        "tokens": TOKENS,
    }
    for name in given.models:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            counts = {at: max(2, count // 10) if given.quick else count for at, count in REQUESTS[name].items()}
            rows = compare(model_of(name, folder, given.quick), folder, counts, 1 if given.quick else given.rounds)
        for row, earlier in zip(rows, results["models"].get(name, rows), strict=True):
            if row is not earlier:
                row["rounds"] = earlier["rounds"] + row["rounds"]
        results["models"][name] = [summed_up(row) for row in rows]
    if given.memory:
        with tempfile.TemporaryDirectory() as made:
            count = given.memory // 10 if given.quick else given.memory
            results["memory"] = memory(model_of("tiny", Path(made), False), Path(made), count)
            print(json.dumps(results["memory"]))
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(results, indent=1) + "\n")


def model_of(name: str, folder: Path, quick: bool) -> str:
    if name == "mid":
        sys.path.insert(0, str(Path(__file__).parent))
        from inference import MID, QUICK, make_model

        make_model(folder / "mid", QUICK if quick else MID)
        return str(folder / "mid")
    from minigpt4_video.model.presets import EMBEDDED

    return str(EMBEDDED / "tiny")


if __name__ == "__main__":
    main()
