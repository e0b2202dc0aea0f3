"""How sure a figure is, and whether two runs differ.

Questions about one video stand or fall together, so videos are drawn, not questions: intervals over questions alone
would be too narrow. Random numbers have a fixed seed, so the same answers give the same figures.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import comb
from typing import Any

import numpy as np

DRAWS = 2000
SEED = 2024
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A mean with its interval of 95 %, as drawing videos anew gives it."""

    value: float
    low: float
    high: float
    count: int
    """Answers behind it."""

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


def mean(values: Sequence[float], videos: Sequence[str]) -> Figure | None:
    """The mean of values, one an answer; None without any."""
    return macro(values, ["all"] * len(values), videos)


def macro(values: Sequence[float], kinds: Sequence[str], videos: Sequence[str]) -> Figure | None:
    """The mean over kinds of the mean in each."""
    if not values:
        return None
    sums, counts = _by_video(values, kinds, videos)
    drawn = _draws(len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (drawn @ sums) / (drawn @ counts)
    estimates = np.nanmean(means, axis=1)
    low, high = np.quantile(estimates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float((sums.sum(0) / counts.sum(0)).mean())
    return Figure(value, float(low), float(high), len(values))


@dataclass(frozen=True)
class Difference:
    """Of two runs on the same questions: second less first."""

    value: float
    low: float
    high: float
    p_value: float
    """By swapping the runs video by video at random: how often chance alone differs as much."""
    first_only: int
    """Questions that only the first got right (where values are right or wrong)."""
    second_only: int
    mcnemar: float
    """Exact McNemar test over these, which takes questions for independent."""
    count: int

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


def compared(first: Sequence[float], second: Sequence[float], videos: Sequence[str]) -> Difference | None:
    """Paired by their place; None without any."""
    if not first:
        return None
    gains = [b - a for a, b in zip(first, second, strict=True)]
    sums, counts = _by_video(gains, ["all"] * len(gains), videos)
    drawn = _draws(len(sums))
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], size=(DRAWS, len(sums)))
    seen = abs(sums.sum())
    extreme = int((np.abs(signs @ sums) >= seen - 1e-9).sum())
    first_only = sum(1 for a, b in zip(first, second, strict=True) if a > 0.5 >= b)
    second_only = sum(1 for a, b in zip(first, second, strict=True) if b > 0.5 >= a)
    return Difference(
        float(np.mean(gains)),
        float(low),
        float(high),
        (extreme + 1) / (DRAWS + 1),
        first_only,
        second_only,
        mcnemar(first_only, second_only),
        len(gains),
    )


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p-value: how often a fair coin is at least as uneven."""
    total, less = first_only + second_only, min(first_only, second_only)
    if total == 0:
        return 1.0
    as_uneven: int = sum(comb(total, k) for k in range(less + 1))
    return min(1.0, 2 * as_uneven / (1 << total))


def _by_video(values: Sequence[float], kinds: Sequence[str], videos: Sequence[str]) -> tuple[Any, Any]:
    """Sums and counts, each (videos, kinds)."""
    columns = {kind: at for at, kind in enumerate(dict.fromkeys(kinds))}
    rows = {video: at for at, video in enumerate(dict.fromkeys(videos))}
    sums, counts = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    for value, kind, video in zip(values, kinds, videos, strict=True):
        sums[rows[video], columns[kind]] += value
        counts[rows[video], columns[kind]] += 1
    return sums, counts


@lru_cache(maxsize=4)
def _draws(videos: int) -> Any:
    """How often each video is drawn, (draws, videos)."""
    return np.random.default_rng(SEED).multinomial(videos, np.full(videos, 1 / videos), size=DRAWS).astype(np.float64)
