"""Answers by any model behind an OpenAI-compatible address, so that others are measured on the same items.

It is sent the same frames, chosen by the same rule, as pictures, with the subtitles between them as text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt4_video.data.endpoint import Endpoint
from minigpt4_video.errors import EndpointError, UserError
from minigpt4_video.evaluation.answering import Settings, failed, row_of
from minigpt4_video.evaluation.files import Row
from minigpt4_video.evaluation.items import Item
from minigpt4_video.inference.contact_sheet import clock
from minigpt4_video.inference.report import data_url
from minigpt4_video.media import (
    Clip,
    Cue,
    align,
    find_subtitles,
    probe,
    read_clip,
    read_picture_folder,
    read_subtitles,
)

FRAMES = 8
WIDTH = 448
"""Pixels of the pictures that are sent."""
PATIENCE = 5
"""After so many questions in a row that were not answered, the endpoint is taken for gone."""


class EndpointAnswerer:
    def __init__(self, endpoint: Endpoint, settings: Settings, parallel: int = 4) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.parallel = parallel

    def identity(self) -> Mapping[str, Any]:
        settings = asdict(self.settings) | {"frames": self.settings.frames or FRAMES}
        return {"model": self.endpoint.model, "endpoint": self.endpoint.address, "settings": settings}

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        """Raises EndpointError where the endpoint is gone; what it has answered before has been given."""
        gone = 0
        with ThreadPoolExecutor(self.parallel, "peer") as pool:
            for group in groups:
                try:
                    shown, about = self._shown(group[0])
                except UserError as error:
                    yield [failed(item, error) for item in group]
                    continue
                rows = list(pool.map(lambda item, shown=shown, about=about: self._ask(item, shown, about), group))
                yield rows
                for row in rows:
                    gone = gone + 1 if "error" in row else 0
                    if gone >= PATIENCE:
                        raise EndpointError(f"{gone} questions in a row were not answered, the last: {row['error']}")

    def _ask(self, item: Item, shown: list[dict[str, Any]], about: Row) -> Row:
        content = [*shown, {"type": "text", "text": item.question}]
        try:
            said = self.endpoint.ask([{"role": "user", "content": content}])
        except EndpointError as error:
            return failed(item, error)
        prompt = "".join(part.get("text", "<image>") for part in content)
        return row_of(item) | {"answer": said.strip(), "prompt": prompt} | about

    def _shown(self, item: Item) -> tuple[list[dict[str, Any]], Row]:
        """The parts of a message that show an item's video, and what to note of it. Raises UserError."""
        if self.settings.shown == "nothing":
            return [], {}
        clip, cues, source = _read(item, self.settings)
        parts: list[dict[str, Any]] = []
        for frame, text in zip(clip.frames, align(cues, clip.times), strict=True):
            picture = frame * 0 if self.settings.shown == "no frames" else frame
            parts.append({"type": "image_url", "image_url": {"url": data_url(picture, WIDTH)}})
            if text:
                parts.append({"type": "text", "text": f"[said here: {text}]\n"})
        note = f"{len(clip.frames)} frames of a video of {clock(clip.duration)}, in their order.\n"
        times = [round(float(time), 3) for time in clip.times]
        about = {"times": times, "duration": round(clip.duration, 3), "subtitles": source}
        return [{"type": "text", "text": note}, *parts], about


def _read(item: Item, settings: Settings) -> tuple[Clip, list[Cue], str]:
    """Frames, subtitles and where these come from. Raises MediaError."""
    part = item.video
    path, start, end = part["path"], part.get("start"), part.get("end")
    count = settings.frames or FRAMES
    if item.rate is not None:
        clip = read_picture_folder(path, count, rate=item.rate, rule=settings.rule, start=start, end=end)
    else:
        clip = read_clip(path, count, rule=settings.rule, start=start, end=end)
    given = part.get("subtitles") or "off"
    cues: Sequence[Cue] = []
    source = ""
    if settings.shown == "no subtitles" or given == "off":
        pass
    elif not isinstance(given, (str, Path)):
        cues, source = [Cue(float(cue["start"]), float(cue["end"]), cue["text"]) for cue in given], "cues"
    elif given != "auto":
        cues, source = read_subtitles(given, fps=item.rate or probe(path).fps), Path(given).name
    elif item.rate is None and (found := find_subtitles(path)) is not None:
        cues, source = read_subtitles(found.path, found.track, fps=probe(path).fps), found.path.name
    return clip, [cue for cue in cues if cue.end > (start or 0.0) and (end is None or cue.start < end)], source
