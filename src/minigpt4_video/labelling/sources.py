"""What a collection holds, one clip at a time and in an order that does not depend on the machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from minigpt4_video.data.formats import read
from minigpt4_video.data.formats.rows import TABLES, Row, Unusable, brief, table, words
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import LabellingError
from minigpt4_video.media.subtitles import SUFFIXES as SUBTITLE_SUFFIXES
from minigpt4_video.messages import media_parts

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
    file: str = ""
    """The file as it is called from the folder of the videos; "" where there is none."""


Sources = Iterator[Source]

CARDS = ("metadata.parquet", "metadata.jsonl", "metadata.csv")
"""What makes a folder a VideoFolder of Hugging Face's datasets: a table with the column `file_name`."""


def collection(address: str, form: str | None = None, media: Path | None = None, output: Path | None = None) -> Sources:
    """The clips of a collection: a folder of videos, of shards (tars) or with a card; a table; a tar; a data set in a
    `form` of `data.formats`; or a folder in an object store. `media` is where the videos of a table or data set are,
    `output` where labels are written, which is no part of a collection around it.

    Raises LabellingError for a place that is none of these, DataError for a data set that is none.
    """
    if "://" in address:
        return stored(address)
    place = Path(address)
    if not place.exists():
        raise LabellingError(f"there is no file or folder {place}; name a folder of videos or a table of them")
    if form is not None:
        return known(form, place, media)
    if place.is_dir():
        card = next((place / name for name in CARDS if (place / name).is_file()), None)
        if card is not None:
            return listed(card, media or place)
        return known("video2dataset", place, media) if any(place.glob("*.tar")) else folder(place, output)
    if place.suffix.lower() == ".tar":
        return known("video2dataset", place, media)
    if place.suffix.lower() in TABLES:
        return listed(place, media)
    raise LabellingError(f"{place} is neither a folder nor a table ({', '.join(TABLES)}); put its video into a folder")


def known(form: str, place: Path, media: Path | None = None) -> Sources:
    """The videos of a data set in one of the formats of `data.formats`, with their spans and subtitles. Texts that it
    has are left, and need not be there; its pictures are none."""
    base = media or (place if place.is_dir() else place.parent)
    for record in read(form, place, media=media, texts_needed=False):
        if isinstance(record, Flaw):
            yield Source(record.where, "", unfit=_told(record.problem, record.detail), faulty=True)
            continue
        part = next(media_parts(record.messages), None)
        if part is None or part["type"] != "video":
            yield Source(record.id, "", unfit="shows no video")
            continue
        given = part.get("subtitles", "auto")
        subtitles = given if isinstance(given, str) else json.dumps(given)
        file = os.path.relpath(part["path"], base)
        yield Source(record.id, part["path"], part.get("start"), part.get("end"), subtitles, file=file)


def stored(address: str) -> Sources:
    """The files below a folder of an object store, by name; subtitles are those with the name of the video."""
    from minigpt4_video.labelling.files import filesystem

    system, root = filesystem(address)
    try:
        names = sorted(str(name) for name in system.find(root))
    except Exception as error:  # every kind of store has errors of its own
        raise LabellingError(f"{address} cannot be listed: {' '.join(str(error).split())[:300]}") from error
    if not names:
        raise LabellingError(f"there is nothing in {address}; name a folder with videos")
    said = {
        PurePosixPath(name).with_suffix(""): name for name in names if PurePosixPath(name).suffix in SUBTITLE_SUFFIXES
    }
    for name in names:
        path = PurePosixPath(name)
        kind = NO_VIDEO.get(path.suffix.lower())
        beside = said.get(path.with_suffix(""))
        file = name.removeprefix(root).lstrip("/") or path.name
        yield Source(
            file,
            system.unstrip_protocol(name),
            subtitles=system.unstrip_protocol(beside) if beside and not kind else "off",
            unfit=f"is {kind}, not a video" if kind else "",
            file=file,
        )


def folder(place: Path, output: Path | None = None) -> Sources:
    """Every file below a folder but those in `output`, by name; those that are no videos by their suffix are unfit, and
    so is a folder that cannot be read."""
    found = False
    shut: list[OSError] = []
    without = None if output is None else os.path.realpath(output)
    for inner, folders, files in os.walk(place, onerror=shut.append):
        folders[:] = sorted(one for one in folders if os.path.realpath(os.path.join(inner, one)) != without)
        for file in sorted(files):
            found = True
            path = Path(inner, file)
            name = path.relative_to(place).as_posix()
            kind = NO_VIDEO.get(path.suffix.lower())
            yield Source(name, str(path), unfit=f"is {kind}, not a video" if kind else "", file=name)
    for error in shut:
        path = Path(error.filename)
        if path == place:
            raise LabellingError(f"the folder {place} cannot be read: {error.strerror}")
        found = True
        name = path.relative_to(place).as_posix()
        yield Source(name, str(path), unfit=f"cannot be read: {error.strerror}", faulty=True, file=name)
    if not found:
        raise LabellingError(f"the folder {place} is empty; name one with videos")


def listed(place: Path, media: Path | None = None) -> Sources:
    """The rows of a csv, jsonl, json or parquet file: `video` (or `path`, `file_name`), and as far as they are there
    `id`, `start`, `end`, `subtitles`. Names of files are relative to `media`, or to where the table is. A row that
    cannot be used is a faulty source: it is planned too, and ends as an error."""
    base = media or place.parent
    for row in table(place):
        if isinstance(row, Flaw):
            yield Source(row.where, "", unfit=_told(row.problem, row.detail), faulty=True)
            continue
        try:
            yield _of_row(row, base)
        except Unusable as reason:
            yield Source(row.where, "", unfit=_told(reason.problem, brief(reason.detail)), faulty=True)


def _told(problem: str, detail: str) -> str:
    return f"{problem}: {detail}" if detail else problem


def _of_row(row: Row, base: Path) -> Source:
    video = row.name("video", "path", "file_name")
    name = row.name("id", "video", "path", "file_name")
    start, end = row.number("start"), row.number("end")
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise Unusable("ends before it starts", f"{start} to {end}")
    subtitles: Any = row.values.get("subtitles") or "auto"
    if not isinstance(subtitles, str):
        raise Unusable("subtitles are not a name", subtitles)
    if words(subtitles, "subtitles") not in ("auto", "off"):
        subtitles = subtitles if "://" in subtitles else str(base / subtitles)
    return Source(name, video if "://" in video else str(base / video), start, end, subtitles, file=video)
