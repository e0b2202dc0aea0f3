"""Where two runs on one benchmark differ, and whether by more than chance."""

from pathlib import Path
from typing import Any

from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.files import Row, read_json, read_rows
from minigpt4_video.evaluation.measuring import VERDICTS
from minigpt4_video.evaluation.running import RUN
from minigpt4_video.evaluation.statistics import compared
from minigpt4_video.evaluation.tables import STYLE, Table, html, markdown
from minigpt4_video.inference.report import document

SHOWN = 30
"""Answers that are shown."""
PLACES = ("first", "second")


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Figures on the items that both have, as JSON. Raises DataError where that cannot be done."""
    runs = [_run(folder) for folder in (first, second)]
    if runs[0]["benchmark"] != runs[1]["benchmark"]:
        raise DataError(f"{first} is a run of {runs[0]['benchmark']} and {second} of {runs[1]['benchmark']}")
    a, b = ({row["id"]: row for row in read_rows(folder / VERDICTS)} for folder in (first, second))
    both = [name for name in a if name in b]
    if not both:
        raise DataError(f"{first} and {second} have no answered question in common")
    if changed := [name for name in both if a[name]["reference"] != b[name]["reference"]]:
        raise DataError(
            f"{first} and {second} have other references, such as for {changed[0]}; they cannot be compared"
        )
    metrics = [metric for metric in a[both[0]]["values"] if any(metric in b[name]["values"] for name in both)]
    return {
        "benchmark": runs[0]["benchmark"],
        "runs": [
            {"folder": str(folder), "answered_by": run["answered_by"]}
            for folder, run in zip((first, second), runs, strict=True)
        ],
        "common": len(both),
        "only": [len(a) - len(both), len(b) - len(both)],
        "differences": {metric: _difference(metric, both, a, b) for metric in metrics},
        "answers": _differing(both, a, b),
    }


def _run(folder: Path) -> dict[str, Any]:
    if not (folder / RUN).is_file() or not (folder / VERDICTS).is_file():
        raise DataError(f"{folder} holds no run that has been scored; `evaluate` makes one")
    run: dict[str, Any] = read_json(folder / RUN)
    return run


def _difference(metric: str, names: list[str], a: dict[str, Row], b: dict[str, Row]) -> dict[str, Any]:
    measured = [name for name in names if metric in a[name]["values"] and metric in b[name]["values"]]
    firsts = [a[name]["values"][metric] for name in measured]
    seconds = [b[name]["values"][metric] for name in measured]
    found = compared(firsts, seconds, [a[name]["video"] for name in measured])
    assert found is not None  # the metric is that of a common item
    means = {"first": round(sum(firsts) / len(firsts), 6), "second": round(sum(seconds) / len(seconds), 6)}
    return means | found.as_json()


def _differing(names: list[str], a: dict[str, Row], b: dict[str, Row]) -> list[dict[str, Any]]:
    """Answers that are not worth the same by the first metric, the largest gaps first."""
    gaps = []
    for name in names:
        metric = next(iter(a[name]["values"]), "")
        gap = b[name]["values"].get(metric, 0.0) - a[name]["values"].get(metric, 0.0)
        if gap:
            told = {key: a[name][key] for key in ("id", "question", "reference")}
            gaps.append(told | {"first": a[name]["answer"], "second": b[name]["answer"], "gain": round(gap, 6)})
    return sorted(gaps, key=lambda row: -abs(row["gain"]))


def report(told: dict[str, Any]) -> tuple[str, str]:
    """The comparison as Markdown and as a page."""
    title = f"{told['benchmark']}: two runs compared"
    facts = [
        *(f"{place}: {run['folder']}, {run['answered_by']}" for place, run in zip(PLACES, told["runs"], strict=True)),
        f"{told['common']} questions in common, {told['only'][0]} and {told['only'][1]} in one of them only",
        "p: how often swapping the runs video by video at random differs as much",
        "McNemar's test takes questions for independent of each other",
    ]
    header = ["metric", *PLACES, "second less first", "p", "only first / second right", "McNemar p"]
    tables = [Table("Differences", header, [_line(metric, one) for metric, one in told["differences"].items()])]
    if told["answers"]:
        columns = ["id", "question", "reference", *PLACES]
        shown = [[str(one[name]) for name in columns] for one in told["answers"][:SHOWN]]
        note = f"{len(told['answers'])} answers are not worth the same."
        tables.append(Table("Answers that differ", columns, shown, note))
    return markdown(title, facts, tables), document(title, html(title, facts, tables) + "\n", STYLE)


def _line(metric: str, one: dict[str, Any]) -> list[str]:
    change = f"{one['value']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
    only = f"{one['first_only']} / {one['second_only']}"
    means = [f"{one[place]:.4f}" for place in PLACES]
    return [metric, *means, change, f"{one['p_value']:.4f}", only, f"{one['mcnemar']:.4f}"]
