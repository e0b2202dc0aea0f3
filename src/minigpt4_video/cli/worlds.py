"""The verbs about the procedural world."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, say, say_json

app = typer.Typer(name="world", help="Videos with known truth, for training and testing.", rich_markup_mode=None)

First = Annotated[int, Option("--seed", min=0, help="Number of the first video; the same number is the same video.")]
Count = Annotated[int, Option(min=1, help="How many videos.")]
Split = Annotated[Literal["train", "held-out"], Option(help="held-out: combinations that never appear in training.")]


@app.command()
def render(
    output: Annotated[Path, Option(metavar="FOLDER", help="Where the files go.", show_default=False)],
    seed: First = 0,
    count: Count = 8,
    split: Split = "held-out",
    language: Annotated[
        Literal["en", "zh"] | None, Option(help="Of what is said and asked [default: both].", show_default=False)
    ] = None,
) -> None:
    """Write videos with subtitles, and questions.jsonl with all that is known of them.

    \b
    minigpt4-video world render --output world --count 20 --language en
    """
    from minigpt4_video.data.world import files

    files.render(output, seed=seed, count=count, split=split, language=language)
    note(f"{count} video{'' if count == 1 else 's'}: {output}")


@app.command()
def film(
    output: Annotated[Path, Option(metavar="FOLDER", help="Where the files go.", show_default=False)],
    minutes: Annotated[float, Option(help="How long each film is, at least 4.")] = 10.0,
    seed: First = 0,
    count: Annotated[int, Option(min=1, help="How many films.")] = 1,
    language: Annotated[
        Literal["en", "zh"] | None, Option(help="Of what is said [default: by turns].", show_default=False)
    ] = None,
) -> None:
    """Write long films in which a few things are planted, and questions.jsonl with what can be asked of them.

    \b
    minigpt4-video world film --output films --minutes 60
    """
    from minigpt4_video.cli.output import Progress
    from minigpt4_video.data.world import films

    with Progress("written") as progress:
        films.write_films(output, minutes=minutes, seed=seed, count=count, language=language, progress=progress.told)
    note(f"{count} film{'' if count == 1 else 's'} of {minutes:g} minutes: {output}")


@app.command()
def stats(seed: First = 0, count: Count = 1000, split: Split = "train", json: options.Json = False) -> None:
    """Count what is shown and asked in a range of videos, without rendering them.

    \b
    minigpt4-video world stats --count 1000
    """
    from minigpt4_video.data.world import files

    counted = files.statistics(count, split, seed)
    if json:
        say_json(counted)
        return
    for name, value in counted.items():
        if isinstance(value, dict):
            say(f"{name}:")
            for key, number in value.items():
                say(f"    {key:20} {number}")
        else:
            say(f"{name + ':':24} {value}")
