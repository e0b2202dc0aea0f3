"""Reads media files named on stdin, each in a forked process with limits, and tells as JSON lines what came of them.

One line in: `{"path": ..., "subtitles": bool, "times": [...]}`. One line out: what was read, the
warnings, the kind of ending, and what it cost. A process of its own keeps this free of threads and of other modules,
so that forking is safe and the memory that is measured is the reader's.
"""

import base64
import json
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from minigpt4_video.errors import UserError
from minigpt4_video.media import pictures, probe, read_clip, read_frames, read_subtitles

ADDRESS_SPACE = 6 * 2**30  # far over what is asserted: a limit that is met would hide by how much
SECONDS = 150  # for all that is read of one file, on a machine that does other things as well


def pooled(picture: np.ndarray) -> list[list[list[float]]]:
    """(16, 16, 3): means over bins, as the references were made."""
    height, width = picture.shape[:2]
    rows = [(row * height // 16, -(-(row + 1) * height // 16)) for row in range(16)]
    columns = [(column * width // 16, -(-(column + 1) * width // 16)) for column in range(16)]
    bins = [[picture[top:down, left:right].mean((0, 1)) for left, right in columns] for top, down in rows]
    return np.array(bins).tolist()


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


def forked(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            json.dump(read(request), answer)
        os._exit(0)
    os.close(writing)
    told = b""
    ends = time.monotonic() + SECONDS
    with os.fdopen(reading, "rb", buffering=0) as answer:
        while select.select([answer], [], [], max(0.0, ends - time.monotonic()))[0]:
            piece = answer.read(1 << 20)
            if not piece:
                break
            told += piece
        else:
            os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    result = json.loads(told) if status == 0 else {"ending": f"killed or crashed with status {status}"}
    return result | {"cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024}


def read(request: dict[str, Any]) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings: list[str] = []
    log = logging.getLogger("minigpt4_video")
    log.propagate = False
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage()) if record.levelno > logging.INFO else None  # type: ignore[method-assign]
    log.addHandler(handler)
    result: dict[str, Any] = {"warnings": warnings, "ending": "read"}

    def attempt(what: str, reading: Callable[[], Any]) -> None:
        began = time.process_time()
        try:
            result[what] = reading()
        except UserError as error:
            result.update(ending="refused", error=str(error))
        except BaseException:  # whatever it is, the test reports it as a crash of this file
            result.update(ending="crashed", error=traceback.format_exc())
        result.setdefault("seconds", {})[what] = time.process_time() - began

    path = request["path"]
    if request["subtitles"]:
        attempt("cues", lambda: list(read_subtitles(path)))
        return result
    attempt("info", lambda: vars(probe(path)))

    def clip() -> dict[str, Any]:
        found = read_clip(path, 8, size=(224, 224))
        return {"times": found.times.tolist(), "duration": found.duration}

    if result["ending"] == "read":
        attempt("clip", clip)
    result["warnings"] = list(warnings)

    def references() -> dict[str, Any]:
        times = request["times"]
        info = result["info"]
        if info["width"] * info["height"] <= 2**22:
            found = [read_frames(path, times)]
        else:
            found = [read_frames(path, [time]) for time in times]
        return {
            "times": [float(time) for clip in found for time in clip.times],
            "size": found[0].frames.shape[1:3],
            "pooled": base64.b64encode(
                np.array([pooled(frame) for clip in found for frame in clip.frames], "<f4").tobytes()
            ).decode(),
        }

    if request["times"] and result["ending"] == "read":
        pictures.to_ordinary_colours = lambda picture, *_: picture  # type: ignore[assignment]  # as the references are
        attempt("references", references)
    return result


if __name__ == "__main__":
    main()
