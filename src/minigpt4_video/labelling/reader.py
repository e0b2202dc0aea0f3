"""The child of `reading.py`: limits itself, then reads one clip after another until its input ends."""

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from minigpt4_video.errors import MediaError, UserError
from minigpt4_video.inference.footage import take_footage
from minigpt4_video.labelling.reading import Form
from minigpt4_video.labelling.signals import signals
from minigpt4_video.media import Cue, Limits, probe
from minigpt4_video.media.sources import shown


def serve(form: Form, limits: Limits, requests: BinaryIO, answers: BinaryIO) -> None:
    for line in requests:
        request = json.loads(line)
        told: dict[str, Any] = {"error": None}
        frames = b""
        try:
            told |= answered(request, form, limits)
            frames = told.pop("frames", b"")
        except UserError as refused:
            told["error"] = str(refused)
        except MemoryError:
            told["error"] = f"{request['path']} needs more memory than {limits.memory >> 20} MiB to read; scale it."
        answer = json.dumps(told).encode()
        answers.write(len(answer).to_bytes(8, "little") + answer)
        answers.write(frames)
        answers.flush()


def answered(request: dict[str, Any], form: Form, limits: Limits) -> dict[str, Any]:
    """What is asked of a file: what is seen of a clip, its span, or its scenes."""
    path = Path(request["path"])
    info = probe(path)
    start, end = request["start"] or 0.0, min(request["end"] or info.duration, info.duration)
    if request["what"] == "span":
        if end <= start:
            raise MediaError(f"{shown(path)} lasts {info.duration:.1f} s, so there is nothing from {start:g} s on")
        return {"span": [start, end]}
    if request["what"] == "scenes":
        return {"scenes": _scenes(path, start, end)}
    if info.duration > limits.duration:
        raise MediaError(
            f"{shown(path)} lasts {info.duration:.0f} s and {limits.duration:g} s are allowed; cut it, or plan windows"
        )
    if info.width * info.height > limits.pixels:
        raise MediaError(f"{shown(path)} has frames of {info.width}x{info.height}, too large to read; scale it")
    subtitles = request["subtitles"]
    cues = [Cue(**cue) for cue in json.loads(subtitles)] if subtitles.startswith("[") else None
    footage = take_footage(
        path,
        form,
        subtitles=subtitles if cues is None else cues,
        subtitle_language=form.subtitle_language,
        encoding=form.encoding,
        speech=form.speech,
        frames=form.asked_frames,
        start=request["start"],
        end=request["end"],
    )
    return {
        "info": asdict(footage.info),
        "times": footage.clip.times.tolist(),
        "duration": footage.clip.duration,
        "texts": footage.texts,
        "cues": [list(cue) for cue in footage.cues],
        "said_in": footage.said_in,
        "unsaid": footage.unsaid,
        "signals": list(signals(footage.clip.frames)),
        "frames": footage.clip.frames.tobytes(),
    }


def _scenes(path: Path, start: float, end: float) -> list[float]:
    """When scenes begin, in seconds from the first frame, by PySceneDetect's detector of content."""
    from scenedetect import ContentDetector, detect

    try:
        found = detect(str(path), ContentDetector(), start_time=float(start), end_time=float(end), backend="pyav")
    except Exception as error:  # what its decoders raise is not told
        raise MediaError(f"{shown(path)} cannot be looked through for cuts: {error}") from error
    return [begin.seconds for begin, _ in found[1:]]


def limit(limits: Limits, hears: bool) -> None:
    """Of memory, files and what may be written. A speech model needs more of each, so it gets what the machine has."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hears:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    for kind, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.argv[1])
    form = Form(**given["form"])
    limit(Limits(**given["limits"]), form.speech != "off")
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
        answers.write(b"\n")  # ready
        answers.flush()
        serve(form, Limits(**given["limits"]), sys.stdin.buffer, answers)
    os._exit(0)  # what damaged files did to the decoder's memory shows at its end, when all is said
