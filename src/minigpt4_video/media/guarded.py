"""Reading files that nobody vouches for: in a child process with limits, so that a decoder's crash is one error.

The child, in `child.py`, is told what to read in a line of JSON and answers with one, followed by the frames' bytes;
nothing that it says is run or unpickled, and what makes no sense is an error like a crash. Needs Linux or macOS.
"""

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import IO, Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np

from minigpt4_video.errors import MediaError
from minigpt4_video.media.alignment import Cue
from minigpt4_video.media.pictures import Frames
from minigpt4_video.media.probing import SubtitleTrack, VideoInfo
from minigpt4_video.media.sources import check_file, shown
from minigpt4_video.media.video import Clip

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# What a Python needs to start; secrets in the environment are none of the decoder's business.
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "SYSTEMROOT",
)
FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}  # each takes address space, which is limited
LONGEST_LINE = 2**24
LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Limits:
    """What reading one file may cost, and how large a video may be."""

    memory: int = 1536 * 2**20
    """Bytes that the child may take beyond what it starts with."""
    seconds: float = 20.0
    duration: float = 4 * 3600.0
    """Seconds of video."""
    pixels: int = 7680 * 4320
    """Of one frame."""
    frames: int = 256
    """That may be asked for."""


class Nursery:
    """A process that has loaded the decoder and forks a child for each file: starting one takes most of a second.

    For whoever reads many files; threads may share it. What a file does to its child ends with the child.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def child(self) -> tuple[BinaryIO, BinaryIO]:
        """A new child: where it is told what to read, and where it answers."""
        its_request, request = os.pipe()
        answer, its_answer = os.pipe()
        try:
            with self._lock:
                try:
                    self._fork(its_request, its_answer)
                except OSError:  # it was killed, as by a machine without memory
                    self._stop()
                    self._fork(its_request, its_answer)
        except BaseException:
            os.close(request)
            os.close(answer)
            raise
        finally:
            os.close(its_request)
            os.close(its_answer)
        return os.fdopen(request, "wb"), os.fdopen(answer, "rb")

    def close(self) -> None:
        """End it; it begins anew when it is needed again."""
        with self._lock:
            self._stop()

    def _fork(self, request: int, answer: int) -> None:
        control = self._started()
        socket.send_fds(control, [b"."], [request, answer])
        if not control.recv(1):
            raise ConnectionResetError("the nursery has ended")

    def _started(self) -> socket.socket:
        if self._control is None or self._process is None or self._process.poll() is not None:
            self._stop()
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = _started(theirs, "--nursery")
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


def probe_guarded(path: str | PathLike[str], limits: Limits | None = None) -> VideoInfo:
    """As `probe`, in a child process."""

    return _in_child(check_file(path, "a video"), {"what": "probe"}, limits or Limits(), lambda told, _: _info_of(told))


def read_clip_guarded(
    path: str | PathLike[str],
    frames: int,
    *,
    size: tuple[int, int],
    rule: Literal["even", "original"] = "even",
    start: float | None = None,
    end: float | None = None,
    scaler: Literal["pillow", "decoder"] = "pillow",
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> Clip:
    """As `read_clip`, in a child process. `size`, (height, width), is not to be left out: it bounds what comes back."""
    limits = limits or Limits()
    file = _check_frames(path, frames, limits)
    request = {"what": "clip", "frames": frames, "size": size, "rule": rule, "start": start, "end": end}

    def understood(told: dict[str, Any], data: bytes) -> Clip:
        return _clip_of(told, data, frames, size)

    return _in_child(file, request | {"scaler": scaler}, limits, understood, nursery)


class Watched(NamedTuple):
    """What one look at a video gives."""

    info: VideoInfo
    clip: Clip
    cues: list[Cue]
    """Of its first subtitle track that can be read."""
    track: int | None
    """That track's number."""


def read_video_guarded(
    path: str | PathLike[str],
    frames: int,
    *,
    size: tuple[int, int],
    start: float | None = None,
    end: float | None = None,
    subtitles: bool = True,
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> Watched:
    """`probe_guarded`, `read_clip_guarded` and, where `subtitles` are wanted, those inside the file, by one child."""
    limits = limits or Limits()
    file = _check_frames(path, frames, limits)

    def understood(told: dict[str, Any], data: bytes) -> Watched:
        track = None if told["track"] is None else int(told["track"])
        return Watched(_info_of(told["info"]), _clip_of(told, data, frames, size), _cues_of(told), track)

    request = {"what": "video", "frames": frames, "size": size, "rule": "even", "start": start, "end": end}
    request |= {"scaler": "pillow", "subtitles": subtitles}
    return _in_child(file, request, limits, understood, nursery)


def stream_frames_guarded(
    path: str | PathLike[str],
    rate: float,
    size: tuple[int, int],
    start: float = 0.0,
    *,
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> Iterator[tuple[float, Frames]]:
    """As `stream_frames`, by one child process after another, each of which reads `limits.frames` frames."""
    limits = limits or Limits()
    frames = limits.frames
    file = _check_frames(path, frames, limits)
    last = -1.0
    while True:
        request = {"what": "stretch", "frames": frames, "size": size, "rate": rate, "start": start}
        clip = _in_child(file, request, limits, lambda told, data: _clip_of(told, data, frames, size), nursery)
        before = last
        for moment, picture in zip(clip.times.tolist(), clip.frames, strict=True):
            if moment > last:
                last = moment
                yield moment, picture
        if len(clip.times) < frames or last == before:
            return
        start = last


def read_subtitles_guarded(
    path: str | PathLike[str],
    track: int | None = None,
    encoding: str | None = None,
    fps: float | None = None,
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> list[Cue]:
    """As `read_subtitles`, in a child process."""
    request = {"what": "subtitles", "track": track, "encoding": encoding, "fps": fps}
    file = check_file(path, "a subtitle")
    return _in_child(file, request, limits or Limits(), lambda told, _: _cues_of(told), nursery)


def _check_frames(path: str | PathLike[str], frames: int, limits: Limits) -> Path:
    file = check_file(path, "a video")
    if frames > limits.frames:
        raise MediaError(f"{frames} frames of {shown(file)} are more than the {limits.frames} allowed; ask for fewer.")
    return file


def _info_of(told: dict[str, Any]) -> VideoInfo:
    return VideoInfo(**told | {"subtitle_tracks": tuple(SubtitleTrack(*track) for track in told["subtitle_tracks"])})


def _clip_of(told: dict[str, Any], data: bytes, frames: int, size: tuple[int, int]) -> Clip:
    pictures = np.frombuffer(data, np.uint8).reshape(-1, *size, 3).copy()
    times = np.array(told["times"], dtype=np.float64)
    if times.shape != pictures.shape[:1] or not 0 < len(times) <= frames or not np.isfinite(times).all():
        raise ValueError("frames and times are not alike")
    return Clip(pictures, times, float(told["duration"]))


def _cues_of(told: dict[str, Any]) -> list[Cue]:
    return [Cue(float(start), float(end), str(text)) for start, end, text in told["cues"]]


def _in_child(
    file: Path,
    request: dict[str, Any],
    limits: Limits,
    understood: Callable[[dict[str, Any], bytes], Result],
    nursery: Nursery | None = None,
) -> Result:
    request |= {"path": os.fspath(file.absolute()), "limits": asdict(limits)}
    height, width = request.get("size", (0, 0))
    largest = LONGEST_LINE + request.get("frames", 0) * height * width * 3
    told_to_it = json.dumps(request).encode() + b"\n"
    if nursery is not None:  # whose children end themselves when their time is over
        asked, answers = nursery.child()
        with answers:
            answer = _exchange(file, asked, answers, told_to_it, largest, limits.seconds)
    else:
        with _started(subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                answer = _exchange(file, process.stdin, process.stdout, told_to_it, largest, limits.seconds)
            finally:
                process.kill()
    line, _, data = answer.partition(b"\n")
    try:
        told = json.loads(line)
        warnings = [_one_line(warning) for warning in told["warnings"]]
        error = None if told["error"] is None else _one_line(told["error"])
        result = understood(told["result"], data) if error is None else None
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as failure:
        raise _failed(file, "crashed") from failure
    for warning in warnings:
        logger.warning("%s", warning)
    if result is None:
        raise MediaError(error)
    return result


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:LONGEST_MESSAGE]


def _started(stdin: Any, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "minigpt4_video.media.child", *arguments],
        stdin=stdin,
        stdout=subprocess.DEVNULL if arguments else subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | FEW_THREADS,
        start_new_session=True,
    )


def _exchange(file: Path, asked: IO[bytes], answers: IO[bytes], request: bytes, largest: int, seconds: float) -> bytes:
    """What the child answers; `MediaError` where it takes too long, says too much or stops before it has answered."""
    deadline = time.monotonic() + seconds
    answer = bytearray()
    try:
        asked.write(request)
        asked.close()
    except BrokenPipeError as error:
        raise _failed(file, "did not start") from error
    while len(answer) <= largest:
        if not select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise _failed(file, f"took longer than {seconds:g} s")
        piece = os.read(answers.fileno(), 1 << 20)
        if not piece:
            return bytes(answer)
        answer += piece
    raise _failed(file, "returned more than was asked for")


def _failed(file: Path, how: str) -> MediaError:
    return MediaError(f"{shown(file)} cannot be used: its decoder {how}; convert it to .mp4 and try again.")
