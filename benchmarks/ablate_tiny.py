"""What each stage and the subtitles contribute: the same pretrained parts, a reduced budget, one thing left out at a
time.

    python benchmarks/ablate_tiny.py --parts runs/tiny --output benchmarks/results/ablation.json

Variants: stage 3 alone, stages 2 and 3, stages 1, 2 and 3, and all three without subtitles in training and when
asked. A stage has the same number of steps wherever it is run, so a variant with fewer stages also sees less; that is
the question asked: is the time for the earlier stages well spent? An interrupted run goes on where it stopped.
"""

import argparse
import json
import platform
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

from world_accuracy import commit

from minigpt4_video.data.world.files import render
from minigpt4_video.evaluation.answering import ModelAnswerer, Settings, groups_of
from minigpt4_video.evaluation.world import FIRST, choose, table
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.training.train import train

STEPS = {"stage1": 60, "stage2": 60, "stage3": 120}
VARIANTS: dict[str, tuple[str, ...]] = {
    "stage 3": ("stage3",),
    "stages 2+3": ("stage2", "stage3"),
    "stages 1+2+3": ("stage1", "stage2", "stage3"),
    "stages 1+2+3, no subtitles": ("stage1", "stage2", "stage3"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--questions", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ablation.json"))
    options = parser.parse_args()
    for part in ("vision", "language"):
        if not (options.parts / part / "config.json").exists():
            parser.error(
                f"{options.parts / part} is missing; run `make train-tiny` first, or at least its first two recipes"
            )
    report: dict[str, object] = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {platform.processor() or 'unknown processor'}",
        "steps": STEPS,
        "first_scene": FIRST,
        "variants": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render(folder, seed=FIRST, count=options.videos, split="held-out")
        items = choose(folder, options.questions)
        for variant, stages in VARIANTS.items():
            begun = perf_counter()
            speech = not variant.endswith("no subtitles")
            trained = run(variant, stages, options.parts, options.work, speech=speech)
            took = perf_counter() - begun
            chat = VideoChat.from_pretrained(trained, device="cpu")
            answerer = ModelAnswerer(chat, Settings(shown="all" if speech else "no subtitles"))
            answers = {row["id"]: row["answer"] for rows in answerer.answer(groups_of(items)) for row in rows}
            scores = table(items, answers)
            report["variants"][variant] = scores | {"training_seconds": round(took, 1)}  # type: ignore[index]
            print(f"{variant}: {scores['macro']:.3f} {scores['by_need']}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def run(variant: str, stages: tuple[str, ...], parts: Path, work: Path, *, speech: bool) -> Path:
    """Trains a variant's stages one after another beside the shared parts; returns the last folder."""
    home = work / variant.replace(" ", "-").replace("+", "-").replace(",", "")
    for part in ("vision", "language"):
        if not (home / part).exists():
            shutil.copytree(parts / part, home / part, ignore=shutil.ignore_patterns("checkpoint-*"))
    before: str | None = None
    for stage in stages:
        overrides = {
            "training.max_steps": str(STEPS[stage]),
            "training.warmup_steps": "10",
            "training.lr_scheduler_kwargs": f"{{ num_decay_steps = {STEPS[stage] // 2} }}",
            "speech": "true" if speech else "false",
            # A first stage starts from the parts, whatever its recipe says.
            "parts": '{ vision = "vision", language = "language" }' if before is None else f'{{ model = "{before}" }}',
        }
        train(f"tiny/{stage}", home / stage, resume=True, overrides=overrides)
        before = stage
    return home / stages[-1]


if __name__ == "__main__":
    main()
