"""Sets of clips: a source video's name, spans in it, and a text for each, or none."""

import ast
import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from minigpt4_video.data.formats.place import SUBTITLE_SUFFIXES, Place, asked, captioned, drawn, language_of
from minigpt4_video.data.formats.rows import Records, Row, Unusable, brief, each, table, words
from minigpt4_video.data.sample import Record
from minigpt4_video.errors import MediaError
from minigpt4_video.instructions import VIDEO_SPEECH
from minigpt4_video.media import Cue, read_subtitles
from minigpt4_video.messages import Part

CLOCK = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{1,2}(?:[.,][0-9]{1,9})?)")
PANDA_LISTS = ("timestamp", "caption", "matching_score", "desirable_filtering", "shot_boundary_detection")
DECODE = json.JSONDecoder().raw_decode
STRING = re.compile(r"""'[^'\\\n]*'|"[^"\\\n]*\"""")
STRINGS = re.compile(rf"\[(?: *(?:{STRING.pattern}) *(?:,|(?=\])))* *\]")
"""A list of strings in either kind of quotes, without escapes."""
DEEPEST = 16
"""Brackets within brackets; Panda-70M has three."""


def seconds(value: object) -> float:
    """A time as `H:MM:SS.mmm`, `MM:SS` or a number of seconds. Raises Unusable for anything else."""
    if isinstance(value, str):
        clock = CLOCK.fullmatch(value)
        if clock is not None:
            hours, minutes, rest = clock.groups()
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", ".") if "," in rest else rest)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise Unusable("is not a time", value)


def span(value: object) -> tuple[float, float]:
    """Start and end in seconds. Raises Unusable where that is no span of time."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise Unusable("is not a pair of times", value)
    start, end = seconds(value[0]), seconds(value[1])
    if end <= start:
        raise Unusable("ends before it starts", f"{value[0]} to {value[1]}")
    return start, end


def cell(text: str) -> list[Any]:
    """A list written into a cell, as Python writes lists, or as JSON. Raises Unusable; nothing in it is run.

    Nearly all cells are of two simple kinds, which take a tenth of the time of Python's own parser: without double
    quotes and backslashes Python's form differs from JSON's in the kind of quotes only; and flat lists of strings.
    """
    try:
        found, end = DECODE(text.replace("'", '"') if '"' not in text and "\\" not in text else text)
        if end == len(text) and isinstance(found, list):
            return found
    except (ValueError, RecursionError):
        if STRINGS.fullmatch(text):
            return [string[1:-1] for string in STRING.findall(text)]
    found = _literal(text)
    if not isinstance(found, list):
        raise Unusable("is not a list", text)
    return found


def _literal(text: str) -> Any:
    if re.search(r"\[\s*" * DEEPEST, text) or re.search(r"\(\s*" * DEEPEST, text):
        raise Unusable("is not a list", text)  # Python's parser would use up memory
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Unusable("is not a list", text) from error


def panda_70m(place: Place) -> Records:
    """Panda-70M: a row for each source video, with lists of the same length in its cells; older files have no
    `desirable_filtering` and `shot_boundary_detection`."""

    def convert(row: Row) -> Iterator[Record]:
        name = row.name("videoID")
        lists = {column: _list(row, column) for column in PANDA_LISTS if column in row.values}
        if len({len(found) for found in lists.values()}) != 1:
            lengths = ", ".join(f"{len(found)} {column}" for column, found in lists.items())
            raise Unusable("lists of different lengths", lengths)
        clips = list(zip(lists["timestamp"], lists["caption"], strict=True))
        yield from _clips(place, name, [(f"{name}.{number}", *clip) for number, clip in enumerate(clips)])

    return each(table(place.path, (".csv", ".jsonl")), convert)


def _list(row: Row, column: str) -> list[Any]:
    value = row.value(column)
    if isinstance(value, list):  # in json, as translations are
        return value
    try:
        return cell(words(value, column))
    except Unusable as reason:
        raise Unusable(f"{column} {reason.problem}", reason.detail) from reason


def internvid(place: Place) -> Records:
    """InternVid: a clip a line; its scores may be missing."""

    def convert(row: Row) -> Iterator[Record]:
        name, start, end = row.name("YoutubeID"), row.value("Start_timestamp"), row.value("End_timestamp")
        for score in ("Aesthetic_Score", "UMT_Score"):
            row.number(score)
        yield from _clips(place, name, [(f"{name}_{start}_{end}", (start, end), row.text("Caption"))])

    return each(table(place.path, (".jsonl", ".json", ".csv", ".parquet")), convert)


def hd_vila_100m(place: Place) -> Records:
    """HD-VILA-100M, which has no texts: they come from a table of captions (`clip_id`, `caption`), or are what the
    subtitles of each video (`VIDEO_ID.vtt`) say during the clip."""
    if place.captions is None:
        spoken = _spoken if place.texts_needed else _unspoken
        return each(table(place.path, (".jsonl", ".json")), lambda row: spoken(place, row))
    return _joined(place, place.captions)


def _joined(place: Place, captions: Path) -> Records:
    with closing(sqlite3.connect("")) as held:  # on disk, removed when closed: a hundred million do not fit in memory
        held.execute("CREATE TABLE texts (name TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")

        def keep(row: Row) -> Iterator[Record]:
            name = row.name("clip_id", "id")
            try:
                held.execute("INSERT INTO texts VALUES (?, ?)", (name, row.text("caption", "text")))
            except sqlite3.IntegrityError as error:
                raise Unusable("clip_id has a caption already", name) from error
            return iter(())

        def convert(row: Row) -> Iterator[Record]:
            clips = []
            for clip in _vila_clips(row):
                found = held.execute("SELECT text FROM texts WHERE name = ?", (clip[0],)).fetchone()
                clips.append((*clip, found[0] if found else None))
            yield from _clips(place, row.name("video_id"), clips)

        yield from each(table(captions), keep)
        yield from each(table(place.path, (".jsonl", ".json")), convert)


def _spoken(place: Place, row: Row) -> Iterator[Record]:
    name = row.name("video_id")
    cues = _cues_of(place, name)
    clips = []
    for clip_id, times in _vila_clips(row):
        try:
            start, end = span(times)
            text = " ".join(cue.text for cue in cues if start <= cue.start < end)
        except Unusable:
            text = ""  # the span is refused in its place
        clips.append((clip_id, times, text or None))
    for record in _clips(place, name, clips):
        part = {**record.messages[0]["content"][0], "subtitles": "off"}  # they are what is to be said
        answer = record.messages[1]["content"]
        question = drawn(VIDEO_SPEECH[language_of(answer)], record.id)
        yield asked(place, record.id, part, question, answer)


def _unspoken(place: Place, row: Row) -> Iterator[Record]:
    yield from _clips(place, row.name("video_id"), [(*clip, None) for clip in _vila_clips(row)])


def _vila_clips(row: Row) -> list[tuple[str, Any]]:
    clips = row.list("clip")
    if not all(isinstance(clip, dict) and isinstance(clip.get("clip_id"), str) for clip in clips):
        raise Unusable("a clip has no clip_id", clips)
    return [(Row(row.where, clip).name("clip_id"), clip.get("span")) for clip in clips]


def _cues_of(place: Place, name: str) -> list[Cue]:
    folder = Path(place.subtitles or place.media)
    file = next((path for suffix in SUBTITLE_SUFFIXES if os.path.isfile(path := folder / (name + suffix))), None)
    if file is None or "/" in name:
        raise Unusable("has neither captions nor subtitles", name)
    try:
        return read_subtitles(file)
    except MediaError as error:
        raise Unusable("subtitles cannot be read", str(error)) from error


def _clips(place: Place, name: str, clips: list[tuple[str, Any, Any]]) -> Iterator[Record]:
    """The records of one source video's clips (name, span, text); those that cannot be used are one refusal after
    the others."""
    if not clips:
        raise Unusable("has no clips", name)
    refused: list[Unusable] = []
    for clip_name, times, text in clips:
        try:
            start, end = span(times)
            if place.texts_needed:
                if text is None:
                    raise Unusable("a clip has no text", clip_name)
                text = words(text, "caption")
            yield captioned(place, clip_name, _clip(place, name, clip_name, times, start, end), text or "")
        except Unusable as reason:
            refused.append(reason)
    if refused:
        detail = brief(refused[0].detail)
        raise Unusable(refused[0].problem, f"{len(refused)} of {len(clips)} clips, the first: {detail}")


def _clip(place: Place, name: str, clip_name: str, times: Any, start: float, end: float) -> Part:
    """The file that was cut out for a clip, `NAME_START_END`, `NAME.NUMBER` or `NAME/NAME.NUMBER`, or else the span of
    the whole video, `NAME`."""
    stem = clip_name.removesuffix(".mp4")
    path, is_cut = place.clip(name, f"{name}_{times[0]}_{times[1]}", stem, f"{name}/{stem}")
    return place.shown_video(path) if is_cut else place.shown_video(path, start, end)
