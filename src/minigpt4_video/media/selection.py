"""The wanted frames of a file and no more than they need: jumping over groups of pictures, and passing over what no
other frame refers to.

Which packet is wanted is known from the packets' times before anything is decoded. Seeking by the container's own
means lands late or on a wrong picture in many formats: only where an index of key frames is trusted is it used, to
leave out reading. Elsewhere all packets are read, which costs little, and decoding begins again at a key frame.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av

from minigpt4_video.media.decoding import counts_decoding_time, thread_type, tolerance_of, video_stream
from minigpt4_video.media.pictures import Form, Frames
from minigpt4_video.media.sources import DECODER_ERRORS, open_media

SELECTABLE_FORMATS = {"mp4", "matroska", "mpegts", "mpeg", "flv", "avi"}
INDEXED_FORMATS = {"mp4", "matroska"}
# Where all that follows a key frame in order of presentation can be decoded from it.
SELECTABLE_CODECS = {
    *("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4", "flv", "mjpeg", "prores"),
}
# Where leaving out a frame to which no other refers changes nothing in the others.
VIDEO_OBJECT_PLANE = b"\0\0\1\xb6"  # begins each picture of MPEG-4 part 2
PASSABLE_CODECS = {"h264", "mpeg1video", "mpeg2video", "mpeg4"}
JUMP_COSTS_FRAMES = 8
SEEK_ATTEMPTS = 3
MOST_REORDERED = 16
BEFORE_ALL = -(2**63)


class Unreliable(Exception):
    """The quick way met something that only decoding every frame in order can settle."""


def read_selected(
    file: Path, targets: list[float], form: Form, first_pts: int | None
) -> tuple[list[tuple[float, Frames]], float | None, int]:
    """A time and a frame for each of the increasing `targets`, seconds, the video's end where it was reached, and how
    many frames were met on the way.

    `first_pts` is when the video's first frame is shown, in the stream's ticks. Raises `Unreliable` where the container
    or codec is none for which this is known to be exact, or where what comes out is not what was wanted.
    """
    if first_pts is None:
        raise Unreliable("the first frame has no time")
    try:
        with open_media(file) as container:
            stream = video_stream(container, file)
            if not set(container.format.name.split(",")) & SELECTABLE_FORMATS:
                raise Unreliable(container.format.name)
            if stream.codec_context.name not in SELECTABLE_CODECS:
                raise Unreliable(stream.codec_context.name)
            if counts_decoding_time(container) and stream.codec_context.has_b_frames:
                raise Unreliable("the container does not tell when reordered frames are shown")
            stream.thread_type = thread_type(stream)

            selection = Selection(container, stream, first_pts, partial(form.of_frame, file=file))
            wanted = [selection.want(target) for target in targets]
            selection.finish()
            base = stream.time_base
            end = float((selection.end - first_pts) * base) if selection.ended else None
            found = [(float((pts - first_pts) * base), selection.pictures[pts]) for pts in wanted]
    except (KeyError, *DECODER_ERRORS) as error:
        raise Unreliable(str(error)) from error
    return found, end, selection.met


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
        self.end = first_pts
        self.met = 0
        self._container = container
        self._stream = stream
        self._decoder = stream.codec_context
        self._first_pts = first_pts
        self._picture = picture
        self._counts_decoding_time = counts_decoding_time(container)
        self._passable = self._decoder.name in PASSABLE_CODECS
        is_indexed = bool(set(container.format.name.split(",")) & INDEXED_FORMATS)
        self._keys = sorted(entry.timestamp for entry in stream.index_entries if entry.is_keyframe and is_indexed)
        rate = stream.average_rate or Fraction(25)
        self._worth_seeking = int(JUMP_COSTS_FRAMES / (rate * stream.time_base))
        self._wanted: set[int] = set()
        self._reordered = False
        self._begin()

    def _begin(self) -> None:
        self._packets = self._container.demux(self._stream)
        self._waiting: deque[av.Packet] = deque()
        self._seen: set[int] = set()
        self._positions: deque[int] = deque(maxlen=MOST_REORDERED)
        self._jumps = False
        self._landing: int | None = None
        self._read = self._shown = BEFORE_ALL

    def want(self, target: float) -> int:
        """The presentation time of the frame shown `target` seconds after the first; times never go back."""
        limit = self._first_pts + max(0, int((target + tolerance_of(self._stream)) / self._stream.time_base))
        key = bisect_right(self._keys, limit) - 1
        if key >= 0 and self._keys[key] - max(self._position(), self._first_pts) > self._worth_seeking:
            self._seek(limit)
        # Where decoding times are made up, as in Matroska, a frame may come later than they promise.
        while not self.ended and self._beyond(limit) < MOST_REORDERED:
            self._read_packet(limit)
        wanted = max((pts for pts in self._seen if pts <= limit), default=None)
        if wanted is None:
            raise Unreliable("no packet holds the time")
        self._seen -= {pts for pts in self._seen if pts < wanted}
        self._wanted.add(wanted)
        self._decode_up_to(wanted)
        return wanted

    def finish(self) -> None:
        """Take what the decoder still holds."""
        self._collect(None)
        if self._decoder.name in ("h264", "hevc") and self._decoder.has_b_frames and not self._reordered:
            raise Unreliable("frames may be reordered and their times are not")

    def _position(self) -> int:
        """The decoding time of the packet read last."""
        return self._positions[-1] if self._positions else BEFORE_ALL

    def _beyond(self, limit: int) -> int:
        """How many of the packets read last must all be shown after `limit`."""
        return len(self._positions) - bisect_right(self._positions, limit)

    def _seek(self, limit: int) -> None:
        self._collect(None)
        ticks = limit
        for _ in range(SEEK_ATTEMPTS):
            self._container.seek(ticks, stream=self._stream, backward=True)
            self._begin()
            self._read_packet(limit)
            packet = self._waiting[0] if self._waiting else None
            if packet is None:
                break
            if packet.is_keyframe and packet.pts <= limit:
                self._landing = packet.pts
                return
            ticks = min(ticks, packet.pts if packet.dts is None else packet.dts) - 1
        raise Unreliable("seeking found no key frame before the time")

    def _read_packet(self, limit: int) -> None:
        packet = next(self._packets, None)
        if packet is None or (packet.dts is None and packet.pts is None and not packet.size):
            self.ended = True
            return
        if not packet.size:  # it repeats a picture
            return
        if self._counts_decoding_time:
            packet.pts = packet.dts
        if packet.pts is None or (packet.dts is None and self._positions) or packet.is_corrupt:
            raise Unreliable("a packet has no time")
        if self._decoder.name == "mpeg4" and bytes(packet).count(VIDEO_OBJECT_PLANE) > 1:
            raise Unreliable("two pictures in one packet")
        if packet.dts is not None:
            if not self._position() <= packet.dts <= packet.pts:
                raise Unreliable("times go back")
            self._positions.append(packet.dts)
        if packet.is_keyframe and packet.pts <= limit and (self._jumps or len(self._waiting) > JUMP_COSTS_FRAMES):
            self._waiting.clear()
            self._seen -= {pts for pts in self._seen if pts < packet.pts}
            self._jumps = True
        self._reordered = self._reordered or packet.pts < self._read
        self._read = packet.pts
        self._waiting.append(packet)
        if not packet.is_discard and packet.pts >= self._first_pts:
            self._seen.add(packet.pts)
            self.met += 1
            self.end = max(self.end, packet.pts + (packet.duration or 0))

    def _decode_up_to(self, wanted: int) -> None:
        if self._jumps:
            self._collect(None)
            self._decoder.flush_buffers()
            self._shown = BEFORE_ALL
            self._landing = self._waiting[0].pts
            self._jumps = False
        sent = not any(packet.pts == wanted for packet in self._waiting)
        while not sent:
            packet = self._waiting.popleft()
            sent = packet.pts == wanted
            is_passed_over = self._passable and packet.pts < wanted and packet.pts not in self._wanted
            self._decoder.skip_frame = "NONREF" if is_passed_over else "DEFAULT"
            self._collect(packet)

    def _collect(self, packet: av.Packet | None) -> None:
        try:
            frames = self._decoder.decode(packet)
        except av.error.EOFError:
            frames = []
        for frame in frames:
            pts = frame.dts if self._counts_decoding_time else frame.pts
            if frame.is_corrupt or (self._landing is not None and not (frame.key_frame and pts == self._landing)):
                raise Unreliable("what was found is damaged or not the key frame")
            self._landing = None
            if pts is None:
                continue
            if pts < self._shown:
                raise Unreliable("frames come out in another order than that of their times")
            self._shown = pts
            if pts in self._wanted and pts not in self.pictures:
                self.pictures[pts] = self._picture(frame)
