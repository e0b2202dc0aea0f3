"""What each setting is worth on a benchmark: the run as it is, and with one thing changed at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.answering import SHOWN, Answerer, Settings
from minigpt4_video.evaluation.comparing import compare
from minigpt4_video.evaluation.files import read_json, write_json
from minigpt4_video.evaluation.measuring import Progress, measure
from minigpt4_video.evaluation.reporting import figure
from minigpt4_video.evaluation.running import RUN, Task
from minigpt4_video.evaluation.tables import STYLE, Table, html, markdown
from minigpt4_video.inference.loading import DTYPES
from minigpt4_video.inference.report import document
from minigpt4_video.inference.writing import write_whole

AXES: dict[str, Sequence[str] | None] = {
    "frames": None,
    "subtitles": None,
    "rule": ("even", "original"),
    "template": None,
    "shown": SHOWN,
    "dtype": tuple(DTYPES),
}
"""What can be changed, and to what; None where the values are not a fixed few."""


@dataclass(frozen=True)
class Variant:
    settings: Settings
    subtitles: str = "auto"
    dtype: str | None = None

    def changed(self, axis: str, value: str) -> "Variant":
        if axis == "subtitles":
            return replace(self, subtitles=value)
        if axis == "dtype":
            return replace(self, dtype=value)
        typed: Any = int(value) if axis == "frames" else value
        return replace(self, settings=replace(self.settings, **{axis: typed}))


def axes(told: Sequence[str]) -> dict[str, list[str]]:
    """From texts such as "frames=2,4". Raises DataError for what cannot be changed, or not to that."""
    found: dict[str, list[str]] = {}
    for text in told:
        axis, _, values = text.partition("=")
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if axis not in AXES or not chosen:
            raise DataError(f'--ablate {text} cannot be read; write for example "frames=2,4", with {", ".join(AXES)}')
        allowed = AXES[axis]
        wrong = [value for value in chosen if allowed is not None and value not in allowed]
        wrong += [value for value in chosen if axis == "frames" and not (value.isdecimal() and int(value) > 0)]
        if wrong:
            raise DataError(f"--ablate {axis} cannot be {wrong[0]}; {', '.join(allowed or ('whole numbers',))} can be")
        found.setdefault(axis, []).extend(chosen)
    return found


def ablate(
    task: Task,
    output: Path,
    base: Variant,
    changes: Mapping[str, Sequence[str]],
    make: Callable[[Variant], Answerer],
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """A run for the base and for each change, in folders of their own; `ablation.json`, `.md` and `.html` of all."""
    variants = {"as it is": base}
    variants |= {
        f"{axis} {value}": changed
        for axis, values in changes.items()
        for value in values
        if (changed := base.changed(axis, value)) != base
    }
    rows: list[dict[str, Any]] = []
    first = output / "as-it-is"
    for name, variant in variants.items():
        folder = output / name.replace(" ", "-").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        summary = measure(replace(task, subtitles=variant.subtitles), folder, make(variant), progress=progress).summary
        if not (figures := summary["mean_over_kinds"] or summary["figures"]):
            raise DataError(
                f"no question could be answered, so there is nothing to compare: {summary['failed'][0]['error']}"
            )
        metric, told = next(iter(figures.items()))
        row = {"variant": name, "metric": metric, "mean_over_kinds": bool(summary["mean_over_kinds"]), "figure": told}
        if folder != first:
            row["against_as_it_is"] = compare(first, folder)["differences"][metric]
        rows.append(row | {"answered": summary["answered"], "failed": len(summary["failed"])})
    begun = read_json(first / RUN)
    told = {name: begun[name] for name in ("benchmark", "answered_by", "begun_with")}
    write_json(output / "ablation.json", told | {"variants": rows})
    title = f"{task.benchmark}: one thing changed at a time"
    by, about = begun["answered_by"], begun["begun_with"]
    facts = [
        f"as it is: {by['model']}, fingerprint {by['fingerprint']}, in {by['dtype']}; {task.benchmark} with subtitles "
        f"{begun['subtitles']}; version {about['version']} under Python {about['python']} on {about['machine']}"
    ]
    table = [_table(rows)]
    write_whole(output / "ablation.md", markdown(title, facts, table).encode(errors="backslashreplace"))
    page = document(title, html(title, facts, table) + "\n", STYLE)
    write_whole(output / "ablation.html", page.encode(errors="backslashreplace"))
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for row in rows:
        change = row.get("against_as_it_is")
        told = ["", ""]
        if change is not None:
            span = f"{100 * change['low']:+.1f} to {100 * change['high']:+.1f}"
            told = [f"{100 * change['value']:+.1f} ({span})", f"{change['p_value']:.4f}"]
        lines.append([row["variant"], str(row["answered"]), figure(row["figure"], row["metric"]), *told])
    over = ", mean over kinds" if rows[0]["mean_over_kinds"] else ""
    header = ["variant", "answers", f"{rows[0]['metric']}{over}", "change over all questions", "p"]
    return Table("Figures", header, lines, "In percent, with intervals of 95 %; p by swapping runs video by video.")
