"""The verbs about data sets on disk."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, say, say_json
from minigpt4_video.errors import DataError

app = typer.Typer(name="data", help="Data sets on disk: what can be read, and what is wrong.", rich_markup_mode=None)

Format = Annotated[str, Argument(metavar="FORMAT", help="One of those that `data list` shows.", show_default=False)]
Path_ = Annotated[Path, Argument(metavar="PATH", help="The file or folder of the set.", show_default=False)]
Media = Annotated[
    Path | None, Option(metavar="FOLDER", help="Where its videos or pictures are; else they are not looked for.")
]
Texts = Annotated[
    Path | None, Option("--captions", metavar="FILE", help="Captions for a set without texts.", show_default=False)
]
SubtitleFolder = Annotated[
    Path | None,
    Option("--subtitles", metavar="FOLDER", help="Subtitle files [default: beside the videos].", show_default=False),
]


@app.command("list")
def list_(json: options.Json = False) -> None:
    """Show the formats that can be read."""
    from minigpt4_video.data.formats import FORMATS

    if json:
        say_json({name: {"about": form.about, "media": _where(form.beside)} for name, form in FORMATS.items()})
        return
    width = max(map(len, FORMATS))
    for name, form in FORMATS.items():
        say(f"{name:{width}}  {form.about}")


def _where(beside: bool) -> str:
    return "with the annotations" if beside else "in the folder that --media names"


@app.command()
def check(
    format: Format,
    path: Path_,
    media: Media = None,
    captions: Texts = None,
    subtitles: SubtitleFolder = None,
    longest: Annotated[int, Option(min=1, metavar="WORDS", help="More words in a sample are too long.")] = 1000,
    open_: Annotated[bool, Option("--open", help="Open every video and picture too, which takes its time.")] = False,
    json: options.Json = False,
) -> None:
    """Read a set to its end and tell what is missing, broken, duplicate or too long.

    \b
    minigpt4-video data check webvid results_10M_train.csv --media videos
    minigpt4-video data check panda-70m panda70m_training_2m.csv --json
    """
    from minigpt4_video.data import checking
    from minigpt4_video.data.formats import FORMATS, read

    rows = read(format, path, media=media, texts=captions, subtitles=subtitles)
    watched = sys.stderr.isatty() and not json
    report = checking.check(rows, longest=longest, open_media=open_, progress=_progress if watched else None)
    if json:
        say_json({"format": format, "path": str(path), **report.as_json()})
    else:
        say(f"samples:   {report.records} ({report.videos} videos, {report.pictures} pictures)")
        say("languages: " + (", ".join(f"{name} {count}" for name, count in report.languages.items()) or "none"))
        for kind, problems in report.problems.items():
            say(f"{kind + ':':10} {report.count(kind)}")
            for name, problem in sorted(problems.items(), key=lambda item: -item[1].count):
                say(f"    {problem.count} x {name}")
                for example in problem.examples:
                    say(f"        {example}")
    if media is None and not FORMATS[format].beside:
        note("note: videos and pictures were not looked for; --media names their folder")
    if not report.records:
        raise DataError(f"{path} holds no sample that can be used; check that it is in the format {format}")


def _progress(records: int) -> None:
    print(f"\r{records} samples", end="", file=sys.stderr, flush=True)
