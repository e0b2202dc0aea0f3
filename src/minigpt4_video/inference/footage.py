"""What is taken from a video file before a model sees it: frames, a text for each, and the plan among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4_video.errors import PlanError, UserError
from minigpt4_video.instructions import CAPTION_STYLE
from minigpt4_video.media import (
    Clip,
    Cue,
    VideoInfo,
    align,
    find_subtitles,
    probe,
    read_clip,
    read_frames,
    read_subtitles,
)
from minigpt4_video.messages import Message, question
from minigpt4_video.planning import Plan


class Footage:
    """A video's sampled frames with a text for each, before a plan chooses among them. Needs no weights."""

    def __init__(
        self, path: Path, info: VideoInfo, clip: Clip, texts: Sequence[str], said_in: str, asked: int | None
    ) -> None:
        self.path = path
        self.info = info
        self.clip = clip
        """At the size the model wants."""
        self.texts = list(texts)
        """One a frame, "" for none."""
        self.said_in = said_in
        """Where the subtitles were found, in words; "" without."""
        self.asked = asked
        """The number of frames that was asked for by name."""

    def conversation(self, text: str) -> list[Message]:
        return question(self.path, text)

    def fill(self, messages: Sequence[Message]) -> list[Message]:
        """The same conversation with the frames that were taken in the place of the file."""
        shown = {"type": "video", "frames": self.clip, "subtitles": self.texts}
        filled = []
        for message in messages:
            content = message["content"]
            if not isinstance(content, str):
                content = [shown if part["type"] == "video" else part for part in content]
            filled.append({"role": message["role"], "content": content})
        return filled

    def prepare(self, processor: Any, messages: Sequence[Message]) -> Any:
        """Prompt and plan. Raises PlanError when frames that were asked for by name do not fit."""
        prepared = processor.prepare(self.fill(messages))
        plan: Plan = prepared.plans[0]
        if self.asked is not None and plan.frames < len(self.clip.frames):
            raise _too_many(len(self.clip.frames), plan.frames, plan.window)
        return prepared

    def plan(self, processor: Any, text: str | None = None) -> Plan:
        """What a model would be shown with this question; None stands for a short one."""
        plan: Plan = self.prepare(processor, self.conversation(text or CAPTION_STYLE["en"]["brief"])).plans[0]
        return plan

    def facts(self) -> str:
        """One line about the file."""
        info = self.info
        sound = "with sound" if info.has_audio else "without sound"
        said = f"subtitles from {self.said_in}" if self.said_in else "no subtitles"
        return (
            f"{info.duration:.1f} s, {info.width} x {info.height}, {info.fps:.4g} frames a second, "
            f"{info.codec}, {sound}, {said}"
        )

    def thumbnails(self, width: int) -> Clip:
        """The same frames again, `width` pixels wide and in their own proportions: for people to look at."""
        info = self.info
        height = max(1, round(width * info.height / info.width))
        return read_frames(self.path, self.clip.times, size=(height, width))


def take_footage(
    path: str | Path,
    processor: Any,
    *,
    subtitles: str | Path = "auto",
    encoding: str | None = None,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> Footage:
    """Sample a video as `processor` wants it. Raises MediaError, UserError, PlanError."""
    path = Path(path)
    if frames is not None and frames < 1:
        raise UserError(f"{frames} frames were asked for; ask for at least 1")
    info = probe(path)
    cues, said_in = _cues(path, subtitles, encoding)
    if frames is not None:
        most = (processor.window - processor.answer_reserve) // processor.tokens_per_frame
        if min(frames, info.frames or frames) > most:
            raise _too_many(frames, most, processor.window)
    size = (processor.image_size, processor.image_size)
    clip = read_clip(path, frames or processor.frames, start=start, end=end, size=size)
    cues = [cue for cue in cues if cue.end > (start or 0.0) and (end is None or cue.start < end)]
    return Footage(path, info, clip, align(cues, clip.times), said_in, frames)


def _too_many(asked: int, held: int, window: int) -> PlanError:
    return PlanError(
        f"{asked} frames were asked for, but the context of {window} tokens holds {held} of them beside the question; "
        f"ask for at most {held}"
    )


def _cues(path: Path, subtitles: str | Path, encoding: str | None) -> tuple[list[Cue], str]:
    """The cues of a video and where they were found."""
    if subtitles == "off":
        return [], ""
    if subtitles != "auto":
        return list(read_subtitles(subtitles, encoding=encoding)), Path(subtitles).name
    source = find_subtitles(path)
    if source is None:
        return [], ""
    cues = list(read_subtitles(source.path, track=source.track, encoding=encoding))
    if source.track is None:
        return cues, source.path.name
    return cues, f"track {source.track}" + (f" ({source.language})" if source.language else "")
