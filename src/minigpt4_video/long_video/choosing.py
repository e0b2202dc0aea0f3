"""Whether a video is long, and opening it either way: the one function for whoever answers about videos."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from minigpt4_video.errors import UserError
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import Said, find_said
from minigpt4_video.inference.store import Store, file_digest
from minigpt4_video.inference.transcripts import stored_words
from minigpt4_video.inference.video import Video
from minigpt4_video.long_video.answering import Complete, LongVideo
from minigpt4_video.long_video.index import ABOUT, Index, Settings, cues_between, index_key, load_index, make_index
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.media import Cue, VideoInfo, probe

Long = Literal["auto", "on", "off"]
APART = 10.0
"""Seconds between two frames; where a model's frames lie further apart, its plan does not cover the video well."""


def is_long(info: VideoInfo, frames: int, start: float | None = None, end: float | None = None) -> bool:
    """Whether so many frames, spread over the whole video or a part of it, lie more than `APART` seconds apart."""
    return min(info.duration, info.duration if end is None else end) - (start or 0.0) > frames * APART


def takes_clips(
    chat: VideoChat,
    info: VideoInfo,
    long: Long,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> bool:
    """Whether answers about a video, or a part of it, come from its clips. Who asks for fewer frames than the model
    takes means those, and is not given clips for it."""
    return long == "on" or (long == "auto" and is_long(info, max(frames or 0, chat.processor.frames), start, end))


def why_clips(info: VideoInfo, frames: int) -> str:
    """What to tell who did not ask for clips."""
    return (
        f"{info.duration / 60:.0f} minutes are long for {frames} frames, so the answer comes from the clips that the "
        "question is about (--long off looks at the whole evenly)"
    )


def open_video(
    chat: VideoChat,
    path: str | Path,
    *,
    long: Long = "auto",
    index: Path | None = None,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    complete: Complete | None = None,
    subtitles: str | Path | Sequence[Cue] = "auto",
    subtitle_language: str | None = None,
    encoding: str | None = None,
    speech: str | Path | None = None,
    frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[float, float], None] = lambda seconds, whole: None,
) -> Video | LongVideo:
    """A video, or a part of it, to ask about: a `LongVideo` where it is long or `long` is "on", else as `chat.open`.

    An index is read from the folder `index`, or made there; without one it is kept beside the store, or for as long as
    the process runs where there is no store. `tell` hears why a way was chosen. Raises as `chat.open` and `make_index`.
    """
    path = Path(path)
    info = probe(path)
    shown = frames or chat.processor.frames
    if long == "off" or (index is None and not takes_clips(chat, info, long, frames, start, end)):
        return chat.open(
            path, subtitles=subtitles, subtitle_language=subtitle_language, encoding=encoding, speech=speech,
            frames=frames, start=start, end=end,
        )  # fmt: skip
    if long == "auto" and index is None:
        tell(why_clips(info, shown))
    if index is not None and (index / ABOUT).is_file():
        found = load_index(index)  # described by whatever model: the words are what is searched
        if found.about["content"] != _content(chat, path):
            raise UserError(f"{index} is the index of another video than {path.name}; name the right one with --index")
        if encoder is not None and not found.has_vectors_of(encoder):
            raise UserError(
                f"{index} has no sentence vectors by {encoder.name}; make them by the command that made the index with "
                f"--sentences {encoder.name}, or leave --sentences away"
            )
        if subtitles != "auto" or subtitle_language or encoding or speech:
            said = find_said(
                path, info, subtitles, subtitle_language, encoding, speech, partial(stored_words, chat.store)
            )
            _check_said(found, said, index)
    else:
        found = index_video(
            chat, path, index, settings=settings, encoder=encoder, subtitles=subtitles,
            subtitle_language=subtitle_language, encoding=encoding, speech=speech, progress=progress,
        )  # fmt: skip
    return LongVideo(chat, path, info, found, encoder=encoder, frames=frames, start=start, end=end, complete=complete)


def index_video(
    chat: VideoChat,
    path: Path,
    folder: Path | None = None,
    *,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    subtitles: str | Path | Sequence[Cue] = "auto",
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
        folder = index_place(chat.store, index_key(chat, content, said, settings))
    found = make_index(
        chat, path, info, said, folder, settings=settings, encoder=encoder, content=content, progress=progress
    )
    os.utime(folder / ABOUT)  # the store lets go of what was not used for long
    return found


def index_place(store: Store | None, key: str) -> Path:
    """The folder of an index in the store; without one a new folder among the temporary files."""
    if store is not None:
        return store.folder / "index" / key[:2] / key
    folder = Path(tempfile.mkdtemp(prefix="minigpt4-video-index-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _check_said(index: Index, said: Said, folder: Path) -> None:
    """Raises UserError where an index was made with other subtitles than those that were asked for."""
    if any(clip.cues != cues_between(said.cues, clip.start, clip.end) for clip in index.clips):
        held = index.about["subtitles"] or "no subtitles"
        raise UserError(
            f"{folder} was made with {held}, not with {said.source or 'none'}; name another folder for an index with "
            "other subtitles, or leave the options of subtitles and speech away"
        )


def _content(chat: VideoChat, path: Path) -> str:
    return chat.store.digest(path) if chat.store else file_digest(path)
