"""Subtitle files, and subtitle tracks inside videos, to cues."""

import codecs
import html
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import av
import pysubs2

from minigpt4_video.errors import MediaError
from minigpt4_video.media.alignment import Cue
from minigpt4_video.media.encodings import decoded
from minigpt4_video.media.probing import beginning, subtitle_tracks
from minigpt4_video.media.sources import DECODER_ERRORS, check_file, open_media, shown

logger = logging.getLogger(__name__)

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".sub")
LARGEST_FILE = 64 * 2**20
ROLLING_GAP = 0.1  # seconds between two cues of which the second can show the first's lines again
MOST_ROLLING = 8  # lines
SHORTEST_SAID = 0.02  # seconds; YouTube rolls by cues of 0.01

TIME = r"(-?)(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,:](\d{1,9}))?"
TIMING = re.compile(rf"^[ \t]*{TIME}[ \t]*-{{1,2}}>[ \t]*{TIME}(?:[ \t].*)?$", re.MULTILINE)
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]([^<>]*)>")
LINE_BREAK = re.compile(r"<br[ \t]*/?>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][^<>\n]*>|<(?:\d+:)?\d+:\d+\.\d+>|</>")
# The closing brace may be missing, so that nothing is looked through again and again for it: such a text is no block.
OVERRIDE = re.compile(r"\{(?:\\|[yYfFsScCpPoO]:)[^}]*\}?")
BLOCK = re.compile(r"\{[^}]*\}?")
UNSHOWN = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if not chr(code).isspace())
DRAWS = re.compile(r"\\p(\d)")
EVENT_TIME = re.compile(r"(-?)(\d{1,4}):(\d{1,2}):(\d{1,2})[.:](\d{1,9})")
EVENT = re.compile(r"^Dialogue:", re.MULTILINE)
PICTURES_OF_TEXT = b"\0\0\1\xba"  # begins VobSub's .sub files
MARK = re.compile(r"->|Dialogue:|\{\d+\}\{\d+\}")  # what every subtitle has, whatever ends its lines
SHORT_FIELDS = ["layer", "start", "end", "style", "name", "text"]
EVENT_FIELDS = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]


# The three letters that Matroska and MP4 have for the two letters that files' names have.
THREE_LETTERS = {
    "ar": ("ara",), "bg": ("bul",), "cs": ("ces", "cze"), "da": ("dan",), "de": ("deu", "ger"), "el": ("ell", "gre"),
    "en": ("eng",), "es": ("spa",), "et": ("est",), "fa": ("fas", "per"), "fi": ("fin",), "fr": ("fra", "fre"),
    "he": ("heb",), "hi": ("hin",), "hr": ("hrv",), "hu": ("hun",), "id": ("ind",), "it": ("ita",), "ja": ("jpn",),
    "ko": ("kor",), "lt": ("lit",), "lv": ("lav",), "ms": ("msa", "may"), "nl": ("nld", "dut"), "no": ("nor", "nob"),
    "pl": ("pol",), "pt": ("por",), "ro": ("ron", "rum"), "ru": ("rus",), "sk": ("slk", "slo"), "sl": ("slv",),
    "sr": ("srp",), "sv": ("swe",), "th": ("tha",), "tr": ("tur",), "uk": ("ukr",), "vi": ("vie",),
    "zh": ("zho", "chi"),
}  # fmt: skip
LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(?:[-_.][A-Za-z0-9]+)*")


class SubtitleSource(NamedTuple):
    """Where a video's subtitles are; what `read_subtitles` takes."""

    path: Path
    track: int | None
    """Number of the track inside the video, None for a file of its own."""
    language: str | None


def find_subtitles(video: str | PathLike[str], language: str | None = None) -> SubtitleSource | None:
    """The subtitles of a video: a file beside it (clip.srt, clip.en.srt and the like), else a text track in it.

    `language` is a code such as "en", "eng" or "pt-BR". What is in it comes first, a file or a track; then a file
    whose name tells no language, English, and the others by their names; of tracks the first.
    """
    return next(subtitle_sources(video, language), None)


def subtitle_sources(video: str | PathLike[str], language: str | None = None) -> Iterator[SubtitleSource]:
    """All subtitles of a video in the order of `find_subtitles`: for whoever finds the first one unreadable."""
    file = Path(video)
    beside = find_beside(file, language)
    first = [source for source in beside if language is None or is_in(source.language, language)]
    yield from first
    with open_media(file) as container:
        tracks = [
            SubtitleSource(file, track.number, track.language) for track in subtitle_tracks(container) if track.is_text
        ]
    spoken = [track for track in tracks if is_in(track.language, language)]
    yield from spoken
    yield from (source for source in beside if source not in first)
    yield from (track for track in tracks if track not in spoken)


def find_beside(video: str | PathLike[str], language: str | None = None) -> list[SubtitleSource]:
    """The subtitle files that belong to a video by their names, the one to take first."""
    file = Path(video)
    found = []
    for candidate in _neighbours(file):
        suffix = candidate.suffix.lower()
        stem = candidate.name[: -len(suffix)]
        marked = stem.removeprefix(file.stem)
        if stem == file.stem:
            found.append(((1, "", SUFFIXES.index(suffix)), SubtitleSource(candidate, None, None)))
        elif stem.startswith(file.stem) and LANGUAGE.fullmatch(marked):
            name = marked[1:]
            order = 0 if is_in(name, language) else 2 if is_in(name, "en") else 3
            found.append(((order, name, SUFFIXES.index(suffix)), SubtitleSource(candidate, None, name)))
    return [source for _, source in sorted(found)]


def is_in(name: str | None, language: str | None) -> bool:
    """Whether `name`, as "en", "eng", "en-US" or "eng.forced", means `language`."""
    if name is None or language is None:
        return False
    spoken, wanted = name.lower().replace("_", "-"), language.lower().replace("_", "-")
    if "-" in wanted:
        return spoken == wanted
    beginning = re.split(r"[-.]", spoken)[0]
    return any({beginning, wanted} <= {two, *three} for two, three in THREE_LETTERS.items()) or beginning == wanted


def _neighbours(file: Path) -> list[Path]:
    """The subtitle files in the same folder; none where the folder cannot be listed."""
    try:
        return [
            path
            for path in file.parent.iterdir()
            if path.suffix.lower() in SUFFIXES and path.name != file.name and path.is_file()
        ]
    except OSError:
        return []


def read_subtitles(
    path: str | PathLike[str], track: int | None = None, encoding: str | None = None, fps: float | None = None
) -> list[Cue]:
    """The cues of a subtitle file (.srt .vtt .ass .ssa .sub), or of a text track inside a video, by their start.

    `track` counts the subtitle tracks of a video from 0; without it the first that holds text is read. `encoding` is
    that of a file that does not tell it and is guessed wrongly, `fps` the video's rate for a file that counts frames.
    Markup and positions are removed, names of speakers kept ("Anna: hello"), cues without words dropped, and captions
    that roll, each line shown again above the next one, are told once. Times are seconds from the beginning of the
    video. Raises `MediaError` where there is no such file or track, or where it holds no subtitle.
    """
    file = check_file(path, "a subtitle")
    if track is None and (file.suffix.lower() in SUFFIXES or not _is_binary(file)):
        text = _text(file, encoding)
        cues = _cues_of_text(file, text, fps)
        if not cues and TIMING.search(text):
            logger.warning("%s holds times, but no words; it is taken as without subtitles.", shown(file))
            return []
    else:
        cues = _cues_of_track(file, track)
    if not cues:
        raise MediaError(f"{shown(file)} holds no subtitle that can be read; use an .srt, .vtt, .ass or .sub file.")
    return cues


def as_webvtt(cues: Iterable[Cue]) -> str:
    """Cues as the text of a .vtt file; `read_subtitles` gives them back, in thousandths of a second."""
    blocks = ["WEBVTT\n"]
    for start, end, text in cues:
        words = html.escape(" ".join(text.split()), quote=False)
        blocks.append(f"{_clock(start)} --> {_clock(end)}\n{words}\n")
    return "\n".join(blocks)


def _clock(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        beginning = opened.read(4096)
    return b"\0" in beginning and not beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _text(file: Path, encoding: str | None) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise MediaError(f"{shown(file)} is larger than {LARGEST_FILE >> 20} MB, so it is no subtitle file.")
        data = file.read_bytes()
    except OSError as error:
        raise MediaError(f"{shown(file)} cannot be read ({error.strerror}); check its permissions.") from error
    if data.startswith(PICTURES_OF_TEXT):
        raise MediaError(f"{shown(file)} holds pictures of text, not text; use an .srt, .vtt, .ass or other .sub file.")
    if encoding is not None:
        try:
            return data.decode(encoding)
        except LookupError as error:
            raise MediaError(f"There is no encoding {encoding!r}; use a name such as utf-8, gbk or cp1252.") from error
        except ValueError as error:
            raise MediaError(f"{shown(file)} is not written in {encoding}; name another encoding or none.") from error
    found = decoded(data, lambda text: MARK.search(text) is not None)
    if found is None:
        raise MediaError(f"{shown(file)} is not a text file, or in an unknown encoding; name it with --encoding.")
    text, is_damaged = found
    if is_damaged:
        logger.warning("%s has damaged characters; name its encoding if words are missing.", shown(file))
    return text


def _cues_of_text(file: Path, text: str, fps: float | None) -> list[Cue]:
    text = re.sub(r"(?<!\r)\r+\n", "\n", text).replace("\r", "\n").lstrip("\ufeff")  # "\r\r\n": converted twice
    is_timed = TIMING.search(text) is not None
    if EVENT.search(text):
        events = _sorted(_dialogues(text))
        if events or not is_timed:  # else somebody says "Dialogue:"
            return events
    if is_timed:
        return _sorted(_unrolled(list(_timed_blocks(text))))
    try:
        return _sorted(_other_cues(file, text, fps))
    except (pysubs2.exceptions.Pysubs2Error, ValueError, LookupError, ArithmeticError, SyntaxError) as error:
        raise MediaError(
            f"{shown(file)} is not a subtitle file that can be read; use an .srt, .vtt, .ass or .sub file."
        ) from error


def _other_cues(file: Path, text: str, fps: float | None) -> list[Cue]:
    """What pysubs2 reads, which raises all kinds of errors on damage: MicroDVD, SubViewer and the like."""
    try:
        subtitles = pysubs2.SSAFile.from_string(text, fps=fps)
    except pysubs2.exceptions.UnknownFPSError:
        logger.warning("%s counts frames and does not tell their rate; 25 a second are assumed.", shown(file))
        subtitles = pysubs2.SSAFile.from_string(text, fps=25)
    return [
        Cue(event.start / 1000, event.end / 1000, _plain(event.text.replace("[br]", " "))) for event in subtitles.events
    ]


def _dialogues(text: str) -> Iterable[Cue]:
    """SubStation Alpha's events. Its readers, pysubs2's too, give up on a file with one damaged time; this does not."""
    fields, told = EVENT_FIELDS, False
    for line in text.split("\n"):
        kind, _, rest = line.partition(":")
        if kind == "Format":
            named = [field.strip().lower() for field in rest.split(",")]
            if {"start", "end", "text"} <= set(named):  # the styles have a line of the kind too
                fields, told = named, True
        elif kind == "Dialogue":
            layout = fields if told or _has_margins(rest) else SHORT_FIELDS
            pieces = rest.split(",", len(layout) - 1)
            values = dict(zip(layout, pieces, strict=False))
            # by their look, for a line of formats may name them in another order than the events have
            times = [time for piece in pieces[:4] if (time := EVENT_TIME.fullmatch(piece.strip()))]
            if len(times) == 2 and "text" in values:
                name = values.get("name", values.get("actor", ""))
                start, end = (_seconds(time.groups()) for time in times)
                yield Cue(start, end, _dialogue(name, values["text"]))


def _has_margins(event: str) -> bool:
    """Whether an event that no line of formats explains has numbers where the margins belong."""
    pieces = event.split(",", 9)
    return len(pieces) == 10 and all(piece.strip().isdecimal() for piece in pieces[5:8])


def _timed_blocks(text: str) -> Iterable[tuple[float, float, list[str]]]:
    """SubRip and WebVTT alike: a line with two times, then the words until a blank line or the next times. What
    follows a blank line can be a remark in WebVTT; in SubRip it goes on, but for the number or name of the next one."""
    is_webvtt = text.startswith("WEBVTT")
    timings = list(TIMING.finditer(text))
    for timing, following in zip(timings, [*timings[1:], None], strict=True):
        body = text[timing.end() : None if following is None else following.start()].lstrip("\n")
        if text.startswith("\n\n", timing.end()):
            body = ""
        paragraphs = body.split("\n\n")
        lines = paragraphs[0].split("\n")
        if not is_webvtt:
            is_named = following is not None and paragraphs[-1].count("\n") == 1
            for paragraph in paragraphs[1 : -1 if is_named else None]:
                if paragraph.lstrip("\n").split("\n")[0].strip().isdecimal():  # a number, and damaged times
                    break
                lines += paragraph.split("\n")
        is_last = following is None or (is_webvtt and len(paragraphs) > 1)
        if not is_last and len(lines) > 2 and lines[-2].strip().isdecimal() and not lines[-1]:
            del lines[-2:]  # the next one's number, where no blank line is before it
        words = [words for line in lines if (words := _plain(line))]
        yield _seconds(timing.groups()[:5]), _seconds(timing.groups()[5:]), words


def _unrolled(blocks: list[tuple[float, float, list[str]]]) -> Iterable[Cue]:
    """Every line once where a file's captions roll, as YouTube's automatic ones do: a cue begins with the lines that
    the one before it ended with, and new ones follow or it is over at once. Where few cues do, and where nothing new
    follows, people repeat themselves, and all is kept."""
    repeated, rolling = [0], 0
    for (began, ends, before), (start, end, lines) in pairwise(blocks):
        longest = min(len(before), len(lines), MOST_ROLLING) if began < start <= ends + ROLLING_GAP else 0
        count = next((count for count in range(longest, 0, -1) if before[-count:] == lines[:count]), 0)
        repeated.append(count)
        rolling += count > 0 and (len(lines) > count or 0 < end - start < SHORTEST_SAID)
    rolls = rolling > max(2, len(blocks) / 3)
    for (start, end, lines), count in zip(blocks, repeated, strict=True):
        yield Cue(start, end, " ".join(lines[count:] if rolls else lines))


def _seconds(groups: tuple[str | None, ...]) -> float:
    sign, hours, minutes, seconds, fraction = groups
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return 0.0 if sign else (whole * 10**9 + int((fraction or "0").ljust(9, "0"))) / 10**9


def _plain(text: str) -> str:
    text = VOICE.sub(lambda voice: f"{voice[1].strip()}: ", LINE_BREAK.sub(" ", text.translate(UNSHOWN)))
    text = html.unescape(TAG.sub("", OVERRIDE.sub(lambda block: "" if block[0].endswith("}") else block[0], text)))
    return " ".join(text.replace("\\N", " ").replace("\\n", " ").replace("\\h", " ").split())


def _dialogue(name: str, text: str) -> str:
    """The words of a SubStation Alpha event: no drawings, and no braces, which are markup or comments there."""
    words = _plain(_without_blocks(text))
    return f"{name.strip()}: {words}" if name.strip() and words else words


def _without_blocks(text: str) -> str:
    kept, place, is_drawn = [], 0, False
    for block in BLOCK.finditer(text):
        is_whole = block[0].endswith("}")
        if not is_drawn:
            kept.append(text[place : block.start() if is_whole else block.end()])
        place = block.end()
        scales = DRAWS.findall(block[0]) if is_whole else []
        is_drawn = scales[-1] != "0" if scales else is_drawn
    return "".join(kept) + ("" if is_drawn else text[place:])


def _cues_of_track(file: Path, track: int | None) -> list[Cue]:
    with open_media(file, "a video or subtitle") as container:
        tracks = subtitle_tracks(container)
        if track is None:
            track = next((candidate.number for candidate in tracks if candidate.is_text), None)
            if track is None:
                raise MediaError(f"{shown(file)} holds no subtitle track with text; name a subtitle file.")
        elif not 0 <= track < len(tracks):
            raise MediaError(f"{shown(file)} has {len(tracks)} subtitle tracks, so none with the number {track}.")
        elif not tracks[track].is_text:
            raise MediaError(
                f"Subtitle track {track} of {shown(file)} holds pictures of text ({tracks[track].codec}); name another."
            )
        stream = container.streams.subtitles[track]
        begin = beginning(file)
        cues = []
        try:
            for packet in container.demux(stream):
                if packet.pts is None or not packet.size:
                    continue
                start = float(packet.pts * packet.time_base) - begin
                end = start + float((packet.duration or 0) * packet.time_base)
                cues += [Cue(max(start, 0.0), max(end, 0.0), text) for text in _packet_texts(packet)]
        except DECODER_ERRORS:
            logger.warning("%s is damaged; the subtitles before the damage are used.", shown(file))
    return _sorted(cues)


def _packet_texts(packet: av.Packet) -> list[str]:
    try:
        rects = packet.decode()
    except DECODER_ERRORS:
        return []
    texts = []
    for rect in rects:
        # ReadOrder, Layer, Style, Name, three margins, Effect, Text: FFmpeg's form of an event
        fields = rect.ass.decode(errors="replace").split(",", 8)
        texts.append(_dialogue(fields[3], fields[8]) if len(fields) == 9 else _plain(fields[-1]))
    return texts


def _sorted(cues: Iterable[Cue]) -> list[Cue]:
    kept = [Cue(start, max(start, end), text) for start, end, text in cues if text]
    return sorted(kept, key=lambda cue: (cue.start, cue.end))
