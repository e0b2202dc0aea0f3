"""What a record shows, read from its files: the step from `Record` to what the processor takes."""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from minigpt4_video.errors import MediaError
from minigpt4_video.media import Clip, Cue, align, find_subtitles, probe, read_clip, read_subtitles
from minigpt4_video.media.stills import read_still
from minigpt4_video.messages import Message, Part, media_parts

logger = logging.getLogger(__name__)


Picture = np.ndarray[Any, np.dtype[np.uint8]]


def read_picture(path: str, size: int, content: bytes | None = None) -> Picture:
    """A picture in a file, or in the `content` of one, as `(size, size, 3)` uint8 RGB. Raises MediaError."""
    return np.asarray(read_still(path, content).resize((size, size), Image.Resampling.BICUBIC))


def shown(
    messages: Sequence[Message],
    frames: int,
    size: int,
    *,
    clip: Callable[..., Clip] = read_clip,
    picture: Callable[[str, int, bytes | None], Any] = read_picture,
) -> list[Message]:
    """The same conversation with pixels and texts in the place of files.

    A video becomes a `Clip` of at most `frames` frames `(size, size)` with one text a frame, a picture an array
    `(size, size, 3)` uint8 RGB; `clip` and `picture` read them, or find what was kept of them. Raises MediaError,
    whose message names the file.
    """

    def part_of(part: Part) -> Part:
        if part["type"] == "text":
            return part
        path = part["path"]
        member = tar_member(path)
        if part["type"] == "image":
            content = None if member is None else _content(*member)
            return {"type": "image", "image": picture(path, size, content)}
        if member is None:
            return _video(part, path, frames, size, clip)
        with tempfile.NamedTemporaryFile(prefix="minigpt4-video-") as aside:  # a decoder needs a file
            aside.write(_content(*member))
            aside.flush()
            return _video(part, aside.name, frames, size, clip)

    filled = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [part_of(part) for part in content]
        filled.append({"role": message["role"], "content": content})
    return filled


def media_key(messages: Sequence[Message]) -> str:
    """The same for records that show the same: files, spans and subtitles, in their order; "" for none."""
    return "\n".join(
        repr([part["path"], part.get("start"), part.get("end"), part.get("subtitles")])
        for part in media_parts(messages)
    )


def _video(part: Part, path: str, frames: int, size: int, read: Callable[..., Clip]) -> Part:
    start, end = part.get("start") or 0.0, part.get("end")
    clip = read(path, part.get("num_frames") or frames, start=part.get("start"), end=part.get("end"), size=(size, size))
    cues = [cue for cue in _cues(part.get("subtitles"), path) if cue.end > start and (end is None or cue.start < end)]
    return {"type": "video", "frames": clip, "subtitles": align(cues, clip.times)}


def _cues(subtitles: Any, path: str) -> list[Cue]:
    """Cues with the file's own times. Where found ones cannot be read there are none; named ones must be readable."""
    if subtitles is None or subtitles == "off":
        return []
    if not isinstance(subtitles, str):
        return [Cue(float(cue["start"]), float(cue["end"]), cue["text"]) for cue in subtitles]
    if subtitles != "auto":
        return read_subtitles(subtitles, fps=_rate(path, subtitles))
    found = find_subtitles(path)
    if found is None:
        return []
    try:
        return read_subtitles(found.path, track=found.track, fps=_rate(path, str(found.path)))
    except MediaError as error:
        logger.warning("%s", error)
        return []


def _rate(video: str, subtitles: str) -> float | None:
    """Frames a second, for the kind of subtitles that counts them."""
    return probe(video).fps if subtitles.lower().endswith(".sub") else None


def _content(archive: str, offset: int, size: int) -> bytes:
    try:
        with open(archive, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise MediaError(f"{archive} cannot be read: {error.strerror or error}") from error
    if len(content) < size:
        raise MediaError(f"{archive} ends within a file that it holds; copy or download it again")
    return content


def tar_member(path: str) -> tuple[str, int, int] | None:
    """Archive, offset and size in bytes of a path such as `shard.tar:512:2048`; None for a file of its own."""
    archive, *numbers = path.rsplit(":", 2)
    if not archive or len(numbers) < 2 or not all(map(str.isdecimal, numbers)) or os.path.exists(path):
        return None
    return archive, int(numbers[0]), int(numbers[1])
