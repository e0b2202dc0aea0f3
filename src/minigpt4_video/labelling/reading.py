"""Reading clips that nobody vouches for: in a child process that reads one after another, and is replaced when it
crashes or hangs, so that no file can end a job.

The child, in `reader.py`, answers with JSON and the frames' bytes. Nothing that it says is run or unpickled.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.signals import Signals
from minigpt4_video.labelling.sources import Source
from minigpt4_video.media import Clip, Cue, Limits, SubtitleTrack, VideoInfo
from minigpt4_video.media.guarded import FEW_THREADS, KEPT_VARIABLES

Result = TypeVar("Result")

LONGEST_ANSWER = 2**24
SECONDS_TO_START = 300.0
"""A child may take so long to be ready, on a machine with much else to do. Files have their own limit, from then on."""
FILES_A_CHILD = 500
"""After so many files the child is replaced, which bounds what decoders leak."""
SPEECH_VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Form:
    """How a model wants a video, so that it can be read without the model."""

    frames: int
    image_size: int
    window: int
    answer_reserve: int
    tokens_per_frame: int
    asked_frames: int | None = None
    """The number of frames that was asked for by name."""
    subtitle_language: str | None = None
    encoding: str | None = None
    """Of subtitle files; None is detected."""
    speech: str = "off"
    """A speech model for videos without subtitles."""


class Seen(NamedTuple):
    """A clip as a captioner takes it."""

    footage: Footage
    signals: Signals


class Reading(NamedTuple):
    """A clip that is being read, or was."""

    work: Work
    seen: "Future[Seen]"


class _Gone(Exception):
    """The child cannot be spoken to any more."""


class Reader:
    """Reads clips in a child process of its own; for one thread at a time."""

    def __init__(self, form: Form, limits: Limits) -> None:
        self.form = form
        self.limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._left = 0

    def read(self, source: Source, path: Path) -> Seen:
        """The frames, texts and signals of a clip; `path` is where its file lies now. Raises MediaError."""
        told, deadline = self._asked("clip", source, path)
        return self._sensible(source, lambda: self._seen(told, source, deadline))

    def span(self, source: Source, path: Path) -> tuple[float, float]:
        """Where a clip begins and ends in its file, in seconds. Raises MediaError."""
        told, _ = self._asked("span", source, path)
        return self._sensible(source, lambda: (float(told["span"][0]), float(told["span"][1])))

    def scenes(self, source: Source, path: Path) -> list[float]:
        """When the scenes of a clip begin, in seconds. Raises MediaError."""
        told, _ = self._asked("scenes", source, path)
        return self._sensible(source, lambda: [float(time) for time in told["scenes"]])

    def _asked(self, what: str, source: Source, path: Path) -> tuple[dict[str, Any], float]:
        request = {"what": what, "path": str(path.absolute()), "start": source.start, "end": source.end}
        line = json.dumps(request | {"subtitles": source.subtitles}).encode() + b"\n"

        def exchanged() -> tuple[dict[str, Any], float]:
            self._send(line)
            deadline = time.monotonic() + self.limits.seconds
            length = int.from_bytes(self._bytes(8, deadline), "little")
            if length > LONGEST_ANSWER:
                raise _Gone("returned more than was asked for")
            told = json.loads(self._bytes(length, deadline))
            if told["error"] is not None:
                said = " ".join(str(told["error"]).split())[:2000]
                raise MediaError(said.replace(str(path.absolute()), source.name))
            return told, deadline

        return self._sensible(source, exchanged)

    def _sensible(self, source: Source, get: Callable[[], Result]) -> Result:
        """What `get` understands of the child's answer. One that makes no sense is the end of the child."""
        try:
            return get()
        except MediaError:
            raise
        except (_Gone, OSError) as gone:
            self.close()
            raise _refused(source, f"its decoder {gone}") from gone
        except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as senseless:
            self.close()
            raise _refused(source, "its decoder crashed") from senseless
        except BaseException:
            self.close()  # between two answers, so it cannot be asked for another
            raise

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _send(self, request: bytes) -> None:
        if self._child is None or self._left == 0 or self._child.poll() is not None:
            self.close()
            self._child = _start(self.form, self.limits)
            self._left = FILES_A_CHILD
            self._bytes(1, time.monotonic() + SECONDS_TO_START)
        self._left -= 1
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(request)
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise _Gone("did not start") from error

    def _seen(self, told: dict[str, Any], source: Source, deadline: float) -> Seen:
        times = np.array(told["times"], np.float64)
        most = self.form.asked_frames or self.form.frames
        if times.ndim != 1 or not 0 < len(times) <= most or not np.isfinite(times).all():
            raise ValueError("frames and times are not alike")
        size = self.form.image_size
        data = self._bytes(len(times) * size * size * 3, deadline)
        frames = np.frombuffer(data, np.uint8).reshape(-1, size, size, 3)
        texts = [str(text) for text in told["texts"]]
        if len(texts) != len(times):
            raise ValueError("texts and times are not alike")
        tracks = tuple(SubtitleTrack(*track) for track in told["info"].pop("subtitle_tracks"))
        info = VideoInfo(**told["info"], subtitle_tracks=tracks)
        cues = [Cue(float(start), float(end), str(text)) for start, end, text in told["cues"]]
        heard = Said(cues, source=str(told["said_in"]), missing=str(told["unsaid"]))
        clip = Clip(frames, times, float(told["duration"]))
        footage = Footage(Path(source.name), info, clip, texts, heard, self.form.asked_frames)
        return Seen(footage, Signals(*told["signals"]))

    def _bytes(self, count: int, deadline: float) -> bytes:
        assert self._child is not None and self._child.stdout is not None
        got = bytearray()
        while len(got) < count:
            if not select.select([self._child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _Gone(f"took longer than {self.limits.seconds:g} s")
            piece = os.read(self._child.stdout.fileno(), min(1 << 20, count - len(got)))
            if not piece:
                raise _Gone("crashed")
            got += piece
        return bytes(got)


def _refused(source: Source, how: str) -> MediaError:
    return MediaError(f"{source.name} cannot be used: {how}; convert it to .mp4 and try again.")


def _start(form: Form, limits: Limits) -> subprocess.Popen[bytes]:
    kept = KEPT_VARIABLES if form.speech == "off" else (*KEPT_VARIABLES, *SPEECH_VARIABLES)
    told: dict[str, Any] = {"form": asdict(form), "limits": asdict(limits)}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "minigpt4_video.labelling.reader", json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in kept if name in os.environ} | FEW_THREADS,
        start_new_session=True,
    )
