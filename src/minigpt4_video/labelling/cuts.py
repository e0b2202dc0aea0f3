"""Videos cut into clips: at the cuts of the film, or into windows of a length."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from minigpt4_video.errors import MediaError
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.reading import Reader
from minigpt4_video.labelling.sources import Source, Sources

Span = tuple[float, float]


@dataclass(frozen=True)
class Cutting:
    """How videos are cut. Without scenes and window they stay whole."""

    scenes: bool = False
    """At the cuts that PySceneDetect finds."""
    window: float | None = None
    """The longest clip, in seconds; scenes that are longer are cut as well."""
    least: float = 2.0
    """A rest that is shorter, in seconds, belongs to the clip before it; so does a scene."""

    def __bool__(self) -> bool:
        return self.scenes or self.window is not None

    def __str__(self) -> str:
        return f"{'scenes ' if self.scenes else ''}{self.window} {self.least}" if self else ""


def cut(sources: Iterable[Source], cutting: Cutting, reader: Reader) -> Sources:
    """The clips of a collection. A video that cannot be looked into stays whole, and tells why when it is labelled."""
    for source in sources:
        if source.unfit or not cutting:
            yield source
            continue
        try:
            with at_hand(source) as (here, path):
                whole = reader.span(here, path)
                found = reader.scenes(here, path) if cutting.scenes else []
        except MediaError:
            yield source
            continue
        spans = joined(whole, found, cutting.least)
        if cutting.window is not None:
            spans = [part for span in spans for part in windows(span, cutting.window, cutting.least)]
        if spans == [whole]:
            yield source
            continue
        for start, end in spans:
            yield source._replace(start=round(start, 3), end=round(end, 3))


def joined(whole: Span, begins: Sequence[float], least: float) -> list[Span]:
    """The scenes of a clip by when they begin, in seconds; none is shorter than `least`, and together they are all."""
    begin, end = whole
    inner: list[float] = []
    for time in sorted(begins):
        if time - (inner[-1] if inner else begin) >= least and end - time >= least:
            inner.append(time)
    marks = [begin, *inner, end]
    return list(pairwise(marks))


def windows(span: Span, length: float, least: float) -> Iterator[Span]:
    """A clip in parts of `length` seconds. A rest shorter than `least` belongs to the part before it."""
    begin, end = span
    count = max(1, math.ceil((end - begin) / length - 1e-9))
    if count > 1 and end - begin - (count - 1) * length < least:
        count -= 1
    for number in range(count):
        yield begin + number * length, end if number == count - 1 else begin + (number + 1) * length
