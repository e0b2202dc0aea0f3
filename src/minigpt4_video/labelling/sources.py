"""What a collection holds, one clip at a time and in an order that does not depend on the machine."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.data.formats.rows import TABLES, Row, Unusable, table
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import LabellingError
from minigpt4_video.media.subtitles import SUFFIXES as SUBTITLE_SUFFIXES

NO_VIDEO = {
    **dict.fromkeys(SUBTITLE_SUFFIXES, "a subtitle file"),
    **dict.fromkeys((".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".md", ".html", ".xml", ".yaml"), "a text"),
    **dict.fromkeys((".tar", ".zip", ".gz", ".7z"), "an archive"),
}
"""Files that are not tried as videos, by their suffix. All others are: a suffix promises nothing."""


class Source(NamedTuple):
    """A video, or a part of one, as a collection names it."""

    name: str
    """Unique in the collection but for its span; with "/" between folders, whatever the machine."""
    path: str
    """The file; of a file in a tar `shard.tar:offset:size`."""
    start: float | None = None
    """Seconds from the first frame, as `end`."""
    end: float | None = None
    subtitles: str = "auto"
    """"auto", "off", a file, or cues as JSON."""
    unfit: str = ""
    """Why there is nothing to caption; such a row ends as skipped, or as an error where the collection is at fault."""
    faulty: bool = False
    """Whether the collection is at fault."""


Sources = Iterator[Source]
Known = Callable[[str], str]


def collection(place: Path) -> Sources:
    """The clips of a folder, or of a table of videos. Raises LabellingError for a place that holds neither."""
    if place.is_dir():
        return folder(place)
    if place.suffix.lower() in TABLES and place.is_file():
        return listed(place)
    if not place.exists():
        raise LabellingError(f"there is no file or folder {place}; name a folder of videos or a table of them")
    raise LabellingError(f"{place} is neither a folder nor a table ({', '.join(TABLES)}); put its video into a folder")


def folder(place: Path) -> Sources:
    """Every file below a folder, by name; those that are no videos by their suffix are unfit."""
    found = False
    for inner, folders, files in os.walk(place):
        folders.sort()
        for file in sorted(files):
            found = True
            path = Path(inner, file)
            name = path.relative_to(place).as_posix()
            kind = NO_VIDEO.get(path.suffix.lower())
            yield Source(name, str(path), unfit=f"is {kind}, not a video" if kind else "")
    if not found:
        raise LabellingError(f"the folder {place} is empty; name one with videos")


def listed(place: Path, media: Path | None = None) -> Sources:
    """The rows of a csv, jsonl, json or parquet file: `video` (or `path`, `file_name`), and as far as they are there
    `id`, `start`, `end`, `subtitles`. Names of files are relative to `media`, or to where the table is. A row that
    cannot be used is a faulty source: it is planned too, and ends as an error."""
    base = media or place.parent
    for row in table(place):
        if isinstance(row, Flaw):
            yield Source(row.where, "", unfit=f"{row.problem}: {row.detail}", faulty=True)
            continue
        try:
            yield _of_row(row, base)
        except Unusable as reason:
            detail = f": {reason.detail}" if reason.detail else ""
            yield Source(row.where, "", unfit=f"{reason.problem}{detail}", faulty=True)


def _of_row(row: Row, base: Path) -> Source:
    video = row.name("video", "path", "file_name")
    name = row.name("id", "video", "path", "file_name")
    start, end = row.number("start"), row.number("end")
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise Unusable("ends before it starts", f"{start} to {end}")
    subtitles: Any = row.values.get("subtitles") or "auto"
    if not isinstance(subtitles, str):
        raise Unusable("subtitles are not a name", subtitles)
    if subtitles not in ("auto", "off"):
        subtitles = str(base / subtitles)
    return Source(name, str(base / video), start, end, subtitles)


def windows(source: Source, duration: float, length: float, least: float) -> Sources:
    """A clip cut into parts of `length` seconds. A rest shorter than `least` belongs to the part before it.

    `duration` is that of the whole file, in seconds.
    """
    begin = source.start or 0.0
    until = duration if source.end is None else min(source.end, duration)
    count = max(1, math.ceil((until - begin) / length - 1e-9))
    if count > 1 and until - begin - (count - 1) * length < least:
        count -= 1
    for number in range(count):
        end = until if number == count - 1 else begin + (number + 1) * length
        whole = count == 1 and source.start is None and source.end is None
        yield source if whole else source._replace(start=round(begin + number * length, 3), end=round(end, 3))
