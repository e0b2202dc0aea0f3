"""A job in one process: clips are read ahead in child processes while the model answers."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

from minigpt4_video.labelling.captioner import Captioner
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.reading import Form, Reader, Reading, Seen
from minigpt4_video.labelling.rows import Label
from minigpt4_video.media import Limits


@contextmanager
def reading(form: Form, limits: Limits, readers: int) -> Iterator["Readings"]:
    """Readers that are ended afterwards, whatever happens."""
    threads = ThreadPoolExecutor(readers, "read")
    readings = Readings(form, limits, readers, threads)
    try:
        yield readings
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        readings.close()  # which ends what is being read
        threads.shutdown()
        readings.close()  # of one that had just begun


class Readings:
    """Several readers, for works as they come."""

    def __init__(self, form: Form, limits: Limits, readers: int, threads: ThreadPoolExecutor) -> None:
        self._all = [Reader(form, limits) for _ in range(readers)]
        self._free: SimpleQueue[Reader] = SimpleQueue()
        for reader in self._all:
            self._free.put(reader)
        self._threads = threads

    def begun(self, works: Iterable[Work]) -> Iterator[Reading]:
        """Each clip with the promise of what is seen of it; whoever takes them decides how many are read ahead."""
        for work in works:
            seen: Future[Seen] = self._threads.submit(self.read, work)
            yield Reading(work, seen)

    def read(self, work: Work) -> Seen:
        """What is seen of a clip. Raises MediaError."""
        with at_hand(work.source) as (source, path):
            reader = self._free.get()
            try:
                return reader.read(source, path)
            finally:
                self._free.put(reader)

    def close(self) -> None:
        for reader in self._all:
            reader.close()


def labels_here(
    works: Iterable[Work], captioner: Captioner, form: Form, limits: Limits, readers: int
) -> Iterator[list[Label]]:
    """The labels of each clip, in the order of the clips."""
    with reading(form, limits, readers) as readings:
        yield from captioner.label(readings.begun(works))
