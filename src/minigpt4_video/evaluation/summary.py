"""From answers to figures: every metric over all items, and over those that have something in common."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minigpt4_video.evaluation.files import Row
from minigpt4_video.evaluation.items import Item, Scoring
from minigpt4_video.evaluation.running import Asked
from minigpt4_video.evaluation.scoring import letter, scores
from minigpt4_video.evaluation.statistics import Figure, macro, mean

Values = Mapping[str, Mapping[str, float]]
"""By the id of an item, its value for each metric."""

DURATIONS = ((30.0, "under 30 s"), (120.0, "30 s to 2 min"), (900.0, "2 to 15 min"), (float("inf"), "over 15 min"))


def values_of(items: Sequence[Item], rows: Mapping[str, Row], scoring: Scoring = "open") -> dict[str, dict[str, float]]:
    """What the rules say to each answer."""
    return {
        item.id: dict(scores(item, rows[item.id]["answer"], rows[item.id].get("openings", ()), scoring))
        for item in items
        if "answer" in rows.get(item.id, {})
    }


def summarised(asked: Asked, rows: Mapping[str, Row], values: Values) -> dict[str, Any]:
    """Figures as JSON: overall, as the mean over kinds, and by whatever tells items apart."""
    items = [item for item in asked.items if item.id in values]
    failures = [rows[item.id] for item in asked.items if "error" in rows.get(item.id, {})]
    return {
        "asked": len(asked.items),
        "answered": sum("answer" in rows.get(item.id, {}) for item in asked.items),
        "videos": len({item.shows for item in items}),
        "from_clips": sum("evidence" in rows[item.id] for item in items),
        "failed": [{"id": row["id"], "error": row["error"]} for row in failures],
        "flaws": dict(Counter(flaw.problem for flaw in asked.flaws).most_common()),
        "unrecognised": _unrecognised(items, rows),
        "figures": _figures(items, values, mean_over=None),
        "mean_over_kinds": _figures(items, values, mean_over="kind"),
        "by": {name: _grouped(items, values, of) for name, of in _groupings(items, rows).items()},
    }


def _unrecognised(items: Sequence[Item], rows: Mapping[str, Row]) -> int:
    """Choices from whose answers no option can be read; they count as wrong."""
    return sum(bool(item.choices) and not letter(rows[item.id]["answer"], item.choices) for item in items)


def _figures(items: Sequence[Item], values: Values, mean_over: str | None) -> dict[str, Any]:
    metrics = dict.fromkeys(metric for item in items for metric in values[item.id])
    found: dict[str, Any] = {}
    for metric in metrics:
        measured = [item for item in items if metric in values[item.id]]
        numbers = [values[item.id][metric] for item in measured]
        videos = [item.shows for item in measured]
        figure: Figure | None
        if mean_over is None:
            figure = mean(numbers, videos)
        else:
            kinds = [item.tags.get(mean_over, "") for item in measured]
            figure = macro(numbers, kinds, videos) if len(set(kinds)) > 1 else None
        if figure is not None:
            found[metric] = figure.as_json()
    return found


def _groupings(items: Sequence[Item], rows: Mapping[str, Row]) -> dict[str, Callable[[Item], str]]:
    tags = dict.fromkeys(tag for item in items for tag in item.tags)
    found: dict[str, Callable[[Item], str]] = {tag: _tag(tag) for tag in tags}
    if "duration" not in found and any("duration" in rows[item.id] for item in items):
        found["duration"] = lambda item: _duration(rows[item.id])
    if any("evidence" in rows[item.id] for item in items):
        found["seen"] = lambda item: "clips" if "evidence" in rows[item.id] else "the whole"
    if any("subtitles" in rows[item.id] for item in items):
        found["subtitles"] = lambda item: "with subtitles" if rows[item.id].get("subtitles") else "without subtitles"
    return found


def _tag(tag: str) -> Callable[[Item], str]:
    return lambda item: item.tags.get(tag, "")


def _duration(row: Row) -> str:
    seconds = row.get("duration")
    return next(name for end, name in DURATIONS if seconds < end) if seconds is not None else "unknown"


def _grouped(items: Sequence[Item], values: Values, of: Callable[[Item], str]) -> dict[str, Any]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[of(item)].append(item)
    return {name: _figures(members, values, None) for name, members in sorted(groups.items())}
