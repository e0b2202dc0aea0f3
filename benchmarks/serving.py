"""What the server gains, as ratios against itself without reuse and against `transformers serve` on the same folder.

python benchmarks/serving.py --output benchmarks/results/serving.json

Clients on loopback ask for streams of at most 16 tokens about videos of the world, 8 frames each, named by their paths:
all about one video, or each about one that no server has seen before. The three servers run at the same time and take
turns, one thread each; a run of one is between the runs of the others. Given are the middle of the rounds: requests a
second, and the middle and the slowest twentieth of the times to the first word. Answers are compared. The tiny model
is the embedded one; the mid model, with random weights, is that of benchmarks/inference.py, and no answer of it ends
early. `--quick` takes a tenth of everything: to see that it runs.

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

CLIENTS = (1, 8, 32)
REQUESTS = {1: 4, 8: 8, 32: 32}
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

    def ask(self, video: Path, question: str) -> Answered:
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


def compare(model: str, folder: Path, sides: tuple[str, ...], share: float, rounds: int) -> list[dict[str, Any]]:
    counts = {clients: max(clients if share == 1 else 2, round(REQUESTS[clients] * share)) for clients in CLIENTS}
    rows = []
    with ExitStack() as running:
        servers = [running.enter_context(Side(name, model, folder)) for name in sides]
        pool = iter(render(folder / "videos", seed=1000, count=rounds * sum(counts.values()) + 1))
        shared = next(pool)
        for server in servers:
            server.wait()
            server.ask(shared, QUESTIONS[0])  # loaded, and the shared video read
        for kind in ("same", "different"):
            for clients in CLIENTS:
                runs: dict[str, list[Run]] = {name: [] for name in sides}
                for _ in range(rounds):
                    videos = [shared] * counts[clients]
                    if kind == "different":
                        videos = [next(pool) for _ in range(counts[clients])]
                    for server in servers:
                        runs[server.name].append(load(server, clients, videos))
                row = described(kind, clients, counts[clients], runs)
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def described(kind: str, clients: int, count: int, runs: dict[str, list[Run]]) -> dict[str, Any]:
    row: dict[str, Any] = {"videos": kind, "clients": clients, "requests": count, "sides": {}}
    texts = {name: [text for run in made for text in run.texts] for name, made in runs.items()}
    for name, made in runs.items():
        words = sorted(second for run in made for second in run.first_words)
        row["sides"][name] = {
            "requests_per_second": round(statistics.median(run.per_second for run in made), 3),
            "first_word_s": round(statistics.median(words), 4),
            "first_word_s_p95": round(words[int(0.95 * (len(words) - 1))], 4),
            "same_answers": sum(a == b for a, b in zip(texts[name], texts["reuse"], strict=True)) / len(texts[name]),
        }
    for name in runs:
        if name != "reuse":
            pairs = zip(runs["reuse"], runs[name], strict=True)
            row[f"requests_over_{name}"] = round(statistics.median(a.per_second / b.per_second for a, b in pairs), 2)
            ours, theirs = row["sides"]["reuse"]["first_word_s"], row["sides"][name]["first_word_s"]
            row[f"first_word_{name}_over_ours"] = round(theirs / ours, 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["tiny", "mid"])
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
    results: dict[str, Any] = {
        "machine": f"{len(os.sched_getaffinity(0))} of the cores of {platform.machine()}, one thread a server",
        "frames": FRAMES,
        "tokens": TOKENS,
        "rounds": 1 if given.quick else given.rounds,
        "models": {},
    }
    for name in given.models:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            model = "tiny"
            if name == "mid":
                sys.path.insert(0, str(Path(__file__).parent))
                from inference import MID, QUICK, make_model

                make_model(folder / "mid", QUICK if given.quick else MID)
                model = str(folder / "mid")
            else:
                from minigpt4_video.model.presets import EMBEDDED

                model = str(EMBEDDED / "tiny")
            results["models"][name] = compare(
                model, folder, SIDES, 0.1 if given.quick else 1, 1 if given.quick else given.rounds
            )
        if given.output:
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
