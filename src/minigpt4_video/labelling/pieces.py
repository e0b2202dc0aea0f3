"""Labels on disk: small files that are whole or not there, while the job runs; one table when it is done.

A row counts as done when it is in a file. The process that writes is the only one, so nothing is lost or doubled by
what is killed: labels that were not written yet are made again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.manifest import ROWS_AT_ONCE
from minigpt4_video.labelling.rows import STATUSES, Label, as_table, label_schema

ROWS_A_PIECE = 1024
SECONDS_A_PIECE = 20.0
"""The most that a kill can cost of finished work."""
MERGED_ROWS = 5 * ROWS_AT_ONCE

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Pieces:
    """The labels that a job has written. `add` writes when enough have come together or enough time has passed."""

    def __init__(self, folder: Path, seconds: float = SECONDS_A_PIECE) -> None:
        self.folder = folder
        self.seconds = seconds
        self._waiting: list[Label] = []
        self._since = monotonic()

    def add(self, labels: list[Label]) -> None:
        self._waiting += labels
        if len(self._waiting) >= ROWS_A_PIECE or monotonic() - self._since >= self.seconds:
            self.write()

    def write(self) -> None:
        """Write what waits. Raises LabellingError where the disk does not take it."""
        import pyarrow.parquet as pq

        self._since = monotonic()
        if not self._waiting:
            return
        first, attempt = self._waiting[0].number, self._waiting[0].attempt
        place = self.folder / f"{first:012d}-{attempt}-{os.urandom(4).hex()}.parquet"
        aside = place.with_suffix(".part")
        try:
            pq.write_table(as_table(self._waiting), aside)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(place)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise LabellingError(
                f"{place} cannot be written: {error.strerror or error}; make room and go on"
            ) from error
        self._waiting = []

    def done(self, rows: int, again: frozenset[str] = frozenset()) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of a plan have a label, as one truth a row; those whose last status is among `again` count as
        not done."""
        status = np.full(rows, -1, np.int8)
        attempts = np.full(rows, -1, np.int32)
        for file in self._files():
            table = _read(file, ["number", "status", "attempt"])
            numbers, tries = table["number"].to_numpy(), table["attempt"].to_numpy()
            found = np.array([STATUSES.index(one) for one in table["status"].to_pylist()], np.int8)
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < rows:
                raise LabellingError(f"{file} holds rows that are not in the plan; it belongs to another job")
            later = tries > attempts[numbers]
            status[numbers[later]], attempts[numbers[later]] = found[later], tries[later]
        undone = [-1, *(STATUSES.index(one) for one in STATUSES if one in again)]
        return np.isin(status, undone, invert=True)

    def attempts(self) -> int:
        """How often the job has been begun to be labelled again."""
        return max((int(file.name.split("-")[1]) for file in self._files()), default=0)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def merged(self, rows: int) -> Iterator[list[dict[str, Any]]]:
        """All labels in the order of the plan, the last attempt of each, some thousands at a time.

        Raises LabellingError where one is missing.
        """
        import pyarrow.compute as pc

        spans = [_span(file) for file in self._files()]
        for begin in range(0, rows, MERGED_ROWS):
            end = min(rows, begin + MERGED_ROWS)
            kept: dict[int, dict[str, Any]] = {}
            for span in spans:
                if span.last < begin or span.first >= end:
                    continue
                table = _read(span.file)
                numbers = table["number"]
                inside = pc.and_(pc.greater_equal(numbers, begin), pc.less(numbers, end))
                for row in table.filter(inside).to_pylist():
                    if row["number"] not in kept or row["attempt"] > kept[row["number"]]["attempt"]:
                        kept[row["number"]] = row
            if len(kept) < end - begin:
                raise LabellingError(f"{end - begin - len(kept)} rows have no label; run the job again to go on")
            yield [kept[number] for number in range(begin, end)]


class _Span(NamedTuple):
    file: Path
    first: int
    last: int


def _span(file: Path) -> _Span:
    numbers = _read(file, ["number"])["number"].to_numpy()
    return _Span(file, int(numbers.min()), int(numbers.max()))


def _read(file: Path, columns: list[str] | None = None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise LabellingError(f"{file} cannot be read ({error}); remove it, and its rows are labelled again") from error


def write_merged(pieces: Pieces, rows: int, output: Path, look: Any = None) -> None:
    """`labels.parquet` and `labels.jsonl` of a finished job; `look` is shown every batch of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, lines = output / "labels.parquet", output / "labels.jsonl"
    schema = pa.schema([field for field in label_schema() if field.name not in HIDDEN])
    aside = [file.with_name(f".{file.name}.part") for file in (table, lines)]
    try:
        with pq.ParquetWriter(aside[0], schema) as writer, aside[1].open("w", encoding="utf-8") as text:
            for batch in pieces.merged(rows):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                for row in batch:
                    shown = {name: row.get(name) for name in schema.names}
                    text.write(json.dumps(shown, ensure_ascii=False) + "\n")
                if look is not None:
                    look(batch)
        for written, place in zip(aside, (table, lines), strict=True):
            written.replace(place)
    except OSError as error:
        raise LabellingError(f"{output} cannot be written: {error.strerror or error}; make room and go on") from error
    finally:
        for written in aside:
            written.unlink(missing_ok=True)


HIDDEN = frozenset({"number"})
"""Columns that are the job's own business."""
