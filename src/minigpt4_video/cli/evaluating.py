"""The verb that measures a model on benchmarks."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say, say_json
from minigpt4_video.errors import DataError, EndpointError

if TYPE_CHECKING:
    from minigpt4_video.evaluation.ablating import Variant
    from minigpt4_video.evaluation.answering import Answerer
    from minigpt4_video.evaluation.judging import Budget, Judge
    from minigpt4_video.evaluation.running import Task

Key = Annotated[
    str | None,
    Option(envvar="MINIGPT4_VIDEO_API_KEY", help="Key of the endpoint.", show_default=False, show_envvar=True),
]
JudgeKey = Annotated[
    str | None,
    Option(envvar="MINIGPT4_VIDEO_JUDGE_KEY", help="Key of the judges.", show_default=False, show_envvar=True),
]


def evaluate(
    benchmark: Annotated[
        str | None, Argument(metavar="BENCHMARK", help="One of those that --list shows.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, Option(metavar="FOLDER", help="Where the run goes, and goes on.", show_default=False)
    ] = None,
    annotations: Annotated[
        Path | None, Option(metavar="PATH", help="The benchmark's own file or folder.", show_default=False)
    ] = None,
    media: Annotated[
        Path | None, Option(metavar="FOLDER", help="Its videos [default: beside the annotations].", show_default=False)
    ] = None,
    subtitles: Annotated[
        str, Option(metavar="auto|off|PATH", help="auto: as the benchmark has them, or beside the videos.")
    ] = "auto",
    limit: Annotated[int | None, Option(min=1, help="Ask the first so many only.", show_default=False)] = None,
    model: options.Model = "tiny",
    frames: options.Frames = None,
    rule: Annotated[
        Literal["even", "original"], Option(help="Which frames; original: those that the original took.")
    ] = "even",
    shown: Annotated[
        Literal["all", "no subtitles", "no frames", "nothing"], Option(help="Withhold parts of the videos.")
    ] = "all",
    template: Annotated[str, Option(help="Form of the prompt: default, or another that the model has.")] = "default",
    speech: Annotated[str, Option(metavar="MODEL", help="Speech model for videos without subtitles, or off.")] = "off",
    long: options.Long = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    endpoint: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="Ask a model at an OpenAI-compatible address instead.", show_default=False),
    ] = None,
    endpoint_model: Annotated[
        str | None, Option(metavar="NAME", help="Which model to ask there.", show_default=False)
    ] = None,
    api_key: Key = None,
    judge: Annotated[
        list[str] | None,
        Option(metavar="PLACE", help="A judge: an address, or a model folder; twice for two.", show_default=False),
    ] = None,
    judge_model: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Which model to ask at each address of a judge.", show_default=False),
    ] = None,
    judge_key: JudgeKey = None,
    max_requests: Annotated[
        int | None, Option(min=0, help="Send at most so many requests in this call, repeated ones too.")
    ] = None,
    parallel: Annotated[int, Option(min=1, max=256, help="Requests at the same time.")] = 4,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be asked and sent, and do nothing.")] = False,
    ablate: Annotated[
        list[str] | None,
        Option(metavar="AXIS=A,B", help="Also with one thing changed: frames=2,4. Repeatable.", show_default=False),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, Option(metavar="RUN RUN", help="Show where two runs differ.", show_default=False)
    ] = None,
    list_: Annotated[bool, Option("--list", help="Show the benchmarks and what each needs.")] = False,
    json: options.Json = False,
) -> None:
    """Measure a model on a benchmark: answers, scores and a report, in a folder. Run it again to go on.

    \b
    minigpt4-video evaluate --list
    minigpt4-video evaluate world --output runs/world --limit 70
    minigpt4-video evaluate world --output runs/frames --limit 70 --ablate frames=2,4 --ablate subtitles=off
    minigpt4-video evaluate msvd-qa --annotations MSVD-QA/test_qa.json --media YouTubeClips --output runs/msvd
    minigpt4-video evaluate --compare runs/first runs/second
    """
    if list_:
        _list(json)
        return
    if compare is not None:
        _compare(compare[0], compare[1], output, json)
        return
    if benchmark is None or output is None:
        raise DataError("name a benchmark that `evaluate --list` shows, and a folder with --output")
    if endpoint is not None and (ablate or not endpoint_model):
        raise DataError("--endpoint needs --endpoint-model, and nothing can be ablated there")
    if ablate and judge:
        raise DataError(
            "--ablate compares by the rules alone; leave --judge out, and then have a variant judged by naming its "
            "folder as --output, with the same settings"
        )
    quiet()
    from minigpt4_video.evaluation.ablating import Variant, axes
    from minigpt4_video.evaluation.ablating import ablate as run_variants
    from minigpt4_video.evaluation.answering import Settings
    from minigpt4_video.evaluation.judging import Budget
    from minigpt4_video.evaluation.measuring import check_judges, measure
    from minigpt4_video.evaluation.running import find, task

    changes = axes(ablate or [])
    settings = Settings(frames, rule, shown, template, max_new_tokens or find(benchmark).max_new_tokens, speech, long)
    check_judges(benchmark, find(benchmark), len(judge or []))
    budget = Budget(max_requests)
    judges = _judges(judge or [], judge_model or [], judge_key, parallel, budget, device, load=not dry_run)
    asked = task(benchmark, output, annotations, media, subtitles, limit)
    if dry_run:
        _dry_run(asked, output, judges, endpoint, json)
        return
    watched = _Watched(sys.stderr.isatty() and not json)
    if endpoint is not None:
        assert endpoint_model is not None
        answerer = _peer(endpoint, endpoint_model, api_key, settings, parallel, budget)
        measured = measure(asked, output, answerer, judges, budget, watched)
    else:
        make = _Models(model, device, quantize)
        base = Variant(settings, subtitles, None if dtype == "auto" else dtype)
        if changes:
            rows = run_variants(asked, output, base, changes, make, watched)
            _say_variants(rows, output, json)
            return
        measured = measure(asked, output, make(base), judges, budget, watched)
    if json:
        say_json({"benchmark": benchmark, "output": str(output)} | dict(measured.summary))
    else:
        _say_figures(measured.summary)
        say(str(output / "report.md"))
    if measured.stopped:
        raise EndpointError(f"judging ended early: {measured.stopped}")


class _Models:
    """Answerers for variants; a model is loaded once for each number format."""

    def __init__(self, model: str, device: str, quantize: Literal["8bit", "4bit"] | None) -> None:
        self.model, self.device, self.quantize = model, device, quantize
        self.loaded: dict[str | None, Any] = {}

    def __call__(self, variant: "Variant") -> "Answerer":
        from minigpt4_video.evaluation.answering import ModelAnswerer
        from minigpt4_video.inference import VideoChat
        from minigpt4_video.inference.store import find_store

        if variant.dtype not in self.loaded:
            self.loaded = {
                variant.dtype: VideoChat.from_pretrained(self.model, self.device, variant.dtype, quantize=self.quantize)
            }
        return ModelAnswerer(self.loaded[variant.dtype], variant.settings, indexes=find_store())


def _peer(address: str, model: str, key: str | None, settings: Any, parallel: int, budget: "Budget") -> "Answerer":
    from minigpt4_video.data.endpoint import Endpoint
    from minigpt4_video.evaluation.peers import EndpointAnswerer

    asked = Endpoint(address, model, key, tries=4, tell=note, sending=budget.take, max_tokens=settings.max_new_tokens)
    return EndpointAnswerer(asked, settings, parallel)


def _judges(
    places: list[str],
    models: list[str],
    key: str | None,
    parallel: int,
    budget: "Budget",
    device: str,
    load: bool,
) -> "list[Judge]":
    from minigpt4_video.data.endpoint import Endpoint
    from minigpt4_video.evaluation.judging import Judge, folder_name

    found: list[Judge] = []
    names = iter(models)
    for place in places:
        if place.startswith(("http://", "https://")):
            name = next(names, None)
            if name is None:
                raise DataError(f"--judge {place} needs a --judge-model")
            asked = Endpoint(place, name, key, tries=4, tell=note, sending=budget.take, max_tokens=256)
            found.append(Judge(name, asked.ask, parallel))
        elif load:
            from minigpt4_video.evaluation.local_judge import local_judge

            found.append(local_judge(Path(place), device, budget.take))
        else:
            found.append(Judge(folder_name(Path(place)), lambda messages: ""))
    if len({one.name for one in found}) < len(found):
        raise DataError("both judges are the same model; name two, or one")
    return found


def _dry_run(task: "Task", output: Path, judges: "list[Judge]", endpoint: str | None, json: bool) -> None:
    from minigpt4_video.evaluation.judging import ATTEMPTS, kept
    from minigpt4_video.evaluation.measuring import wanted_cases
    from minigpt4_video.evaluation.running import answered, find, read, unanswered

    asked = read(task)
    rows = answered(output)
    benchmark = find(task.benchmark)
    left = unanswered(asked.items, rows)
    supposed = {item.id: {"answer": ""} | rows.get(item.id, {}) for item in asked.items}
    wanted = wanted_cases(asked, supposed, benchmark)
    requests = sum(len(wanted) - len(kept(output, judge.name, wanted)) for judge in judges)
    told = {
        "questions": len(asked.items),
        "videos": len({item.shows for item in asked.items}),
        "cannot_be_asked": len(asked.flaws),
        "to_answer": len(left),
        "answer_requests": len(left) if endpoint else 0,
        "judgements": requests,
        "judge_requests_at_most": requests * ATTEMPTS,
        "judge_characters": sum(len(m["content"]) for case in wanted for m in case.messages) * len(judges),
    }
    if json:
        say_json(told)
        return
    say(f"{told['questions']} questions about {told['videos']} videos; {told['to_answer']} to answer")
    say(f"{told['cannot_be_asked']} rows that cannot be asked")
    if endpoint:
        say(f"{told['answer_requests']} requests to {endpoint}, each with pictures")
    if judges:
        say(
            f"{told['judgements']} judgements, at most {told['judge_requests_at_most']} requests beside those that are "
            f"repeated; about {told['judge_characters']} characters, the answers that are not there yet aside"
        )


class _Watched:
    """Progress on one line of stderr."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, what: str, done: int, of: int) -> None:
        if self.on:
            print(f"\r{done} of {of} {what}", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _compare(first: Path, second: Path, output: Path | None, json: bool) -> None:
    from minigpt4_video.evaluation.comparing import compare, report
    from minigpt4_video.inference.writing import write_whole

    told = compare(first, second)
    text, page = report(told)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "compare.md", text.encode(errors="backslashreplace"))
        write_whole(output / "compare.html", page.encode(errors="backslashreplace"))
    if json:
        say_json(told)
    else:
        say(text, end="")


def _say_figures(summary: Any) -> None:
    from minigpt4_video.evaluation.reporting import figure

    say(f"{summary['answered']} of {summary['asked']} questions answered, {len(summary['failed'])} failed")
    if summary["from_clips"]:
        say(f"{summary['from_clips']} answers from clips of long videos (--long off looks at the whole evenly)")
    if summary["flaws"]:
        say(f"{sum(summary['flaws'].values())} rows could not be asked")
    for name, told in summary["figures"].items():
        say(f"{name}: {figure(told, name)}")
    for name, told in summary["mean_over_kinds"].items():
        say(f"{name}, mean over kinds: {figure(told, name)}")


def _say_variants(rows: list[dict[str, Any]], output: Path, json: bool) -> None:
    from minigpt4_video.evaluation.reporting import figure

    if json:
        say_json({"output": str(output), "variants": rows})
        return
    for row in rows:
        say(f"{row['variant']}: {figure(row['figure'], row['metric'])}")
    say(str(output / "ablation.md"))


def _list(json: bool) -> None:
    from minigpt4_video.evaluation.benchmarks import BENCHMARKS

    if json:
        told = {
            name: {"about": one.about, "scoring": one.scoring, "annotations": one.annotations, "origin": one.origin}
            for name, one in BENCHMARKS.items()
        }
        say_json(told)
        return
    for name, one in BENCHMARKS.items():
        say(f"{name}\n    {one.about}\n    from {one.annotations}\n    {one.origin}")
