"""Data sets as people have them, to records: every format is a function from its files to messages."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minigpt4_video.data.formats import captions
from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import Records
from minigpt4_video.errors import DataError


class Format(NamedTuple):
    read: Callable[[Place], Records]
    about: str
    beside: bool = False
    """Whether media lie with the annotations, so that nobody needs to name their folder."""


FORMATS: dict[str, Format] = {
    "webvid": Format(captions.webvid, "WebVid: csv or json, one caption a video"),
    "cmd": Format(captions.cmd, "Condensed Movies: json, one caption a video"),
    "cc_sbu_align": Format(captions.cc_sbu_align, "MiniGPT-4's aligned captions: filter_cap.json and image/", True),
    "videoinstruct": Format(captions.videoinstruct, "VideoInstruct-100K: json, one question a row"),
}


def read(
    name: str, path: Path, *, media: Path | None = None, captions: Path | None = None, subtitles: Path | None = None
) -> Records:
    """The records of a set in one of the `FORMATS`, one at a time; what cannot be used is a `Flaw` in its place.

    `media` is the folder of its videos or pictures: files that are not in it are flaws. Without it they are taken to be
    where the annotations are, and looked for there only where the format keeps them there. `subtitles` is a folder of
    subtitle files, `captions` a table of texts for a set that has none. Raises DataError for a set that
    is not there.
    """
    form = FORMATS.get(name)
    if form is None:
        raise DataError(f"there is no format {name}; use one of {', '.join(FORMATS)}")
    if media is not None and not media.is_dir():
        raise DataError(f"{media} is no folder; name the one that holds the videos or pictures")
    if not path.exists():
        raise DataError(f"there is no file {path}; check the name of the data set")
    folder = media or (path if path.is_dir() else path.parent)
    look = media is not None or form.beside
    return form.read(Place(name, path, folder, look=look, captions=captions, subtitles=subtitles))
