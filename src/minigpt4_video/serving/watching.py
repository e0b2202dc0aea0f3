"""Media that nobody vouches for, to frames: read in a limited child process, once for all who ask at the same time."""

import hashlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Literal, NamedTuple, TypeVar

from minigpt4_video.errors import MediaError, UserError
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.store import file_digest
from minigpt4_video.media import Cue, Nursery, align, read_subtitles_guarded, read_video_guarded, stream_frames_guarded
from minigpt4_video.media.pictures import Frames
from minigpt4_video.media.sources import shown
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.metrics import Metrics

DECODERS = 4
"""Child processes at a time."""
KEPT_BYTES = 256 * 2**20
"""Of frames that are kept for the next question."""

Result = TypeVar("Result")
Subtitles = Literal["auto", "off"] | Path | Sequence[Cue]


class Wanted(NamedTuple):
    """What is to be taken of a video."""

    subtitles: Subtitles = "auto"
    frames: int | None = None
    start: float | None = None
    end: float | None = None


class Watcher:
    """Reads videos and pictures under a server's limits; what was read is kept for a while, apart for each tenant."""

    def __init__(self, processor: Any, limits: Limits, metrics: Metrics, *, reuse: bool = True) -> None:
        self._processor = processor
        self._limits = limits
        self._metrics = metrics
        self._nursery = Nursery()
        self._decoders = BoundedSemaphore(DECODERS)
        self._most = KEPT_BYTES if reuse else 0
        self._lock = Lock()
        self._kept: OrderedDict[str, Footage] = OrderedDict()
        self._bytes = 0
        self._coming: dict[str, Future[Footage]] = {}

    def watch(self, tenant: str, path: Path, wanted: Wanted, digest: str) -> Footage:
        """The frames of a video with their texts; `digest` is of the file's content.

        Raises UserError, whose words name no path.
        """
        if wanted.frames is not None and wanted.frames > self._limits.frames:
            raise UserError(f"{wanted.frames} frames are more than the {self._limits.frames} allowed; ask for fewer")
        name = _name(tenant, digest, wanted)
        with self._lock:
            if (kept := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
                self._metrics.videos.labels("memory").inc()
                return kept
            coming = self._coming.get(name)
            mine = coming is None
            if coming is None:
                coming = self._coming[name] = Future()
        if not mine:
            return coming.result()
        try:
            with self._decoders:
                footage = self._read(path, wanted)
        except BaseException as error:
            self._metrics.undecodable.inc()
            coming.set_exception(error)
            raise
        else:
            self._metrics.videos.labels("nowhere").inc()
            self._keep(name, footage)
            coming.set_result(footage)
            return footage
        finally:
            with self._lock:
                del self._coming[name]

    def stream(self, path: Path, rate: float, size: tuple[int, int], start: float) -> Iterator[tuple[float, Frames]]:
        """A whole video at a steady rate, as `stream_frames`. Raises MediaError, whose words name no path."""
        stream = stream_frames_guarded(path, rate, size, start, limits=self._limits.decoding, nursery=self._nursery)
        while True:
            with self._decoders:
                shown = _without_paths(path, lambda: next(stream, None))
            if shown is None:
                return
            yield shown

    def close(self) -> None:
        self._nursery.close()

    def _read(self, path: Path, wanted: Wanted) -> Footage:
        limits, side = self._limits, self._processor.image_size
        watched = _without_paths(
            path,
            lambda: read_video_guarded(
                path,
                wanted.frames or min(self._processor.frames, limits.frames),
                size=(side, side),
                start=wanted.start,
                end=wanted.end,
                subtitles=wanted.subtitles == "auto",
                limits=limits.decoding,
                nursery=self._nursery,
            ),
        )
        said = self._said(wanted.subtitles, watched.cues, watched.track, watched.info.fps)
        start, end = wanted.start or 0.0, wanted.end
        cues = [cue for cue in said.cues if cue.end > start and (end is None or cue.start < end)]
        return Footage(path, watched.info, watched.clip, align(cues, watched.clip.times), said, wanted.frames)

    def _said(self, subtitles: Subtitles, inside: Sequence[Cue], track: int | None, fps: float) -> Said:
        if isinstance(subtitles, Path):
            path = subtitles
            limits, nursery = self._limits.decoding, self._nursery
            cues = _without_paths(path, lambda: read_subtitles_guarded(path, fps=fps, limits=limits, nursery=nursery))
            return Said(cues, "a file")
        if subtitles == "off":
            return Said(missing="none wanted")
        if subtitles == "auto":
            return Said(inside, f"track {track}") if inside else Said(missing="no track in the video")
        return Said([cue for cue in subtitles if isinstance(cue, Cue)], "the request")

    def _keep(self, name: str, footage: Footage) -> None:
        with self._lock:
            self._kept[name] = footage
            self._bytes += footage.clip.frames.nbytes
            while self._bytes > self._most:
                self._bytes -= self._kept.popitem(last=False)[1].clip.frames.nbytes


def written(text: str, folder: Path) -> Path:
    """A subtitle file with a text that came in a request."""
    suffix = ".vtt" if text.lstrip("\ufeff \r\n\t").startswith("WEBVTT") else ".srt"
    handle, name = tempfile.mkstemp(suffix=suffix, dir=folder)
    with open(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
    return Path(name)


def _name(tenant: str, digest: str, wanted: Wanted) -> str:
    subtitles: Any = wanted.subtitles
    if isinstance(subtitles, Path):
        subtitles = file_digest(subtitles)
    elif not isinstance(subtitles, str):
        subtitles = [list(cue) for cue in subtitles]
    told = json.dumps([tenant, digest, subtitles, wanted.frames, wanted.start, wanted.end])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _without_paths(path: Path, read: Callable[[], Result]) -> Result:
    """What `read` gives; where it fails, the error says "the file" in the place of the path."""
    try:
        return read()
    except MediaError as error:
        told = str(error)
        for name in (shown(path.absolute()), shown(path)):
            told = told.replace(name, "The file" if told.startswith(name) else "the file")
        raise MediaError(told) from error
