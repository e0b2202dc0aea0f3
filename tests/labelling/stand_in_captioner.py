"""What stands in for a captioner in actors. It loads no torch, so that many may die in a short test."""

import os
import signal
import time
from collections.abc import Iterable, Iterator

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.reading import Reading
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.rows import Label

ASKED = requests()


class Told:
    """Says the name of each clip, and dies or raises where the name has it so."""

    def label(self, readings: Iterable[Reading]) -> Iterator[list[Label]]:
        for work, seen in readings:
            if "deadly" in work.source.name:
                os.kill(os.getpid(), signal.SIGKILL)
            if "raising" in work.source.name:
                raise AttributeError("no such thing")
            error = seen.exception()
            label = Label.begun(work.rows[0], work.source, ASKED[0], "error" if error else "success")
            label.text, label.error = work.source.name, str(error or "")
            yield [label]


class Slow(Told):
    """Takes much longer than reading does."""

    def label(self, readings: Iterable[Reading]) -> Iterator[list[Label]]:
        for reading in readings:
            time.sleep(1)
            yield from super().label([reading])


def unloadable() -> Told:
    raise LabellingError("the weights are not here")


def killed() -> Told:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
