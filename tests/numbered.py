"""Small media files whose frames carry their own number, so that a wrong frame is seen."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet
from PIL import Image

WIDTH, HEIGHT = 64, 48

SUBTITLE_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def numbered(number: int) -> np.ndarray:
    """uint8 (48, 64, 3): `number` in binary, bright squares for ones, in two rows of four."""
    picture = np.full((HEIGHT, WIDTH, 3), 16, dtype=np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            row, column = divmod(bit, 4)
            picture[row * 24 : row * 24 + 24, column * 16 : column * 16 + 16] = 235
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a picture shows."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 4
    number = 0
    for bit in range(8):
        row, column = divmod(bit, 4)
        square = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        number |= int(square[height // 4 : -height // 4, width // 4 : -width // 4].mean() > 128) << bit
    return number


def numbers_of(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 25),
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int | None = None,
    subtitles: Sequence[tuple[str, float, float, str]] = (),
    subtitle_codec: str = "srt",
    **options: str,
) -> Path:
    """A video with frame k at `ticks[k] * time_base`. `subtitles`: language, start, end, text; one track a language."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=Fraction(1) / time_base if time_base > Fraction(1, 100) else 25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        stream.options = options
        stream.codec_context.thread_count = 1  # the number of processors would be seen in the file, as slices
        if rotation is not None:
            stream.set_display_rotation(rotation)
        languages = dict.fromkeys(language for language, *_ in subtitles)
        tracks = {language: container.add_stream(subtitle_codec) for language in languages}
        for language, track in tracks.items():
            track.metadata["language"] = language
            track.codec_context.subtitle_header = SUBTITLE_HEADER
            track.time_base = track.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()
        for language, start, end, text in subtitles:
            event = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, round((end - start) * 1000))
            packet = tracks[language].codec_context.encode_subtitle(event)
            packet.stream, packet.time_base = tracks[language], Fraction(1, 1000)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round((end - start) * 1000)
            container.mux(packet)
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def without_its_beginning(whole: Path, path: Path) -> Path:
    """A copy that begins inside a group of pictures, as a recording of a broadcast does: the first picture is missing,
    to which all others of its group refer."""
    with av.open(whole) as source, av.open(path, "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        is_missing = True
        for packet in source.demux():
            if packet.stream.type == "video" and is_missing:
                is_missing = False
            elif packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return path


def write_animation(path: Path, durations: Sequence[int]) -> Path:
    """An animated GIF or WebP; each frame is shown for its number of milliseconds."""
    pictures = [Image.fromarray(numbered(number)) for number in range(len(durations))]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=list(durations), loop=0, lossless=True)
    return path


def write_sound(path: Path) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
