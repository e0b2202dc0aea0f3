"""What a job writes: one row for every row of the plan, with all that is needed to make it again."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from minigpt4_video.labelling.manifest import Row
from minigpt4_video.labelling.requests import Asked
from minigpt4_video.labelling.signals import Signals
from minigpt4_video.labelling.sources import Source

Status = Literal["success", "truncated", "skipped", "error"]
STATUSES: tuple[Status, ...] = ("success", "truncated", "skipped", "error")
Stage = Literal["", "plan", "read", "caption", "check"]


@dataclass
class Label:
    """One row. Every row of a plan ends in exactly one status; without success it has a stage and a reason."""

    number: int
    """Of the row in the plan."""
    id: str
    video: str
    """The collection's name for it."""
    start: float | None
    end: float | None
    style: str
    language: str
    prompt: str
    """The words that the model was asked."""
    status: Status
    file: str = ""
    """The file as it is called from the folder of the videos; "" in jobs that older versions planned."""
    stage: Stage = ""
    error: str = ""
    text: str = ""
    data: str = ""
    """The object that a schema asked for, as JSON."""
    confidence: float | None = None
    """Mean log-probability of the answer's tokens."""
    tokens: int = 0
    notes: list[str] = field(default_factory=list)
    """What looks wrong about the text."""
    frames: list[float] = field(default_factory=list)
    """When the frames that the model saw are shown, in seconds from the first of the file; of an answer with evidence
    they are in its parts."""
    evidence: str = ""
    """Of a long clip the parts that an answer was drawn from, as JSON: a list of [start, end, score]."""
    subtitles: str = "off"
    """"auto", or "off" where the model was shown no words."""
    said_in: str = ""
    """Where the words were found."""
    said: str = ""
    """The words that the model was shown."""
    prompt_tokens: int = 0
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    motion: float | None = None
    sharpness: float | None = None
    black: float | None = None
    frozen: float | None = None
    frame_hash: str = ""
    agreement: float | None = None
    """Likeness of text and frames by a model of both, where one was given."""
    seconds: float = 0.0
    """From the first look at the frames until the last token."""
    model: str = ""
    revision: str = ""
    """Digest of the weights."""
    made_by: str = ""
    """This package's version."""
    attempt: int = 0

    @classmethod
    def begun(cls, row: Row, source: Source, asked: Asked, status: Status) -> "Label":
        place = (source.name, source.start, source.end)
        return cls(row.number, row.id, *place, asked.style, asked.language, asked.text, status, source.file)

    def measured(self, found: Signals) -> None:
        for name, value in found._asdict().items():
            setattr(self, name, value)


def label_schema() -> Any:
    """Of the parquet files."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int32()
    kinds = {
        "number": pa.int64(), "start": real, "end": real, "confidence": real, "tokens": whole,
        "notes": pa.list_(text), "frames": pa.list_(real), "prompt_tokens": whole, "duration": real, "width": whole,
        "height": whole, "fps": real, "motion": real, "sharpness": real, "black": real, "frozen": real,
        "agreement": real, "seconds": real, "attempt": whole,
    }  # fmt: skip
    return pa.schema([(name, kinds.get(name, text)) for name in Label.__dataclass_fields__])


def as_table(labels: Iterable[Label]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(label) for label in labels], schema=label_schema())
