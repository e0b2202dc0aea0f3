"""Sets of conversations about videos and pictures: LLaVA's form and its relatives."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from minigpt4_video.data.formats.place import VIDEO_SUFFIXES, Place, language_of, marked
from minigpt4_video.data.formats.rows import Records, Row, Rows, Unusable, brief, each, json_rows, table, words
from minigpt4_video.data.sample import Record
from minigpt4_video.errors import DataError
from minigpt4_video.messages import Message, Part

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
PLACEHOLDER = re.compile(r"<(video|image)>")
TIME_TOKEN = re.compile(r"<[se][0-9]{1,3}>")
LARGEST_LIST = 2**20
STRATEGY = re.compile(r"(first|end|random):([0-9]{1,9}(?:\.[0-9]{1,6})?)(%?)")


def conversations(place: Place) -> Records:
    """LLaVA's json and jsonl, Video-ChatGPT's, VideoChat's and VTimeLLM's; a folder of such files, or a list of files
    in yaml with a sampling strategy for each, as LLaVA-NeXT has it."""
    if place.path.suffix.lower() in (".yaml", ".yml"):
        return each(_listed_files(place.path), lambda row: _conversation(place, row))
    return each(table(place.path, (".json", ".jsonl", ".parquet")), lambda row: _conversation(place, row))


def _conversation(place: Place, row: Row) -> Iterator[Record]:
    turns = _turns(row)
    names = [(kind, name) for kind in ("video", "image") for name in _names(row, kind)]
    times, tokens = _times(row)
    shown = [(kind, _shown(place, kind, name, *times)) for kind, name in names]
    messages: list[Message] = []
    for role, text in _with_media_first(turns, shown):
        if tokens:
            text = TIME_TOKEN.sub(lambda token: tokens.get(token[0], token[0]), text)
        expected = "assistant" if messages and messages[-1]["role"] == "user" else "user"
        if role == "system":
            if messages:
                raise Unusable("a system turn is not the first", text)
        elif role != expected:
            raise Unusable(f"the {role} speaks where the {expected} should", text)
        content: Any = text if role != "user" else _parts(text, shown)
        messages.append({"role": role, "content": content})
    if shown:
        raise Unusable("has fewer placeholders than videos and pictures", f"{len(shown)} of {len(names)} left")
    if not messages or messages[-1]["role"] != "assistant":
        raise Unusable("ends without an answer", turns[-1][1])
    said = [text for _, text in turns]
    name = row.name("id") if row.values.get("id") not in (None, "") else names[0][1] if names else "text"
    yield Record(marked(name, *said), place.source, messages, language_of(messages[-1]["content"]))


def _turns(row: Row) -> list[tuple[str, str]]:
    """(role, words) of every turn."""
    pairs = row.values.get("QA")
    if isinstance(pairs, list) and pairs and all(isinstance(pair, dict) for pair in pairs):
        found = []
        for pair in pairs:
            asked = [words(pair[key], key) for key in ("i", "q") if pair.get(key)]
            found += [("user", words("\n".join(asked), "q")), ("assistant", words(pair.get("a"), "a"))]
        return found
    turns = row.value("conversations", "conversation", "messages")
    if not isinstance(turns, list) or not turns:
        raise Unusable("conversations is not a list of turns", turns)
    found = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unusable("a turn is not an object", turn)
        speaker = turn.get("from", turn.get("role"))
        if not isinstance(speaker, str) or speaker.lower() not in ROLES:
            raise Unusable("a turn is by nobody known", speaker)
        found.append((ROLES[speaker.lower()], words(turn.get("value", turn.get("content")), "a turn")))
    return found


def _names(row: Row, kind: str) -> list[str]:
    """The files of a row, in its order."""
    value = row.values.get(kind, row.values.get(f"{kind}s"))
    if value in (None, "", []):
        return []
    names = value if isinstance(value, list) else [value]
    return [Row(row.where, {kind: name}).name(kind) for name in names]


def _times(row: Row) -> tuple[tuple[float | None, float | None], dict[str, str]]:
    """VTimeLLM's part of the video, and the times that stand for tokens such as <s0>, in seconds from the video's
    beginning."""
    meta = row.values.get("meta")
    if not isinstance(meta, dict):
        return (None, None), {}
    split = Row(row.where, meta).list("split") if meta.get("split") else []
    numbers = Row(row.where, {str(number): value for number, value in enumerate(split)})
    start, end = numbers.number("0"), numbers.number("1")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise Unusable("ends before it starts", split)
    given = meta.get("token")
    times = Row(row.where, given if isinstance(given, dict) else {})
    tokens = {}
    for token in filter(TIME_TOKEN.fullmatch, times.values):
        time = times.number(token)
        if time is None:
            raise Unusable(f"lacks {token}")
        tokens[token] = f"{time:g} s"
    return (start, end), tokens


def _shown(place: Place, kind: str, name: str, start: float | None, end: float | None) -> Part:
    if kind == "image" and not name.lower().endswith(VIDEO_SUFFIXES):
        return {"type": "image", "path": place.picture(name)}
    # Video-ChatGPT names its features instead of the video
    return place.shown_video(place.video(name.removesuffix(".pkl")), start, end)


def _with_media_first(turns: list[tuple[str, str]], shown: list[tuple[str, Part]]) -> list[tuple[str, str]]:
    """Turns in which one medium comes before the words, as it does when people ask; several stay where they are. Media
    that no placeholder stands for come before all."""
    held = sum(len(PLACEHOLDER.findall(text)) for role, text in turns if role == "user")
    if held > len(shown):
        raise Unusable("has more placeholders than videos and pictures", f"{held} for {len(shown)}")
    first = next((number for number, (role, _) in enumerate(turns) if role == "user"), None)
    if first is None or (held and len(shown) > 1):
        return turns
    moved = []
    for number, (role, text) in enumerate(turns):
        if role == "user" and PLACEHOLDER.search(text):
            text = "<video>" * len(shown) + "\n".join(_pieces(text)[::2]).strip()
        elif number == first and not held:
            text = "<video>" * len(shown) + text
        moved.append((role, text))
    return moved


def _parts(text: str, shown: list[tuple[str, Part]]) -> list[Part]:
    """A user's words with media in the place of placeholders; takes them out of `shown`. `<image>` can be a video."""
    parts: list[Part] = []
    for number, piece in enumerate(_pieces(text)):
        if number % 2 == 0:
            if piece.strip():
                parts.append({"type": "text", "text": piece})
            continue
        place = next((index for index, (kind, _) in enumerate(shown) if kind == piece), 0)
        parts.append(shown.pop(place)[1])
    if all(part["type"] != "text" for part in parts):
        raise Unusable("a question has no words", text)
    return parts


def _pieces(text: str) -> list[str]:
    """Words, kind, words, kind, ..., words: without the spaces around placeholders."""
    pieces = PLACEHOLDER.split(text)
    for number in range(0, len(pieces) - 2, 2):
        pieces[number] = pieces[number].rstrip()
        pieces[number + 2] = pieces[number + 2].lstrip()
    return pieces


# ---- lists of files


def _listed_files(path: Path) -> Rows:
    """The rows of the files in `datasets: [{json_path, sampling_strategy}]`."""
    import yaml

    try:
        if path.stat().st_size > LARGEST_LIST:
            raise DataError(f"{path} is larger than {LARGEST_LIST >> 20} MiB, so it is no list of data sets")
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a yaml file that can be read: {brief(str(error))}") from error
    entries = listed.get("datasets") if isinstance(listed, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} has no list under datasets; write one json_path for each file")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("json_path"), str):
            raise DataError(f"{path} has an entry without a json_path: {brief(entry)}")
        file = path.parent / entry["json_path"]
        if not os.path.isfile(file):
            raise DataError(f"{path} names {entry['json_path']}, which is not there; check json_path")
        yield from _sampled(file, str(entry.get("sampling_strategy", "all")), path)


def _sampled(file: Path, strategy: str, listed_in: Path) -> Rows:
    if strategy == "all":
        yield from json_rows(file)
        return
    found = STRATEGY.fullmatch(strategy)
    if found is None:
        raise DataError(
            f"{listed_in} has the sampling_strategy {strategy!r}; use all, or first, end or random with a number or a "
            "share, as first:1000 or random:10%"
        )
    kind, number, percent = found.groups()
    total = sum(1 for _ in json_rows(file))
    wanted = min(total, round(float(number) * total / 100) if percent else int(float(number)))
    chosen: Iterable[int] = range(wanted) if kind == "first" else range(total - wanted, total)
    if kind == "random":
        chosen = set(Random(file.name).sample(range(total), wanted))
    yield from (row for number, row in enumerate(json_rows(file)) if number in chosen)
