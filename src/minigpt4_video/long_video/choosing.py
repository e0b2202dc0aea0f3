"""Whether a video is long, and opening it either way: the one function for whoever answers about videos."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from minigpt4_video.errors import UserError
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import find_said
from minigpt4_video.inference.store import file_digest
from minigpt4_video.inference.transcripts import stored_words
from minigpt4_video.inference.video import Video
from minigpt4_video.long_video.answering import Complete, LongVideo
from minigpt4_video.long_video.index import ABOUT, Index, Settings, index_key, load_index, make_index
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.media import VideoInfo, probe

Long = Literal["auto", "on", "off"]
APART = 10.0
"""Seconds between two frames; where a model's frames lie further apart, its plan does not cover the video well."""


def is_long(info: VideoInfo, frames: int) -> bool:
    """Whether so many frames, spread over the whole video, lie more than `APART` seconds apart."""
    return info.duration > frames * APART


def open_video(
    chat: VideoChat,
    path: str | Path,
    *,
    long: Long = "auto",
    index: Path | None = None,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    complete: Complete | None = None,
    subtitles: str | Path = "auto",
    subtitle_language: str | None = None,
    encoding: str | None = None,
    speech: str | Path | None = None,
    frames: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[float, float], None] = lambda seconds, whole: None,
) -> Video | LongVideo:
    """A video to ask about: a `LongVideo` where it is long, or `long` is "on"; else what `chat.open` gives.

    An index is read from the folder `index`, or made there; without one it is kept beside the store, or for as long as
    the process runs where there is no store. `tell` hears why a way was chosen. Raises as `chat.open` and `make_index`.
    """
    path = Path(path)
    info = probe(path)
    shown = frames or chat.processor.frames
    if long == "off" or (long == "auto" and index is None and not is_long(info, shown)):
        return chat.open(
            path, subtitles=subtitles, subtitle_language=subtitle_language, encoding=encoding, speech=speech,
            frames=frames,
        )  # fmt: skip
    if long == "auto" and index is None:
        tell(
            f"{info.duration / 60:.0f} minutes are long for {shown} frames, so the answer comes from the clips that "
            "the question is about (--long off looks at the whole evenly)"
        )
    if index is not None and (index / ABOUT).is_file():
        found = load_index(index)  # described by whatever model: the words are what is searched
        if found.about["content"] != _content(chat, path):
            raise UserError(f"{index} is the index of another video than {path.name}; name the right one with --index")
    else:
        found = index_video(
            chat, path, index, settings=settings, encoder=encoder, subtitles=subtitles,
            subtitle_language=subtitle_language, encoding=encoding, speech=speech, progress=progress,
        )  # fmt: skip
    return LongVideo(chat, path, info, found, encoder=encoder, frames=frames, complete=complete)


def index_video(
    chat: VideoChat,
    path: Path,
    folder: Path | None = None,
    *,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    subtitles: str | Path = "auto",
    subtitle_language: str | None = None,
    encoding: str | None = None,
    speech: str | Path | None = None,
    progress: Callable[[float, float], None] = lambda seconds, whole: None,
) -> Index:
    """Index a video with what is said in it into a folder, or a place of its own; what is begun there goes on."""
    info = probe(path)
    listen = partial(stored_words, chat.store)
    said = find_said(path, info, subtitles, subtitle_language, encoding, speech, listen)
    settings = settings or Settings()
    content = _content(chat, path)
    if folder is None:
        name = index_key(chat, content, said, settings)
        held = chat.store.folder / "index" if chat.store else Path(tempfile.mkdtemp(prefix="minigpt4-video-index-"))
        folder = held / name[:2] / name
    return make_index(
        chat, path, info, said, folder, settings=settings, encoder=encoder, content=content, progress=progress
    )


def _content(chat: VideoChat, path: Path) -> str:
    return chat.store.digest(path) if chat.store else file_digest(path)
