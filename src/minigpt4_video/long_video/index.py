"""What there is in a long video, clip by clip: made once, in one pass over the file, and used for every question.

A folder holds `index.json` (what was indexed and how), `clips.parquet` (a row a clip: times, descriptions, subtitles)
and, where a sentence encoder was given, `vectors.safetensors`. While it is being made, finished clips are lines of
`clips.jsonl`: a killed run goes on behind the last whole line.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file, save

from minigpt4_video.errors import UserError
from minigpt4_video.inference.batching import BuiltIn, Engine, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.inference.store import file_digest
from minigpt4_video.inference.video import Video
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.instructions import CAPTION_STYLE, Language, Style
from minigpt4_video.long_video.clips import RATE, Cutting, Piece, pieces
from minigpt4_video.long_video.sentences import Encoder, Vectors
from minigpt4_video.media import Cue, VideoInfo, align
from minigpt4_video.media.pictures import Frames
from minigpt4_video.media.streaming import stream_frames

FORMAT = 1
ABOUT, CLIPS, VECTORS, UNFINISHED = "index.json", "clips.parquet", "vectors.safetensors", "clips.jsonl"
LOCK = ".lock"
PROMPTS: tuple[tuple[Style, Language], ...] = (
    ("detailed", "en"), ("tags", "en"), ("detailed", "zh"), ("tags", "zh"),
)  # fmt: skip
"""What every clip is asked, behind one prefix: so that a question in either language finds it, and a thing that one
description misses is in another."""

ROWS = 32
"""Clips that are described at once, where memory holds them."""

T = TypeVar("T")
StreamFrames = Callable[[Path, float, tuple[int, int], float], Iterator[tuple[float, Frames]]]
"""As `media.streaming.stream_frames`."""


@dataclass(frozen=True)
class Indexed:
    """One clip of a film in words."""

    start: float
    """Seconds from the first frame, like `end`."""
    end: float
    descriptions: tuple[str, ...]
    """One for each of the index's prompts."""
    cues: tuple[Cue, ...]

    @property
    def said(self) -> str:
        return " ".join(cue.text for cue in self.cues)

    @property
    def text(self) -> str:
        """All that is known of the clip."""
        return "\n".join((*self.descriptions, self.said))


@dataclass(frozen=True)
class Settings:
    """How an index is made."""

    prompts: tuple[tuple[Style, Language], ...] = PROMPTS
    cutting: Cutting = field(default_factory=Cutting)
    frames: int | None = None
    """Shown of every clip; None stands for the model's own number."""


@dataclass(frozen=True)
class Index:
    """The clips of one video, in order, without gaps."""

    about: dict[str, Any]
    """`content` is the digest of the video's file, `prompts` what was asked."""
    clips: tuple[Indexed, ...]
    vectors: Vectors | None = None
    """(clips, width) float32 of length 1, of the texts."""

    @property
    def prompts(self) -> list[tuple[Style, Language]]:
        return [(style, language) for style, language in self.about["prompts"]]

    def has_vectors_of(self, encoder: Encoder) -> bool:
        """Whether its vectors are by this encoder; those of another cannot be compared with."""
        return self.vectors is not None and self.about.get("encoder_digest") == encoder.digest

    def between(self, start: float, end: float) -> "Index":
        """The part of it that is about this part of the video; a clip that begins or ends beyond is cut off there."""
        held = [number for number, clip in enumerate(self.clips) if clip.start < end and clip.end > start]
        clips = tuple(
            replace(clip, start=max(start, clip.start), end=min(end, clip.end), cues=cues_within(clip.cues, start, end))
            for clip in (self.clips[number] for number in held)
        )
        return Index(self.about, clips, None if self.vectors is None else self.vectors[held])


def load_index(folder: Path) -> Index:
    """A finished index. Raises UserError where there is none that can be read."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        rows = pq.read_table(folder / CLIPS).to_pylist()
        clips = tuple(_of_row(row) for row in rows)
        is_vectors = (folder / VECTORS).is_file()
        vectors = load_file(folder / VECTORS)["texts"] if is_vectors else None
    except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
        unfinished = (folder / UNFINISHED).is_file()
        how = "is unfinished; run the same minigpt4-video index again" if unfinished else "cannot be read"
        raise UserError(f"{folder} holds no index of a video that can be used: it {how}") from error
    if about.get("format") != FORMAT or (vectors is not None and len(vectors) != len(clips)):
        raise UserError(f"{folder} holds an index of another version; make it again with minigpt4-video index")
    return Index(about, clips, vectors)


def index_key(chat: VideoChat, content: str, said: Said, settings: Settings) -> str:
    """A name for all that determines the descriptions of a video with this `content` (a digest)."""
    told = [FORMAT, content, [list(cue) for cue in said.cues], chat.identity(), asdict(settings), RATE]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def make_index(
    chat: VideoChat,
    path: Path,
    info: VideoInfo,
    said: Said,
    folder: Path,
    *,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    content: str | None = None,
    engine: Engine | None = None,
    stream: StreamFrames = stream_frames,
    progress: Callable[[float, float], None] = lambda seconds, whole: None,
) -> Index:
    """Index a video into a folder, or go on with one that was begun; what is finished there is only read.

    `progress` is called with the seconds that are done and those of the whole video. A clip is written when it is
    described, so an interrupted run never describes it again; who comes second waits for who is at it. `engine`
    describes, and `stream` reads the file. Raises UserError where the folder holds something else.
    """
    settings = settings or Settings()
    content = content or file_digest(path)
    key = index_key(chat, content, said, settings)
    about = {
        "format": FORMAT, "key": key, "video": path.name, "content": content, "duration": info.duration,
        "model": chat.name, "subtitles": said.source, "prompts": settings.prompts,
        "cutting": asdict(settings.cutting), "frames": settings.frames or chat.processor.frames,
        "encoder": encoder.name if encoder else None, "encoder_digest": encoder.digest if encoder else None,
    }  # fmt: skip
    with _claimed(folder, key):
        if (folder / ABOUT).is_file():
            found = load_index(folder)
            if encoder is None or found.has_vectors_of(encoder):
                return found
            index = Index(about, found.clips, encoder.encode([clip.text for clip in found.clips]))
        else:
            alone = copy(chat)
            alone.store = None  # frames and prefixes of thousands of clips are not asked again
            size = (chat.processor.image_size, chat.processor.image_size)

            def taken(start: float) -> Iterator[Piece]:
                frames = settings.frames or chat.processor.frames
                return pieces(stream(path, RATE, size, start), frames, settings.cutting, info.duration)

            def requests(some: Iterable[Piece]) -> Iterator[Request]:
                prompts = [CAPTION_STYLE[language][style] for style, language in settings.prompts]
                for piece in some:
                    yield Request(Video(alone, _footage(path, info, said, piece)), prompts)

            engine = engine or BuiltIn(alone, rows=ROWS)
            clips = _described(taken, requests, engine, said, info.duration, folder / UNFINISHED, key, progress)
            index = Index(about, clips, encoder.encode([clip.text for clip in clips]) if encoder else None)
        _write(folder, index)
        (folder / UNFINISHED).unlink(missing_ok=True)
        return index


@contextmanager
def _claimed(folder: Path, key: str) -> Iterator[None]:
    """A folder that no other process indexes into meanwhile. Raises UserError where it has an index of something
    else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be used for an index: {error.strerror}; name another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _check_claim(folder, key)
        yield


def _check_claim(folder: Path, key: str) -> None:
    try:
        if (folder / ABOUT).is_file():
            held = json.loads((folder / ABOUT).read_text(encoding="utf-8")).get("key")
        elif (folder / UNFINISHED).is_file():
            with (folder / UNFINISHED).open(encoding="utf-8") as lines:
                first = lines.readline()
            held = json.loads(first).get("key") if first.endswith("\n") else key
        else:
            return
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} cannot be used for an index: {error}; name another folder") from error
    if held != key:
        raise UserError(
            f"{folder} holds an index of another video, or one made by another model or in another way; name another "
            "folder, or remove that one"
        )


def _described(
    taken: Callable[[float], Iterator[Piece]],
    requests: Callable[[Iterable[Piece]], Iterator[Request]],
    engine: Engine,
    said: Said,
    duration: float,
    file: Path,
    key: str,
    progress: Callable[[float, float], None],
) -> tuple[Indexed, ...]:
    """All clips: those in the file, and the rest, `taken` from where those end, described and added to it."""
    clips = _finished_lines(file, key)
    start = clips[-1].end if clips else 0.0
    if clips and start >= duration:
        return tuple(clips)
    spans: list[tuple[float, float]] = []

    def noted(some: Iterable[Piece]) -> Iterator[Piece]:
        for piece in some:
            spans.append((piece.start, piece.end))
            yield piece

    with (
        ThreadPoolExecutor(1, "clips") as reader,
        closing(_ahead(taken(start), reader)) as coming,
        file.open("a", encoding="utf-8") as lines,
    ):
        for reply in engine.answer(requests(noted(coming))):
            if reply.error is not None:
                raise reply.error
            begin, end = spans.pop(0)
            clip = Indexed(begin, end, tuple(one.text for one in reply.answers), cues_between(said.cues, begin, end))
            lines.write(json.dumps(_row(clip), ensure_ascii=False) + "\n")
            lines.flush()
            clips.append(clip)
            progress(end, duration)
    return tuple(clips)


def _ahead(items: Iterator[T], reader: ThreadPoolExecutor) -> Generator[T, None, None]:
    """The same items, the next of which is being made while one is used."""
    end = object()
    coming = reader.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = reader.submit(next, items, end)
        yield item  # type: ignore[misc]


def _footage(path: Path, info: VideoInfo, said: Said, piece: Piece) -> Footage:
    texts = align(cues_between(said.cues, piece.start, piece.end), piece.shown.times)
    return Footage(path, info, piece.shown, texts, said, None)


def cues_between(cues: Sequence[Cue], start: float, end: float) -> tuple[Cue, ...]:
    """Those that begin in a clip: each cue belongs to one."""
    return tuple(cue for cue in cues if start <= cue.start < end)


def cues_within(cues: Sequence[Cue], start: float, end: float) -> tuple[Cue, ...]:
    """Those that are heard in a part of a video."""
    return tuple(cue for cue in cues if cue.end > start and cue.start < end)


def _finished_lines(file: Path, key: str) -> list[Indexed]:
    """The clips of a run that was interrupted; half a line at the end is cut off. A new file gets its first line."""
    if not file.is_file():
        write_whole(file, (json.dumps({"key": key}) + "\n").encode())
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return [_of_row(json.loads(line)) for line in whole.split(b"\n")[1:-1]]


def _row(clip: Indexed) -> dict[str, Any]:
    return {
        "start": clip.start,
        "end": clip.end,
        "descriptions": list(clip.descriptions),
        "cues": [cue._asdict() for cue in clip.cues],
    }


def _of_row(row: dict[str, Any]) -> Indexed:
    cues = tuple(Cue(cue["start"], cue["end"], cue["text"]) for cue in row["cues"])
    return Indexed(row["start"], row["end"], tuple(row["descriptions"]), cues)


def _write(folder: Path, index: Index) -> None:
    """The file that says that an index is whole is written last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cue = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
    schema = pa.schema(
        [
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("descriptions", pa.list_(pa.string())),
            ("cues", pa.list_(cue)),
        ]
    )
    made = BytesIO()
    pq.write_table(pa.Table.from_pylist([_row(clip) for clip in index.clips], schema), made)
    write_whole(folder / CLIPS, made.getvalue())
    if index.vectors is not None:
        write_whole(folder / VECTORS, save({"texts": np.ascontiguousarray(index.vectors)}))
    write_whole(folder / ABOUT, (json.dumps(index.about, ensure_ascii=False, indent=1) + "\n").encode())
