"""Whether a student learns from labels what it learns from the truth, and what leaving out uncertain labels does.

    python benchmarks/labelling_student.py --output benchmarks/results/labelling_student.json

Videos of the world, whose captions are known, are labelled by `label` with the embedded model: once as it is, and
once by drawing each word at a temperature of 1, which makes mistakes that its confidence tells of. Students are
trained by the recipe of stage 2, for the same number of steps: on the true captions, on all labels, on the labels of
highest confidence, and on both kinds of drawn labels. What all of them start from is made by the recipe of stage 1,
from pictures alone: the embedded model's tower and language model, and a projection that begins with random weights.
The score is the share of unseen videos whose brief caption is right to the word; words right is the mean F1 of words.
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
KEPT = 0.6
"""Share of the labels that the filter keeps."""

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
    """A student before its first stage: it can see and it can speak, but has not learnt to say what it sees."""
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
    return stage(recipe, home / "students" / name, home / "students" / "stage1", steps)


def stage(recipe: str | Path, output: Path, before: Path, steps: int) -> Path:
    overrides = {
        "parts.model": f'"{before}"',
        "training.max_steps": str(steps),
        "training.save_steps": str(steps),
        "training.lr_scheduler_kwargs": f"{{ num_decay_steps = {steps // 2} }}",
    }
    return train(recipe, output, resume=True, overrides=overrides)


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
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--first-steps", type=int, default=300)
    parser.add_argument("--work", type=Path, help="a folder for what is made: it is kept, and gone on from")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.videos, given.asked = given.videos // 10, given.asked // 10
        given.steps, given.first_steps = given.steps // 10, given.first_steps // 10
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
            "surest labels": surest(careful, KEPT),
            "drawn labels": drawn,
            "surest drawn labels": surest(drawn, KEPT),
        }
        told: dict[str, Any] = {
            "machine": f"two shared x86-64 cores ({processor()}), 1 thread, torch {torch.__version__}",
            "load": os.getloadavg()[0],
            "videos": given.videos,
            "unseen": given.asked,
            "first_steps": given.first_steps,
            "steps": given.steps,
            "kept_by_the_filter": KEPT,
            "temperature_of_drawn_labels": TEMPERATURE,
            "sets": {name: {"labels": len(rows), "right": right(rows, truth)} for name, rows in sets.items()},
        }
        keep(given.output, told)
        if not (home / "fresh").exists():
            fresh(home / "fresh")
        stage("tiny/stage1", home / "students" / "stage1", home / "fresh", given.first_steps)
        told["students"] = {"before stage 2": examined(home / "students" / "stage1", home / "unseen", unseen)}
        for name, rows in sets.items():
            started = process_time()
            student = taught(name.replace(" ", "-"), rows, home / "films", home, given.steps)
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
