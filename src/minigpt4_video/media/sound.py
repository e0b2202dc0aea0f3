"""The sound of a video file in pieces that fit into memory, with their times."""

import logging
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from minigpt4_video.media.probing import beginning
from minigpt4_video.media.sources import DECODER_ERRORS, open_media, shown
from minigpt4_video.media.subtitles import is_in

logger = logging.getLogger(__name__)

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

RATE = 16_000
"""Samples a second: what recognisers of speech are trained on."""
LONGEST_PIECE = 300
SHORTEST_PIECE = 0.1
CUT_WITHIN = 20
"""Seconds before the end of a full piece in which the quietest moment is looked for."""
CUT_WINDOW = 0.1
LARGEST_GAP = 0.25
"""Seconds by which times may be off before they are taken for a break in the sound."""
BEGINS_AGAIN = 1.0
"""Seconds by which times go back where a recording was put behind another, and is heard behind it."""
LOWEST_RATE = 2000
LONGEST_FRAME = 60
LONGEST_SOUND = 12 * 3600


class Sound(NamedTuple):
    """A piece of sound without breaks."""

    start: float
    """Seconds from the video's first frame; sound that begins before it has a negative one."""
    samples: Samples
    """(n,), one channel, `RATE` a second, from -1 to 1."""


def read_sound(path: str | PathLike[str], language: str | None = None) -> Iterator[Sound]:
    """The sound of a video or sound file; nothing where it has none. `language` chooses among several tracks.

    A piece ends where the sound has a gap, and after at most five minutes at a quiet moment. Where the file is damaged
    the rest is read, with a warning. Raises `MediaError` for what is no media file.
    """
    file = Path(path)
    with open_media(file, "a video or sound") as container:
        tracks = container.streams.audio
        track = next((track for track in tracks if is_in(track.language, language)), None)
        if track is None:
            # FFmpeg sees nothing in a track that begins after the seconds of a stream that it looks at beforehand.
            track = container.streams.best("audio") or next(iter(tracks), None)
        if track is not None:
            yield from _pieces(_frames(container, track, file), beginning(file))


def _frames(
    container: av.container.InputContainer, track: av.AudioStream, file: Path
) -> Iterator[tuple[float | None, Samples]]:
    """Each decoded frame's time in seconds, where it tells one, and its samples."""
    mixer = _mixer()
    damaged = False
    told = 0.0
    try:
        for packet in container.demux(track):
            try:
                frames = packet.decode()
            except DECODER_ERRORS:
                damaged = True
                continue
            for frame in frames:
                if frame.sample_rate < LOWEST_RATE or frame.samples > LONGEST_FRAME * frame.sample_rate:
                    damaged = True  # a few bytes that would be hours, or more than memory holds, at our rate
                    continue
                told += frame.samples / frame.sample_rate
                if told > LONGEST_SOUND:
                    logger.warning("%s sounds longer than %d hours; the rest is not heard.", shown(file), told // 3600)
                    return
                try:
                    mixed = mixer.resample(frame)
                except DECODER_ERRORS:  # its form differs from that of the frames before
                    mixer = _mixer()
                    try:
                        mixed = mixer.resample(frame)
                    except DECODER_ERRORS:
                        damaged = True
                        continue
                time = None if frame.pts is None else float(frame.pts * frame.time_base)
                for part in mixed:
                    yield time, part.to_ndarray()[0].astype(np.float32) / 32768
                    time = None
    except DECODER_ERRORS:
        damaged = True
    finally:
        if damaged:
            logger.warning("the sound of %s is damaged; what can be read of it is heard.", shown(file))


def _mixer() -> av.AudioResampler:
    # In whole numbers FFmpeg keeps the sum of several channels from being too loud; in floating point it does not.
    return av.AudioResampler(format="s16", layout="mono", rate=RATE)


def _pieces(frames: Iterator[tuple[float | None, Samples]], begin: float) -> Iterator[Sound]:
    start, held, count = 0.0, list[Samples](), 0
    for time, samples in frames:
        if time is not None:
            ahead = time - begin - start - count / RATE
            if held and abs(ahead) > LARGEST_GAP and ahead > -BEGINS_AGAIN:
                yield from _long_enough(start, np.concatenate(held))
                held, count = [], 0
            if not held:
                start = time - begin
        held.append(samples)
        count += len(samples)
        while count >= LONGEST_PIECE * RATE:
            whole = np.concatenate(held)
            cut = _quiet_moment(whole[: LONGEST_PIECE * RATE])
            yield Sound(start, whole[:cut])
            start, held, count = start + cut / RATE, [whole[cut:]], count - cut
    if held:
        yield from _long_enough(start, np.concatenate(held))


def _long_enough(start: float, samples: Samples) -> Iterator[Sound]:
    if len(samples) >= SHORTEST_PIECE * RATE:
        yield Sound(start, samples)


def _quiet_moment(samples: Samples) -> int:
    """Where to cut near the end, so that no word is halved where there is a pause."""
    window = int(CUT_WINDOW * RATE)
    tail = samples[len(samples) - CUT_WITHIN * RATE :]
    loudness = np.square(tail[: len(tail) // window * window].reshape(-1, window)).mean(1)
    return len(samples) - len(tail) + int(loudness.argmin()) * window + window // 2
