"""Whether a collection is still the one that was planned, by names and sizes: nothing is decoded."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.manifest import plan_rows, size_of, visible
from minigpt4_video.labelling.sources import Source


def refuse_changes(plan: Path, labelled: Sequence[bool] | Any, found: Iterable[Source], cut: bool) -> None:
    """Raises LabellingError where a collection has what its plan has not, or where a file has another size than when
    it was planned and `labelled` (one truth a row). What failed may be mended, and what is gone fails by itself.

    Spans are not compared where videos were `cut`. A time of change is no sign: copies have others. Plans of older
    versions have no sizes, and are not compared. Holds a short hash and a size for every clip.
    """
    sizes: dict[bytes, int | None] = {}
    for batch in plan_rows(plan):
        for row in batch:
            if "size" not in row:
                return
            key = _key(row["name"], row["file"], None if cut else (row["start"], row["end"]))
            is_kept = labelled[row["number"]] and not row["unfit"]
            if is_kept or key not in sizes:
                sizes[key] = row["size"] if is_kept else None
    new, changed = _Named(), _Named()
    for source in found:
        name = visible(source.name)
        key = _key(name, visible(source.file), None if cut else (source.start, source.end))
        if key not in sizes:
            new.add(name)
        elif sizes[key] is not None and (size := size_of(source.path)) is not None and size != sizes[key]:
            changed.add(name)
    if new.count or changed.count:
        told = ", ".join(f"{what} {names}" for what, names in (("new:", new), ("changed:", changed)) if names.count)
        raise LabellingError(
            f"the collection is another than when the job in {plan.parent} was planned ({told}); put it back as it"
            " was to go on, or name another folder for the labels"
        )


def _key(name: str, file: str, span: tuple[float | None, float | None] | None) -> bytes:
    return hashlib.sha256(json.dumps([name, file, span]).encode()).digest()[:16]


class _Named:
    """How many there are, and the first."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""

    def add(self, name: str) -> None:
        self._first = self._first or name
        self.count += 1

    def __str__(self) -> str:
        return self._first if self.count == 1 else f"{self._first} and {self.count - 1} more"
