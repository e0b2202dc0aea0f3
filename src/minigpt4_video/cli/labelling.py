"""The verb that labels a collection."""

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say, say_json
from minigpt4_video.errors import UserError

if TYPE_CHECKING:
    from minigpt4_video.labelling.run import Progress


def label(
    collection: Annotated[
        Path, Argument(metavar="INPUT", help="A folder of videos, or a table of them.", show_default=False)
    ],
    output: Annotated[Path, Option(metavar="FOLDER", help="Where the labels go.", show_default=False)],
    style: Annotated[
        list[str] | None,
        Option(
            metavar="NAME", help="brief, detailed or tags; give it again for more [default: brief].", show_default=False
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        Option(metavar="CODE", help="en or zh; give it again for both [default: en].", show_default=False),
    ] = None,
    question: Annotated[
        list[str] | None, Option(help="What to ask of every video as well.", show_default=False)
    ] = None,
    retry: Annotated[
        Literal["errors"] | None, Option(help="Label again what failed in earlier runs.", show_default=False)
    ] = None,
    max_failures: Annotated[float, Option(min=0, max=1, help="Stop where more than this share of clips fails.")] = 0.5,
    max_alike: Annotated[
        float, Option(min=0, max=1, help="Stop where more than this share of captions is the same.")
    ] = 0.5,
    readers: Annotated[int, Option(min=1, max=256, help="Processes that read videos.")] = 1,
    together: Annotated[
        int | None,
        Option(min=1, help="Videos answered together [default: 1 on a processor, 8 on a GPU].", show_default=False),
    ] = None,
    model: options.Model = "tiny",
    subtitles: Annotated[
        Literal["auto", "off"], Option(help="auto: a file beside each video, else a track inside it.")
    ] = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: Annotated[str, Option(metavar="MODEL", help="Speech model for videos without subtitles, or off.")] = "off",
    frames: options.Frames = None,
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
    """
    if not collection.exists():
        raise UserError(f"there is no file or folder {collection}; name a folder of videos or a table of them")
    quiet()
    from minigpt4_video.labelling.label import Order
    from minigpt4_video.labelling.label import label as carry_out
    from minigpt4_video.labelling.requests import requests

    order = Order(
        collection,
        output,
        requests(style or ["brief"], language or ["en"], question or []),
        model=model,
        device=device,
        dtype=dtype,
        quantize=quantize,
        frames=frames,
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
        again=retry,
    )
    done = carry_out(order, _Teller())
    if json:
        statuses = {name: done.statuses[name] for name in sorted(done.statuses)}
        say_json({"output": str(output), "rows": done.rows, "done_before": done.done_before, "statuses": statuses})
        return
    counted = ", ".join(f"{count} {name}" for name, count in sorted(done.statuses.items())) or "nothing to do"
    say(f"{done.rows} rows in {output}: {done.done_before} done before; {counted}")


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
