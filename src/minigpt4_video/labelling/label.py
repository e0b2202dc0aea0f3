"""The whole of a labelling run, from a collection to a table: what `minigpt4-video label` does."""

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from minigpt4_video.errors import LabellingError
from minigpt4_video.inference.batching import BuiltIn, Engine
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.loading import find_model, load_processor
from minigpt4_video.inference.store import find_store
from minigpt4_video.labelling.agreement import Agreement
from minigpt4_video.labelling.alarms import Alarms
from minigpt4_video.labelling.browse import rows_where
from minigpt4_video.labelling.captioner import Captioner, Settings
from minigpt4_video.labelling.cluster import Cluster, labels_on_ray
from minigpt4_video.labelling.cuts import Cutting, cut
from minigpt4_video.labelling.estimate import Estimate, estimate
from minigpt4_video.labelling.export import EXPORTS, clips
from minigpt4_video.labelling.films import Films
from minigpt4_video.labelling.job import PLAN, Given, Job, held, planned, read_settings, revision_of
from minigpt4_video.labelling.local import labels_here
from minigpt4_video.labelling.manifest import Work, plan_rows
from minigpt4_video.labelling.pieces import SECONDS_A_PIECE, Pieces, write_merged
from minigpt4_video.labelling.reading import Form, Reader
from minigpt4_video.labelling.requests import Asked, requests
from minigpt4_video.labelling.rows import Label
from minigpt4_video.labelling.run import Progress, carry_out
from minigpt4_video.labelling.sources import Sources, collection
from minigpt4_video.labelling.summary import Summary, write_summary
from minigpt4_video.long_video.choosing import Long
from minigpt4_video.media import Limits


@dataclass(frozen=True)
class Order:
    """What is to be labelled, and how."""

    collection: str
    """A folder, a table, a tar, a data set, or a folder of an object store: as `sources.collection` has it."""
    output: Path
    requests: tuple[Asked, ...] = field(default_factory=requests)
    form: str | None = None
    """The format of a data set, by its name in `data.formats`."""
    media: Path | None = None
    """Where the videos of a table or a data set are."""
    cutting: Cutting = field(default_factory=Cutting)
    model: str = "tiny"
    agreement: Path | None = None
    """A model that knows texts and pictures, such as CLIP."""
    device: str = "auto"
    dtype: str = "auto"
    quantize: Literal["8bit", "4bit"] | None = None
    vllm: Path | None = None
    """Where the language model is, or is written to, with which vLLM answers; None is the built-in engine."""
    frames: int | None = None
    long: Long = "auto"
    """Of which clips questions are answered from the parts that they are about."""
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
    cluster: Cluster | None = None
    """Where Ray is; None is without it."""
    again: Literal["errors"] | None = None
    keep_every: float = SECONDS_A_PIECE
    """Seconds after which what was labelled is on disk."""


def label(order: Order, tell: Callable[[Progress], None] | None = None) -> Progress:
    """Plan and label a collection, or go on where an earlier run stopped; write `labels.parquet` and `labels.jsonl`.

    Raises LabellingError, and ModelError for a model that cannot be loaded.
    """
    folder = find_model(order.model)
    with held(order.output):
        job = planned(order.output, given(order, folder), lambda: found(order), lambda: sources(order))
        job = job._replace(pieces=Pieces(job.pieces.folder, order.keep_every))
        settings = _settings(job.given, job.pieces.attempts() + (order.again is not None))
        names = {asked.style: asked for asked in order.requests}
        alarms = Alarms(order.max_failures, order.max_alike, lambda one: names[one.style].is_caption)
        engine = partial(_labels, order=order, settings=settings, form=form_of(order, load_processor(folder)))
        progress = carry_out(job, settings, engine, alarms, order.again, tell)
        finish(job)
    return progress


def foresee(order: Order) -> Estimate:
    """What an order will take. Raises as `label` does; writes nothing."""
    folder = find_model(order.model)
    settings = _settings(given(order, folder), 0)
    form = form_of(order, load_processor(folder))
    reader = Reader(form, order.limits)
    engine = partial(_labels, order=replace(order, cluster=None), settings=settings, form=form)
    try:
        return estimate(sources(order), order.requests, reader, engine)
    finally:
        reader.close()


def finish(job: Job) -> None:
    """The table and the summary of a job of which every row is labelled."""
    summary = Summary()
    write_merged(job.pieces, job.plan.rows, job.output, summary.look)
    asked, rows = len(job.given.requests), job.plan.rows
    facts = f"{rows} rows: {job.plan.clips} clips, {asked} requests each, by {job.given.model} ({job.given.revision})"
    wanted = {row["number"] for row in (*summary.best, *summary.worst, *summary.failed)}
    paths = paths_of(job.output, lambda row: row["number"] in wanted, "number")
    write_summary(summary, job.output, f"Labels of {job.given.collection}", facts, paths.__getitem__)


def paths_of(output: Path, wanted: Callable[[dict[str, Any]], bool], by: Literal["number", "id"]) -> dict[Any, str]:
    """The files of some rows of a plan, by their number or id."""
    batches = plan_rows(output / PLAN)
    return {row[by]: os.fsdecode(row["path"]) for batch in batches for row in batch if wanted(row)}


def export(output: Path, name: str, condition: str = "") -> int:
    """Write a finished job's labels in one of the `EXPORTS`; how many clips. Raises LabellingError."""
    if name not in EXPORTS:
        raise LabellingError(f"there is no form {name}; choose {', '.join(EXPORTS)}")
    read_settings(output)
    chosen = {row["id"] for row in rows_where(output, condition) if row["status"] == "success"}
    paths = paths_of(output, lambda row: row["id"] in chosen, "id")
    return EXPORTS[name](clips(rows_where(output, condition), paths.__getitem__), output)


def _labels(works: Iterator[Work], order: Order, settings: Settings, form: Form) -> Generator[list[Label], None, None]:
    first = next(works, None)
    if first is None:
        return  # and no model is loaded
    works = chain((first,), works)
    if order.cluster is None:
        yield from labels_here(works, captioner(order, settings), form, order.limits, order.readers)
        return
    make = partial(captioner_elsewhere, order, settings)
    yield from labels_on_ray(
        works, order.cluster, make, settings, form, order.limits, readers=order.readers, together=order.together
    )


def captioner_elsewhere(order: Order, settings: Settings) -> Captioner:
    """The model of an order, loaded by an actor that may be on another machine. Raises LabellingError where that has
    another model under the same name."""
    found = revision_of(find_model(order.model))
    if found != settings.revision:
        raise LabellingError(
            f"{os.uname().nodename} has another model {order.model} ({found}, not {settings.revision}); copy the"
            " same to all machines"
        )
    return captioner(order, settings)


def captioner(order: Order, settings: Settings) -> Captioner:
    """The model of an order, loaded."""
    chat = VideoChat.from_pretrained(order.model, order.device, order.dtype, quantize=order.quantize)
    together = order.together or (1 if chat.model.device.type == "cpu" else 8)
    agreement = None if order.agreement is None else Agreement(order.agreement, chat.model.device)
    ahead = 2 * order.readers
    engine: Engine
    if order.vllm is None:
        engine = BuiltIn(chat, rows=together, ahead=ahead)
    else:
        from minigpt4_video.inference.vllm import VLLM

        engine = VLLM(chat, order.vllm, ahead=ahead)
    films = Films(chat, BuiltIn(chat, rows=together), order.long, order.frames, find_store(), order.limits)
    return Captioner(chat, engine, settings, agreement, films)


def found(order: Order) -> Sources:
    """What an order's collection holds."""
    return collection(order.collection, order.form, order.media, order.output)


def sources(order: Order) -> Sources:
    """The clips of an order's collection, cut as it says."""
    reader = Reader(Form(1, 32, 1, 0, 1), order.limits)
    try:
        for source in cut(found(order), order.cutting, reader):
            yield source._replace(subtitles="off") if order.subtitles == "off" else source
    finally:
        reader.close()


def given(order: Order, folder: Path) -> Given:
    """What of an order decides the labels."""
    return Given(
        collection=order.collection if "://" in order.collection else os.path.abspath(order.collection),
        form=order.form,
        media=None if order.media is None else str(order.media.absolute()),
        cut=str(order.cutting),
        requests=order.requests,
        model=order.model,
        revision=revision_of(folder),
        frames=order.frames,
        long=order.long,
        subtitles=order.subtitles,
        subtitle_language=order.subtitle_language,
        encoding=order.encoding,
        speech=order.speech,
        max_new_tokens=order.max_new_tokens,
        temperature=order.temperature,
        seed=order.seed,
        dtype=order.dtype,
        quantize=order.quantize,
        engine="built-in" if order.vllm is None else "vLLM",
        agreement=None if order.agreement is None else revision_of(order.agreement),
    )


def _settings(given: Given, attempt: int) -> Settings:
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
