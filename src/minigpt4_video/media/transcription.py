"""What is said in a video, by a recogniser of speech, to cues."""

import io
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigpt4_video.errors import ModelError
from minigpt4_video.media.alignment import Cue
from minigpt4_video.media.sound import RATE, Samples, read_sound

SILENCE = 1e-3
"""A piece without a louder sample is not worth hearing: 60 dB below the loudest there can be."""
PAUSE = 0.6
LONGEST_LINE = 6.0
SENTENCE_END = re.compile(r"[.!?。！？…]['\"”’」』)]*$")
LONGEST_UTTERANCE = 30


class Recogniser(Protocol):
    """Turns sound into words. Loads its weights when it first hears something."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def key(self) -> str:
        """What determines the words besides the sound: program, version, weights, options."""

    def words(self, samples: Samples) -> Iterable[Cue]:
        """Words, or longer stretches, of (n,) samples, in seconds from their beginning.

        A text begins with a space where its language puts one between words. Raises ModelError.
        """


def transcribe(path: str | PathLike[str], recogniser: Recogniser, language: str | None = None) -> list[Cue]:
    """The words that are said in a file, by their start; none where it is silent or has no sound.

    Times are seconds from the video's first frame. `language` chooses among several sound tracks; what language is
    spoken the recogniser finds out. Raises MediaError, and ModelError where the recogniser cannot be used.
    """
    heard = []
    for start, samples in read_sound(path, language):
        if np.abs(samples).max() < SILENCE:
            continue
        end = start + len(samples) / RATE
        for word in recogniser.words(samples):
            first = min(max(start + word.start, 0.0), max(end, 0.0))
            last = min(max(start + word.end, first), max(end, 0.0))
            if word.text.strip():
                heard.append(Cue(first, last, word.text))
    return sorted(heard, key=lambda word: word.start)


def lines(words: Iterable[Cue]) -> list[Cue]:
    """Words as lines to read, like those of subtitles: one ends with a sentence, at a pause, or when it grows long."""
    made: list[Cue] = []
    for word in words:
        if made and _goes_on(made[-1], word):
            made[-1] = Cue(made[-1].start, max(made[-1].end, word.end), made[-1].text + word.text)
        else:
            made.append(word)
    return [Cue(line.start, line.end, " ".join(line.text.split())) for line in made]


def _goes_on(line: Cue, word: Cue) -> bool:
    return (
        word.start - line.end < PAUSE
        and word.end - line.start <= LONGEST_LINE
        and not SENTENCE_END.search(line.text.rstrip())
    )


class FasterWhisper:
    """Whisper by CTranslate2 on the processor, in whole numbers of 8 bits, where a voice is detected."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = f"faster-whisper, {name}"

    @property
    def key(self) -> str:
        return f"faster-whisper {version('faster-whisper')} int8 {folder_key(self.folder)}"

    @cached_property
    def _model(self) -> Any:
        from faster_whisper import WhisperModel

        if not (self.folder / "tokenizer.json").is_file():  # faster-whisper would download one
            raise ModelError(f"{self.folder} lacks tokenizer.json; copy it from the model this one was converted from")
        try:
            return WhisperModel(str(self.folder), device="cpu", compute_type="int8")
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"the speech model in {self.folder} cannot be loaded: {_line(error)}") from error

    def words(self, samples: Samples) -> Iterator[Cue]:
        # Text before is no help where pieces are cut at pauses, and makes Whisper repeat itself for minutes.
        told, _ = self._model.transcribe(
            samples, vad_filter=True, word_timestamps=True, condition_on_previous_text=False
        )
        for segment in told:
            if not segment.words:
                yield Cue(float(segment.start), float(segment.end), segment.text)
            for word in segment.words or ():
                yield Cue(float(word.start), float(word.end), word.word)


class PocketSphinx:
    """English by the small model in pocketsphinx's wheel: far from Whisper, and there without a download."""

    name = "pocketsphinx, English"

    @property
    def key(self) -> str:
        return f"pocketsphinx {version('pocketsphinx')} en-us"

    @cached_property
    def _decoder(self) -> Any:
        from pocketsphinx import Decoder

        return Decoder(loglevel="FATAL", samprate=float(RATE))

    def words(self, samples: Samples) -> Iterator[Cue]:
        from pocketsphinx import Segmenter

        sound = io.BytesIO((samples * 32767).astype("<i2").tobytes())
        for voice in Segmenter(sample_rate=RATE).segment(sound):
            for first in range(0, len(voice.pcm), LONGEST_UTTERANCE * RATE * 2):
                begin = voice.start_time + first / 2 / RATE
                yield from self._utterance(voice.pcm[first : first + LONGEST_UTTERANCE * RATE * 2], begin)

    def _utterance(self, pcm: bytes, begin: float) -> Iterator[Cue]:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        frames = self._decoder.config["frate"]
        for heard in self._decoder.seg():
            word = re.sub(r"\(\d+\)$", "", heard.word)  # the second pronunciation of "and" is called "and(2)"
            if word[0] not in "<[+":  # silence, noise
                yield Cue(begin + heard.start_frame / frames, begin + (heard.end_frame + 1) / frames, f" {word}")


def folder_key(folder: Path) -> str:
    """Names, sizes and times of a model's files: reading gigabytes to know them would take longer than to use them."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
