"""What a benchmark asks: items read from its public files, and how their answers are scored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.sample import Flaw
from minigpt4_video.messages import Message, Part

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Item:
    """One question about one video, with the answer that counts as right."""

    id: str
    """Unique in its benchmark."""
    video: Part
    """The video as a part of a message: a file, or a folder of pictures where there is a `rate`."""
    question: str
    """What is asked, options included."""
    reference: str
    """The right answer; of a choice its letter."""
    choices: tuple[str, ...] = ()
    """The options of a multiple choice, in the order of their letters."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What answers are told apart by in reports: "kind", "duration", "language"."""
    rate: float | None = None
    """Pictures a second, where the video is a folder of them."""
    pair: str = ""
    """Id of the item that asks the same in other words."""

    @property
    def messages(self) -> list[Message]:
        """The conversation, as everything else here takes it."""
        return [{"role": "user", "content": [self.video, {"type": "text", "text": self.question}]}]

    @property
    def shows(self) -> str:
        """The same for items that show the same."""
        part = self.video
        return repr([part["path"], part.get("start"), part.get("end"), part.get("subtitles"), self.rate])


Items = Iterator[Item | Flaw]

Scoring = Literal["open", "choice", "rated"]
"""A short answer beside a reference, an option among several, or a long answer that only a judge can rate."""


class Benchmark(NamedTuple):
    read: Callable[[Place], Items]
    scoring: Scoring
    about: str
    annotations: str
    """Which files it is read from."""
    origin: str
    """Where these and the videos come from."""
    max_new_tokens: int = 64
    dimensions: tuple[str, ...] = ()
    """What a judge is asked about an answer; see `judging.DIMENSIONS`."""
    make: Callable[[Path, int | None], Path] | None = None
    """Makes the files in a folder, for so many items, where nobody names any."""


def source(name: str, annotations: Path, media: Path | None, subtitles: str | Path) -> Place:
    """Where a benchmark lies: videos in `media` or beside the annotations; subtitles "auto", "off", or a file or folder
    of them."""
    named = None if subtitles in ("auto", "off") else Path(subtitles)
    return Place(name, annotations, media_folder(annotations, media), subtitles=named)


def media_folder(annotations: Path, media: Path | None) -> Path:
    return media or (annotations if annotations.is_dir() else annotations.parent)
