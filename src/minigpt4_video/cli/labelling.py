"""The verb that labels a collection."""

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say, say_json
from minigpt4_video.errors import UserError

if TYPE_CHECKING:
    from minigpt4_video.labelling.label import Order
    from minigpt4_video.labelling.run import Progress


def label(
    collection: Annotated[
        str | None,
        Argument(
            metavar="INPUT",
            help="A folder of videos or of shards (.tar), a table of videos, a data set, or a folder of an object store"
            " (s3://...).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, Option(metavar="FOLDER", help="Where the labels go, or are.", show_default=False)
    ] = None,
    format: Annotated[
        str | None, Option(metavar="NAME", help="Format of a data set, as `data list` shows.", show_default=False)
    ] = None,
    media: Annotated[
        Path | None, Option(metavar="FOLDER", help="Where the videos of a table or data set are.", show_default=False)
    ] = None,
    scenes: Annotated[bool, Option("--scenes", help="Cut videos where their scenes change.")] = False,
    window: Annotated[
        float | None,
        Option(
            min=0.1, metavar="SECONDS", help="Cut videos, or scenes, into clips of this length.", show_default=False
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="brief, detailed or tags; give it again for more [default: brief].",
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        Option(metavar="CODE", help="en or zh; give it again for both [default: en].", show_default=False),
    ] = None,
    question: Annotated[
        list[str] | None, Option(help="What to ask of every clip as well; give it again for more.", show_default=False)
    ] = None,
    schema: Annotated[
        list[Path] | None,
        Option(metavar="FILE.json", help="A JSON schema of an object to be filled in.", show_default=False),
    ] = None,
    agreement: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="A CLIP model, to tell how well texts fit the frames.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Plan, try a few clips, tell what all will take.")] = False,
    retry: Annotated[
        Literal["errors"] | None, Option(help="Label again what failed in earlier runs.", show_default=False)
    ] = None,
    export: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Write a finished job as open-sora, videofolder, webdataset or messages.",
            show_default=False,
        ),
    ] = None,
    browse: Annotated[
        str | None,
        Option(metavar="SQL", help="Show the rows of a finished job for which this holds.", show_default=False),
    ] = None,
    where: Annotated[str, Option(metavar="SQL", help="Export only the rows for which this holds.")] = "",
    ray: Annotated[
        str | None,
        Option(
            metavar="WHERE",
            help="Run on Ray: local starts it here, auto or an address joins a cluster.",
            show_default=False,
        ),
    ] = None,
    captioners: Annotated[int, Option(min=1, max=1024, help="Models at work, on Ray.")] = 1,
    readers: Annotated[int, Option(min=1, max=1024, help="Processes that read videos.")] = 1,
    together: Annotated[
        int | None,
        Option(min=1, help="Clips answered together [default: 1 on a processor, 8 on a GPU].", show_default=False),
    ] = None,
    vllm: Annotated[
        Path | None,
        Option(
            metavar="FOLDER",
            help="Answer with vLLM, for which the language model is written to this folder.",
            show_default=False,
        ),
    ] = None,
    max_failures: Annotated[float, Option(min=0, max=1, help="Stop where more than this share of clips fails.")] = 0.5,
    max_alike: Annotated[
        float, Option(min=0, max=1, help="Stop where more than this share of captions is the same.")
    ] = 0.5,
    model: options.Model = "tiny",
    subtitles: Annotated[
        Literal["auto", "off"], Option(help="auto: those beside each video, else a track inside it.")
    ] = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: Annotated[str, Option(metavar="MODEL", help="Speech model for videos without subtitles, or off.")] = "off",
    frames: options.Frames = None,
    long: options.Long = "auto",
    json: options.Json = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
) -> None:
    """Caption a collection of videos; run it again to go on where it was interrupted.

    \b
    minigpt4-video label videos --output labels
    minigpt4-video label videos --output labels --style brief --style detailed --language en --language zh
    minigpt4-video label videos --output labels --ray local --captioners 2
    minigpt4-video label --output labels --browse "status = 'error'"
    minigpt4-video label --output labels --export videofolder --where "confidence > -0.3"
    """
    quiet()
    from minigpt4_video.labelling import label as labelling
    from minigpt4_video.labelling.cluster import Cluster
    from minigpt4_video.labelling.cuts import Cutting
    from minigpt4_video.labelling.requests import requests

    if where and (browse is not None or not export):
        raise UserError("--where is for --export; name a form to export, or give the condition to --browse alone")
    if browse is not None:
        _browse(_needed(output), browse, json)
        return
    if collection is None:
        if not export:
            raise UserError("nothing is named to label; name a folder of videos, or a finished job with --export")
        _export(_needed(output), export, where)
        return
    if ray is None and captioners > 1:
        raise UserError("several captioners need Ray; say where with --ray, or leave out --captioners")
    asked: dict[str, dict[str, Any]] = {}
    for file in schema or []:
        if file.stem in asked:
            raise UserError(f"two schemas are called {file.stem}, and so would be their labels; rename {file}")
        asked[file.stem] = _schema(file)
    styles = style if style is not None else [] if asked or question else ["brief"]
    order = labelling.Order(
        collection,
        output or Path(),
        requests(styles, language or ["en"], question or [], asked),
        form=format,
        media=media,
        cutting=Cutting(scenes, window),
        model=model,
        agreement=agreement,
        device=device,
        dtype=dtype,
        quantize=quantize,
        vllm=vllm,
        frames=frames,
        long=long,
        subtitles=subtitles,
        subtitle_language=subtitle_language,
        encoding=encoding,
        speech=speech,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        max_failures=max_failures,
        max_alike=max_alike,
        together=together,
        readers=readers,
        cluster=None if ray is None else Cluster(ray, captioners),
        again=retry,
    )
    if dry_run:
        _foresee(order, json)
        return
    _needed(output)
    done = labelling.label(order, _Teller())
    if json:
        statuses = {name: done.statuses[name] for name in sorted(done.statuses)}
        say_json({"output": str(output), "rows": done.rows, "done_before": done.done_before, "statuses": statuses})
    else:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(done.statuses.items())) or "nothing to do"
        say(f"{done.rows} rows in {output}: {done.done_before} done before; {counted}")
    if export:
        _export(_needed(output), export, where)


def _needed(output: Path | None) -> Path:
    if output is None:
        raise UserError("it is not said where the labels go, or are; name a folder with --output")
    return output


def _schema(file: Path) -> dict[str, Any]:
    from json import loads

    try:
        read = loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(read, dict):
        raise UserError(f"{file} holds no JSON schema; it must be an object")
    return read


def _browse(output: Path, condition: str, json: bool) -> None:
    from json import dumps

    from minigpt4_video.labelling.browse import rows_where

    for row in rows_where(output, condition):
        if json:
            say(dumps(row, ensure_ascii=False, default=str))
            continue
        span = (
            ""
            if row["start"] is None
            else f" {row['start']:g}-{'' if row['end'] is None else format(row['end'], 'g')} s"
        )
        sure = "" if row["confidence"] is None else f" ({row['confidence']:.2f})"
        name = f"{row['style']}/{row['language']}" if row["language"] else row["style"]
        said = row["text"] if row["status"] == "success" else f"[{row['status']}] {row['error']}"
        say(f"{row['video']}{span} {name}{sure}: {said}")


def _export(output: Path, names: list[str], condition: str) -> None:
    from minigpt4_video.labelling.label import export

    for name in names:
        count = export(output, name, condition)
        note(f"{name}: {count} clips in {output}")


def _foresee(order: "Order", json: bool) -> None:
    from minigpt4_video.labelling.label import foresee

    told = foresee(order)
    if json:
        say_json(told._asdict() | {"machine_hours": told.machine_hours})
        return
    say(f"rows:            {told.rows} ({told.clips} clips, {told.unfit} of them not to be captioned)")
    if told.hours is not None:
        say(f"video:           {told.hours:.2f} hours")
    if told.machine_hours is not None:
        say(f"on this machine: {told.machine_hours:.2f} hours, {told.seconds_a_clip:.2f} s a clip, from a few clips")


class _Teller:
    """Notes how far it is: often to a terminal, now and then to a file."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._last = monotonic()

    def __call__(self, progress: "Progress") -> None:
        now = monotonic()
        ended = progress.done >= progress.rows
        if not ended and now - self._last < (0.5 if self._watched else 30):
            return
        self._last = now
        left = f", {_clock(progress.left)} left" if progress.left else ""
        text = f"{progress.done} of {progress.rows} rows, {progress.clips_a_minute:.1f} clips a minute{left}"
        if failed := progress.statuses["error"]:
            text += f", {failed} failed"
        if self._watched:
            print(f"\r{text:79}", end="\n" if ended else "", file=sys.stderr, flush=True)
        else:
            note(text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
