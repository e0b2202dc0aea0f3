"""The verb that measures a model on benchmarks."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say, say_json
from minigpt4_video.errors import DataError

Output = Annotated[
    Path | None, Option(metavar="FOLDER", help="Where the run goes, and goes on [needed].", show_default=False)
]


def evaluate(
    benchmark: Annotated[
        str | None, Argument(metavar="BENCHMARK", help="One of those that --list shows.", show_default=False)
    ] = None,
    output: Output = None,
    annotations: Annotated[
        Path | None, Option(metavar="PATH", help="The benchmark's own file or folder.", show_default=False)
    ] = None,
    media: Annotated[
        Path | None, Option(metavar="FOLDER", help="Its videos [default: beside the annotations].", show_default=False)
    ] = None,
    subtitles: Annotated[
        str, Option(metavar="auto|off|PATH", help="auto: as the benchmark has them, or beside the videos.")
    ] = "auto",
    limit: Annotated[
        int | None, Option(min=1, help="Ask only so many questions, the first.", show_default=False)
    ] = None,
    model: options.Model = "tiny",
    frames: options.Frames = None,
    rule: Annotated[
        Literal["even", "original"], Option(help="Which frames; original: as the original's evaluation chose.")
    ] = "even",
    shown: Annotated[
        Literal["all", "no subtitles", "no frames", "nothing"], Option(help="Withhold parts of the videos.")
    ] = "all",
    template: Annotated[str, Option(help="Form of the prompt: default, or another that the model has.")] = "default",
    speech: Annotated[str, Option(metavar="MODEL", help="Speech model for videos without subtitles, or off.")] = "off",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    list_: Annotated[bool, Option("--list", help="Show the benchmarks and what each needs.")] = False,
    json: options.Json = False,
) -> None:
    """Measure a model on a benchmark: answers, scores and a report, in a folder. Run it again to go on.

    \b
    minigpt4-video evaluate --list
    minigpt4-video evaluate world --output runs/world --limit 70
    minigpt4-video evaluate msvd-qa --annotations MSVD-QA/test_qa.json --media YouTubeClips --output runs/msvd
    """
    if list_:
        _list(json)
        return
    if benchmark is None or output is None:
        raise DataError("name a benchmark that `evaluate --list` shows, and a folder with --output")
    from minigpt4_video.evaluation.benchmarks import BENCHMARKS
    from minigpt4_video.evaluation.running import begin, find, read, task

    quiet()
    asked_for = task(benchmark, output, annotations, media, subtitles, limit)
    asked = read(asked_for)
    note(f"{len(asked.items)} questions, {len(asked.flaws)} rows that cannot be asked")
    from minigpt4_video.evaluation.answering import ModelAnswerer, Settings
    from minigpt4_video.inference import VideoChat

    chat = VideoChat.from_pretrained(model, device, dtype, quantize=quantize)
    longest = max_new_tokens or find(benchmark).max_new_tokens
    answerer = ModelAnswerer(chat, Settings(frames, rule, shown, template, longest, speech))
    begin(asked_for, output, answerer.identity())
    summary = _answer_and_score(
        asked, output, answerer, find(benchmark).scoring, progress=sys.stderr.isatty() and not json
    )
    if json:
        say_json({"benchmark": benchmark, "output": str(output)} | summary)
    else:
        _say_figures(summary, BENCHMARKS[benchmark].scoring)
        say(str(output / "report.md"))


def _answer_and_score(asked: Any, output: Path, answerer: Any, scoring: Any, progress: bool) -> dict[str, Any]:
    from minigpt4_video.evaluation.files import read_json, write_json
    from minigpt4_video.evaluation.reporting import write_examples, write_reports
    from minigpt4_video.evaluation.running import RUN, SCORES, answer
    from minigpt4_video.evaluation.summary import summarised, values_of

    rows = answer(asked, output, answerer, _progress if progress else None)
    values = values_of(asked.items, rows, scoring)
    summary = summarised(asked, rows, values)
    write_json(output / SCORES, summary)
    write_reports(output, read_json(output / RUN), summary)
    write_examples(output, asked, rows, values)
    return summary


def _progress(done: int, of: int) -> None:
    print(f"\r{done} of {of} questions", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _say_figures(summary: dict[str, Any], scoring: str) -> None:
    from minigpt4_video.evaluation.reporting import figure

    say(f"{summary['answered']} of {summary['asked']} questions answered, {len(summary['failed'])} failed")
    for name, told in summary["figures"].items():
        say(f"{name + ':':12} {figure(told, name)}")
    for name, told in summary["mean_over_kinds"].items():
        say(f"{name + ':':12} {figure(told, name)} as the mean over kinds")


def _list(json: bool) -> None:
    from minigpt4_video.evaluation.benchmarks import BENCHMARKS

    if json:
        say_json(
            {
                name: {"about": one.about, "annotations": one.annotations, "origin": one.origin}
                for name, one in BENCHMARKS.items()
            }
        )
        return
    for name, one in BENCHMARKS.items():
        say(f"{name}\n    {one.about}\n    from {one.annotations}\n    {one.origin}")
