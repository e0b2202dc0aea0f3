"""The actors of a job on Ray. Nothing here loads torch, so that those that read clips start quickly and stay small."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from minigpt4_video.errors import MediaError
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.reading import Form, Reader, Reading, Seen
from minigpt4_video.labelling.rows import Label
from minigpt4_video.media import Limits

if TYPE_CHECKING:
    from minigpt4_video.labelling.captioner import Captioner


class ReadingActor:
    """Reads clips, in a child process of its own: a file that kills a decoder does not kill the actor."""

    reader: Reader

    def begin(self, form: Form, limits: Limits) -> None:
        """Comes back when the actor has a place."""
        self.reader = Reader(form, limits)

    def work(self, works: list[Work]) -> tuple[None, list[Seen | str]]:
        """For each clip what is seen, or why it cannot be read; before it a sign, for drivers that want to know that
        it is there and not to fetch it."""
        return None, [self._read(work) for work in works]

    def _read(self, work: Work) -> Seen | str:
        try:
            with at_hand(work.source) as (source, path):
                return self.reader.read(source, path)
        except MediaError as error:
            return str(error)


class CaptioningActor:
    """Holds a model."""

    captioner: "Captioner"

    def begin(self, make: Callable[[], "Captioner"]) -> None:
        """Load the model; not in a constructor, where what is wrong with it would look like a death."""
        self.captioner = make()

    def work(self, works: list[Work], seen: list[Seen | str]) -> list[list[Label]]:
        """The labels of each clip."""
        readings = [Reading(work, _known(one)) for work, one in zip(works, seen, strict=True)]
        return list(self.captioner.label(readings))


def _known(read: Seen | str) -> "Future[Seen]":
    known: Future[Seen] = Future()
    if isinstance(read, str):
        known.set_exception(MediaError(read))
    else:
        known.set_result(read)
    return known
