"""The world's own benchmark: questions about rendered files, whose truth is known.

Withholding parts shows what an answer rests on: without frames a question about the picture can only be guessed,
without subtitles one about speech, and without both all that is left is the prior.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.world.files import QUESTIONS, render
from minigpt4_video.errors import DataError, UserError
from minigpt4_video.evaluation.items import Item, Items
from minigpt4_video.evaluation.scoring import exact

FIRST = 500_000
"""Number of the first scene; training scenes are of another split altogether."""
VIDEOS = 320
EACH = 7
"""Questions a video."""


def make(folder: Path, limit: int | None) -> Path:
    """Render what the benchmark asks about, or as much of it as `limit` questions need."""
    videos = VIDEOS if limit is None else min(VIDEOS, -(-limit // EACH))
    listing = folder / QUESTIONS
    if not listing.is_file() or len(listing.read_text(encoding="utf-8").splitlines()) < videos:
        render(folder, seed=FIRST, count=videos, split="held-out")
    return folder


def read(place: Place) -> Items:
    """The items of a rendered folder."""
    yield from choose(place.path if place.path.is_dir() else place.path.parent, EACH)


def choose(folder: Path, each: int) -> list[Item]:
    """At most `each` questions a video of a rendered folder, rare kinds first so that all kinds come to be asked
    alike."""
    listing = folder / QUESTIONS
    if not listing.is_file():
        raise UserError(f"{folder} has no {QUESTIONS}; render a world into it first")
    asked: Counter[str] = Counter()
    items: list[Item] = []
    for number, line in enumerate(listing.read_bytes().splitlines(), start=1):
        try:
            items += _chosen(json.loads(line), folder, each, asked)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{listing} is damaged in line {number}: {error!r}; render the world again") from error
    return items


def _chosen(row: Mapping[str, Any], folder: Path, each: int, asked: Counter[str]) -> list[Item]:
    """Questions about one video; `asked` counts the kinds of all."""
    items = []
    offered = list(enumerate(row["questions"]))
    for _ in range(min(each, len(offered))):
        at, question = chosen = min(offered, key=lambda one: asked[f"{one[1]['language']}/{one[1]['kind']}"])
        offered.remove(chosen)
        asked[f"{question['language']}/{question['kind']}"] += 1
        video = {"type": "video", "path": str(folder / row["video"]), "subtitles": "auto"}
        tags = {name: question[name] for name in ("kind", "needs", "language")}
        items.append(Item(f"{row['video']}#{at}", video, question["text"], question["answer"], tags=tags))
    return items


def table(items: Sequence[Item], answers: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy overall (the mean over kinds), by kind, by what is needed, and by language (again means over kinds);
    `answers` are by the items' ids."""
    right = {item.id: exact(answers[item.id], item.reference) for item in items}
    by_kind = _accuracy(items, right, "kind")
    languages = sorted({item.tags["language"] for item in items})
    return {
        "questions": len(items),
        "videos": len({item.video["path"] for item in items}),
        "macro": _mean(by_kind),
        "by_kind": by_kind,
        "by_need": _accuracy(items, right, "needs"),
        "by_language": {
            language: _mean(_accuracy([one for one in items if one.tags["language"] == language], right, "kind"))
            for language in languages
        },
    }


def prior(items: Sequence[Item]) -> dict[str, float]:
    """By kind, how often the commonest answer of its language would be right."""
    counted: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        counted[item.tags["kind"]][item.tags["language"]][item.reference] += 1
    return {
        kind: round(sum(max(c.values()) for c in spoken.values()) / sum(c.total() for c in spoken.values()), 4)
        for kind, spoken in sorted(counted.items())
    }


def _accuracy(items: Sequence[Item], right: Mapping[str, float], tag: str) -> dict[str, float]:
    by_value: dict[str, list[float]] = defaultdict(list)
    for item in items:
        by_value[item.tags[tag]].append(right[item.id])
    return {name: round(sum(values) / len(values), 4) for name, values in sorted(by_value.items())}


def _mean(values: dict[str, float]) -> float:
    return round(sum(values.values()) / len(values), 4) if values else 0.0
