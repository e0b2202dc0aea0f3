"""Figures that others have published, kept as data with their source, and the table that sets them beside a run's."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.evaluation.reporting import figure
from minigpt4_video.evaluation.tables import Table

FILE = Path(__file__).with_name("published.toml")

CARE = (
    "Published accuracies of open answers were judged by models whose versions are mostly not told; the version alone "
    "has moved accuracy by 8 to 10 points on the same answers. Compare figures of one judge."
)


class Published(NamedTuple):
    benchmark: str
    metric: str
    """accuracy, judged (share of answers that a judge took for right), or a rating."""
    model: str
    subtitles: str
    value: float
    """Percent, or a rating from 0 to 5."""
    source: str


def published(benchmark: str) -> list[Published]:
    told = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return [
        Published(benchmark, group["metric"], model, subtitles, value, told["sources"][group["source"]])
        for group in told["figures"]
        if group["benchmark"] == benchmark
        for model, subtitles, value in group["rows"]
    ]


def published_table(benchmark: str, summary: Mapping[str, Any]) -> list[Table]:
    """This run's figures and those that are published, nothing where there are none."""
    others = published(benchmark)
    if not others:
        return []
    ours = [["this run", "", metric, figure(told, metric), ""] for metric, told in summary["figures"].items()]
    rows = [[one.model, one.subtitles, one.metric, _value(one), one.source] for one in others]
    return [Table("Beside published figures", ["model", "subtitles", "metric", "figure", "source"], ours + rows, CARE)]


def _value(one: Published) -> str:
    return f"{one.value:.2f}" if one.metric.startswith("rating") else f"{one.value:.1f}"
