"""YouTube links, for the command line's own user: yt-dlp tells where a video and its subtitles lie, and these are
fetched under the same rules as any address.

One video at a time: of a link only the video's own name is taken, so that no playlist and no channel is opened.
"""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from minigpt4_video.errors import MediaError
from minigpt4_video.media.remote import SourceRules, fetch

logger = logging.getLogger(__name__)

SHORT_HOSTS = {"youtu.be", "www.youtu.be"}
HOSTS = {"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com"}
NAME = re.compile(r"[A-Za-z0-9_-]{11}")
WATCH = "https://www.youtube.com/watch?v="
EXTRACTORS = ["youtube"]
RULES = SourceRules(hosts=(".googlevideo.com", ".youtube.com"), seconds=1800.0)
PROTOCOLS = {"https"}
LARGEST_SUBTITLES = 16 * 2**20  # bytes
PART = 10 * 2**20  # bytes asked for at once: YouTube slows down what is asked for as a whole
HEIGHT = 360  # pixels: more than models look at
SILENCE = 20.0  # seconds


class _Subtitles(NamedTuple):
    language: str
    is_automatic: bool
    url: str


def is_youtube(source: str) -> bool:
    """Whether it is an address of YouTube."""
    return re.match(r"https?://", source, re.IGNORECASE) is not None and _host(source) in HOSTS | SHORT_HOSTS


@contextmanager
def youtube_video(
    link: str, *, language: str | None = None, subtitles: bool = True, duration: float = 4 * 3600.0
) -> Iterator[Path]:
    """The file of the one video that a link names, with its subtitles beside it, deleted afterwards.

    The subtitles are those that a person wrote, in `language` where that is given, else in the video's own, else
    YouTube's automatic ones; `find_subtitles` finds them by name. `duration`: the most seconds a video may last.
    Raises `MediaError` where yt-dlp is not installed, the link names no single video, or the video cannot be had.
    """
    name = _name(link)
    told = _told(WATCH + name)
    lasts = told.get("duration")
    if told.get("_type", "video") != "video":
        raise MediaError(f"{WATCH}{name} is a list of videos; name one video.")
    if told.get("live_status") in ("is_live", "is_upcoming"):
        raise MediaError(f"{WATCH}{name} is not over yet; wait until it can be watched as a whole.")
    if lasts is not None and lasts > duration:
        raise MediaError(f"{WATCH}{name} lasts {lasts:.0f} s and {duration:g} s are allowed; name a shorter one.")
    chosen = _chosen_format(told.get("formats") or [])
    if chosen is None:
        raise MediaError(
            f"{WATCH}{name} comes in no form that can be fetched; bring yt-dlp up to date, or try another."
        )
    with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
        file = Path(folder) / f"{name}.{chosen['ext'] if chosen.get('ext') in ('mp4', 'webm') else 'mp4'}"
        with file.open("wb") as opened:
            fetch(chosen["url"], RULES, opened, headers=chosen.get("http_headers"), part=PART)
        if subtitles:
            _fetch_subtitles(told, language, file)
        yield file


def _host(link: str) -> str:
    try:
        return (urlsplit(link).hostname or "").lower()
    except ValueError:
        return ""


def _name(link: str) -> str:
    """The eleven letters by which YouTube knows a video."""
    parts = urlsplit(link)
    pieces = parts.path.strip("/").split("/")
    if _host(link) in SHORT_HOSTS:
        found = pieces[0]
    elif pieces[0] in ("shorts", "live", "embed", "v") and len(pieces) > 1:
        found = pieces[1]
    else:
        found = next(iter(parse_qs(parts.query).get("v", [])), "")
    if not NAME.fullmatch(found):
        raise MediaError(f"{link[:80]!a} names no single video; copy the link of one video, as {WATCH}...")
    return found


def _told(address: str) -> dict[str, Any]:
    """What yt-dlp finds out about a video; nothing is fetched yet but YouTube's own pages."""
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import YoutubeDLError
    except ImportError as error:
        raise MediaError("YouTube links need yt-dlp; install it with: pip install 'minigpt4-video[youtube]'") from error
    options = {
        "allowed_extractors": EXTRACTORS,
        "noplaylist": True,
        "quiet": True,
        "noprogress": True,
        "logger": _Quiet(),
        "skip_download": True,
        "ignore_no_formats_error": True,
        "cachedir": False,
        "socket_timeout": SILENCE,
        "extractor_retries": 1,
    }
    try:
        with YoutubeDL(options) as ytdl:
            told = ytdl.extract_info(address, download=False)
    except YoutubeDLError as error:
        reason = re.sub(r"\x1b\[[0-9;]*m|^ERROR: ", "", " ".join(str(error).split()))
        raise MediaError(f"{address} cannot be had from YouTube ({reason[:200]}); check the link.") from error
    if not isinstance(told, dict):
        raise MediaError(f"{address} cannot be had from YouTube; check the link.")
    return told


class _Quiet:
    """yt-dlp's messages as debugging notes; what stops it comes as an exception as well."""

    def debug(self, message: str) -> None:
        logger.debug("%s", message)

    info = warning = error = debug


def _chosen_format(formats: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The smallest that is large enough to look at, with sound where there is one such, in one file."""
    usable = [
        offered
        for offered in formats
        if offered.get("protocol") in PROTOCOLS
        and offered.get("vcodec", "unknown") != "none"
        and offered.get("ext") in ("mp4", "webm")
        and not offered.get("has_drm")
    ]

    def worth(offered: Mapping[str, Any]) -> tuple[bool, bool, int, bool]:
        height = offered.get("height") or 0
        is_enough = height >= HEIGHT
        has_sound = offered.get("acodec", "none") != "none"
        return has_sound, is_enough, -height if is_enough else height, str(offered.get("vcodec")).startswith("avc1")

    return max(usable, key=worth, default=None)


def _fetch_subtitles(told: dict[str, Any], language: str | None, video: Path) -> None:
    """Write the best subtitles beside the video; a video without is none the worse."""
    chosen = _chosen_subtitles(told, language)
    if chosen is None:
        return
    kind = ".automatic" if chosen.is_automatic else ""
    code = re.sub(r"[^A-Za-z0-9-]", "", chosen.language) or "und"
    file = video.with_name(f"{video.stem}.{code}{kind}.vtt")
    rules = SourceRules(hosts=RULES.hosts, largest=LARGEST_SUBTITLES, seconds=60.0)
    try:
        with file.open("wb") as opened:
            fetch(chosen.url, rules, opened)
    except MediaError as error:
        file.unlink()
        logger.warning("The subtitles on YouTube cannot be had: %s", error)


def _chosen_subtitles(told: dict[str, Any], language: str | None) -> _Subtitles | None:
    """Written by a person before automatic, in the wanted language before others; translations by machine only where
    their language was asked for."""
    written, automatic = _in_webvtt(told.get("subtitles")), _in_webvtt(told.get("automatic_captions"))
    spoken = told.get("language")
    own = {code: url for code, url in automatic.items() if code.endswith("-orig")}
    own = own or {code: url for code, url in automatic.items() if _is_in(code, spoken)}
    for offered, wanted, is_automatic in (
        (written, language, False),
        (own, language, True),
        (automatic, language, True),
        (written, spoken, False),
        (written, "en", False),
    ):
        code = next((code for code in sorted(offered) if _is_in(code, wanted)), None)
        if code is not None:
            return _Subtitles(code.removesuffix("-orig"), is_automatic, offered[code])
    for offered, is_automatic in ((written, False), (own, True)):
        if offered:
            code = min(offered)
            return _Subtitles(code.removesuffix("-orig"), is_automatic, offered[code])
    return None


def _in_webvtt(tracks: Any) -> dict[str, str]:
    """The addresses of tracks that are WebVTT files, by language."""
    return {
        code: entry["url"]
        for code, entries in (tracks or {}).items()
        for entry in entries
        if entry.get("ext") == "vtt" and entry.get("url") and not str(entry.get("protocol", "")).startswith("m3u8")
    }


def _is_in(code: str, language: str | None) -> bool:
    """Whether "en", "en-US" or "en-orig" means `language`, which counts with its region only where it has one."""
    if language is None:
        return False
    offered, wanted = code.lower().removesuffix("-orig"), language.lower().replace("_", "-")
    return offered == wanted or ("-" not in wanted and offered.split("-")[0] == wanted)
