"""What is taken from a video file before a model sees it: frames, a text for each, and the plan among them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.errors import MediaError, UserError
from minigpt4_video.instructions import CAPTION_STYLE
from minigpt4_video.media import (
    Clip,
    Cue,
    Recogniser,
    SubtitleSource,
    VideoInfo,
    align,
    lines,
    probe,
    read_clip,
    read_frames,
    read_subtitles,
    subtitle_sources,
    transcribe,
)
from minigpt4_video.messages import Message, question
from minigpt4_video.planning import Plan, too_many

logger = logging.getLogger(__name__)

Listen = Callable[[Path, Recogniser, str | None], list[Cue]]


class Said(NamedTuple):
    """The subtitles of a video and where they come from, or why there are none."""

    cues: Sequence[Cue] = ()
    source: str = ""
    missing: str = ""


class Footage:
    """A video's sampled frames with a text for each, before a plan chooses among them. Needs no weights."""

    def __init__(
        self, path: Path, info: VideoInfo, clip: Clip, texts: Sequence[str], said: "Said", asked: int | None
    ) -> None:
        self.path = path
        self.info = info
        self.clip = clip
        """At the size the model wants."""
        self.texts = list(texts)
        """One a frame, "" for none."""
        self.cues = said.cues
        """All subtitles of the file, with their times."""
        self.said_in = said.source
        """Where the subtitles were found, in words; "" without."""
        self.unsaid = said.missing
        """Why there are none, in words; "" with subtitles."""
        self.asked = asked
        """The number of frames that was asked for by name."""

    def conversation(self, text: str) -> list[Message]:
        """A question about this video as messages, the file by its name."""
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
            raise too_many(len(self.clip.frames), plan.frames, plan.window)
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
    subtitles: str | Path | Sequence[Cue] = "auto",
    subtitle_language: str | None = None,
    encoding: str | None = None,
    speech: str | Path | None = None,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    read: Callable[..., Clip] = read_clip,
    listen: Listen = transcribe,
) -> Footage:
    """Sample a video as `processor` wants it, by `read`, and hear it by `listen`.

    `subtitles` is "auto", "off", a file or cues; `start` and `end` are seconds from the first frame; `frames` are uint8
    `(frames, image_size, image_size, 3)` in `Footage.clip`, as many as the model's own without a number.

    Raises MediaError, UserError, PlanError, and ModelError for a speech model that cannot be used.
    """
    path = Path(path)
    if frames is not None and frames < 1:
        raise UserError(f"{frames} frames were asked for; ask for at least 1")
    info = probe(path)
    if frames is not None:
        most = (processor.window - processor.answer_reserve) // processor.tokens_per_frame
        if frames > most:
            raise too_many(frames, most, processor.window)
    said = find_said(path, info, subtitles, subtitle_language, encoding, speech, listen)
    size = (processor.image_size, processor.image_size)
    clip = read(path, frames or processor.frames, start=start, end=end, size=size)
    cues = [cue for cue in said.cues if cue.end > (start or 0.0) and (end is None or cue.start < end)]
    return Footage(path, info, clip, align(cues, clip.times), said, frames)


def find_said(
    path: Path,
    info: VideoInfo,
    subtitles: str | Path | Sequence[Cue] = "auto",
    language: str | None = None,
    encoding: str | None = None,
    speech: str | Path | None = None,
    listen: Listen = transcribe,
) -> Said:
    """The subtitles of a video as `take_footage` finds them."""
    if subtitles == "off":
        return Said(missing="none wanted")
    if not isinstance(subtitles, (str, Path)):
        return Said(subtitles, "cues") if subtitles else Said(missing="none given")
    if subtitles != "auto":
        return Said(read_subtitles(subtitles, encoding=encoding, fps=info.fps), Path(subtitles).name)
    for source in subtitle_sources(path, language):
        try:
            return Said(read_subtitles(source.path, source.track, encoding, info.fps), _name(source))
        except MediaError as error:
            if encoding is not None:  # named by the person, who may have mistaken it
                raise
            logger.warning("%s", error)
    return _heard(path, info, language, speech, listen)


def _name(source: SubtitleSource) -> str:
    if source.track is None:
        return source.path.name
    return f"track {source.track}" + (f" ({source.language})" if source.language else "")


def _heard(path: Path, info: VideoInfo, language: str | None, speech: str | Path | None, listen: Listen) -> Said:
    """What is said in a video, where it has sound and a recogniser is at hand."""
    if not info.has_audio:
        return Said(missing="no file beside the video, no track in it, and no sound")
    if speech == "off":
        return Said(missing="no file beside the video and no track in it")
    from minigpt4_video.inference.speech import find_recogniser

    recogniser = find_recogniser(speech)
    if recogniser is None:
        return Said(missing="no file beside the video, no track in it, and no speech model (--speech names one)")
    words = listen(path, recogniser, language)
    if not words:
        return Said(missing=f"no words heard ({recogniser.name})")
    return Said(lines(words), f"speech ({recogniser.name})")
