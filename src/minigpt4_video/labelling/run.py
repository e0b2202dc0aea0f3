"""Carrying a job out: what is left of its plan goes through an engine, and every label is kept as it comes."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from minigpt4_video.labelling.alarms import Alarms
from minigpt4_video.labelling.captioner import Settings, unasked
from minigpt4_video.labelling.job import PLAN, Job
from minigpt4_video.labelling.manifest import Work, works
from minigpt4_video.labelling.rows import Label, Status

Labels = Generator[list[Label], None, None]
Engine = Callable[[Iterator[Work]], Labels]
"""The labels of works, one list a clip, in any order."""


@dataclass
class Progress:
    """How far a run is."""

    rows: int
    """Of the plan."""
    done_before: int
    """Rows that earlier runs have labelled."""
    statuses: Counter[Status] = field(default_factory=Counter)
    """Of the rows of this run."""
    clips: int = 0
    """That this run has labelled, without those that it skipped."""
    begun: float = field(default_factory=monotonic)

    @property
    def done(self) -> int:
        return self.done_before + self.statuses.total()

    @property
    def seconds(self) -> float:
        return monotonic() - self.begun

    @property
    def clips_a_minute(self) -> float:
        return 60 * self.clips / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take, going on as it went so far; None where nothing tells."""
        labelled = self.statuses.total()
        return (self.rows - self.done) * self.seconds / labelled if self.clips else None


def carry_out(
    job: Job,
    settings: Settings,
    engine: Engine,
    alarms: Alarms,
    again: Literal["errors"] | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Progress:
    """Label what is left of a plan; with `again` what failed, too. What is there when it is stopped is kept.

    Raises LabellingError where an alarm rings.
    """
    done = job.pieces.done(job.plan.rows, frozenset({"error"} if again else ()))
    failed_before = job.pieces.done(job.plan.rows) & ~done if again else done
    progress = Progress(job.plan.rows, int(done.sum()))
    for label in _unfit(works(job.output / PLAN, done), settings):
        job.pieces.add([label])
        progress.statuses[label.status] += 1
    fit = (work for work in works(job.output / PLAN, done) if not work.source.unfit)
    try:
        with closing(engine(fit)) as labelled:  # or what an alarm stops would go on until it is forgotten
            for labels in labelled:
                job.pieces.add(labels)
                progress.clips += 1
                progress.statuses.update(label.status for label in labels)
                if tell is not None:
                    tell(progress)
                alarms.look(labels, bool(failed_before[labels[0].number]))
    finally:
        job.pieces.write()
    return progress


def _unfit(left: Iterable[Work], settings: Settings) -> Iterator[Label]:
    for work in left:
        if work.source.unfit:
            yield from unasked(work, settings)
