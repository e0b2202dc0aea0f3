"""What img2dataset and video2dataset write: files with one name and several suffixes, in tars or in folders."""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from minigpt4_video.data.formats.clips import seconds, span
from minigpt4_video.data.formats.place import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Place, captioned
from minigpt4_video.data.formats.rows import LONGEST, Records, Row, Rows, Unusable, brief, each, opened, words
from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import DataError
from minigpt4_video.messages import Part

TEXTS = (".json", ".txt")


class Member(NamedTuple):
    """One file of a sample."""

    path: str
    size: int
    content: bytes
    """Of texts; media are not read."""


def pictures(place: Place) -> Records:
    """Pictures with captions: `KEY.jpg` and `KEY.json` or `KEY.txt`, as LAION, CC3M and SBU are downloaded."""

    def convert(row: Row) -> Iterator[Record]:
        meta = _meta(row)
        path = _medium(row, PICTURE_SUFFIXES, "picture")
        yield captioned(place, _key(row), {"type": "image", "path": path}, _caption(row, meta))

    return each(_samples(place.path, PICTURE_SUFFIXES), convert)


def videos(place: Place) -> Records:
    """Videos and clips with captions: `KEY.mp4`, `KEY.txt`, `KEY.json`. Subtitles in the json are used; those of a clip
    are counted from the beginning of its source video there."""

    def convert(row: Row) -> Iterator[Record]:
        meta = _meta(row)
        part: Part = {"type": "video", "path": _medium(row, VIDEO_SUFFIXES, "video"), "subtitles": _subtitles(meta)}
        yield captioned(place, _key(row), part, _caption(row, meta) if place.texts_needed else "")

    return each(_samples(place.path, VIDEO_SUFFIXES), convert)


def _key(row: Row) -> str:
    return str(row.values["key"])


def _meta(row: Row) -> dict[str, Any]:
    """The sample's json; empty where it has none. Raises Unusable where it says that the sample was not downloaded."""
    member = row.values.get(".json")
    if member is None:
        return {}
    try:
        meta = json.loads(member.content)
    except (ValueError, RecursionError) as error:
        raise Unusable("json cannot be read", member.content[:100].decode(errors="replace")) from error
    if not isinstance(meta, dict):
        raise Unusable("json is not an object", meta)
    status = meta.get("status", "success")
    if status != "success":
        raise Unusable("was not downloaded", f"{status}: {meta.get('error_message')}")
    return meta


def _medium(row: Row, suffixes: tuple[str, ...], what: str) -> str:
    member: Member | None = next((row.values[suffix] for suffix in suffixes if suffix in row.values), None)
    if member is None:
        raise Unusable(f"{what} is missing", _key(row))
    if member.size == 0:
        raise Unusable(f"{what} is empty", _key(row))
    return member.path


def _caption(row: Row, meta: dict[str, Any]) -> str:
    if meta.get("caption") is not None:
        return words(meta["caption"], "caption")
    member = row.values.get(".txt")
    if member is None:
        raise Unusable("lacks caption")
    try:
        return words(member.content.decode().strip(), "caption")
    except UnicodeDecodeError as error:
        raise Unusable("txt is not UTF-8", _key(row)) from error


def _subtitles(meta: dict[str, Any]) -> str | list[dict[str, object]]:
    """The cues that the json holds, from the beginning of the file; "auto" where it holds none."""
    begin, given = 0.0, meta.get("clip_subtitles")
    if given:
        clips = meta.get("clips")
        if not isinstance(clips, list) or not clips:
            raise Unusable("subtitles of a clip without its span")
        begin = span(clips[0])[0]
    else:
        about = meta.get("yt_meta_dict")
        given = about.get("subtitles") if isinstance(about, dict) and not meta.get("clips") else None
    if isinstance(given, dict):  # by language
        given = given.get("en") or next(iter(given.values()), None)
    if not given:
        return "auto"
    if not isinstance(given, list):
        raise Unusable("subtitles are not a list", given)
    cues = []
    for cue in given:
        if not isinstance(cue, dict) or not isinstance(cue.get("lines"), list):
            raise Unusable("a subtitle is not an object with start, end and lines", cue)
        text = " ".join(words(line, "a subtitle").strip() for line in cue["lines"] if line)
        start, end = (max(0.0, seconds(cue.get(key)) - begin) for key in ("start", "end"))
        if text and end > start:
            cues.append({"start": round(start, 3), "end": round(end, 3), "text": text})
    return cues or "off"


# ---- files and tars


def _samples(path: Path, suffixes: tuple[str, ...]) -> Rows:
    """One row a sample: its key, and a `Member` under each suffix. Of a folder its tars, or its inner folders."""
    if path.is_file():
        yield from _of_tar(path, suffixes)
        return
    tars = sorted(file for file in path.iterdir() if file.suffix.lower() == ".tar")
    for tar in tars:
        yield from _of_tar(tar, suffixes)
    found = bool(tars)
    for folder in [] if tars else [path, *sorted(inner for inner in path.iterdir() if inner.is_dir())]:
        files = sorted(
            (*_at_last_dot(name, (*suffixes, *TEXTS)), name) for name in os.listdir(folder) if name[0] != "."
        )
        members = ((stem, suffix, lambda name=name: _file(folder / name)) for stem, suffix, name in files)  # noqa: B023
        for row in _grouped(members, folder.name, (*suffixes, *TEXTS)):
            found = True
            yield row
    if not found:
        raise DataError(f"the folder {path} holds neither .tar files nor folders with samples; name the one with them")


def _at_last_dot(name: str, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """The name of a sample and what of it this is, the longest of the suffixes; "" for a file of another kind."""
    suffix = max((suffix for suffix in suffixes if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)], suffix


def _at_first_dot(name: str) -> tuple[str, str]:
    """The same of a name in a tar, where a sample's name ends at the first dot: WebDataset's rule."""
    folder, base = os.path.split(name)
    stem, _, rest = base.partition(".")
    if not stem:  # hidden, as a Mac adds them
        return name, ""
    return os.path.join(folder, stem), f".{rest.lower()}"


def _file(path: Path) -> Member:
    try:
        size = path.stat().st_size
        is_text = path.suffix.lower() in TEXTS
        return Member(str(path), size, path.read_bytes() if is_text and size <= LONGEST else b"")
    except OSError as error:
        raise Unusable("file cannot be read", f"{path}: {error.strerror}") from error


def _of_tar(path: Path, suffixes: tuple[str, ...]) -> Rows:
    with opened(path) as file:
        try:
            archive = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
        except (tarfile.TarError, OSError, ValueError) as error:
            yield Flaw(path.name, "is not a tar that can be read", brief(str(error)))
            return
        damage: list[Flaw] = []
        yield from _grouped(_members(archive, path, damage), path.name, (*suffixes, *TEXTS))
        yield from damage


def _members(
    archive: tarfile.TarFile, path: Path, damage: list[Flaw]
) -> Iterator[tuple[str, str, Callable[[], Member]]]:
    """Samples' names, suffixes of files, and how to read each. What ends the reading early is added to `damage`."""
    file: IO[bytes] = archive.fileobj  # type: ignore[assignment]
    try:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if info.isdir():
                continue
            yield *_at_first_dot(info.name), lambda info=info: _in_tar(file, path, info)  # type: ignore[misc]
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # the library takes a damaged header for the end
            raise tarfile.ReadError("no header where the next file should be")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        at = archive.offset
        damage.append(Flaw(path.name, "tar is damaged", f"what follows byte {at} is lost: {brief(str(error))}"))


def _in_tar(file: IO[bytes], path: Path, info: tarfile.TarInfo) -> Member:
    if not info.isreg() or info.issparse():
        raise Unusable("is not an ordinary file in its tar", info.name)
    content = b""
    if os.path.splitext(info.name)[1].lower() in TEXTS and info.size <= LONGEST:
        at = file.tell()
        file.seek(info.offset_data)
        content = file.read(info.size)
        file.seek(at)
    return Member(f"{os.path.abspath(path)}:{info.offset_data}:{info.size}", info.size, content)


def _grouped(members: Iterator[tuple[str, str, Callable[[], Member]]], where: str, suffixes: tuple[str, ...]) -> Rows:
    """Files that follow each other under one key as one row; those of other kinds are no part of any.

    In a tar a sample can be lost by a dot in its name, which then ends at it: that is a flaw.
    """
    key: str | None = None
    values: dict[str, Any] = {}
    problem: Unusable | None = None
    lost = ""

    def row() -> Iterator[Row | Flaw]:
        place = f"{where} {brief(key)}"
        if problem:
            yield Flaw(place, problem.problem, brief(problem.detail))
        elif values:
            yield Row(place, {**values, "key": key})
        elif lost:
            yield Flaw(place, "is no sample: a name in a tar ends at its first dot", brief(f"{key}{lost}"))

    for stem, suffix, read in members:
        if not suffix.endswith(suffixes):
            continue
        if stem != key:
            yield from row()
            key, values, problem, lost = stem, {}, None, ""
        if suffix not in suffixes:
            lost = lost or suffix
            continue
        try:
            if suffix in values:
                raise Unusable("has the same file twice", f"{stem}{suffix}")
            values[suffix] = read()
        except Unusable as reason:
            problem = problem or reason
    yield from row()
