"""TVQA, whose questions rest on what is said as much as on what is seen, and TVQA-Long over whole episodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import TABLES, Row, Unusable, brief, each, table
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.benchmarks.multiple_choice import choice, index, once
from minigpt4_video.evaluation.items import Item, Items
from minigpt4_video.messages import Part

SHOWS = {
    "Grey's Anatomy": "grey",
    "How I Met You Mother": "met",
    "How I Met Your Mother": "met",
    "Friends": "friends",
    "The Big Bang Theory": "bbt",
    "House M.D.": "house",
    "Castle": "castle",
}
PICTURES_A_SECOND = 3.0
SUBTITLES = ("tvqa_preprocessed_subtitles.jsonl", "tvqa_preprocessed_subtitles.json")
LARGEST = 2**30


def tvqa(place: Place) -> Items:
    """Videos are files, or folders of 3 pictures a second as they are published. Subtitles are in the published table,
    beside the questions or named, or in a folder of files by the names of the clips."""
    said: dict[str, list[Any]] = {}
    spoken = place.subtitles if place.subtitles and place.subtitles.suffix in TABLES else None
    if place.subtitles is None:
        spoken = next((file for name in SUBTITLES if (file := place.path.with_name(name)).is_file()), None)
    if spoken is not None:
        flaws: list[Flaw] = []
        said = _table_of_subtitles(spoken, flaws)
        yield from flaws
    seen: set[str] = set()

    def convert(row: Row) -> Iterator[Item]:
        clip = row.name("vid_name")
        show = SHOWS.get(str(row.values.get("show_name")), clip.partition("_")[0])
        try:
            path, rate = place.video(clip), None
        except Unusable:
            path, rate = place.folder(f"{show}_frames/{clip}", clip), PICTURES_A_SECOND
        video = place.shown_video(path)
        if spoken is not None:
            video["subtitles"] = said.get(clip) or "off"
        elif rate is not None and place.subtitles is None:
            video["subtitles"] = "off"
        yield _question(row, video, seen, rate)

    yield from each(table(place.path), convert)


def tvqa_long(place: Place) -> Items:
    """The questions of TVQA over whole episodes, in one file by show, season and episode."""
    if not place.path.is_file() or place.path.stat().st_size > LARGEST:
        raise DataError(f"{place.path} is not TVQA-Long's file of questions, tvqa_val_edited.json")
    try:
        shows = json.loads(place.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{place.path} cannot be read as JSON: {error}") from error
    seen: set[str] = set()
    for where, episode in _episodes(shows, place.path.name):
        if isinstance(episode, Flaw):
            yield episode
            continue
        show, season, name = where
        try:
            folder = SHOWS.get(show, show)
            path = place.first_video([f"mp4_videos/{folder}/{season}/{name}", f"{folder}/{season}/{name}"])
        except Unusable as reason:
            yield Flaw("/".join(where), reason.problem, f"{reason.detail}, {len(episode)} questions")
            continue
        video = place.shown_video(path)
        if place.subtitles is not None:
            video["subtitles"] = _beside(place.subtitles, f"{folder}/{season}/{name}")
        rows = (
            Row(f"{'/'.join(where)} question {number}", values)
            if isinstance(values, dict)
            else Flaw(f"{'/'.join(where)} question {number}", "is not an object", brief(values))
            for number, values in enumerate(episode, start=1)
        )
        yield from each(rows, lambda row, video=video: [_question(row, dict(video), seen, None)])  # type: ignore[misc]


def _question(row: Row, video: Part, seen: set[str], rate: float | None) -> Item:
    options = [row.text(f"a{number}") for number in range(5)]
    show = str(row.values.get("show_name") or "unknown")
    name = once(seen, row.name("qid"))
    return choice(name, video, row.text("q"), options, index(row, "answer_idx"), {"kind": show}, rate)


def _episodes(shows: Any, file: str) -> Iterator[tuple[tuple[str, str, str], list[Any] | Flaw]]:
    if not isinstance(shows, dict):
        raise DataError(f"{file} has no shows with seasons with episodes; name tvqa_val_edited.json")
    for show, seasons in shows.items():
        for season, episodes in _members(seasons):
            for name, episode in _members(episodes):
                questions = episode.get("questions") if isinstance(episode, dict) else None
                where = (show, season, name)
                if isinstance(questions, list):
                    yield where, questions
                else:
                    yield where, Flaw("/".join(where), "has no list of questions", brief(episode))


def _members(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [("?", value)]


def _beside(folder: Path, name: str) -> str:
    return next((str(file) for suffix in (".srt", ".vtt") if (file := folder / (name + suffix)).is_file()), "off")


def _table_of_subtitles(file: Path, flaws: list[Flaw]) -> dict[str, list[Any]]:
    """By the name of a clip its cues; those without times or words are left out, and told."""
    found: dict[str, list[Any]] = {}
    for row in table(file):
        if isinstance(row, Flaw):
            flaws.append(row)
            continue
        lines, name = row.values.get("sub"), row.values.get("vid_name")
        if not isinstance(lines, list) or not isinstance(name, str):
            flaws.append(Flaw(row.where, "has no subtitles of a clip", brief(row.values)))
            continue
        cues = [_cue(line) for line in lines]
        if None in cues:
            flaws.append(Flaw(row.where, "has subtitles without times or words", name))
        found[name] = [cue for cue in cues if cue is not None]
    return found


def _cue(line: Any) -> dict[str, Any] | None:
    if not isinstance(line, dict) or not isinstance(line.get("text"), str):
        return None
    start, end = line.get("start"), line.get("end")
    if not all(isinstance(time, (int, float)) and 0 <= time < 1e6 for time in (start, end)):
        return None
    return {"start": start, "end": end, "text": " ".join(line["text"].split())}
