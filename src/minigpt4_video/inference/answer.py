"""What a question comes back with."""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from minigpt4_video.planning import Plan


class Evidence(NamedTuple):
    """A part of a long video that an answer was drawn from."""

    start: float
    """Seconds from the beginning of the video, like `end`."""
    end: float
    score: float
    text: str


class Timings(NamedTuple):
    """Seconds spent on one answer."""

    frames: float
    """Vision tower and projection; 0 where an earlier question on the same video has paid for it."""
    first_word: float
    """From the end of that to the first word."""
    total: float


@dataclass(frozen=True)
class Answer:
    text: str
    confidence: float
    """Mean log-probability that the model gave its own tokens: 0 is certain, -0.7 is one in two for each token."""
    plan: Plan
    """What of the video the model was shown."""
    timings: Timings
    evidence: tuple[Evidence, ...] = ()
    """Empty for videos that are short enough to be seen as a whole."""
    openings: tuple[float, ...] = ()
    """Log-probability that the model gave to beginning with each of the `Question.openings` it was asked with."""
    tokens: int = 0
    """That the model gave, the end token among them."""
    cut_off: bool = False
    """Whether the longest length ended it, not the model."""

    @property
    def certainty(self) -> float:
        """The confidence as a probability for each token, between 0 and 1."""
        return math.exp(self.confidence)

    def as_json(self) -> dict[str, Any]:
        """Plain containers for `json.dumps`."""
        return {
            "answer": self.text,
            "confidence": round(self.confidence, 6),
            "plan": asdict(self.plan),
            "timings": {name: round(value, 3) for name, value in self.timings._asdict().items()},
            "evidence": [part._asdict() for part in self.evidence],
        }
