"""Every file of a corpus that is kept beside the repository, against what its manifest expects of it.

Where the manifest and we differ and the manifest is not right, or no answer is, the table below says what and why.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MEMORY = int(1.5 * 2**30)
SECONDS = 20.0
LEVELS = 3.0
"""Grey levels, on average, by which a frame may differ from its reference: conversions to RGB differ by up to 2.5."""
TICK = 0.002

OLD_READER = "the manifest's readers, FFmpeg 5.1 and pysubs2, do not take it; what is in it is read rightly"
CONCEALED = "damaged pictures are concealed by whatever the decoder's version and threads make of them"
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "made__anim.webp": ("outcome", "FFmpeg 5.1 cannot decode animated WebP; Pillow does"),
    "file-type__fixture.ogm": ("outcome", "FFmpeg 5.1 cannot open it; FFmpeg 8 decodes it"),
    "file-type__fixture2.mkv": ("outcome", "cut after 1.6 of 1132 s: we say so, FFmpeg is silent"),
    "mp4ff__main_1.mp4": ("outcome", "its header says 17.1 s and it holds 7.1 s: we say so, FFmpeg is silent"),
    "mp4ff__v300_multiple_segments.mp4": ("outcome", "its header says 3900 s and it holds 8 s: we say so"),
    "androidx__sample_empty_track.mp4": ("outcome", "the second track is empty; the first, the video, is whole"),
    "androidx__sample_unsupported_brands.mp4": (
        "outcome",
        "the only message is FFmpeg's 'Input #0': nothing is damaged",
    ),
    "made__bitflip.mkv": ("references", CONCEALED),
    "made__bitflip.ts": ("references", CONCEALED),
    "mp4parser__count.h264": ("references", "a raw stream has no times: FFmpeg counted a frame as 1 ms, we 1/25 s"),
    "made__negative_start.mkv": (
        "references",
        "15 frames have no time: FFmpeg put them into 4 ms, we one after another",
    ),
    "go-astisub__example-in-non-utf8.srt": ("cues", "times without milliseconds (00:01:39) are read too"),
    "go-astisub__example-in.srt": ("cues", "times without milliseconds (00:01:39) are read too"),
    "go-astisub__missing-sequence-in.srt": ("cues", "times without milliseconds (00:01:39) are read too"),
    "pysrt__invalid.srt": ("outcome cues", "its words and times without milliseconds are readable"),
    "webvttjs__timings-garbage.vtt": ("outcome cues", "two of its cues have times with a comma or a colon: readable"),
    "go-astisub__example-in-carriage-return.ssa": ("outcome cues", OLD_READER),
    "shaka-player__chapters.srt": ("outcome cues", "times without hours are readable"),
    "androidx__subrip_typical_no_hours_and_millis.srt": ("cues", "times without hours or milliseconds are readable"),
    "androidx__subrip_typical_negative_timestamps.srt": (
        "cues",
        "a negative time is the beginning; pysubs2 drops the sign",
    ),
    "androidx__ssa_typical.ass": ("cues", "pysubs2 cuts the hundredths of times with a colon"),
    "androidx__ssa_typical_dialogue.ass": ("cues", "pysubs2 cuts the hundredths of times with a colon"),
    "made__ass_drawing_only.ass": ("cues", "a drawing is no text"),
    "made__srt_beyond_video.srt": ("cues", "123 hours are 123 hours; pysubs2 reads 23"),
    "pycaption__example.sub": ("outcome cues", "it counts frames without a rate: we say that 25 are assumed"),
}


def corpus() -> Path:
    return Path(os.environ.get("MINIGPT4_VIDEO_SHARED", Path(__file__).parents[3] / "shared")) / "media"


def entries() -> list[dict[str, Any]]:
    manifest = corpus() / "MANIFEST.json"
    return json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else []


ENTRIES = {entry["file"]: entry for entry in entries()}
FILES = [name for name in ENTRIES if (corpus() / name).is_file()]
PLAYLISTS = [
    str(path.relative_to(corpus())) for name in ENTRIES for path in sorted((corpus() / name).glob("*.m[p3][du]*"))
]

Reader = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def read_file(shared: Path) -> Iterator[Reader]:
    """Reads one file of the corpus in a process of its own, with limits; gives what came of it."""
    if not FILES:
        pytest.skip(f"no corpus of media in {corpus()}; set MINIGPT4_VIDEO_SHARED to the folder that holds media/")
    command = [sys.executable, str(Path(__file__).with_name("corpus_reader.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def read(name: str, subtitles: bool = False, times: list[float] | None = None) -> dict[str, Any]:
            request = {"path": str(corpus() / name), "subtitles": subtitles, "times": times or []}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield read
        process.stdin.close()


def shown_stream(entry: dict[str, Any]) -> dict[str, Any]:
    """The references of the stream that a player shows."""
    streams = entry.get("ground_truth", {}).get("video_streams", [])
    best = entry.get("pyav_observed", {}).get("best_video")
    return next((stream for stream in streams if stream["stream"] == best), streams[0] if streams else {})


@pytest.mark.parametrize("name", FILES or ["the corpus"])
def test_a_file_meets_what_is_expected_of_it(name: str, read_file: Reader) -> None:
    entry = ENTRIES[name]
    stream = shown_stream(entry)
    times = [reference["t_query_rel_s"] for reference in stream.get("refs", [])]
    result = read_file(name, subtitles=entry["kind"].startswith("sub_"), times=times)
    assert result["ending"] in ("read", "refused"), result.get("error", result["ending"])
    assert result["memory"] <= MEMORY
    assert max(result["seconds"].values()) <= SECONDS
    if result["ending"] == "refused":
        assert "\n" not in result["error"] and str(corpus() / name) in result["error"]
    excepted, _ = EXCEPTIONS.get(name, ("", ""))
    checks = {"outcome": check_outcome, "references": check_references, "cues": check_cues}
    for what, check in checks.items():
        if what not in excepted:
            check(entry, stream, result)


def check_outcome(entry: dict[str, Any], stream: dict[str, Any], result: dict[str, Any]) -> None:
    outcome = (
        "clear_error" if result["ending"] == "refused" else "works_with_warning" if result["warnings"] else "works"
    )
    expected = entry["expected"]
    assert outcome in (expected["outcome"], *expected.get("also_ok", [])), result


def check_references(entry: dict[str, Any], stream: dict[str, Any], result: dict[str, Any]) -> None:
    references = stream.get("refs", [])
    if result["ending"] == "refused" or not references:
        return
    found = result["references"]
    assert found["size"] == stream["size_after_rotation"][::-1]
    pictures = np.frombuffer(base64.b64decode(found["pooled"]), "<f4").reshape(-1, 16, 16, 3)
    assert len(pictures) == len(references)
    for picture, time, reference in zip(pictures, found["times"], references, strict=True):
        wanted = np.frombuffer(base64.b64decode(reference["rgb16_b64"]), np.uint8).reshape(16, 16, 3)
        assert np.abs(picture - wanted).mean() <= LEVELS, reference["frame_index"]
        assert abs(time - reference["t_rel_s"]) <= TICK, reference["frame_index"]


def check_cues(entry: dict[str, Any], stream: dict[str, Any], result: dict[str, Any]) -> None:
    truth = entry.get("subtitle_truth")
    if truth is None or result["ending"] == "refused" or truth["cues"] is None:
        return
    starts = np.array([start for start, _, _ in result["cues"]])
    assert len(starts) == truth["cues"]
    for start, *_ in truth["pysubs2_cues"]:
        assert np.abs(starts - start).min() <= TICK


@pytest.mark.parametrize("name", PLAYLISTS or ["the corpus"])
def test_the_lists_in_packages_are_refused(name: str, read_file: Reader) -> None:
    assert read_file(name)["ending"] == "refused"


def test_every_exception_is_of_a_file_that_is_there(read_file: Reader) -> None:
    assert set(EXCEPTIONS) <= set(ENTRIES)
