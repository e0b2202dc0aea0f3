"""The child of `guarded.py`: limits itself, reads one file, tells what it found on stdout and ends. Or its nursery."""

import json
import logging
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import av.subtitles.stream  # noqa: F401  what would be loaded with the first file is loaded before children are forked
import PIL.ImageFile  # noqa: F401

from minigpt4_video.errors import MediaError
from minigpt4_video.media.guarded import Limits
from minigpt4_video.media.pictures import Form
from minigpt4_video.media.probing import VideoInfo, probe_beginning
from minigpt4_video.media.sources import shown
from minigpt4_video.media.streaming import stream_frames
from minigpt4_video.media.subtitles import read_subtitles
from minigpt4_video.media.video import read_probed_clip

MOST_PROCESSORS = 4
GRACE = 1  # seconds after which a child ends itself where its parent, killed, no longer can


def _serve() -> None:
    """The child: one request in, one answer out."""
    request = json.loads(sys.stdin.buffer.readline())
    limits = Limits(**request["limits"])
    _limit(limits)
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("minigpt4_video").addHandler(handler)
    answers: dict[str, Callable[[Path, dict[str, Any], Limits], tuple[dict[str, Any], bytes]]] = {
        "probe": lambda path, request, limits: (asdict(_within(path, limits)[0]), b""),
        "clip": _clip,
        "video": _video,
        "stretch": _stretch,
        "subtitles": _subtitles,
    }
    result, data, error = None, b"", None
    try:
        result, data = answers[request["what"]](Path(request["path"]), request, limits)
    except MediaError as refused:
        error = str(refused)
    told = json.dumps({"warnings": warnings, "error": error, "result": result})
    sys.stdout.buffer.write(told.encode() + b"\n" + data)
    sys.stdout.buffer.flush()
    os._exit(0)  # what a damaged file did to the decoder's memory shows at its end, when all is said


def _nurse() -> None:
    """Fork a child for each pair of pipes that comes over the socket on stdin; end with whoever holds its other end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    control = socket.fromfd(0, socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        told, pipes, _, _ = socket.recv_fds(control, 1, 2)
        if not told:
            return
        if os.fork() == 0:
            control.close()
            for place, pipe in enumerate(pipes):
                os.dup2(pipe, place)
                os.close(pipe)
            try:
                _serve()
            finally:
                os._exit(1)
        for pipe in pipes:
            os.close(pipe)
        control.send(told)


def _limit(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if sys.platform == "linux":  # the decoder starts a thread for each processor, and each takes memory
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, random.sample(processors, min(MOST_PROCESSORS, len(processors))))
    signal.alarm(int(limits.seconds) + GRACE)
    seconds = int(limits.seconds * MOST_PROCESSORS) + 1
    for kind, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (most, most))


def _within(path: Path, limits: Limits) -> tuple[VideoInfo, int | None]:
    """As `probe_beginning`. Raises MediaError for what is more than allowed."""
    info, first_pts = probe_beginning(path)
    if info.duration > limits.duration:
        raise MediaError(
            f"{shown(path)} lasts {info.duration:.0f} s and {limits.duration:g} s are allowed; shorten it."
        )
    if info.width * info.height > limits.pixels:
        raise MediaError(
            f"{shown(path)} has frames of {info.width}x{info.height} and {limits.pixels} pixels are allowed; scale it."
        )
    return info, first_pts


def _clip(path: Path, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    return _frames(path, request, _within(path, limits))


def _frames(
    path: Path, request: dict[str, Any], beginning: tuple[VideoInfo, int | None]
) -> tuple[dict[str, Any], bytes]:
    height, width = request["size"]
    form = Form((height, width), request["scaler"])
    clip = read_probed_clip(path, beginning, request["frames"], request["rule"], request["start"], request["end"], form)
    return {"times": clip.times.tolist(), "duration": clip.duration}, clip.frames.tobytes()


def _video(path: Path, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    """What a file says of itself, its frames, and its first subtitle track that can be read, where it is wanted."""
    beginning = _within(path, limits)
    info, _ = beginning
    told, data = _frames(path, request, beginning)
    tracks = [track for track in info.subtitle_tracks if track.is_text] if request["subtitles"] else []
    for track in tracks:
        with suppress(MediaError):
            cues = read_subtitles(path, track.number)
            return told | {"info": asdict(info), "cues": cues, "track": track.number}, data
    return told | {"info": asdict(info), "cues": [], "track": None}, data


def _stretch(path: Path, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    """The next so many frames of a steady stream."""
    info, _ = _within(path, limits)
    height, width = request["size"]
    found = list(islice(stream_frames(path, request["rate"], (height, width), request["start"]), request["frames"]))
    told = {"times": [time for time, _ in found], "duration": info.duration}
    return told, b"".join(picture.tobytes() for _, picture in found)


def _subtitles(path: Path, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    return {"cues": read_subtitles(path, request["track"], request["encoding"], request["fps"])}, b""


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.argv[1:] == ["--nursery"]:
        _nurse()
    else:
        _serve()
