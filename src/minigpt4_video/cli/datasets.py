"""The verbs about data sets on disk."""

import sys
from pathlib import Path
from typing import Annotated, Literal

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


@app.command()
def preview(
    format: Format,
    path: Path_,
    output: Annotated[Path, Option(metavar="FILE.html", help="Where the page goes.", show_default=False)],
    media: Media = None,
    captions: Texts = None,
    subtitles: SubtitleFolder = None,
    model: options.Model = "tiny",
    frames: options.Frames = None,
    first: Annotated[int, Option(min=0, help="Leave out this many samples.")] = 0,
    count: Annotated[int, Option(min=1, help="How many samples.")] = 8,
) -> None:
    """Write a page with samples as a model is trained on them: frames, subtitles, the exact text, and what is learnt.

    \b
    minigpt4-video data preview llava conversations.json --media videos --output samples.html
    """
    from itertools import islice

    from minigpt4_video.cli.output import quiet
    from minigpt4_video.data.formats import read
    from minigpt4_video.inference.writing import check_writable, write_whole

    check_writable(output)
    rows = islice(read(format, path, media=media, texts=captions, subtitles=subtitles), first, first + count)
    quiet()
    from minigpt4_video.inference.loading import find_model, load_processor
    from minigpt4_video.training.preview import page

    processor = load_processor(find_model(model))
    title = f"{path.name}: {count} samples from number {first}, as {format}"
    text = page(rows, processor, title=title, frames=frames or processor.frames, width=processor.window)
    write_whole(output, text.encode(errors="backslashreplace"))
    say(str(output))


@app.command()
def translate(
    format: Format,
    path: Path_,
    output: Annotated[Path, Option(metavar="FILE.jsonl", help="Where the rows go.", show_default=False)],
    endpoint: Annotated[
        str, Option(metavar="ADDRESS", help="An OpenAI-compatible endpoint, as http://localhost:8000/v1.")
    ],
    model: Annotated[str, Option(metavar="NAME", help="The model to ask there.", show_default=False)],
    to: Annotated[Literal["en", "zh"], Option(help="The language to translate into.")] = "zh",
    api_key: Annotated[
        str | None,
        Option(envvar="MINIGPT4_VIDEO_API_KEY", help="Key of the endpoint.", show_default=False, show_envvar=True),
    ] = None,
    parallel: Annotated[int, Option(min=1, max=256, help="Requests at the same time.")] = 4,
    json: options.Json = False,
) -> None:
    """Translate the texts of a set, keeping its names and shape. Texts are sent to the endpoint and nowhere else.

    Run it again to go on where it was interrupted. Rows in which a number, name or placeholder would be lost go to
    FILE.failed.jsonl, and are not tried again.

    \b
    minigpt4-video data translate videoinstruct-100k VideoInstruct100K.json --output zh.jsonl \\
        --endpoint http://localhost:8000/v1 --model Qwen2.5-72B-Instruct
    """
    from minigpt4_video.data.endpoint import Endpoint
    from minigpt4_video.data.translation import Progress, translate

    def tell(done: Progress) -> None:
        print(f"\r{done.resumed_at + done.written + done.failed} rows", end="", file=sys.stderr, flush=True)

    done = translate(
        format,
        path,
        output,
        Endpoint(endpoint, model, api_key, tell=note),
        to,
        parallel=parallel,
        progress=tell if sys.stderr.isatty() and not json else None,
    )
    if json:
        told = {"written": done.written, "failed": done.failed, "before": done.resumed_at}
        say_json({"output": str(output), **told, "failed_before": done.failed_before})
    else:
        say(f"{done.written} rows written to {output}, {done.failed} failed, {done.resumed_at} done before")
    if done.failed_before:
        note(f"note: {done.failed_before} of the rows before failed and are left out; another --output tries all again")
