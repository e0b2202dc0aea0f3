"""The verbs about the procedural world."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, say, say_json

app = typer.Typer(name="world", help="Videos with known truth, for training and testing.", rich_markup_mode=None)

Seed = Annotated[int, Option(min=0, help="The first of `count` seeds; a seed is always the same video.")]
Count = Annotated[int, Option(min=1, help="How many videos.")]
Split = Annotated[Literal["train", "held-out"], Option(help="held-out: combinations that never appear in training.")]
Language = Annotated[
    Literal["en", "zh", "both"], Option(help="Of subtitles, captions and questions; both: every video in one of them.")
]


@app.command()
def render(
    output: Annotated[Path, Option(metavar="FOLDER", help="Where the files go.", show_default=False)],
    seed: Seed = 0,
    count: Count = 8,
    split: Split = "train",
    language: Language = "both",
) -> None:
    """Write videos, subtitles, and their captions and questions as conversations.

    \b
    minigpt4-video world render --output world --count 20 --split held-out
    """
    from minigpt4_video.data.world import files

    files.render(output, seed=seed, count=count, split=split, language=language)
    note(f"{count} videos: {output}")


@app.command()
def stats(
    seed: Seed = 0,
    count: Count = 1000,
    split: Split = "train",
    language: Language = "both",
    json: options.Json = False,
) -> None:
    """Count what is shown, said and asked in a range of seeds, without rendering.

    \b
    minigpt4-video world stats --count 1000
    """
    from minigpt4_video.data.world import files

    counted = files.stats(seed=seed, count=count, split=split, language=language)
    if json:
        say_json(counted)
        return
    for name, value in counted.items():
        say(f"{name:24} {value}")
