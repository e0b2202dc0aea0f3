"""What is wrong with a data set, told before a run stumbles over it; memory does not grow with what a row says."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from minigpt4_video.data.reading import shown
from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import MediaError
from minigpt4_video.media import probe
from minigpt4_video.messages import text_of
from minigpt4_video.planning import UNIT

Kind = Literal["missing", "broken", "duplicate", "too long"]

EXAMPLES = 5
LONGEST = 1000
"""Words, or characters of Chinese, in one record: more hardly fit the context of most models beside a frame."""
BUFFERED = 2**16


@dataclass
class Problem:
    """All rows that have the same thing wrong."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, detail: str = "") -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{where}: {detail}" if detail else where)


@dataclass
class Report:
    records: int = 0
    """That can be used."""
    flawed: int = 0
    """Rows that cannot be used, or not wholly."""
    videos: int = 0
    pictures: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    problems: dict[Kind, dict[str, Problem]] = field(
        default_factory=lambda: {"missing": {}, "broken": {}, "duplicate": {}, "too long": {}}
    )

    def add(self, kind: Kind, problem: str, where: str, detail: str = "") -> None:
        self.problems[kind].setdefault(problem, Problem()).add(where, detail)

    def count(self, kind: Kind) -> int:
        return sum(problem.count for problem in self.problems[kind].values())

    def as_json(self) -> dict[str, Any]:
        kinds: dict[str, Any] = {
            kind: {
                "count": self.count(kind),
                "problems": {
                    name: {"count": problem.count, "examples": problem.examples} for name, problem in found.items()
                },
            }
            for kind, found in self.problems.items()
        }
        return {
            "records": self.records,
            "flawed rows": self.flawed,
            "videos": self.videos,
            "pictures": self.pictures,
            "languages": self.languages,
            **kinds,
        }


def check(
    rows: Iterable[Record | Flaw],
    *,
    longest: int = LONGEST,
    open_media: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Reads a set to its end. `longest` counts words, or characters of Chinese.

    With `open_media` every video and picture is opened, and a frame of each is decoded. `progress` is told how many
    records were read.
    """
    report = Report()
    seen = Seen()
    languages: dict[str, int] = report.languages
    for row in rows:
        if isinstance(row, Flaw):
            report.flawed += 1
            missing = row.problem.endswith("is missing") or row.problem == "was not downloaded"
            report.add("missing" if missing else "broken", row.problem, row.where, row.detail)
            continue
        report.records += 1
        languages[row.language] = languages.get(row.language, 0) + 1
        for name in seen.add(row.id):
            report.add("duplicate", "is in the set twice", name)
        length = 0
        for message in row.messages:
            content = message["content"]
            for part in ({"type": "text", "text": content},) if isinstance(content, str) else content:
                kind = part["type"]
                if kind == "text":
                    length += len(part["text"])
                elif kind == "video":
                    report.videos += 1
                else:
                    report.pictures += 1
        if length > longest:  # no text has more words than characters
            words = sum(len(UNIT.findall(text_of(message))) for message in row.messages)
            if words > longest:
                report.add("too long", f"has more than {longest} words", row.id, f"{words} words")
        if open_media:
            for problem, detail in _media_problems(row):
                report.add("broken", problem, row.id, detail)
        if progress is not None and report.records % 10_000 == 0:
            progress(report.records)
    for name in seen.rest():
        report.add("duplicate", "is in the set twice", name)
    return report


def _media_problems(record: Record) -> Iterator[tuple[str, str]]:
    for message in record.messages:
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if part["type"] == "text":
                continue
            try:
                if part["type"] == "video" and os.path.exists(part["path"]):
                    duration = probe(part["path"]).duration
                    if part.get("start") is not None and part["start"] >= duration:
                        yield "starts after the end of its video", f"{part['start']:g} s of {duration:.1f} s"
                        continue
                shown([{"role": "user", "content": [part]}], 1, 32)
            except MediaError as error:
                yield f"{part['type']} cannot be read", str(error)


class Seen:
    """Names that were seen, in 8 bytes each: which of those that are added had been there before.

    They are compared a few ten thousand at a time, so what `add` gives can be names of earlier calls, and `rest` has
    the last. Two names among a million are mistaken for one with a probability of 3e-8.
    """

    def __init__(self) -> None:
        self._new: list[str] = []
        self._sorted: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        """Each at least twice as long as the next, so that a name is merged some twenty times and not more."""

    def add(self, name: str) -> list[str]:
        self._new.append(name)
        return self.rest() if len(self._new) >= BUFFERED else []

    def rest(self) -> list[str]:
        """Those of the names not looked at yet that had been there."""
        names, self._new = self._new, []
        if not names:
            return []
        digests = np.fromiter((hash(name) for name in names), np.int64, len(names))
        order = np.argsort(digests, kind="stable")
        own = digests[order]
        twice = np.zeros(len(names), bool)
        twice[order[1:]] = own[1:] == own[:-1]
        for held in self._sorted:
            twice |= held[np.minimum(np.searchsorted(held, digests), len(held) - 1)] == digests
        self._sorted.append(own)
        while len(self._sorted) > 1 and len(self._sorted[-2]) < 2 * len(self._sorted[-1]):
            last = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], last]), kind="stable")
        return [names[index] for index in np.flatnonzero(twice)]
