"""What a job will take, before it: its plan counted whole, its hours and costs measured on a few clips."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import NamedTuple

from minigpt4_video.errors import MediaError
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.manifest import Work, works, write_plan
from minigpt4_video.labelling.reading import Reader
from minigpt4_video.labelling.requests import Asked
from minigpt4_video.labelling.rows import Label
from minigpt4_video.labelling.sources import Sources

LOOKED_INTO = 50
TRIED = 3


class Estimate(NamedTuple):
    """What was planned, and what it seems to take."""

    rows: int
    clips: int
    unfit: int
    """Clips that will be skipped, or are errors already."""
    hours: float | None
    """Of video; from the lengths of some clips. None where none could be looked into."""
    seconds_a_clip: float | None
    """On this machine, in one process; None where no clip could be tried."""

    @property
    def machine_hours(self) -> float | None:
        return None if self.seconds_a_clip is None else self.seconds_a_clip * (self.clips - self.unfit) / 3600


def estimate(
    sources: Sources,
    requests: Sequence[Asked],
    reader: Reader,
    label: Callable[[Iterator[Work]], Iterator[list[Label]]],
) -> Estimate:
    """Plan a collection, look into some of its clips, and label a few of those as a job would. Nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as aside:
        plan = write_plan(Path(aside), sources, requests)
        fit = [at for at, work in enumerate(works(Path(aside), [False] * plan.rows)) if not work.source.unfit]
        chosen = set(fit[:: max(1, len(fit) // LOOKED_INTO)][:LOOKED_INTO])
        samples = [work for at, work in enumerate(works(Path(aside), [False] * plan.rows)) if at in chosen]
    readable: list[Work] = []
    lengths: list[float] = []
    for work in samples:
        try:
            with at_hand(work.source) as (source, path):
                start, end = reader.span(source, path)
        except MediaError:
            continue
        lengths.append(end - start)
        readable.append(work)
    took: list[float] = []
    begun = perf_counter()
    for _ in label(iter(readable[: TRIED + 1])):
        took.append(perf_counter() - begun)
        begun = perf_counter()
    hours = fmean(lengths) * len(fit) * len(readable) / len(samples) / 3600 if lengths else None
    # The first pays for loading the model.
    seconds = fmean(took[1:]) if len(took) > 1 else took[0] if took else None
    return Estimate(plan.rows, plan.clips, plan.clips - len(fit), hours, seconds)
