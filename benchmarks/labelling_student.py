"""Whether a student learns from labels what it learns from the truth, and what leaving out uncertain labels does.

    python benchmarks/labelling_student.py --output benchmarks/results/labelling_student.json

Videos of the world, whose captions are known, are labelled by `label` with the embedded model: once as it is, and once
by drawing each word at a temperature of 1, which makes many mistakes. Students are trained by the recipe of stage 2,
for the same number of steps: on the true captions, on all labels of either kind, and on the shares of them that have
the highest confidence. All of them begin with the embedded model's tower and language model and a projection with
random weights: a student can see and speak, and learns from its captions alone to say what it sees. The score is the
share of unseen videos whose brief caption is right to the word; words right is the mean F1 of words.
`--quick` takes a tenth of everything: to see that it runs.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import torch

import minigpt4_video as mv
from inference import processor
from minigpt4_video.data.world import language as words
from minigpt4_video.data.world.files import QUESTIONS, render
from minigpt4_video.data.world.scene import make_scene
from minigpt4_video.evaluation.scoring import exact, token_f1
from minigpt4_video.inference.loading import find_model
from minigpt4_video.labelling.browse import rows_where
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.training.train import train

STYLES = ("brief", "tags")
LEARN_FROM, ASK_ABOUT = 700_000, 800_000
"""Numbers of the first scenes, which nothing else has learnt from."""
TEMPERATURE = 1.0
KEPT = (0.9, 0.6)
"""Shares of the labels that a filter keeps."""

Rows = list[dict[str, Any]]


def films(folder: Path, first: int, count: int) -> dict[str, dict[str, str]]:
    """Videos without subtitles in a folder; what is true of each, by style."""
    if not folder.exists():
        aside = folder.with_suffix(".part")
        render(aside, seed=first, count=count, split="train", language="en")
        for beside in [*aside.glob("*.srt"), aside / QUESTIONS]:
            beside.unlink()
        aside.rename(folder)
    numbers = {video.name: int(video.stem.rpartition("-")[2]) for video in folder.glob("*.mp4")}
    return {
        name: {style: words.caption(make_scene(number, "train", "en"), style, "en") for style in STYLES}
        for name, number in numbers.items()
    }


def labelled(place: Path, output: Path, temperature: float) -> Rows:
    label(Order(str(place), output, requests(STYLES, ("en",)), temperature=temperature, seed=1, device="cpu"))
    return list(rows_where(output, "status = 'success'"))


def surest(rows: Rows, share: float) -> Rows:
    """The rows of highest confidence of each style."""
    kept: Rows = []
    for style in STYLES:
        of_style = sorted((row for row in rows if row["style"] == style), key=lambda row: -row["confidence"])
        kept += of_style[: round(share * len(of_style))]
    return kept


def right(rows: Rows, truth: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Share of labels that are right to the word, by style."""
    return {
        style: fmean(exact(row["text"], truth[row["video"]][style]) for row in rows if row["style"] == style)
        for style in STYLES
    }


def fresh(folder: Path) -> None:
    """A student that can see and can speak, but has not learnt to say what it sees."""
    student = MiniGPT4VideoForConditionalGeneration.from_pretrained(find_model("tiny"))
    torch.manual_seed(0)
    new = MiniGPT4VideoForConditionalGeneration(student.config)
    student.model.multi_modal_projector.load_state_dict(new.model.multi_modal_projector.state_dict())
    student.save_pretrained(folder)
    MiniGPT4VideoProcessor.from_pretrained(find_model("tiny")).save_pretrained(folder)


def taught(name: str, rows: Rows, place: Path, home: Path, steps: int) -> Path:
    """A student of these captions, by the recipe of stage 2."""
    table = home / f"{name}.jsonl"
    shown = ("id", "video", "prompt", "text", "language")
    table.write_text("".join(json.dumps({key: row[key] for key in shown}) + "\n" for row in rows), encoding="utf-8")
    recipe = home / f"{name}.toml"
    recipe.write_text(
        f'base = "tiny/stage2"\nsources = []\n\n[[data]]\nformat = "labels"\npath = "{table}"\nmedia = "{place}"\n',
        encoding="utf-8",
    )
    overrides = {
        "parts.model": f'"{home / "fresh"}"',
        "training.max_steps": str(steps),
        "training.save_steps": str(steps),
        "training.lr_scheduler_kwargs": f"{{ num_decay_steps = {steps // 2} }}",
    }
    return train(recipe, home / "students" / name, resume=True, overrides=overrides)


def examined(student: Path, place: Path, truth: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """How well a student captions videos that it has not seen."""
    chat = mv.VideoChat.from_pretrained(student, device="cpu")
    said = {name: chat.open(place / name).caption(style="brief").text for name in truth}
    return {
        "right": fmean(exact(said[name], told["brief"]) for name, told in truth.items()),
        "words right": fmean(token_f1(said[name], told["brief"]) for name, told in truth.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--videos", type=int, default=1500)
    parser.add_argument("--asked", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--work", type=Path, help="a folder for what is made: it is kept, and gone on from")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.videos, given.asked, given.steps = given.videos // 10, given.asked // 10, given.steps // 10
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as aside:
        home = given.work or Path(aside)
        truth = films(home / "films", LEARN_FROM, given.videos)
        unseen = films(home / "unseen", ASK_ABOUT, given.asked)
        careful = labelled(home / "films", home / "labels", 0.0)
        drawn = labelled(home / "films", home / "drawn-labels", TEMPERATURE)
        true = [row | {"text": truth[row["video"]][row["style"]]} for row in careful]
        sets = {
            "truth": true,
            "labels": careful,
            **{f"surest {share:.0%} of labels": surest(careful, share) for share in KEPT},
            "drawn labels": drawn,
            **{f"surest {share:.0%} of drawn labels": surest(drawn, share) for share in KEPT},
        }
        told: dict[str, Any] = {
            "machine": f"two shared x86-64 cores ({processor()}), 1 thread, torch {torch.__version__}",
            "load": os.getloadavg()[0],
            "videos": given.videos,
            "unseen": given.asked,
            "steps": given.steps,
            "temperature_of_drawn_labels": TEMPERATURE,
            "sets": {name: {"labels": len(rows), "right": right(rows, truth)} for name, rows in sets.items()},
        }
        keep(given.output, told)
        if not (home / "fresh").exists():
            fresh(home / "fresh")
        told["students"] = {"untaught": examined(home / "fresh", home / "unseen", unseen)}
        for name, rows in sets.items():
            started = process_time()
            student = taught(name.replace(" ", "-").replace("%", ""), rows, home / "films", home, given.steps)
            seconds = process_time() - started
            told["students"][name] = {
                "processor_seconds": seconds,
                **examined(student, home / "unseen", unseen),
            }
            told["students"][name]["over_the_truth"] = told["students"][name]["right"] / max(
                told["students"]["truth"]["right"], 1e-9
            )
            print(name, json.dumps(told["students"][name]), flush=True)
            keep(given.output, told)


def keep(output: Path | None, told: dict[str, Any]) -> None:
    """What there is so far, for all together takes long."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
