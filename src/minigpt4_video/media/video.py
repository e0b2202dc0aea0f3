"""Video files to frames with their times.

Times come from the decoder: a frame's presentation time less that of the first frame, in seconds. A frame's index over
the frame rate is a time only where the rate never changes.
"""

import logging
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from PIL import Image, ImageSequence

from minigpt4_video.errors import MediaError
from minigpt4_video.media.sources import DECODER_ERRORS, check_file, is_encrypted, not_media, open_media, shown

logger = logging.getLogger(__name__)

Frames = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Times = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

TEXT_SUBTITLES = {"ass", "ssa", "subrip", "srt", "text", "mov_text", "webvtt", "microdvd", "subviewer", "sami"}

# Formats whose headers tell the duration; others are estimated by FFmpeg from the bit rate or the last packets.
TIMED_FORMATS = {"mp4", "matroska", "avi", "asf"}
LARGE_FILE = 64 * 2**20

# Where a packet's presentation time is that of its frame and a key frame can be trusted.
SEEKABLE_FORMATS = {"mp4", "matroska"}
SELECTABLE_CODECS = {"h264", "hevc", "vp8", "vp9", "libdav1d"}
SEEK_COSTS_FRAMES = 8
SEEK_ATTEMPTS = 3

UNREADABLE_IN_A_ROW = 1000
# Decoding several frames at once holds that many more of them.
LARGE_FRAME = 4096 * 2304


class SubtitleTrack(NamedTuple):
    """A subtitle track inside a video file."""

    number: int
    """Its place among the subtitle tracks, from 0."""
    codec: str
    language: str | None
    is_text: bool
    """Whether it holds text; the others hold pictures of text."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself; read from its headers and its first frame."""

    duration: float
    """Seconds from the first frame to the end of the last one."""
    width: int
    """Pixels of a frame as it is shown, after rotation."""
    height: int
    fps: float
    """Frames a second, on average."""
    frames: int
    """Number of frames, where the file does not tell it an estimate."""
    rotation: int
    """Degrees clockwise by which decoded frames are turned before they are shown: 0, 90, 180 or 270."""
    mirrored: bool
    """Whether decoded frames are mirrored, left to right, before they are turned."""
    codec: str
    container: str
    has_audio: bool
    subtitle_tracks: tuple[SubtitleTrack, ...]


@dataclass(frozen=True)
class Clip:
    """Frames of a video, as shown: turned upright, RGB."""

    frames: Frames
    """uint8 `(frames, height, width, 3)`."""
    times: Times
    """float64 `(frames,)`: seconds from the video's first frame at which each begins to be shown."""
    duration: float
    """Seconds of the whole video."""


class _Orientation(NamedTuple):
    """How a decoded frame is put upright: swap rows with columns, then flip."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @property
    def mirrored(self) -> bool:
        return (self.transposed + self.left_right + self.up_down) % 2 == 1

    @property
    def rotation(self) -> int:
        """Degrees clockwise, after mirroring left to right where it is mirrored."""
        if self.transposed:
            return 90 if self.left_right else 270
        return 180 if self.up_down else 0

    def apply(self, frame: Frames) -> Frames:
        if self.transposed:
            frame = frame.swapaxes(0, 1)
        if self.left_right:
            frame = frame[:, ::-1]
        return frame[::-1] if self.up_down else frame


def probe(path: str | PathLike[str]) -> VideoInfo:
    """What is in a video or picture file. Raises `MediaError` where it holds no picture that can be decoded."""
    file = check_file(path, "a video")
    if _is_webp(file):
        return _measured(file, _describe_webp(file))
    with open_media(file) as container:
        stream = _video_stream(container, file)
        first = next(_Decoder(container, stream).frames(), None)
        if first is None:
            raise MediaError(f"{shown(file)} holds no frame that can be decoded; it is damaged: download it again.")
        info = _describe(container, stream, first)
        tells_duration = bool(set(info.container.split(",")) & TIMED_FORMATS) or file.stat().st_size > LARGE_FILE
        if not (tells_duration and info.duration > 0):
            info = _counted(container, stream, first, info)
    return info if info.duration > 0 and info.fps > 0 else _measured(file, info)


def sample_times(info: VideoInfo, n: int, rule: Literal["even", "original"] = "even") -> Times:
    """Seconds, float64 `(n,)`, at which to look at a video.

    "even": the middles of `n` equal spans of the whole video. "original": the original's frames 0, step, 2 * step, ...
    with the step rounded down, so that the video's tail may not be seen; fewer than `n` where the video has fewer.
    """
    if n < 1:
        raise ValueError(f"cannot sample {n} frames")
    if rule == "even":
        return np.asarray(info.duration * (2 * np.arange(n) + 1) / (2 * n), dtype=np.float64)
    total = int(round(info.duration, 2) * info.fps)  # it read the duration from a text with two decimals
    step = max(1, total // n)
    return np.arange(0, max(total, 1), step, dtype=np.float64)[:n] / info.fps


def read_frames(
    path: str | PathLike[str],
    times: Sequence[float] | Times,
    size: tuple[int, int] | None = None,
    scaler: Literal["pillow", "decoder"] = "pillow",
) -> Clip:
    """For each of `times` (seconds from the first frame, in any order) the frame that is shown then.

    A time before the first or after the last frame gets that frame. Where the whole video has fewer frames than there
    are times, each frame that was asked for comes once. `size` is (height, width): the whole frame is squashed to it by
    PIL's bicubic resize, or by the decoder's, which never makes a large picture of the frame: it takes less time and
    memory, and its pixels differ by a few levels. Raises `MediaError` where nothing can be decoded.
    """
    file = Path(path)
    info = probe(file)
    reading = _read(file, np.asarray(times, dtype=np.float64), _Form(size, scaler))
    return Clip(reading.frames, reading.times, _true_duration(file, info, reading))


def read_clip(
    path: str | PathLike[str],
    frames: int,
    *,
    rule: Literal["even", "original"] = "even",
    start: float | None = None,
    end: float | None = None,
    size: tuple[int, int] | None = None,
    scaler: Literal["pillow", "decoder"] = "pillow",
) -> Clip:
    """`frames` frames spread over a video, or over its part from `start` to `end` in seconds; fewer only if the video
    has fewer. `size` and `scaler` are as for `read_frames`; times are relative to the video's first frame.

    A file that ends before its headers say, as a broken download does, is spread over what is there, with a warning.
    """
    file = Path(path)
    info = probe(file)
    form = _Form(size, scaler)
    reading = _read(file, _clip_times(file, info, frames, rule, start, end), form)
    duration = _true_duration(file, info, reading)
    if duration < info.duration:
        info = replace(info, duration=duration)
        reading = _read(file, _clip_times(file, info, frames, rule, start, end), form)
    if reading.counted is not None and rule == "even" and start is None and end is None:
        reading = _read(file, np.array(reading.counted), form)  # those shown too briefly to be met as well
    return Clip(reading.frames, reading.times, info.duration)


def unique_frames(frames: Frames) -> tuple[Frames, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The frames that differ from all before them, uint8 `(unique, height, width, 3)`, in their order, and for each
    of the given frames its place among them, int64 `(frames,)`: `unique[places]` are the given frames.

    Frames are the same only where every byte is. Nothing is copied where all differ.
    """
    places: dict[bytes, int] = {}
    found = np.array(
        [places.setdefault(sha256(frame.tobytes()).digest(), len(places)) for frame in frames],
        dtype=np.int64,
    )
    if len(places) == len(frames):
        return frames, found
    return frames[np.unique(found, return_index=True)[1]], found


def _true_duration(file: Path, info: VideoInfo, reading: "_Reading") -> float:
    """Seconds, where a file that ends well before its headers say lasts as long as what can be read of it."""
    if reading.end is None or reading.end >= info.duration - max(1.0, 0.05 * info.duration):
        return info.duration
    logger.warning(
        "%s ends after %.1f s although it says %.1f s; what is there is used.", shown(file), reading.end, info.duration
    )
    return reading.end


class _Reading(NamedTuple):
    frames: Frames
    times: Times
    end: float | None
    """Seconds at which the last frame ends, where reading went that far."""
    counted: list[float] | None
    """The times of all frames, where the whole video has fewer than were asked for."""


class _Unreliable(Exception):
    """The quick way met something that only decoding every frame in order can settle."""


class _Decoder:
    """Decodes a stream from where it is, over damaged pieces; `damaged` tells whether there were any."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.damaged = False

    def frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            is_end = packet.dts is None and packet.pts is None
            if packet.size or is_end:  # an empty packet repeats a picture, but decoding it would end the stream
                yield from self._decode(packet)
        yield from self._decode(None)

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets; what cannot be read is left out as long as there is something behind it."""
        failures = 0
        while failures < UNREADABLE_IN_A_ROW:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except IndexError:  # a packet of a stream that began after the file was opened
                failures += 1
            except DECODER_ERRORS:
                failures += 1
                self.damaged = True

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            frames = list(self._stream.codec_context.decode(packet))
        except av.error.EOFError:
            return []
        except DECODER_ERRORS:
            self.damaged = True
            return []
        self.damaged = self.damaged or any(frame.is_corrupt for frame in frames)
        return frames


class _Clock:
    """Frames' times in seconds; where the file gives none, one frame after the other."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        rate = stream.average_rate or stream.guessed_rate
        self._step = 1 / Fraction(rate) if rate else Fraction(1, 25)
        self._uses_decoding_time = container.format.name == "avi"  # AVI has no other; FFmpeg invents the rest
        self._next = Fraction(0)

    def time(self, frame: av.VideoFrame) -> Fraction:
        ticks = frame.dts if self._uses_decoding_time else frame.pts
        time = self._next if ticks is None or not frame.time_base else ticks * Fraction(frame.time_base)
        self._next = time + self.lasts(frame)
        return time

    def lasts(self, frame: av.VideoFrame) -> Fraction:
        """Seconds for which a frame is shown."""
        if frame.duration and frame.time_base:
            return int(frame.duration) * Fraction(frame.time_base)
        return self._step


def _read(file: Path, times: Times, form: "_Form") -> _Reading:
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError("times must be a list of at least one finite number of seconds")
    order = np.argsort(times, kind="stable")
    targets = [float(time) for time in times[order]]
    counted = None
    selected = None
    with suppress(_Unreliable):
        selected = _read_selected(file, targets, form)
    # Of times that mean the same frame, how many frames there are is known once all are counted.
    if selected is None or len({time for time, _ in selected[0]}) < len(targets):
        selected = None
        found, end, counted = _read_all(file, targets, form)
    else:
        found, end = selected
    chosen = [found[place] for place in np.argsort(order)]
    if counted is not None:
        chosen = list({time: (time, frame) for time, frame in chosen}.values())
    del found
    moments = np.array([time for time, _ in chosen], dtype=np.float64)
    height, width, _ = chosen[0][1].shape
    frames = np.empty((len(chosen), height, width, 3), dtype=np.uint8)
    for index in reversed(range(len(chosen))):
        _, picture = chosen.pop()  # so that large frames are not all held twice
        frames[index] = picture if picture.shape[:2] == (height, width) else _resized(picture, (height, width))
    return _Reading(frames, moments, end, counted)


class _Form(NamedTuple):
    """What is made of a decoded frame: a picture of its own size, or of another."""

    size: tuple[int, int] | None = None
    scaler: Literal["pillow", "decoder"] = "pillow"

    def of_frame(self, frame: av.VideoFrame, file: Path) -> Frames:
        if self.size is not None and self.scaler == "decoder":
            return _upright(frame, file, self.size)
        return self.of_picture(_upright(frame, file))

    def of_picture(self, picture: Frames) -> Frames:
        return picture if self.size is None else _resized(picture, self.size)


class _Shown(NamedTuple):
    """One frame of a file read from its beginning."""

    time: float
    """Seconds from the first frame."""
    lasts: float
    tolerance: float
    """Seconds by which a time that means this frame may lie before it."""
    picture: Callable[[], Frames]


def _read_all(
    file: Path, targets: list[float], form: _Form
) -> tuple[list[tuple[float, Frames]], float | None, list[float] | None]:
    """Decode every frame from the first on: slower than the selected ones, but right for every file.

    Gives a time and a frame for each of the increasing `targets`, the video's end where it was reached, and the times
    of all frames where the whole video has fewer of them than there are targets.
    """
    found: list[tuple[float, Frames]] = []
    passed: list[float] = []
    current: _Shown | None = None

    def take(until: float) -> None:
        if current is not None and len(found) < len(targets) and targets[len(found)] < until:
            picture = current.picture()
            while len(found) < len(targets) and targets[len(found)] < until:
                found.append((current.time, picture))

    for shown_frame in _all_frames(file, form):
        take(shown_frame.time - shown_frame.tolerance)
        current = shown_frame
        passed.append(current.time)
        if len(found) == len(targets) <= len(passed):
            return found, None, None
    if current is None:
        raise MediaError(f"{shown(file)} holds no frame that can be decoded; it is damaged: download it again.")
    take(np.inf)
    return found, current.time + current.lasts, passed if len(passed) < len(targets) else None


def _all_frames(file: Path, form: _Form) -> Iterator[_Shown]:
    """Every frame of a file, in order."""
    if _is_webp(file):
        yield from _webp_frames(file, form)
        return
    with open_media(file) as container:
        stream = _video_stream(container, file)
        stream.thread_type = _thread_type(stream)
        tolerance = _tolerance(stream)
        decoder, clock = _Decoder(container, stream), _Clock(container, stream)
        first: Fraction | None = None
        try:
            for frame in decoder.frames():
                absolute = clock.time(frame)
                first = absolute if first is None else first
                lasts = float(clock.lasts(frame))
                yield _Shown(float(absolute - first), lasts, tolerance, partial(form.of_frame, frame, file))
        finally:
            if decoder.damaged or _is_cut_gif(file):
                logger.warning("%s is damaged; the frames that can be decoded are used.", shown(file))


def _is_cut_gif(file: Path) -> bool:
    """FFmpeg makes no difference between a GIF that ends and one that breaks off."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GIF8":
            return False
        opened.seek(max(0, file.stat().st_size - 64))
        return not opened.read().rstrip(b"\0\r\n ").endswith(b";")


def _is_webp(file: Path) -> bool:
    """FFmpeg decodes WebP pictures, but not WebP animations, which PIL does."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(12)
    except OSError as error:
        raise MediaError(f"{shown(file)} cannot be read ({error.strerror}); check its permissions.") from error
    return beginning.startswith(b"RIFF") and beginning.endswith(b"WEBP")


def _webp_frames(file: Path, form: _Form) -> Iterator[_Shown]:
    time = 0.0
    try:
        with Image.open(file, formats=["WEBP"]) as animation:
            for picture in ImageSequence.Iterator(animation):
                frame = np.asarray(picture.convert("RGB"))
                lasts = picture.info.get("duration", 0) / 1000 or 0.1
                yield _Shown(time, lasts, 0.0, partial(form.of_picture, frame))
                time += lasts
    except (*DECODER_ERRORS, SyntaxError, Image.DecompressionBombError) as error:
        if time == 0.0:
            raise not_media(file, "a picture") from error
        logger.warning("%s is damaged; the frames that can be decoded are used.", shown(file))


def _describe_webp(file: Path) -> VideoInfo:
    try:
        with Image.open(file, formats=["WEBP"]) as picture:
            width, height = picture.size
    except (*DECODER_ERRORS, SyntaxError, Image.DecompressionBombError) as error:
        raise not_media(file, "a picture") from error
    return VideoInfo(0.0, width, height, 0.0, 1, 0, False, "webp", "webp", False, ())


def _read_selected(file: Path, targets: list[float], form: _Form) -> tuple[list[tuple[float, Frames]], float | None]:
    """Decode no more than the wanted frames need: seek where a key frame lies between, and pass over frames that no
    other refers to.

    Which packet is wanted is known from the packets' times before anything is decoded. Raises `_Unreliable` where the
    container or codec is none for which this is known to be exact, or where what comes out is not what was wanted.
    """
    if _is_webp(file):
        raise _Unreliable("webp")
    try:
        with open_media(file) as container:
            stream = _video_stream(container, file)
            formats = set(container.format.name.split(","))
            if not formats & SEEKABLE_FORMATS or stream.codec_context.name not in SELECTABLE_CODECS:
                raise _Unreliable(container.format.name)
            first = next(_Decoder(container, stream).frames(), None)
            if first is None or first.pts is None or first.time_base != stream.time_base:
                raise _Unreliable("the first frame has no time")
            first_pts = first.pts
        with open_media(file) as container:
            stream = _video_stream(container, file)
            stream.thread_type = _thread_type(stream)

            selection = _Selection(container, stream, first_pts, partial(form.of_frame, file=file))
            wanted = [selection.want(target) for target in targets]
            selection.finish()
            base = stream.time_base
            end = None
            if selection.ended:
                end = float((max(wanted) + selection.last_duration - first_pts) * base)
            found = [(float((pts - first_pts) * base), selection.pictures[pts]) for pts in wanted]
    except (KeyError, *DECODER_ERRORS) as error:
        raise _Unreliable(str(error)) from error
    return found, end


class _Selection:
    """Decodes the frames shown at increasing times, into `pictures` by presentation time in ticks."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        first_pts: int,
        picture: Callable[[av.VideoFrame], Frames],
    ) -> None:
        self.pictures: dict[int, Frames] = {}
        self.ended = False
        self.last_duration = 0
        self._container = container
        self._stream = stream
        self._first_pts = first_pts
        self._picture = picture
        self._keys = sorted(entry.timestamp for entry in stream.index_entries if entry.is_keyframe)
        rate = stream.average_rate or Fraction(25)
        self._worth_seeking = int(SEEK_COSTS_FRAMES / (rate * stream.time_base))
        self._wanted: set[int] = set()
        self._begin()

    def want(self, target: float) -> int:
        """The presentation time of the frame shown `target` seconds after the first; times never go back."""
        limit = self._first_pts + max(0, int((target + _tolerance(self._stream)) / self._stream.time_base))
        key = bisect_right(self._keys, limit) - 1
        if key >= 0 and self._keys[key] - self._position > self._worth_seeking:
            self._seek(limit)
        while not self.ended and self._position <= limit:
            self._read_packet()
        wanted = max((pts for pts in self._seen if pts <= limit), default=None)
        if wanted is None:
            raise _Unreliable("no packet holds the time")
        self._wanted.add(wanted)
        self._decode_up_to(wanted)
        return wanted

    def finish(self) -> None:
        """Take what the decoder still holds."""
        self._collect(None)

    def _begin(self) -> None:
        self._packets = self._container.demux(self._stream)
        self._waiting: deque[av.Packet] = deque()
        self._seen: set[int] = set()
        self._position = self._first_pts - 1
        self._sought = False

    def _seek(self, limit: int) -> None:
        self._collect(None)
        ticks = limit
        for _ in range(SEEK_ATTEMPTS):
            self._container.seek(ticks, stream=self._stream, backward=True)
            self._begin()
            self._read_packet()
            packet = self._waiting[0] if self._waiting else None
            if packet is None or packet.pts is None or packet.dts is None:
                break
            if packet.is_keyframe and packet.pts <= limit:
                self._sought = True
                return
            ticks = min(ticks, packet.dts) - 1
        raise _Unreliable("seeking found no key frame before the time")

    def _read_packet(self) -> None:
        packet = next(self._packets, None)
        if packet is None or (packet.dts is None and packet.pts is None and not packet.size):
            self.ended = True
            return
        if packet.pts is None or packet.dts is None or packet.is_corrupt:
            raise _Unreliable("a packet has no time")
        self._waiting.append(packet)
        self._position = packet.dts
        if not packet.is_discard and packet.pts >= self._first_pts:
            self._seen.add(packet.pts)
            self.last_duration = packet.duration or 0

    def _decode_up_to(self, wanted: int) -> None:
        sent = not any(packet.pts == wanted for packet in self._waiting)
        while not sent:
            packet = self._waiting.popleft()
            sent = packet.pts == wanted
            is_passed_over = packet.pts < wanted and packet.pts not in self._wanted
            self._stream.codec_context.skip_frame = "NONREF" if is_passed_over else "DEFAULT"
            self._collect(packet)

    def _collect(self, packet: av.Packet | None) -> None:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            frames = []
        for frame in frames:
            if frame.is_corrupt or (self._sought and not frame.key_frame):
                raise _Unreliable("what was found is damaged or no key frame")
            self._sought = False
            if frame.pts in self._wanted and frame.pts not in self.pictures:
                self.pictures[frame.pts] = self._picture(frame)


def _video_stream(container: av.container.InputContainer, file: Path) -> av.VideoStream:
    """The stream that a player would show: not a cover picture, and one that this FFmpeg can decode."""
    if "mp4" in container.format.name and is_encrypted(file):
        raise MediaError(f"{shown(file)} is encrypted, so its pictures cannot be seen; name a copy that is not.")
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        if container.streams.video and not container.streams.audio:
            raise not_media(file, "a video")
        has = "only sound" if container.streams.audio else "no pictures"
        raise MediaError(f"{shown(file)} holds {has}, not a video; name a file that has a video stream.")
    best = container.streams.best("video")
    stream = next((stream for stream in streams if best is not None and stream.index == best.index), streams[0])
    assert isinstance(stream, av.VideoStream)
    return stream


def _thread_type(stream: av.VideoStream) -> str:
    return "SLICE" if stream.width * stream.height > LARGE_FRAME else "AUTO"


def _describe(container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame) -> VideoInfo:
    orientation = _orientation(first)
    width, height = first.width, first.height
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else 0.0
    duration = _duration(container, stream, first)
    return VideoInfo(
        duration=duration,
        width=height if orientation.transposed else width,
        height=width if orientation.transposed else height,
        fps=fps,
        frames=stream.frames or max(1, round(duration * fps)),
        rotation=orientation.rotation,
        mirrored=orientation.mirrored,
        codec=stream.codec_context.name,
        container=container.format.name,
        has_audio=bool(container.streams.audio),
        subtitle_tracks=subtitle_tracks(container),
    )


def subtitle_tracks(container: av.container.InputContainer) -> tuple[SubtitleTrack, ...]:
    tracks = []
    for index, stream in enumerate(container.streams.subtitles):
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        language = None if stream.language in (None, "", "und") else stream.language
        tracks.append(SubtitleTrack(index, codec, language, codec in TEXT_SUBTITLES))
    return tuple(tracks)


def _duration(container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame) -> float:
    """Seconds from the first frame to the end, by the nearest of what the headers tell; 0 where they tell nothing."""
    base = Fraction(stream.time_base) if stream.time_base else Fraction(0)
    begin = (first.pts or 0) * base
    if stream.duration and base:
        start = begin if stream.start_time is None else stream.start_time * base
        duration = float(start - begin + stream.duration * base)
        return duration if duration > 0 else float(stream.duration * base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip("\0 "))
    if tag:  # Matroska's statistics: the time at which the last frame of this stream ends
        duration = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - float(begin)
        if duration > 0:
            return duration
    if container.duration is None:
        return 0.0
    end = (container.duration + (container.start_time or 0)) / av.time_base
    return float(max(end - float(begin), 0.0) or container.duration / av.time_base)


def _counted(
    container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame, info: VideoInfo
) -> VideoInfo:
    """The same with the duration that the packets have; unchanged where they have no times."""
    if first.pts is None or not stream.time_base:
        return info
    end, lasts = first.pts, round(1 / ((info.fps or 25) * stream.time_base))
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.pts >= end:
                end, lasts = packet.pts, packet.duration or lasts
    except DECODER_ERRORS:
        logger.info("counting the packets of a damaged file stopped at the damage")
    duration = float((end + lasts - first.pts) * stream.time_base)
    return replace(info, duration=duration, frames=stream.frames or max(1, round(duration * info.fps)))


def _measured(file: Path, info: VideoInfo) -> VideoInfo:
    """The same with duration, number of frames and rate counted, for files whose headers do not tell them."""
    frames, duration = 0, 0.0
    for frame in _all_frames(file, _Form()):
        frames += 1
        duration = max(duration, frame.time + frame.lasts)
    return replace(info, duration=duration, frames=frames, fps=info.fps or frames / duration)


def _clip_times(
    file: Path, info: VideoInfo, n: int, rule: Literal["even", "original"], start: float | None, end: float | None
) -> Times:
    if start is None and end is None:
        return sample_times(info, n, rule)
    begin, until = start or 0.0, info.duration if end is None else min(end, info.duration)
    if not 0 <= begin < until:
        raise MediaError(
            f"{shown(file)} lasts {info.duration:.1f} s, so there is nothing from {begin:g} s to"
            f" {'its end' if end is None else f'{end:g} s'}; choose a part within it."
        )
    part = replace(info, duration=until - begin)
    return begin + sample_times(part, n, rule)


def _tolerance(stream: av.VideoStream) -> float:
    """Seconds by which a time may lie before the frame that it means: files round times to their ticks."""
    return min(0.5 * float(stream.time_base or 0), 0.0005) + 1e-9


def _upright(frame: av.VideoFrame, file: Path, size: tuple[int, int] | None = None) -> Frames:
    """A decoded frame as it is shown, RGB, uint8 `(height, width, 3)`, scaled to `size` where that is given."""
    orientation = _orientation(frame)
    try:
        if size is not None:
            height, width = reversed(size) if orientation.transposed else size
            frame = frame.reformat(width, height, "rgb24", interpolation="BICUBIC")
        return np.ascontiguousarray(orientation.apply(frame.to_ndarray(format="rgb24")))
    except DECODER_ERRORS as error:
        raise MediaError(
            f"{shown(file)} holds pictures in a form ({frame.format.name}) that cannot be shown; convert it to .mp4."
        ) from error


def _resized(picture: Frames, size: tuple[int, int]) -> Frames:
    height, width = size
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """From the display matrix, which takes x to (a, b) and y to (c, d); PyAV's own rotation misses mirroring."""
    try:
        # PyAV's list refers back to its frame, which memory then holds for long: a tiny copy's matrix does as well.
        kinds = list(frame.reformat(8, 8, interpolation="POINT").side_data)
    except DECODER_ERRORS:  # PyAV refuses them all where it does not know one; its rotation is counter-clockwise
        quarters = round(frame.rotation / 90) % 4
        return (
            _Orientation(),
            _Orientation(True, False, True),
            _Orientation(False, True, True),
            _Orientation(True, True),
        )[quarters]
    for side_data in kinds:
        if side_data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side_data), dtype="<i4")[:5].tolist()
            if a * d == b * c:
                return _Orientation()
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return _Orientation(False, a < 0, d < 0)
            return _Orientation(True, c < 0, b < 0)
    return _Orientation()
