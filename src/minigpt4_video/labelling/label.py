"""The whole of a labelling run, from a collection to a table: what `minigpt4-video label` does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigpt4_video.errors import LabellingError
from minigpt4_video.inference.batching import BuiltIn
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.loading import find_model
from minigpt4_video.labelling.alarms import Alarms
from minigpt4_video.labelling.captioner import Captioner, Settings
from minigpt4_video.labelling.job import Given, Job, held, planned, revision_of
from minigpt4_video.labelling.local import labels_here
from minigpt4_video.labelling.pieces import SECONDS_A_PIECE, Pieces, write_merged
from minigpt4_video.labelling.reading import Form
from minigpt4_video.labelling.requests import Asked, requests
from minigpt4_video.labelling.run import Progress, carry_out
from minigpt4_video.labelling.sources import Sources, collection
from minigpt4_video.media import Limits


@dataclass(frozen=True)
class Order:
    """What is to be labelled, and how."""

    collection: Path
    output: Path
    requests: tuple[Asked, ...] = field(default_factory=requests)
    model: str = "tiny"
    device: str = "auto"
    dtype: str = "auto"
    quantize: Literal["8bit", "4bit"] | None = None
    frames: int | None = None
    subtitles: Literal["auto", "off"] = "auto"
    subtitle_language: str | None = None
    encoding: str | None = None
    speech: str = "off"
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    limits: Limits = field(default_factory=lambda: Limits(seconds=60.0, duration=24 * 3600.0))
    """Of reading one clip."""
    max_failures: float = 0.5
    max_alike: float = 0.5
    together: int | None = None
    """Clips that are answered together; None is 1 on a processor and 8 on a GPU."""
    readers: int = 1
    """Processes that read clips."""
    again: Literal["errors"] | None = None
    keep_every: float = SECONDS_A_PIECE
    """Seconds after which what was labelled is on disk."""


def label(order: Order, tell: Callable[[Progress], None] | None = None) -> Progress:
    """Plan and label a collection, or go on where an earlier run stopped; write `labels.parquet` and `labels.jsonl`.

    Raises LabellingError, and ModelError for a model that cannot be loaded.
    """
    folder = find_model(order.model)
    with held(order.output):
        job = planned(order.output, given(order, folder), lambda: sources(order))
        job = job._replace(pieces=Pieces(job.pieces.folder, order.keep_every))
        chat = VideoChat.from_pretrained(order.model, order.device, order.dtype, quantize=order.quantize)
        together = order.together or (1 if chat.model.device.type == "cpu" else 8)
        settings = settings_of(job, attempt=job.pieces.attempts() + (order.again is not None))
        captioner = Captioner(chat, BuiltIn(chat, rows=together, ahead=max(2, 2 * order.readers)), settings)
        form = form_of(order, chat.processor)
        names = {asked.style: asked for asked in order.requests}
        alarms = Alarms(order.max_failures, order.max_alike, lambda one: names[one.style].is_caption)
        progress = carry_out(
            job,
            settings,
            lambda left: labels_here(left, captioner, form, order.limits, order.readers),
            alarms,
            order.again,
            tell,
        )
        write_merged(job.pieces, job.plan.rows, order.output)
    return progress


def sources(order: Order) -> Sources:
    for source in collection(order.collection):
        yield source._replace(subtitles="off") if order.subtitles == "off" else source


def given(order: Order, folder: Path) -> Given:
    """What of an order decides the labels."""
    if not order.collection.exists():
        raise LabellingError(
            f"there is no file or folder {order.collection}; name a folder of videos or a table of them"
        )
    return Given(
        collection=str(order.collection.absolute()),
        requests=order.requests,
        model=order.model,
        revision=revision_of(folder),
        frames=order.frames,
        subtitles=order.subtitles,
        subtitle_language=order.subtitle_language,
        encoding=order.encoding,
        speech=order.speech,
        max_new_tokens=order.max_new_tokens,
        temperature=order.temperature,
        seed=order.seed,
        dtype=order.dtype,
        quantize=order.quantize,
    )


def settings_of(job: Job, attempt: int) -> Settings:
    given = job.given
    return Settings(
        given.requests, given.max_new_tokens, given.temperature, given.seed, revision=given.revision, attempt=attempt
    )


def form_of(order: Order, processor: Any) -> Form:
    """How the model of an order wants videos read."""
    return Form(
        frames=processor.frames,
        image_size=processor.image_size,
        window=processor.window,
        answer_reserve=order.max_new_tokens or processor.answer_reserve,
        tokens_per_frame=processor.tokens_per_frame,
        asked_frames=order.frames,
        subtitle_language=order.subtitle_language,
        encoding=order.encoding,
        speech=order.speech,
    )
