"""What came of a job, counted while its table is written, as JSON and as one page with pictures."""

import heapq
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4_video.errors import UserError
from minigpt4_video.inference.report import data_url, document
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.labelling.files import local_file
from minigpt4_video.media import Nursery, read_clip_guarded

SHOWN = 8
"""Examples of each kind."""
THUMBNAIL = (144, 256)
LENGTHS = (0, 5, 10, 20, 40, 80, 160, 320)
"""Words, or characters of Chinese, from which a bar counts."""
SURENESS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Mean probability of a token, likewise."""
NEAR_BITS = 7
BANDS = 8

STYLE = """
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } td.bar { width: 16rem; }
td.bar i { display: block; height: .8rem; background: var(--subtitles); border-radius: .2rem; }
.error { color: #b3261e; }
"""


class Summary:
    """Takes a job's rows in batches. Holds a few examples, and 24 bytes for the look of every clip."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str, str]] = Counter()
        self.by_request: dict[str, Counter[str]] = {}
        self.notes: Counter[str] = Counter()
        self.lengths = [0] * len(LENGTHS)
        self.sureness = [0] * len(SURENESS)
        self.seconds = 0.0
        self._worst: list[tuple[float, int, dict[str, Any]]] = []
        self._best: list[tuple[float, int, dict[str, Any]]] = []
        self._failed: dict[str, dict[str, Any]] = {}
        self._hashes = bytearray()
        self._last = ""

    def look(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._look(row)

    def _look(self, row: dict[str, Any]) -> None:
        self.statuses[row["status"]] += 1
        name = f"{row['style']}/{row['language']}" if row["language"] else row["style"]
        self.by_request.setdefault(name, Counter())[row["status"]] += 1
        self.notes.update(note.split(":")[0] for note in row["notes"])
        self.seconds += row["seconds"] or 0.0
        clip = f"{row['video']} {row.get('file')} {row['start']} {row['end']}"
        if row["frame_hash"] and clip != self._last:
            self._hashes += bytes.fromhex(row["frame_hash"])
        self._last = clip
        if row["status"] != "success":
            reason = row["error"].replace(row["video"], "...")
            self.reasons[row["status"], row["stage"], reason] += 1
            if row["status"] == "error":
                self._failed.setdefault(reason, row)
            return
        words = len(row["text"]) if row["language"] == "zh" else len(row["text"].split())
        self.lengths[_bar(words, LENGTHS)] += 1
        sure = float(np.exp(row["confidence"]))
        self.sureness[_bar(sure, SURENESS)] += 1
        for heap, key in ((self._best, sure), (self._worst, -sure)):
            entry = (key, row["number"], row)
            (heapq.heappushpop if len(heap) >= SHOWN else heapq.heappush)(heap, entry)

    @property
    def best(self) -> list[dict[str, Any]]:
        return [row for *_, row in sorted(self._best, reverse=True)]

    @property
    def worst(self) -> list[dict[str, Any]]:
        return [row for *_, row in sorted(self._worst, reverse=True)]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """One row for each reason, of the commonest."""
        counted = Counter({reason: count for (_, _, reason), count in self.reasons.items() if reason in self._failed})
        return [self._failed[reason] for reason, _ in counted.most_common(SHOWN)]

    def near_duplicates(self) -> int:
        """How many clips look like an earlier one."""
        return int(near_duplicates(np.frombuffer(bytes(self._hashes), np.uint8).reshape(-1, 24)).sum())

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.statuses.total(),
            "statuses": dict(self.statuses.most_common()),
            "reasons": [
                {"status": status, "stage": stage, "reason": reason, "rows": count}
                for (status, stage, reason), count in self.reasons.most_common(100)
            ],
            "requests": {name: dict(counted.most_common()) for name, counted in self.by_request.items()},
            "notes": dict(self.notes.most_common()),
            "words": {f"from {least}": count for least, count in zip(LENGTHS, self.lengths, strict=True)},
            "probability_of_a_token": {
                f"from {least}": count for least, count in zip(SURENESS, self.sureness, strict=True)
            },
            "clips_that_look_like_an_earlier_one": self.near_duplicates(),
            "model_seconds": round(self.seconds, 1),
        }


def near_duplicates(hashes: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of (N, 24) bytes differ from an earlier one in at most seven bits.

    Two such agree in one of eight bands, so only clips that do are compared, with the first of each band.
    """
    near = np.zeros(len(hashes), np.bool_)
    for band in np.split(hashes, BANDS, axis=1) if len(hashes) else []:
        _, first, group = np.unique(band, axis=0, return_index=True, return_inverse=True)
        earliest = first[group.reshape(-1)]
        bits = np.unpackbits(hashes ^ hashes[earliest], axis=1).sum(1)
        near |= (earliest < np.arange(len(hashes))) & (bits <= NEAR_BITS)
    return near


def _bar(value: float, bars: tuple[float, ...]) -> int:
    return max(at for at, least in enumerate(bars) if value >= least or at == 0)


def write_summary(summary: Summary, output: Path, title: str, facts: str, path_of: Callable[[int], str]) -> None:
    """`summary.json` and `summary.html`; `path_of` tells the file of the row with a number."""
    told = summary.as_json()
    write_whole(output / "summary.json", json.dumps(told, ensure_ascii=False, indent=2).encode())
    examples = [
        ("Least sure", summary.worst), ("Most sure", summary.best), ("Failed, one for each reason", summary.failed),
    ]  # fmt: skip
    body = [
        f'<header><h1 dir="auto">{escape(title)}</h1><p class="facts">{escape(facts)}</p></header>',
        "<h2>Statuses</h2>", _table(told["statuses"]),
        "<h2>By request</h2>",
        _table({name: ", ".join(f"{n} {kind}" for kind, n in all_.items()) for name, all_ in told["requests"].items()}),
        "<h2>Reasons</h2>",
        _table({f"{one['status']} ({one['stage']}): {one['reason']}": one["rows"] for one in told["reasons"][:30]}),
        "<h2>Notes</h2>", _table(told["notes"]),
        "<h2>Length, in words (characters of Chinese)</h2>", _table(told["words"]),
        "<h2>How sure the model was, as probability of a token</h2>", _table(told["probability_of_a_token"]),
        f"<p>{told['clips_that_look_like_an_earlier_one']} clips look like an earlier one.</p>",
    ]  # fmt: skip
    with closing(Nursery()) as nursery:
        for name, rows in examples:
            figures = "\n".join(_figure(row, path_of(row["number"]), nursery) for row in rows)
            body.append(f'<h2>{name}</h2><div class="grid">{figures or "<p class=facts>None.</p>"}</div>')
    write_whole(output / "summary.html", document(title, "\n".join(body), STYLE).encode(errors="replace"))


def _table(counted: dict[str, Any]) -> str:
    if not counted:
        return "<p class=facts>None.</p>"
    numbers = [value for value in counted.values() if isinstance(value, int)]
    most = max(numbers, default=0) or 1
    lines = []
    for name, value in counted.items():
        bar = f'<td class="bar"><i style="width:{100 * value / most:.1f}%"></i></td>' if isinstance(value, int) else ""
        lines.append(f'<tr><td dir="auto">{escape(name)}</td><td class="n">{escape(str(value))}</td>{bar}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _figure(row: dict[str, Any], path: str, nursery: Nursery) -> str:
    span = (
        "" if row["start"] is None else f", {row['start']:g} to {row['end'] if row['end'] is not None else 'the end'} s"
    )
    sure = "" if row["confidence"] is None else f" ({100 * np.exp(row['confidence']):.0f} % a token)"
    said = escape(row["text"]) or f'<span class="error">{escape(row["error"])}</span>'
    picture = _thumbnail(row, path, nursery)
    image = f'<img alt="a frame" src="{picture}">' if picture else ""
    return (
        f'<figure>{image}<figcaption dir="auto"><time>{escape(row["video"])}{span}</time><br>'
        f"{escape(row['style'])}: {said}{sure}</figcaption></figure>"
    )


def _thumbnail(row: dict[str, Any], path: str, nursery: Nursery) -> str:
    """The middle frame as an address; "" where there is none to be had."""
    try:
        with local_file(path) as file:
            clip = read_clip_guarded(file, 1, size=THUMBNAIL, start=row["start"], end=row["end"], nursery=nursery)
        return data_url(clip.frames[0])
    except UserError:
        return ""
