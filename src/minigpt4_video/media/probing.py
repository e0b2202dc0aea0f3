"""What a video file says of itself."""

import logging
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import av
from av.video.reformatter import VideoReformatter

from minigpt4_video.errors import MediaError
from minigpt4_video.media.animations import PICTURE_ERRORS, check_picture_size, is_webp, opened_webp
from minigpt4_video.media.decoding import Clock, Decoder, MadeUpTimes, counts_decoding_time, video_stream
from minigpt4_video.media.in_order import all_frames
from minigpt4_video.media.pictures import Form, orientation_of
from minigpt4_video.media.sources import DECODER_ERRORS, check_file, not_media, open_media, shown

logger = logging.getLogger(__name__)

TEXT_SUBTITLES = {"ass", "ssa", "subrip", "srt", "text", "mov_text", "webvtt", "microdvd", "subviewer", "sami"}

# Formats whose headers tell the duration; others are estimated by FFmpeg from the bit rate or the last packets.
TIMED_FORMATS = {"mp4", "matroska", "avi", "asf"}
LARGE_FILE = 2**30  # going through the packets of so much takes about a second


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


def probe(path: str | PathLike[str]) -> VideoInfo:
    """What is in a video or picture file. Raises `MediaError` where it holds no picture that can be decoded."""
    return probe_beginning(path)[0]


def probe_beginning(path: str | PathLike[str]) -> tuple[VideoInfo, int | None]:
    """The same, and when the first frame is shown, in ticks of its stream; None where it has no such time."""
    file = check_file(path, "a video")
    if is_webp(file):
        return _measured(file, _describe_webp(file)), None
    with open_media(file) as container:
        stream = video_stream(container, file)
        first = next(Decoder(container, stream).frames(), None)
        if first is None:
            check_picture_size(file)
            raise MediaError(f"{shown(file)} holds no frame that can be decoded; it is damaged: download it again.")
        info = _describe(container, stream, first)
        tells_duration = bool(set(info.container.split(",")) & TIMED_FORMATS) or file.stat().st_size > LARGE_FILE
        if not (tells_duration and info.duration > 0):
            info = _counted(container, stream, first, info)
        elif "mp4" in info.container.split(",") and stream.codec_context.has_b_frames:
            info = _to_the_last_shown(container, stream, first, info)
        ticks = first.dts if counts_decoding_time(container) else first.pts
        first_pts = ticks if first.time_base == stream.time_base else None
    # Frames before time zero may have lost their times, as in Matroska; the headers count from zero.
    is_told = info.duration > 0 and info.fps > 0 and not (first.pts is None and first.dts is None)
    return info if is_told else _measured(file, info), first_pts


def beginning(file: Path) -> float:
    """Seconds, as the file's streams count them, of the first frame that can be decoded, from which a video's times are
    counted; 0 where nothing can be seen. What is sent before it in a stream that begins inside a group of pictures
    is never shown."""
    with open_media(file, "a video or sound") as container:
        try:
            stream = video_stream(container, file)
        except MediaError:
            return 0.0
        first = next(Decoder(container, stream).frames(), None)
        # A decoding time would be late by as many frames as the decoder holds.
        if first is not None and first.pts is not None and not counts_decoding_time(container):
            return float(first.pts * first.time_base)
        return 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base)


def _describe_webp(file: Path) -> VideoInfo:
    try:
        with opened_webp(file) as picture:
            width, height = picture.size
    except PICTURE_ERRORS as error:
        raise not_media(file, "a picture") from error
    return VideoInfo(0.0, width, height, 0.0, 1, 0, False, "webp", "webp", False, ())


def _describe(container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame) -> VideoInfo:
    orientation = orientation_of(first, VideoReformatter())
    width, height = first.width, first.height
    fps = float(rate_of(stream))
    duration = _duration(container, stream, first)
    return VideoInfo(
        duration=duration,
        width=height if orientation.transposed else width,
        height=width if orientation.transposed else height,
        fps=fps,
        frames=_frames(stream, duration, fps),
        rotation=orientation.rotation,
        mirrored=orientation.mirrored,
        codec=stream.codec_context.name,
        container=container.format.name,
        has_audio=bool(container.streams.audio),
        subtitle_tracks=subtitle_tracks(container),
    )


def rate_of(stream: av.VideoStream) -> Fraction:
    """Frames a second, 0 where the file does not tell. Its average may be that of ticks, as in DV and some Matroska."""
    average, guessed = Fraction(stream.average_rate or 0), Fraction(stream.guessed_rate or 0)
    return guessed if guessed and not 0 < average <= 2 * guessed else average


def _frames(stream: av.VideoStream, duration: float, fps: float) -> int:
    """Number of frames. A fragmented file may tell that of its first fragment, and a damaged one any."""
    estimate = max(1, round(duration * fps))
    return int(stream.frames) if estimate / 2 < stream.frames <= 2 * estimate + 1 else estimate


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
    """The same with the duration that the packets have; unchanged where they have no times. Where decoding times go
    back, as in recordings that were put one behind the other, it goes on as the frames' times do."""
    if first.pts is None or not stream.time_base:
        return info
    end, lasts, moved = first.pts, round(1 / ((info.fps or 25) * stream.time_base)), 0
    clock, before = Clock(container, stream, by_decoding_time=True), None
    try:
        for packet in container.demux(stream):
            if packet.dts is not None:
                if before is not None and (moved or packet.dts < before.dts):  # the clock would slow the usual case
                    if not moved:
                        clock.time(before)
                    moved = round(clock.time(packet) / stream.time_base) - packet.dts
                before = packet
            if packet.pts is not None and packet.pts + moved >= end:
                end, lasts = packet.pts + moved, packet.duration or lasts
    except DECODER_ERRORS:
        logger.info("counting the packets of a damaged file stopped at the damage")
    duration = float((end + lasts - first.pts) * stream.time_base)
    return replace(info, duration=duration, frames=_frames(stream, duration, info.fps))


def _to_the_last_shown(
    container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame, info: VideoInfo
) -> VideoInfo:
    """The same with a duration that takes in the frame shown last. MP4 adds up the time from one decoding to the next,
    which ends before that frame is shown where frames are reordered and their rate changes."""
    if first.pts is None or not stream.duration or not stream.time_base:
        return info
    end = first.pts
    try:
        container.seek((stream.start_time or 0) + stream.duration, stream=stream)
        for packet in container.demux(stream):
            if packet.pts is not None and not packet.is_discard:
                end = max(end, packet.pts + (packet.duration or 0))
    except DECODER_ERRORS:
        return info
    return replace(info, duration=max(info.duration, float((end - first.pts) * stream.time_base)))


def _measured(file: Path, info: VideoInfo) -> VideoInfo:
    """The same with duration, number of frames and rate counted, for files whose headers do not tell them."""
    try:
        frames, duration = _count(file)
    except MadeUpTimes:
        frames, duration = _count(file, by_decoding_time=True)
    return replace(info, duration=duration, frames=frames, fps=info.fps or frames / duration)


def _count(file: Path, by_decoding_time: bool = False) -> tuple[int, float]:
    frames, duration = 0, 0.0
    for frame in all_frames(file, Form(), by_decoding_time):
        frames += 1
        duration = max(duration, frame.time + frame.lasts)
    return frames, duration
