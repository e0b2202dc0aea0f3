"""A file's video stream, its frames as they come out of the decoder, and when each is shown."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from minigpt4_video.errors import MediaError
from minigpt4_video.media.sources import (
    DECODER_ERRORS,
    HELD_PICTURES,
    check_size,
    is_encrypted,
    largest_picture,
    not_media,
    shown,
)

UNREADABLE_IN_A_ROW = 1000
# Decoding several frames at once holds that many more of them.
LARGE_FRAME = 4096 * 2304


def video_stream(container: av.container.InputContainer, file: Path) -> av.VideoStream:
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
    form, codec = stream.codec_context.format, stream.codec_context.codec
    held = 1 if codec.intra_only or codec.name == "png" else HELD_PICTURES
    most = largest_picture(0 if form is None else form.padded_bits_per_pixel, held)
    check_size(file, stream.width, stream.height, most)
    stream.codec_context.options = {"max_pixels": str(most)}
    return stream


def thread_type(stream: av.VideoStream) -> str:
    return "SLICE" if stream.width * stream.height > LARGE_FRAME else "AUTO"


def tolerance_of(stream: av.VideoStream) -> float:
    """Seconds by which a time may lie before the frame that it means: files round times to their ticks."""
    return min(0.5 * float(stream.time_base or 0), 0.0005) + 1e-9


def counts_decoding_time(container: av.container.InputContainer) -> bool:
    """Whether frames have decoding times only: AVI holds no other, and FFmpeg invents the rest."""
    return bool(container.format.name == "avi")


class Decoder:
    """Decodes a stream from where it is, over damaged pieces; `damaged` tells whether there were any."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.damaged = False

    def frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            is_end = packet.dts is None and packet.pts is None
            if packet.size or is_end:  # an empty packet repeats a picture, which decoders refuse to do
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


class MadeUpTimes(Exception):
    """Frames come out in an order that is not that of their presentation times, so that these were made up."""


class Clock:
    """Frames' times in seconds; where the file gives none, or one that goes back, one frame after the other.

    A decoder gives frames in the order in which they are shown. Where presentation times go back and decoding times do
    not, as with B-frames in ASF and MXF, or two pictures in a packet in MP4, `MadeUpTimes` is raised: the latter tell
    the pace. With `by_decoding_time` they are taken from the beginning. In recordings put one behind the other both go
    back, decoding times some frames earlier, when the last frames of a recording still come.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, by_decoding_time: bool = False
    ) -> None:
        rate = stream.average_rate or stream.guessed_rate
        self._step = 1 / Fraction(rate) if rate else Fraction(1, 25)
        self._counts_decoding_time = by_decoding_time or counts_decoding_time(container)
        self._next = Fraction(0)
        self._last: Fraction | None = None
        self._ticks: tuple[int | None, int | None] = (None, None)
        self._latest = -(2**63)

    def time(self, frame: av.VideoFrame | av.Packet) -> Fraction:
        (shown, decoded), self._ticks = self._ticks, (frame.pts, frame.dts)
        is_told = None not in (shown, decoded, frame.pts, frame.dts)
        if is_told and not self._counts_decoding_time and frame.pts < shown and frame.dts > self._latest:
            raise MadeUpTimes
        self._latest = max(self._latest, self._latest if frame.dts is None else frame.dts)
        ticks = frame.dts if self._counts_decoding_time else frame.pts
        time = self._next if ticks is None or not frame.time_base else ticks * Fraction(frame.time_base)
        if self._last is not None and time < self._last:
            time = self._next
        self._last = time
        self._next = time + self.lasts(frame)
        return time

    def lasts(self, frame: av.VideoFrame | av.Packet) -> Fraction:
        """Seconds for which a frame is shown."""
        if frame.duration and frame.time_base:
            return int(frame.duration) * Fraction(frame.time_base)
        return self._step
