"""The report of a run: its figures beside published ones, where they come from, and a page of examples."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minigpt4_video.errors import MediaError
from minigpt4_video.evaluation.files import Row
from minigpt4_video.evaluation.items import Item
from minigpt4_video.evaluation.running import Asked
from minigpt4_video.evaluation.summary import Values
from minigpt4_video.evaluation.tables import STYLE, Table, html, markdown
from minigpt4_video.inference.contact_sheet import clock
from minigpt4_video.inference.report import data_url, document
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.media import read_clip, read_picture_folder

REPORT, PAGE, EXAMPLES = "report.md", "report.html", "examples.html"
SHOWN_EXAMPLES = 12
FRAMES = 6


def write_reports(
    output: Path, run: Mapping[str, Any], summary: Mapping[str, Any], further: Sequence[Table] = ()
) -> None:
    """`report.md` and `report.html`, which say the same."""
    title = f"{run['benchmark']}: {run['answered_by']['model']}"
    facts = _facts(run, summary)
    tables = [*_tables(summary), *further, *_faults(summary)]
    write_whole(output / REPORT, markdown(title, facts, tables).encode(errors="backslashreplace"))
    page = document(title, html(title, facts, tables) + "\n", STYLE)
    write_whole(output / PAGE, page.encode(errors="backslashreplace"))


def _facts(run: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    by, about = run["answered_by"], run["begun_with"]
    facts = [
        f"{summary['answered']} of {summary['asked']} questions answered, about {summary['videos']} videos; "
        f"{len(summary['failed'])} failed, {sum(summary['flaws'].values())} rows could not be asked",
        "answered by " + ", ".join(f"{name} {_told(value)}" for name, value in by.items() if name != "context"),
        f"annotations {Path(run['annotations']['path']).name}, SHA-256 {run['annotations']['sha256'][:16]}; "
        f"subtitles {run['subtitles']}",
        f"begun with version {about['version']} under Python {about['python']} on {about['machine']}",
        "intervals hold 95 % of 2,000 draws of as many videos, with replacement",
    ]
    if summary["from_clips"]:
        facts.append(f"{summary['from_clips']} answers come from the clips of a long video that the question is about")
    if summary["unrecognised"]:
        facts.append(f"from {summary['unrecognised']} answers no option could be read; they count as wrong")
    return facts


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_told(part)}" for name, part in value.items()) + ")"
    return str(value)


def figure(told: Mapping[str, Any] | None, metric: str = "") -> str:
    """A figure with its interval: shares in percent, ratings as they are."""
    if told is None:
        return ""
    if metric.startswith("rating"):
        return f"{told['value']:.2f} ({told['low']:.2f} to {told['high']:.2f})"
    return f"{100 * told['value']:.1f} ({100 * told['low']:.1f} to {100 * told['high']:.1f})"


def _tables(summary: Mapping[str, Any]) -> list[Table]:
    metrics = list(summary["figures"])
    rows = [["all", _count(summary["figures"]), *(figure(summary["figures"].get(name), name) for name in metrics)]]
    if summary["mean_over_kinds"]:
        told = summary["mean_over_kinds"]
        rows.append(["mean over kinds", _count(told), *(figure(told.get(name), name) for name in metrics)])
    tables = [Table("Figures", ["", "answers", *metrics], rows, "In percent, with intervals; ratings are from 0 to 5.")]
    for name, groups in summary["by"].items():
        if len(groups) > 1 or name in ("duration", "subtitles"):
            rows = [
                [group or "(none)", _count(told), *(figure(told.get(metric), metric) for metric in metrics)]
                for group, told in groups.items()
            ]
            tables.append(Table(f"By {name}", [name, "answers", *metrics], rows))
    return tables


def _count(told: Mapping[str, Any]) -> str:
    return str(max((one["count"] for one in told.values()), default=0))


def _faults(summary: Mapping[str, Any]) -> list[Table]:
    tables = []
    if summary["flaws"]:
        rows = [[problem, str(count)] for problem, count in summary["flaws"].items()]
        tables.append(Table("Not asked", ["why", "rows"], rows, "Each is listed in flaws.jsonl."))
    if summary["failed"]:
        rows = [[row["id"], row["error"]] for row in summary["failed"][:50]]
        tables.append(Table("Failed", ["item", "why"], rows, f"{len(summary['failed'])} in all."))
    return tables


# ---- examples


def write_examples(output: Path, asked: Asked, rows: Mapping[str, Row], values: Values) -> None:
    """A page with some answers that are wrong and some that are right, and what was to be seen."""
    chosen = examples(asked.items, values)
    body = ["<header><h1>Examples</h1><p class=facts>Half of them wrong, where there are as many.</p></header>"]
    body += [_example(item, rows[item.id], values[item.id]) for item in chosen]
    page = document("Examples", "\n".join(body) + "\n", STYLE)
    write_whole(output / EXAMPLES, page.encode(errors="backslashreplace"))


def examples(items: Sequence[Item], values: Values, count: int = SHOWN_EXAMPLES) -> list[Item]:
    """Spread over the benchmark, wrong ones first, no video twice where there are others."""
    scored = [item for item in items if values.get(item.id)]
    wrong = [item for item in scored if next(iter(values[item.id].values())) < 0.5]
    right = [item for item in scored if next(iter(values[item.id].values())) >= 0.5]
    half = max(count // 2, count - len(right))
    chosen = _spread(wrong, half)
    return chosen + _spread(right, count - len(chosen))


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    first = list({item.shows: item for item in reversed(items)}.values())[::-1]
    pool = first if len(first) >= count else list(items)
    step = max(1, len(pool) // count) if count else 1
    return pool[::step][:count] if count else []


def _example(item: Item, row: Row, values: Mapping[str, float]) -> str:
    verdict = "".join(
        f'<span class="{"right" if value >= 0.5 else "wrong"}">{escape(name)} {value:.2f}</span> '
        for name, value in values.items()
    )
    return f"""<section class="turn"><p class="question" dir="auto">{escape(item.question)}</p>
<p class="answer" dir="auto">{escape(row["answer"]) or "<em>(no words)</em>"}</p>
<p class="facts" dir="auto">reference: {escape(item.reference)} · {verdict}· {escape(item.id)}</p>
<div class="grid">{_frames(item)}</div></section>"""


def _frames(item: Item) -> str:
    path, start, end = item.video["path"], item.video.get("start"), item.video.get("end")
    try:
        if item.rate is None:
            clip = read_clip(path, FRAMES, start=start, end=end)
        else:
            clip = read_picture_folder(path, FRAMES, rate=item.rate, start=start, end=end)
    except MediaError as error:
        return f"<p class=facts>{escape(str(error))}</p>"
    return "".join(
        f'<figure><img alt="frame at {clock(time)}" src="{data_url(frame)}">'
        f"<figcaption><time>{clock(time)}</time></figcaption></figure>"
        for frame, time in zip(clip.frames, clip.times, strict=True)
    )
