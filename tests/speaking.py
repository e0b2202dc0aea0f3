"""Files in which something is said, by the speech synthesiser flite, with the times at which it says each word."""

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

RATE = 16_000
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "She opened the red door and walked into the garden.",
    "We will meet at the station tomorrow morning.",
    "There are seven people in the room.",
    "He has never seen the ocean before.",
    "The children are playing behind the school.",
)


class Speech(NamedTuple):
    samples: np.ndarray
    """float32 (n,), `RATE` a second."""
    words: list[tuple[str, float]]
    """Each word in small letters and the second at which it begins."""


def need_flite() -> str:
    program = shutil.which("flite")
    if program is None:
        pytest.skip("flite is not installed, so nothing can be said (Debian: apt install flite)")
    return program


def speak(sentence: str, voice: str = "rms") -> Speech:
    program = [need_flite(), "-voice", voice]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        told = _output([*program, "-psdur", "-t", sentence, "-o", str(file)])
        with wave.open(str(file)) as said:
            assert said.getframerate() == RATE and said.getnchannels() == 1
            samples = np.frombuffer(said.readframes(said.getnframes()), "<i2").astype(np.float32) / 32768
    phones = [(phone.split(":")[0], float(phone.split(":")[1])) for phone in told.split()]
    begins, before = [], 0.0
    for name, end in phones:
        if name != "pau":
            begins.append(before)
        before = end
    words, place = [], 0
    for word in sentence.lower().strip(".").split():
        words.append((word, begins[place]))
        place += sum(phone != "pau" for phone in _output([*program, "-ps", "-t", word, "none"]).split())
    assert place == len(begins), "flite says these words otherwise alone than together; use other ones"
    return Speech(samples, words)


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def conversation(sentences: Sequence[str] = SENTENCES, voice: str = "rms", pause: float = 1.0) -> Speech:
    """The sentences one after another, each after a pause in seconds."""
    parts, words, length = [], [], 0
    for sentence in sentences:
        said = speak(sentence, voice)
        silence = np.zeros(round(pause * RATE), np.float32)
        length += len(silence)
        words += [(word, start + length / RATE) for word, start in said.words]
        parts += [silence, said.samples]
        length += len(said.samples)
    return Speech(np.concatenate(parts), words)


def tone(seconds: float, pitch: float = 440.0) -> np.ndarray:
    """float32 (n,): a loud beep."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write_talking(
    path: Path,
    sounds: Sequence[tuple[float, np.ndarray]],
    *,
    seconds: float,
    rate: int = 4,
    codec: str = "aac",
    begin: float = 0.0,
    languages: Sequence[str] = ("und",),
    **options: str,
) -> Path:
    """A grey video with, in each track, the samples from the given seconds on; `begin` is that of the first picture.

    Between the sounds there is nothing, not even silence. The second track has them at half the pitch.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        video.options = options
        tracks = []
        for language in languages:
            track = container.add_stream(codec, rate=RATE)
            track.layout, track.metadata["language"] = "mono", language
            tracks.append(track)
        for index in range(round(seconds * rate)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round((begin + index / rate) * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        form = "fltp" if codec == "aac" else "s16"
        for number, track in enumerate(tracks):
            for start, samples in sounds:
                samples = samples[:: number + 1]
                for first in range(0, len(samples), 1024):
                    part = samples[first : first + 1024]
                    whole = (part * 32767).astype(np.int16) if form == "s16" else part
                    sound = av.AudioFrame.from_ndarray(whole[None], format=form, layout="mono")
                    sound.sample_rate, sound.time_base = RATE, Fraction(1, RATE)
                    sound.pts = round(start * RATE) + first
                    container.mux(track.encode(sound))
            container.mux(track.encode())
    return path
