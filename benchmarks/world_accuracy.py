"""Accuracy on unseen rendered files with held-out combinations: whole, without subtitles, without frames, with neither.

python benchmarks/world_accuracy.py --model tiny --output benchmarks/results/tiny.json
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from minigpt4_video.data.world.files import render
from minigpt4_video.evaluation.answering import SHOWN, ModelAnswerer, Settings, groups_of
from minigpt4_video.evaluation.scoring import exact
from minigpt4_video.evaluation.world import EACH, FIRST, VIDEOS, choose, prior, table
from minigpt4_video.inference.chat import VideoChat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--questions", type=int, default=EACH)
    parser.add_argument("--shown", nargs="+", default=list(SHOWN), choices=SHOWN)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    chat = VideoChat.from_pretrained(options.model, device="cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render(folder, seed=FIRST, count=options.videos, split="held-out")
        items = choose(folder, options.questions)
        report = {
            "model": options.model,
            "machine": f"{platform.machine()}, {platform.processor() or 'unknown processor'}",
            "commit": commit(),
            "first_scene": FIRST,
            "prior": prior(items),
            "conditions": {},
        }
        for shown in options.shown:
            begun = perf_counter()
            answerer = ModelAnswerer(chat, Settings(shown=shown))
            answers = {row["id"]: row["answer"] for rows in answerer.answer(groups_of(items)) for row in rows}
            report["conditions"][shown] = table(items, answers) | {"seconds": round(perf_counter() - begun, 1)}
            print(shown, json.dumps(report["conditions"][shown]), file=sys.stderr, flush=True)
            if shown == "all":
                wrong = [item for item in items if not exact(answers[item.id], item.reference)]
                report["wrong"] = [[o.tags["kind"], o.question, o.reference, answers[o.id]] for o in wrong[:40]]
    report["prior_macro"] = round(sum(report["prior"].values()) / len(report["prior"]), 4)
    text = json.dumps(report, ensure_ascii=False, indent=1)
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n", encoding="utf-8")


def commit() -> str:
    """The commit that is checked out, or "unknown" outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


if __name__ == "__main__":
    main()
