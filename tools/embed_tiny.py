"""Puts a trained tiny model into the package, with a model card made from its measured scores.

python tools/embed_tiny.py runs/tiny/stage3 benchmarks/results/tiny.json
"""

import json
import shutil
import sys
import tomllib
from pathlib import Path

from minigpt4_video.training.train import FINISHED

TARGET = Path(__file__).parents[1] / "src" / "minigpt4_video" / "embedded" / "tiny"
LIMIT = 20_000_000
"""Bytes of weights that the package may carry."""
CARD = """---
license: apache-2.0
language: [en, zh]
pipeline_tag: image-text-to-text
library_name: transformers
---

# tiny: the embedded default of minigpt4-video

A video-language model of {parameters:.1f} million parameters, made from nothing by this repository's own recipes on
its procedural world of videos. It is there so that everything can be tried, tested and measured without a download.
**It knows coloured shapes and a handful of sentences, and nothing of the real world.**

## How it was made

Five recipes, `tiny/vision`, `tiny/language`, `tiny/stage1`, `tiny/stage2`, `tiny/stage3`; one command, `make
train-tiny`, repeats them. The tower is EVA-CLIP's design ({vision_layers} layers of width {vision_width}, {image} px
in {patch} px patches), four neighbouring tokens are concatenated and projected by one linear layer ({tokens} tokens a
frame), the language model is a Llama of {text_layers} layers and width {text_width}. Eight frames a video.

| recipe | steps | lines or pictures a step |
| --- | ---: | ---: |
{recipes}

Data: scenes of the split `train` only. {held_out} pairs of colour and shape are held out and occur in no training
picture, subtitle, question or answer.

## Scores

Exact match on {questions} questions about {videos} rendered files that hold held-out pairs (`make` target `bench`,
script `benchmarks/world_accuracy.py`), as means over the kinds of question; measured on {machine}.

| shown | overall | English | Chinese |
| --- | ---: | ---: | ---: |
{conditions}

Always giving the commonest answer of a kind would score {prior:.1%}.

| kind of question | needs | everything shown | nothing shown |
| --- | --- | ---: | ---: |
{kinds}

## What it cannot do

Real videos, other shapes and colours, more than three things at once, questions far from those it was trained on, long
answers. Below 90 % here: {weak}.
"""


def main(trained: Path, results: Path) -> None:
    report = json.loads(results.read_text(encoding="utf-8"))
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    size = (trained / "model.safetensors").stat().st_size
    if size > LIMIT:
        sys.exit(f"the weights have {size} bytes, more than {LIMIT}")
    aside = TARGET.with_name("tiny.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for path in trained.iterdir():
        if path.is_file() and path.name not in ("training_args.bin", "loss.png", "run.json"):
            shutil.copy2(path, aside / path.name)
        elif path.name == "additional_chat_templates":
            shutil.copytree(path, aside / path.name)
    (aside / "README.md").write_text(card(report, config, trained, size), encoding="utf-8")
    shutil.rmtree(TARGET, ignore_errors=True)
    aside.rename(TARGET)
    print(TARGET)


def card(report: dict, config: dict, trained: Path, size: int) -> str:  # type: ignore[type-arg]
    from minigpt4_video.data.world.language import NEEDS
    from minigpt4_video.data.world.scene import HELD_OUT

    vision, text = config["vision_config"], config["text_config"]
    everything, nothing = report["conditions"]["all"], report["conditions"]["nothing"]
    kinds = everything["by_kind"]
    weak = [f"{kind} ({value:.0%})" for kind, value in kinds.items() if value < 0.9]
    return CARD.format(
        parameters=size / 4e6,
        vision_layers=vision["num_hidden_layers"],
        vision_width=vision["hidden_size"],
        image=vision["image_size"],
        patch=vision["patch_size"],
        tokens=(vision["image_size"] // vision["patch_size"]) ** 2 // 4,
        text_layers=text["num_hidden_layers"],
        text_width=text["hidden_size"],
        recipes="\n".join(
            _recipe(trained.parent / name) for name in ("vision", "language", "stage1", "stage2", "stage3")
        ),
        held_out=len(HELD_OUT),
        questions=everything["questions"],
        videos=everything["videos"],
        machine=report["machine"],
        conditions="\n".join(
            f"| {name} | {c['macro']:.1%} | {c['by_language']['en']:.1%} | {c['by_language']['zh']:.1%} |"
            for name, c in report["conditions"].items()
        ),
        prior=report["prior_macro"],
        kinds="\n".join(
            f"| {kind} | {NEEDS[kind]} | {value:.1%} | {nothing['by_kind'][kind]:.1%} |"
            for kind, value in kinds.items()
        ),
        weak=", ".join(weak) or "none of the kinds above",
    )


def _recipe(folder: Path) -> str:
    training = tomllib.loads((folder / FINISHED).read_text(encoding="utf-8"))["training"]
    return f"| tiny/{folder.name} | {training['max_steps']} | {training['per_device_train_batch_size']} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
