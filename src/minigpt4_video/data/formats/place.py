"""Where a set lies, and what its rows are turned into: parts that name files, and conversations about them."""

import os
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

from minigpt4_video.data.formats.rows import Unusable
from minigpt4_video.data.sample import Record
from minigpt4_video.instructions import IMAGE_CAPTION, VIDEO_CAPTION, Language
from minigpt4_video.messages import Message, Part

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif", ".mp4.mkv", ".mp4.webm")
"""The last two: what yt-dlp makes of a name that was given to it with its suffix."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SUBTITLE_SUFFIXES = (".vtt", ".srt", ".en.vtt", ".en.srt", ".zh.vtt", ".zh.srt")

CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")


class Place:
    """The files of one set: annotations at `path`, videos or pictures in `media`, subtitles in `subtitles` or, without
    a folder of their own, beside the videos. Texts that the set itself does not have are in `captions`.

    Without `look`, media are named as they would be called and not looked for. Without `texts_needed`, what is shown
    need not be described yet.
    """

    def __init__(
        self,
        source: str,
        path: Path,
        media: Path,
        *,
        look: bool = True,
        captions: Path | None = None,
        subtitles: Path | None = None,
        texts_needed: bool = True,
    ) -> None:
        self.source = source
        self.path = path
        self.media = os.path.normpath(media)
        self._inner = os.path.abspath(media).rstrip("/") + "/"
        self.look = look
        self.captions = captions
        self.subtitles = subtitles
        self.texts_needed = texts_needed
        self._likely = VIDEO_SUFFIXES[0]

    def video(self, name: str) -> str:
        """The video of this name, with or without its suffix. Raises Unusable where it is not there or leads out of
        the folder."""
        return self._found(name, VIDEO_SUFFIXES) or self._missing("video", name)

    def first_video(self, names: Sequence[str]) -> str:
        """The first of these videos that is there. Raises Unusable, naming the last."""
        found = (self._found(name, VIDEO_SUFFIXES) for name in names)
        return next((path for path in found if path), None) or self._missing("video", names[-1])

    def folder(self, *names: str) -> str:
        """The first of these folders that is there. Raises Unusable."""
        found = (self._inside(name) for name in names)
        return next((path for path in found if os.path.isdir(path)), None) or self._missing("video", names[-1])

    def picture(self, name: str) -> str:
        return self._found(name, PICTURE_SUFFIXES) or self._missing("picture", name)

    def clip(self, whole: str, *cut: str) -> tuple[str, bool]:
        """The file that was cut out for a clip under one of these names, and True; or the whole video, and False."""
        if self.look:
            for name in cut:
                if path := self._found(name, VIDEO_SUFFIXES):
                    return path, True
        return self.video(whole), False

    def shown_video(self, path: str, start: float | None = None, end: float | None = None) -> Part:
        """A video part, with the span of the clip where the file holds more than it."""
        part: Part = {"type": "video", "path": path, "subtitles": self._subtitles(path)}
        if start is not None:
            part["start"] = start
        if end is not None:
            part["end"] = end
        return part

    def _found(self, name: str, suffixes: tuple[str, ...]) -> str | None:
        path = self._inside(name)
        is_whole = path.lower().endswith(suffixes)
        if not self.look:
            return path if is_whole else path + suffixes[0]
        if is_whole and os.path.isfile(path):
            return path
        for suffix in (self._likely, *suffixes):
            if suffix in suffixes and os.path.isfile(path + suffix):
                self._likely = suffix  # sets are mostly of one kind: the next look finds it first
                return path + suffix
        return None

    def _missing(self, what: str, name: str) -> str:
        raise Unusable(f"{what} is missing", name)

    def _inside(self, name: str) -> str:
        if "/" not in name and name not in ("", ".", ".."):
            return f"{self.media}/{name}"
        path = os.path.normpath(os.path.join(self.media, name))
        if not os.path.abspath(path).startswith(self._inner):  # "." and ".." begin no path that lies within them
            raise Unusable("names a file outside the media folder", name)
        return path

    def _subtitles(self, video: str) -> str:
        if self.subtitles is None:
            return "auto"
        stem = os.path.splitext(os.path.basename(video))[0]
        found = (os.path.join(self.subtitles, stem + suffix) for suffix in SUBTITLE_SUFFIXES)
        return next((path for path in found if os.path.isfile(path)), "off")


def captioned(place: Place, name: str, part: Part, text: str) -> Record:
    """A record that asks for a description of what is shown. The instruction is drawn from the pool of the text's
    language by the record's name, so the same record is always asked in the same words."""
    language = language_of(text)
    pool = (VIDEO_CAPTION if part["type"] == "video" else IMAGE_CAPTION)[language]
    return asked(place, name, part, drawn(pool, name), text, language)


def asked(place: Place, name: str, part: Part, question: str, answer: str, language: Language | None = None) -> Record:
    """A record of one question and its answer."""
    messages: list[Message] = [
        {"role": "user", "content": [part, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer},
    ]
    return Record(name, place.source, messages, language or language_of(answer))


def drawn(pool: Sequence[str], name: str) -> str:
    return pool[crc32(name.encode(errors="surrogatepass")) % len(pool)]


def language_of(text: str) -> Language:
    """ "zh" for a text with Chinese characters and neither Japanese nor Korean ones, else "en"."""
    return "zh" if not text.isascii() and CHINESE.search(text) and not KANA_OR_HANGUL.search(text) else "en"


def marked(name: str, *texts: str) -> str:
    """A name for a row whose set gives several the same: the name and a digest of what the row says."""
    digest = blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=5)
    return f"{name}#{digest.hexdigest()}"
