"""The one schema of a conversation: a question on the command line, a training sample, a server request and a benchmark
item are all a list of `{"role": ..., "content": ...}`.

A content is a text, or a list of parts:

* `{"type": "text", "text": str}`
* `{"type": "image", "path" | "url" | "image": ...}`: exactly one source
* `{"type": "video", "path" | "url" | "frames": ..., ...}`: exactly one source, and any of `start`, `end` (seconds),
  `num_frames`, `subtitles` ("auto", "off", a path, or cues `{"start", "end", "text"}`) and, beside `frames`, their
  `times` (seconds)
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from os import PathLike
from typing import Any, TypeGuard

from minigpt4_video.errors import UserError

Message = dict[str, Any]
Part = dict[str, Any]

LARGEST = 1e9
"""Seconds that no video lasts."""
ROLES = ("system", "user", "assistant")
SOURCES = {"image": ("path", "url", "image"), "video": ("path", "url", "frames")}
OPTIONS = {"image": (), "video": ("start", "end", "num_frames", "subtitles", "times")}


def question(video: object, text: str, **video_options: object) -> list[Message]:
    """The conversation that asks `text` about a video: a path, a URL or frames, each uint8 `(height, width, 3)`.

    `video_options` are the optional keys of a video part. Raises `UserError` where the result is not a valid question.
    """
    if isinstance(video, (str, PathLike)):
        address = str(video)
        source: Part = {"url" if address.startswith(("http://", "https://")) else "path": address}
    else:
        source = {"frames": video}
    part: Part = {"type": "video", **source, **video_options}
    messages: list[Message] = [{"role": "user", "content": [part, {"type": "text", "text": text}]}]
    check_messages(messages)
    return messages


def answered(messages: Sequence[Message], text: str) -> list[Message]:
    """The same conversation with `text` as the assistant's next turn."""
    return [*messages, {"role": "assistant", "content": [{"type": "text", "text": text}]}]


def parts(message: Message) -> list[Part]:
    """A message's content as parts, also where it is written as a plain text."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(message: Message) -> str:
    """The words of a message: its text parts, one line each."""
    return "\n".join(part["text"] for part in parts(message) if part["type"] == "text")


def media_parts(messages: Sequence[Message]) -> Iterator[Part]:
    """Every picture and video of a conversation, in the order in which the model meets them."""
    for message in messages:
        yield from (part for part in parts(message) if part["type"] != "text")


def check_messages(messages: object) -> None:
    """Raises `UserError`, naming the message and what is wrong with it, unless `messages` keep to the schema.

    An optional system message comes first; then user and assistant take turns, beginning with the user.
    """
    if not _is_list(messages) or not messages:
        raise UserError('A conversation must be a list of at least one message {"role": ..., "content": ...}.')
    turns = 0
    for index, message in enumerate(messages):
        where = f"Message {index + 1}"
        if not isinstance(message, Mapping):
            raise UserError(f'{where} is {_kind(message)}; write it as {{"role": ..., "content": ...}}.')
        _check_keys(message, ("role", "content"), (), where)
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"{where} has the role {role!r}; use one of {', '.join(ROLES)}.")
        if role == "system":
            if index:
                raise UserError(f"{where} is a system message; only the first message can be one.")
        else:
            expected = ROLES[1 + turns % 2]
            if role != expected:
                raise UserError(f"{where} is by the {role} where the {expected} should speak; let the two take turns.")
            turns += 1
        _check_content(message["content"], role, where)
    if not turns:
        raise UserError("The conversation has a system message only; add a user message with the question.")


def _check_content(content: object, role: str, where: str) -> None:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not _is_list(content) or not content:
        raise UserError(f"{where} needs as content a text or a list of at least one part, not {_kind(content)}.")
    for index, part in enumerate(content):
        place = f"{where}, part {index + 1}"
        if not isinstance(part, Mapping):
            raise UserError(f'{place} is {_kind(part)}; write it as {{"type": "text" | "image" | "video", ...}}.')
        kind = part.get("type")
        if kind == "text":
            _check_text(part, role, place)
        elif kind in ("image", "video"):
            if role != "user":
                raise UserError(f"{place} is {_article(kind)} by the {role}; only the user shows pictures and videos.")
            _check_media(part, kind, place)
        else:
            raise UserError(f"{place} has the type {kind!r}; use text, image or video.")


def _check_text(part: Mapping[str, Any], role: str, place: str) -> None:
    _check_keys(part, ("type", "text"), (), place)
    if not isinstance(part["text"], str):
        raise UserError(f"{place} has {_kind(part['text'])} as its text; write a string.")
    if not part["text"].strip():
        what = {"user": "question", "assistant": "answer", "system": "instruction"}[role]
        raise UserError(f"{place}: the {what} is empty; write some words.")


def _check_media(part: Mapping[str, Any], kind: str, place: str) -> None:
    sources = [key for key in SOURCES[kind] if key in part]
    if len(sources) != 1:
        given = " and ".join(sources) or "none"
        raise UserError(f"{place} needs exactly one of {', '.join(SOURCES[kind])} to say which {kind}; it has {given}.")
    source = sources[0]
    _check_keys(part, ("type", source), OPTIONS[kind], place)
    value = part[source]
    if source == "url" and not (isinstance(value, str) and value.startswith(("http://", "https://"))):
        raise UserError(f"{place} has the url {value!r}; give an address that begins with http:// or https://.")
    if source == "path" and (not isinstance(value, (str, PathLike)) or not str(value)):
        raise UserError(f"{place} has the path {value!r}; give the name of a file.")
    if source == "image" and value is None:
        raise UserError(f"{place} has no picture in its image.")
    if source == "frames" and (not hasattr(value, "__len__") or isinstance(value, str) or not len(value)):
        raise UserError(f"{place} has no frames; give at least one, each (height, width, 3) of bytes.")
    if kind == "video":
        _check_video_options(part, place)


def _check_video_options(part: Mapping[str, Any], place: str) -> None:
    for key in ("start", "end"):
        if part.get(key) is not None and (not _is_number(part[key]) or not 0 <= part[key] < float("inf")):
            raise UserError(f"{place} has the {key} {part[key]!r}; give seconds from the video's beginning.")
    start, end = part.get("start"), part.get("end")
    if end is not None and end <= (start or 0):
        raise UserError(f"{place} ends at {end} s, not after its start at {start or 0} s.")
    frames = part.get("num_frames")
    if frames is not None and (not isinstance(frames, int) or isinstance(frames, bool) or frames < 1):
        raise UserError(f"{place} has the num_frames {frames!r}; give a whole number of at least 1.")
    if "times" in part:
        times = part["times"]
        if "frames" not in part:
            raise UserError(f"{place} has times without frames; times belong to frames that are given.")
        if not hasattr(times, "__len__") or len(times) != len(part["frames"]):
            raise UserError(f"{place} needs one time for each of its {len(part['frames'])} frames.")
        if not all(map(_is_number, times)):
            raise UserError(f"{place} has times that are no seconds; give a number for each frame.")
    _check_subtitles(part.get("subtitles"), place)


def _check_subtitles(subtitles: object, place: str) -> None:
    if subtitles is None or (isinstance(subtitles, (str, PathLike)) and str(subtitles)):
        return
    if not _is_list(subtitles):
        raise UserError(f"{place} has {_kind(subtitles)} as subtitles; give auto, off, a file's name or cues.")
    for index, cue in enumerate(subtitles):
        where = f"{place}, cue {index + 1}"
        if not isinstance(cue, Mapping):
            raise UserError(f'{where} is {_kind(cue)}; write it as {{"start": s, "end": s, "text": ...}}.')
        _check_keys(cue, ("start", "end", "text"), (), where)
        if not _is_number(cue["start"]) or not _is_number(cue["end"]) or not isinstance(cue["text"], str):
            raise UserError(f"{where} needs numbers of seconds as start and end and a string as text.")


def _check_keys(value: Mapping[str, Any], needed: tuple[str, ...], allowed: tuple[str, ...], where: str) -> None:
    for key in needed:
        if key not in value:
            raise UserError(f"{where} lacks {key!r}.")
    unknown = [str(key) for key in value if key not in needed and key not in allowed]
    if unknown:
        raise UserError(f"{where} has the unknown key {unknown[0]!r}; it takes {', '.join((*needed, *allowed))}.")


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_number(value: object) -> TypeGuard[float]:
    """Of seconds, or of any measure that is not beyond all reason."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(-LARGEST < value < LARGEST)  # type: ignore[operator]


def _article(kind: str) -> str:
    return "an image" if kind == "image" else "a video"


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"
