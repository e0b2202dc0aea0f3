"""The wanted frames of a file and no more than they need: seeking, and passing over what no other frame refers to."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av

from minigpt4_video.media.animations import is_webp
from minigpt4_video.media.decoding import Decoder, thread_type, tolerance_of, video_stream
from minigpt4_video.media.pictures import Form, Frames
from minigpt4_video.media.sources import DECODER_ERRORS, open_media

# Where a packet's presentation time is that of its frame and a key frame can be trusted.
SEEKABLE_FORMATS = {"mp4", "matroska"}
SELECTABLE_CODECS = {"h264", "hevc", "vp8", "vp9", "libdav1d"}
SEEK_COSTS_FRAMES = 8
SEEK_ATTEMPTS = 3


class Unreliable(Exception):
    """The quick way met something that only decoding every frame in order can settle."""


def read_selected(file: Path, targets: list[float], form: Form) -> tuple[list[tuple[float, Frames]], float | None]:
    """Decode no more than the wanted frames need: seek where a key frame lies between, and pass over frames that no
    other refers to.

    Which packet is wanted is known from the packets' times before anything is decoded. Raises `Unreliable` where the
    container or codec is none for which this is known to be exact, or where what comes out is not what was wanted.
    """
    if is_webp(file):
        raise Unreliable("webp")
    try:
        with open_media(file) as container:
            stream = video_stream(container, file)
            formats = set(container.format.name.split(","))
            if not formats & SEEKABLE_FORMATS or stream.codec_context.name not in SELECTABLE_CODECS:
                raise Unreliable(container.format.name)
            first = next(Decoder(container, stream).frames(), None)
            if first is None or first.pts is None or first.time_base != stream.time_base:
                raise Unreliable("the first frame has no time")
            first_pts = first.pts
        with open_media(file) as container:
            stream = video_stream(container, file)
            stream.thread_type = thread_type(stream)

            selection = Selection(container, stream, first_pts, partial(form.of_frame, file=file))
            wanted = [selection.want(target) for target in targets]
            selection.finish()
            base = stream.time_base
            end = None
            if selection.ended:
                end = float((max(wanted) + selection.last_duration - first_pts) * base)
            found = [(float((pts - first_pts) * base), selection.pictures[pts]) for pts in wanted]
    except (KeyError, *DECODER_ERRORS) as error:
        raise Unreliable(str(error)) from error
    return found, end


class Selection:
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
        limit = self._first_pts + max(0, int((target + tolerance_of(self._stream)) / self._stream.time_base))
        key = bisect_right(self._keys, limit) - 1
        if key >= 0 and self._keys[key] - self._position > self._worth_seeking:
            self._seek(limit)
        while not self.ended and self._position <= limit:
            self._read_packet()
        wanted = max((pts for pts in self._seen if pts <= limit), default=None)
        if wanted is None:
            raise Unreliable("no packet holds the time")
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
        raise Unreliable("seeking found no key frame before the time")

    def _read_packet(self) -> None:
        packet = next(self._packets, None)
        if packet is None or (packet.dts is None and packet.pts is None and not packet.size):
            self.ended = True
            return
        if packet.pts is None or packet.dts is None or packet.is_corrupt:
            raise Unreliable("a packet has no time")
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
                raise Unreliable("what was found is damaged or no key frame")
            self._sought = False
            if frame.pts in self._wanted and frame.pts not in self.pictures:
                self.pictures[frame.pts] = self._picture(frame)
