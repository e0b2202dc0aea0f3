"""What stops a job: too many failures, or a model that says the same of everything."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.rows import Label

LOOKED_AT = 200
"""Clips that the alarms look back on."""
LEAST = 50
"""Before so many clips no alarm rings."""


class Alarms:
    """Looks at labels as they come. Raises LabellingError where more than a share of them failed, or are alike.

    Captions count as alike where their words are the same and the frames are not. Questions and objects may well have
    the same answer everywhere. A share of 1 means no alarm.
    """

    def __init__(self, failures: float, alike: float, is_caption: Callable[[Label], bool]) -> None:
        self.failures = failures
        self.alike = alike
        self._is_caption = is_caption
        self._failed: deque[bool] = deque(maxlen=LOOKED_AT)
        self._said: dict[str, deque[tuple[str, str]]] = defaultdict(lambda: deque(maxlen=LOOKED_AT))

    def look(self, labels: list[Label], failed_before: bool = False) -> None:
        """At the labels of one clip. One that failed before is no sign where it fails again: it was known to."""
        tried = [label for label in labels if label.status != "skipped"]
        if not tried:
            return
        if not failed_before:
            self._count(tried)
        for label in tried:
            if label.status == "success" and self._is_caption(label):
                self._hear(label)

    def _count(self, tried: list[Label]) -> None:
        self._failed.append(all(label.status == "error" for label in tried))
        failed = sum(self._failed)
        if len(self._failed) >= LEAST and failed > self.failures * len(self._failed):
            last = f" (the last: {tried[-1].error})" if self._failed[-1] else ""
            raise LabellingError(
                f"{failed} of the last {len(self._failed)} clips failed{last}; what is"
                " done is kept: see the reasons, then run again, with a higher --max-failures if nothing is to mend"
            )

    def _hear(self, label: Label) -> None:
        said = self._said[f"{label.style}/{label.language}"]
        if all(frames != label.frame_hash for _, frames in said):
            said.append((label.text, label.frame_hash))
        if len(said) < LEAST or self.alike >= 1:
            return
        text, count = Counter(text for text, _ in said).most_common(1)[0]
        if count > self.alike * len(said):
            raise LabellingError(
                f"{count} of the last {len(said)} captions ({label.style}, {label.language}) of videos that look"
                f" different are the same, {text!r:.100}: the model does not tell them apart; take another model, or"
                " run again with a higher --max-alike if they are that alike"
            )
