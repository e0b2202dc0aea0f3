"""Annotation files in another language: the same rows with the same names, their texts translated by a language model.

Written line by line, so that a run that was killed goes on behind the last whole line. A translation in which a number,
a name or a placeholder got lost is asked for again, and at last told and left out rather than learnt from.
"""

import copy
import json
import re
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from minigpt4_video.data.endpoint import Endpoint
from minigpt4_video.data.formats.clips import cell
from minigpt4_video.data.formats.place import CHINESE
from minigpt4_video.data.formats.rows import Row, Unusable, brief, is_unicode, table
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import DataError
from minigpt4_video.instructions import Language

LANGUAGES: dict[Language, str] = {"en": "English", "zh": "Simplified Chinese"}
ATTEMPTS = 3
"""How often a text is asked for, each time with what got lost the time before."""
LONGEST_RATIO = 8
"""A translation that is longer than its text by more than this is something else."""

Slots = list[tuple[Any, Any]]
"""Where a row has texts: a dictionary or list, and the key in it."""


def _fields(*names: str) -> Callable[[dict[str, Any]], Slots]:
    return lambda row: [(row, name) for name in names if isinstance(row.get(name), str) and row[name].strip()]


def _turns(row: dict[str, Any]) -> Slots:
    turns = next((row[key] for key in ("conversations", "conversation", "messages") if key in row), row.get("QA"))
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Unusable("conversations is not a list of turns", turns)
    return [slot for turn in turns for slot in _fields("value", "content", "q", "a")(turn)]


def _captions(row: dict[str, Any]) -> Slots:
    captions = row.get("captions")
    if not isinstance(captions, list) or not all(isinstance(one, dict) for one in captions):
        raise Unusable("captions is not a list", captions)
    return [slot for one in captions for slot in _fields("content")(one)]


def _cell(row: dict[str, Any]) -> Slots:
    row["caption"] = cell(row["caption"]) if isinstance(row.get("caption"), str) else row.get("caption")
    if not isinstance(row["caption"], list) or not all(isinstance(text, str) for text in row["caption"]):
        raise Unusable("caption is not a list", row["caption"])
    return [(row["caption"], index) for index in range(len(row["caption"]))]


TEXTS: dict[str, Callable[[dict[str, Any]], Slots]] = {
    "cc-sbu-align": _fields("caption"),
    "cmd": _fields("caption"),
    "webvid": _fields("name"),
    "videoinstruct-100k": _fields("q", "a", "question", "answer"),
    "video-chatgpt": _turns,
    "llava": _turns,
    "sharegpt4video": _captions,
    "panda-70m": _cell,
    "internvid": _fields("Caption"),
    "labels": _fields("prompt", "text"),
}
"""Where the texts of a format's rows are."""


@dataclass
class Progress:
    written: int = 0
    failed: int = 0
    resumed_at: int = 0
    """Rows that an earlier run had been through."""
    failed_before: int = 0
    """Those of them that failed. They are not tried again: the same model, asked the same, mostly says the same."""


def translate(
    name: str,
    path: Path,
    output: Path,
    endpoint: Endpoint,
    language: Language = "zh",
    *,
    parallel: int = 4,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Writes `output` as JSON lines with the rows of `path`, and what could not be translated beside it, as
    `NAME.failed.jsonl`. Goes on where an earlier run stopped, and from the beginning where there is no `output` or
    nothing in it; `source_row` is a row's number in `path`, from 0.

    Raises DataError, and EndpointError where the endpoint refuses: what was done until then is kept.
    """
    slots = TEXTS.get(name)
    if slots is None:
        raise DataError(f"there are no texts to translate in the format {name}; use one of {', '.join(TEXTS)}")
    failures = output.with_name(output.stem + ".failed.jsonl")
    settings = {"format": name, "file": path.name, "model": endpoint.model, "language": language}
    _check_settings(output, failures, settings)
    (next_written, _), (next_failed, failed_before) = _behind(output), _behind(failures)
    begin = max(next_written, next_failed)
    done = Progress(resumed_at=begin, failed_before=failed_before)
    waiting: deque[tuple[int, Row, Future[dict[str, Any]]]] = deque()

    def finish(number: int, row: Row, future: "Future[dict[str, Any]]") -> None:
        try:
            _append(written, {**future.result(), "source_row": number})
            done.written += 1
        except Unusable as reason:
            _fail(number, row.where, reason.problem, brief(reason.detail))

    def _fail(number: int, where: str, problem: str, detail: str) -> None:
        _append(failed, {"source_row": number, "where": where, "problem": problem, "detail": detail})
        done.failed += 1

    with output.open("a", encoding="utf-8") as written, failures.open("a", encoding="utf-8") as failed:
        pool = ThreadPoolExecutor(parallel)
        try:
            for number, row in islice(enumerate(table(path)), begin, None):
                while waiting and (len(waiting) >= 4 * parallel or isinstance(row, Flaw)):
                    finish(*waiting.popleft())
                if isinstance(row, Flaw):
                    _fail(number, row.where, row.problem, row.detail)
                else:
                    waiting.append((number, row, pool.submit(_translated, row, slots, endpoint, language)))
                if progress is not None:
                    progress(done)
            while waiting:
                finish(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if failures.stat().st_size == 0:
        failures.unlink()
    return done


def _translated(row: Row, slots: Callable[[dict[str, Any]], Slots], endpoint: Endpoint, language: Language) -> Any:
    try:
        values = copy.deepcopy(dict(row.values))
    except RecursionError as error:
        raise Unusable("has lists in lists in lists") from error
    found = slots(values)
    if not found:
        raise Unusable("has no text to translate")
    for holder, key in found:
        if not is_unicode(holder[key]):
            raise Unusable("a text is not whole Unicode", holder[key])
    for holder, key in found:
        holder[key] = translated(holder[key], endpoint, language)
    if "language" in values:
        values["language"] = language
    return values


def translated(text: str, endpoint: Endpoint, language: Language) -> str:
    """A text in another language. Raises Unusable where the model loses something of it every time."""
    kept = must_stay(text)
    problem = ""
    for _ in range(ATTEMPTS):
        answer = endpoint.ask(_request(text, kept, language, problem)).strip()
        problem = lost(text, answer, language)
        if not problem:
            return answer
    raise Unusable("translation is not usable", f"{problem}: {answer}")


def _request(text: str, kept: list[str], language: Language, problem: str) -> list[dict[str, str]]:
    told = f"Translate what the user writes into {LANGUAGES[language]}. Answer with the translation alone."
    if kept:
        told += " Keep these exactly as they are written, each as often as it occurs: " + ", ".join(kept) + "."
    if problem:
        told += f" An earlier translation could not be used: {problem}."
    return [{"role": "system", "content": told}, {"role": "user", "content": text}]


# ---- what must survive

NUMBER = re.compile(r"[0-9]+(?:[.,:][0-9]+)*")
TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9_]*>")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = '.!?:;"“”…'
NO_NAMES = {
    "I'm", "I'll", "I've", "I'd", "TV", "OK", "Mr", "Mrs", "Ms", "Dr", "English", "Chinese", "Christmas",
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
}  # fmt: skip
DIGITS = {
    "0": "零",
    "1": "一",
    "2": "二两",
    "3": "三",
    "4": "四",
    "5": "五",
    "6": "六",
    "7": "七",
    "8": "八",
    "9": "九",
}
SMALL = {**DIGITS, "10": "十", "100": "百", "1000": "千"}


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def names(text: str) -> list[str]:
    """Words in Latin letters with a capital that no sentence begins with."""
    found, end = [], 0
    for match in WORD.finditer(text):
        word = match[0].removesuffix("'s").removesuffix("’s")
        between = text[end : match.start()]
        marks = between.rstrip()
        begins = "\n" in between[len(marks) :] or (marks[-1] in SENTENCE_END if marks else end == 0)
        end = match.end()
        if word[0].isupper() and len(word) > 1 and not begins and word not in NO_NAMES and word.isascii():
            found.append(word)
    return found


def must_stay(text: str) -> list[str]:
    """Numbers, names and placeholders of a text, each once."""
    return list(dict.fromkeys([*TAG.findall(text), *numbers(text), *names(text)]))


def lost(text: str, translation: str, language: Language) -> str:
    """What is wrong with a translation, in words; "" where nothing is."""
    if not translation:
        return "it is empty"
    if not is_unicode(translation):
        return "it is not whole Unicode"
    if Counter(TAG.findall(text)) != Counter(TAG.findall(translation)):
        return f"the placeholders {', '.join(TAG.findall(text)) or '(none)'} are not the same"
    bare = TAG.sub("", text)
    there = Counter(numbers(translation))
    for number, count in Counter(numbers(bare)).items():
        written = sum(translation.count(letter) for letter in SMALL.get(number, ""))
        if there[number] + written < count:
            return f"the number {number} got lost"
    kept, lowered = dict.fromkeys(names(bare)), translation.lower()
    for name in kept:
        if name.lower() not in lowered:
            return f"the name {name} got lost"
    said = WORD.sub(lambda match: "" if match[0] in kept else match[0], bare)
    if language == "zh" and WORD.search(said) and not CHINESE.search(translation):
        return "it is not Chinese"
    if language == "en" and CHINESE.search(translation):
        return "it is not English"
    if len(translation) > LONGEST_RATIO * len(text) + 40:
        return "it is much longer than the text"
    return ""


# ---- going on


def _check_settings(output: Path, failures: Path, settings: dict[str, str]) -> None:
    """Refuse to go on with other settings than those that the file was begun with, or in files of somebody else. Where
    nothing was written, what failed is forgotten: it may be that of rows which other settings would not lose, or lie
    behind rows that were deleted."""
    note = output.with_name(output.name + ".settings.json")
    if not output.parent.is_dir():
        raise DataError(f"{output} cannot be written: the folder {output.parent} does not exist")
    begun = next((file for file in (output, failures) if file.exists() and file.stat().st_size), None)
    if begun is not None:
        try:
            earlier = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{begun} is there already and no translation that can go on; name another file") from error
    if begun == output:
        for key, value in settings.items():
            if earlier.get(key) != value:
                raise DataError(
                    f"{output} was begun with the {key} {earlier.get(key)} and cannot go on with {value}; name another "
                    "file"
                )
    else:
        failures.unlink(missing_ok=True)
        note.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _behind(file: Path) -> tuple[int, int]:
    """The number of the row behind the last that is whole in a file, and how many it has; a broken last line is taken
    off."""
    following = count = whole = 0
    if not file.exists():
        return following, count
    with file.open("rb+") as opened:
        for line in opened:
            try:
                number = json.loads(line)["source_row"] if line.endswith(b"\n") else None
            except (ValueError, LookupError, TypeError):
                number = None
            if not isinstance(number, int):
                break
            following = max(following, number + 1)
            count += 1
            whole += len(line)
        opened.truncate(whole)
    return following, count


def _append(file: IO[str], row: dict[str, Any]) -> None:
    line = json.dumps(row, ensure_ascii=False)
    file.write((line if is_unicode(line) else json.dumps(row)) + "\n")
    file.flush()
