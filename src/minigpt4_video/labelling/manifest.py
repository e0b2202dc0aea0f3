"""The plan of a job: one row for every clip and request, with an id, on disk before anything is labelled.

Nothing can be lost that is not missed at the end: every row of the plan must come to one status. Engines that fan a
video out into clips while they run lose rows without a word when they resume by the video's name.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.requests import Asked
from minigpt4_video.labelling.sources import Source

ROWS_A_FILE = 100_000
ROWS_AT_ONCE = 10_000

Columns = dict[str, list[Any]]


class Row(NamedTuple):
    """A row of the plan."""

    number: int
    """Its place in the plan."""
    id: str
    request: int
    """Its place among what is asked."""


class Work(NamedTuple):
    """A clip and what is to be asked of it."""

    source: Source
    rows: tuple[Row, ...]


class Plan(NamedTuple):
    """A plan on disk."""

    rows: int
    clips: int
    digest: str
    """Of all ids and files, in their order."""


def row_id(source: Source, asked: Asked, again: int = 0) -> str:
    """128 bits as 32 hexadecimal digits, from the collection's own name for the clip, its span and the request: the
    same on every machine. `again` counts clips that the collection names more than once."""
    span = [None if time is None else round(time * 1000) for time in (source.start, source.end)]
    told = [source.name, span, asked.style, asked.language, asked.text, asked.schema, again]
    return hashlib.sha256(json.dumps(told, ensure_ascii=True).encode()).hexdigest()[:32]


def write_plan(folder: Path, sources: Iterable[Source], requests: Sequence[Asked]) -> Plan:
    """Write the plan of a collection into an empty folder, holding a few thousand rows and two short hashes a clip.

    A clip that the collection names again is planned as unfit: its rows are skipped, and their ids are others.
    Raises LabellingError where the collection holds nothing.
    """
    names: dict[bytes, int] = {}
    shown: set[bytes] = set()
    digest = hashlib.sha256()
    files = _Files(folder)
    clips = 0
    for source in sources:
        clips += 1
        name, clip = _short(source.name, source.start, source.end), _short(source.path, source.start, source.end)
        again = names.get(name, 0)
        names[name] = again + 1
        if clip in shown and not source.unfit:
            source = source._replace(unfit="is named before in the collection")
        shown.add(clip)
        size = size_of(source.path)
        for number, asked in enumerate(requests):
            id_ = row_id(source, asked, again)
            digest.update(f"{id_} {source.path}\n".encode(errors="surrogateescape"))
            files.add(id_, source, number, size)
    files.close()
    if not clips:
        raise LabellingError("the collection holds no video; check its name")
    return Plan(files.rows, clips, digest.hexdigest())


def _short(*told: Any) -> bytes:
    return hashlib.sha256(json.dumps(told).encode()).digest()[:16]


class _Files:
    """Parquet files of so many rows each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self._written = 0
        self._writer: Any = None
        self._columns = self._empty()

    @staticmethod
    def _empty() -> Columns:
        return {name: [] for name in ("id", "number", "request", *Source._fields, "size")}

    def add(self, name: str, source: Source, request: int, size: int | None) -> None:
        told = source._replace(
            name=visible(source.name),
            path=os.fsencode(source.path),  # type: ignore[arg-type]
            file=visible(source.file),
            subtitles=os.fsencode(source.subtitles),  # type: ignore[arg-type]
        )
        for column, value in zip(self._columns.values(), (name, self.rows, request, *told, size), strict=True):
            column.append(value)
        self.rows += 1
        if self.rows % ROWS_AT_ONCE == 0:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._columns["id"]:
            return
        held = pa.table(self._columns, schema=plan_schema())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.folder / f"plan-{self._written:05d}.parquet", held.schema)
            self._written += 1
        self._writer.write_table(held)
        self._columns = self._empty()
        if self.rows % ROWS_A_FILE == 0:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()


def plan_schema() -> Any:
    import pyarrow as pa

    text, time = pa.string(), pa.float64()
    return pa.schema(
        [
            ("id", text), ("number", pa.int64()), ("request", pa.int16()), ("name", text), ("path", pa.binary()),
            ("start", time), ("end", time), ("subtitles", pa.binary()), ("unfit", text), ("faulty", pa.bool_()),
            ("file", text), ("size", pa.int64()),
        ]
    )  # fmt: skip


def plan_rows(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of a plan in their order, some thousands at a time."""
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("plan-*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=ROWS_AT_ONCE):
            yield batch.to_pylist()


def works(folder: Path, done: Sequence[bool] | Any) -> Iterator[Work]:
    """The clips of a plan of which rows are not `done` (one truth a row), in their order."""
    source: Source | None = None
    rows: list[Row] = []
    for batch in plan_rows(folder):
        for row in batch:
            if row["request"] == 0 and rows and source is not None:
                yield Work(source, tuple(rows))
                rows = []
            if not done[row["number"]]:
                told = {name: row[name] for name in Source._fields if name in row}  # older plans have no files
                source = Source(**told | {name: os.fsdecode(row[name]) for name in ("path", "subtitles")})
                rows.append(Row(row["number"], row["id"], row["request"]))
    if rows and source is not None:
        yield Work(source, tuple(rows))


def size_of(path: str) -> int | None:
    """Bytes of a file of this machine; None where there is none, and for what is in a tar or an object store."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def visible(name: str) -> str:
    """A name as it can be written in UTF-8; names of files may hold what no encoding can say."""
    return name.encode(errors="backslashreplace").decode()


def stated(requests: Sequence[Asked]) -> list[dict[str, Any]]:
    """Requests as they stand in a job's settings."""
    return [asdict(asked) for asked in requests]
