"""Data sets as people have them, to records: every format is a function from its files to messages."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minigpt4_video.data.formats import captions, clips, conversations, shards
from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import Records
from minigpt4_video.errors import DataError


class Format(NamedTuple):
    read: Callable[[Place], Records]
    about: str
    beside: bool = False
    """Whether media lie with the annotations, so that nobody needs to name their folder."""


FORMATS: dict[str, Format] = {
    "laion": Format(shards.pictures, "LAION as img2dataset downloads it: tars of jpg, json and txt", True),
    "cc3m": Format(shards.pictures, "Conceptual Captions, in the same form", True),
    "sbu": Format(shards.pictures, "SBU captions, in the same form", True),
    "img2dataset": Format(shards.pictures, "anything that img2dataset wrote, tars or folders of files", True),
    "cc-sbu-align": Format(captions.cc_sbu_align, "MiniGPT-4's aligned captions: filter_cap.json and image/", True),
    "cmd": Format(captions.cmd, "Condensed Movies: json, one caption a video"),
    "webvid": Format(captions.webvid, "WebVid: csv or json, one caption a video"),
    "videoinstruct-100k": Format(captions.videoinstruct, "VideoInstruct-100K: json, one question a row"),
    "video-chatgpt": Format(conversations.conversations, "Video-ChatGPT's training file: json, conversations"),
    "llava": Format(
        conversations.conversations, "LLaVA's conversations and relatives: json, jsonl, parquet, yaml lists"
    ),
    "sharegpt4video": Format(captions.sharegpt4video, "ShareGPT4Video: jsonl, long captions"),
    "shot2story": Format(captions.shot2story, "Shot2Story: json, a summary and a caption for each shot"),
    "panda-70m": Format(clips.panda_70m, "Panda-70M: csv, one source video a row with lists in its cells"),
    "hd-vila-100m": Format(clips.hd_vila_100m, "HD-VILA-100M: jsonl without texts; from --captions or subtitles"),
    "internvid": Format(clips.internvid, "InternVid: jsonl, one clip a row"),
    "video2dataset": Format(shards.videos, "what video2dataset wrote, tars or folders of mp4, json and txt", True),
    "labels": Format(captions.labels, "captions and answers that a model wrote: parquet or jsonl"),
}


def read(
    name: str,
    path: Path,
    *,
    media: Path | None = None,
    texts: Path | None = None,
    subtitles: Path | None = None,
    texts_needed: bool = True,
) -> Records:
    """The records of a set in one of the `FORMATS`, one at a time; what cannot be used is a `Flaw` in its place.

    `media` is the folder of its videos or pictures: files that are not in it are flaws. Without it they are taken to be
    where the annotations are, and looked for there only where the format keeps them there. `subtitles` is a folder of
    subtitle files, `texts` a table of captions for a set that has none. With `texts_needed` False a video without a
    text is no flaw; its record has an empty one, for a model to write. Raises DataError for a set that
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
    return form.read(
        Place(name, path, folder, look=look, captions=texts, subtitles=subtitles, texts_needed=texts_needed)
    )
