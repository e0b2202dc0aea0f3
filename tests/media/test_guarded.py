import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt4_video.media import (
    Cue,
    Limits,
    MediaError,
    Nursery,
    probe,
    probe_guarded,
    read_clip,
    read_clip_guarded,
    read_subtitles_guarded,
    read_video_guarded,
    stream_frames_guarded,
)
from minigpt4_video.media import guarded as guarded_module
from minigpt4_video.media.streaming import stream_frames
from numbered import write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mkv", range(50), subtitles=[("eng", 0.5, 1.0, "hello")])


def fault(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Put `body` in the place of the decoder's opening of files, in the child only."""
    code = f"import av, ctypes, os, time\ndef fail(*arguments, **options):\n    {body}\nav.open = fail\n"
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))


def test_a_child_reads_what_the_parent_would(video: Path) -> None:
    told, expected = read_clip_guarded(video, 5, size=(24, 32)), read_clip(video, 5, size=(24, 32))
    assert (told.frames == expected.frames).all() and (told.times == expected.times).all()
    assert told.duration == expected.duration and told.frames.flags.writeable
    scaled = read_clip_guarded(video, 5, size=(24, 32), scaler="decoder")
    assert (scaled.frames == read_clip(video, 5, size=(24, 32), scaler="decoder").frames).all()
    assert probe_guarded(video) == probe(video)
    assert read_subtitles_guarded(video) == [Cue(0.5, 1.0, "hello")]


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_stream_by_many_children_is_the_stream_by_one_process(video: Path, start: float) -> None:
    nursery = Nursery()
    try:
        told = list(stream_frames_guarded(video, 10, (24, 32), start, limits=Limits(frames=4), nursery=nursery))
    finally:
        nursery.close()
    expected = list(stream_frames(video, 10, (24, 32), start))
    assert len(expected) > 8 and [time for time, _ in told] == [time for time, _ in expected]
    assert all((a == b).all() for (_, a), (_, b) in zip(told, expected, strict=True))


def test_a_child_that_says_the_same_again_and_again_ends_the_stream(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"warnings": [], "error": None, "result": {"times": [0.0, 0.1], "duration": 5.0}}
    answer = json.dumps(told).encode() + b"\n" + bytes(2 * 4 * 4 * 3)
    monkeypatch.setattr(guarded_module, "_exchange", lambda *_: answer)
    assert len(list(stream_frames_guarded(video, 10, (4, 4), limits=Limits(frames=2)))) == 2


def test_one_child_tells_all_there_is_of_a_video(video: Path) -> None:
    told = read_video_guarded(video, 5, size=(24, 32))
    assert told.info == probe(video) and (told.clip.frames == read_clip(video, 5, size=(24, 32)).frames).all()
    assert (told.cues, told.track) == ([Cue(0.5, 1.0, "hello")], 0)
    assert read_video_guarded(video, 5, size=(24, 32), subtitles=False).cues == []


def test_a_nursery_reads_the_same_and_outlives_its_children(video: Path, tmp_path: Path) -> None:
    nursery = Nursery()
    try:
        expected = read_video_guarded(video, 5, size=(24, 32))
        (tmp_path / "none.mp4").write_bytes(b"no video")
        for _ in range(2):
            told = read_video_guarded(video, 5, size=(24, 32), nursery=nursery)
            assert told.info == expected.info and (told.clip.frames == expected.clip.frames).all()
            with pytest.raises(MediaError, match=r"none\.mp4 is not a video file"):
                read_video_guarded(tmp_path / "none.mp4", 5, size=(24, 32), nursery=nursery)
        with pytest.raises(MediaError, match=r"lasts"):
            read_video_guarded(video, 5, size=(24, 32), limits=Limits(duration=0.1), nursery=nursery)
        assert nursery._process is not None
        first = nursery._process.pid
        nursery._process.kill()  # as a machine without memory does
        assert read_video_guarded(video, 5, size=(24, 32), nursery=nursery).info == expected.info
        assert nursery._process.pid != first
    finally:
        nursery.close()


def test_a_child_of_a_nursery_that_hangs_or_crashes_is_one_error(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for body, said in (("time.sleep(60)", "took longer than 1 s"), ("os.abort()", "crashed")):
        fault(monkeypatch, tmp_path, body)
        nursery = Nursery()
        try:
            with pytest.raises(MediaError, match=said):
                read_video_guarded(video, 5, size=(24, 32), limits=Limits(seconds=1.0), nursery=nursery)
            assert nursery._process is not None and nursery._process.poll() is None
            children = Path(f"/proc/{nursery._process.pid}/task/{nursery._process.pid}/children")
            deadline = time.monotonic() + 20
            while children.exists() and children.read_text():
                assert time.monotonic() < deadline, "the child goes on"
                time.sleep(0.1)
        finally:
            nursery.close()


def test_as_much_is_returned_as_was_asked_for(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_module, "LONGEST_LINE", 1000)
    assert len(read_clip_guarded(video, 5, size=(240, 320)).frames) == 5


def test_what_the_file_has_wrong_is_told_in_the_same_words(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MediaError, match=r"lasts 2\.0 s, so there is nothing from 12 s"):
        read_clip_guarded(video, 5, size=(24, 32), start=12.0)
    with pytest.raises(MediaError, match="There is no file"):
        read_clip_guarded(video.with_name("absent.mp4"), 5, size=(24, 32))
    cut = video.with_name("cut.mkv")
    write_video(video.with_name("long.mkv"), range(250), g="25")
    cut.write_bytes(video.with_name("long.mkv").read_bytes()[:4000])
    read_clip_guarded(cut, 5, size=(24, 32))
    assert "cut.mkv ends after" in caplog.text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("ctypes.string_at(0)", "its decoder crashed"),
        ("os.abort()", "its decoder crashed"),
        ("raise SystemExit(0)", "its decoder crashed"),
        ("raise KeyboardInterrupt", "its decoder crashed"),
        ("time.sleep(60)", "its decoder took longer than 3 s"),
        ("__import__('signal').alarm(0); time.sleep(60)", "its decoder took longer than 3 s"),
        ("os.write(1, b'x' * (1 << 25)); time.sleep(60)", "its decoder returned more than was asked for"),
        ("bytearray(8 << 30)", "is not a video file that can be read"),
        (
            "os.write(os.open(__file__ + '.written', os.O_CREAT | os.O_WRONLY), b'x')",
            "is not a video file that can be read",
        ),
    ],
)
def test_whatever_the_decoder_does_is_one_clear_error(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    fault(monkeypatch, tmp_path, body)
    # Only what hangs is to meet the limit of time, for a busy machine may take long to start a child.
    began, seconds = time.monotonic(), 3.0 if "took longer" in says else 100.0
    with pytest.raises(MediaError) as error:
        read_clip_guarded(video, 5, size=(24, 32), limits=Limits(seconds=seconds))
    assert time.monotonic() - began < seconds + 17
    assert says in str(error.value) and "clip.mkv" in str(error.value) and "\n" not in str(error.value)


TOLD = {"warnings": [], "error": None, "result": {"times": [0.0], "duration": 2.0}}


@pytest.mark.parametrize(
    ("told", "data"),
    [
        (TOLD | {"result": {"times": [0.0, 1.0], "duration": 2.0}}, bytes(2304)),
        (TOLD | {"result": {"times": [[0.0]], "duration": 2.0}}, bytes(2304)),
        (TOLD | {"result": {"times": [float("nan")], "duration": 2.0}}, bytes(2304)),
        (TOLD | {"result": {"times": [0.0], "duration": [1]}}, bytes(2304)),
        (TOLD | {"result": {"times": [0.0]}}, bytes(2304)),
        (TOLD | {"result": {"times": [], "duration": 2.0}}, b""),
        (TOLD, bytes(2303)),
        (TOLD | {"result": None}, bytes(2304)),
        (TOLD | {"warnings": 5}, bytes(2304)),
        ([], b""),
        ({"warnings": []}, b""),
    ],
)
def test_a_decoder_that_was_taken_over_cannot_harm_with_what_it_tells(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: object, data: bytes
) -> None:
    answer = json.dumps(told).encode() + b"\n" + data
    fault(monkeypatch, tmp_path, f"os.write(1, {answer!r}); os._exit(0)")
    with pytest.raises(MediaError, match="its decoder crashed"):
        read_clip_guarded(video, 5, size=(24, 32))


def test_what_a_decoder_says_comes_out_as_one_line(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = json.dumps({"warnings": ["a\nb", 7], "error": "c\n" * 10_000, "result": None}).encode() + b"\n"
    fault(monkeypatch, tmp_path, f"os.write(1, {told!r}); os._exit(0)")
    with pytest.raises(MediaError) as error:
        read_clip_guarded(video, 5, size=(24, 32))
    assert str(error.value).startswith("c c c") and len(str(error.value)) <= 2000
    assert [record.getMessage() for record in caplog.records] == ["a b", "7"]


@pytest.mark.parametrize("told", [b"[" * 100_000, b"", b"null\n", b"\xff\n", b"{" * 9])
def test_an_answer_that_is_none_is_a_crash(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bytes
) -> None:
    (tmp_path / "told").write_bytes(told)
    fault(monkeypatch, tmp_path, f"os.write(1, open({str(tmp_path / 'told')!r}, 'rb').read()); os._exit(0)")
    with pytest.raises(MediaError, match="its decoder crashed"):
        probe_guarded(video)


def test_secrets_in_the_environment_stay_with_the_parent(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    fault(monkeypatch, tmp_path, "raise SystemExit if 'HF_TOKEN' in os.environ else ValueError")
    with pytest.raises(MediaError, match="is not a video file that can be read"):
        read_clip_guarded(video, 5, size=(24, 32))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(duration=1.0), "lasts 2 s and 1 s are allowed"),
        (Limits(pixels=1000), "has frames of 64x48 and 1000 pixels are allowed"),
        (Limits(frames=4), "5 frames of .* are more than the 4 allowed"),
    ],
)
def test_videos_beyond_the_limits_are_refused(video: Path, limits: Limits, says: str) -> None:
    with pytest.raises(MediaError, match=says):
        read_clip_guarded(video, 5, size=(24, 32), limits=limits)


@pytest.fixture
def children() -> Callable[[], list[str]]:
    """The command lines of this process's children, "" for one that ended and was not waited for."""
    if sys.platform != "linux":
        pytest.skip("children are counted in /proc")

    def count() -> list[str]:
        numbers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        lines = [Path(f"/proc/{number}/cmdline").read_text() for number in numbers]
        return [line for line in lines if not line or "media.child" in line]

    return count


@pytest.mark.parametrize("body", ["time.sleep(60)", "os.abort()", "bytearray(8 << 30)", ""])
def test_many_readings_leave_no_child_no_file_and_nothing_open(
    body: str,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    children: Callable[[], list[str]],
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    if body:
        fault(monkeypatch, tmp_path, body)
    held, beginning = [], set(tmp_path.rglob("*"))
    for _ in range(4):
        if body:
            with pytest.raises(MediaError):
                read_clip_guarded(video, 5, size=(24, 32), limits=Limits(seconds=1.0 if "sleep" in body else 100.0))
        else:
            read_clip_guarded(video, 5, size=(24, 32))
        gc.collect()
        held.append((len(os.listdir("/proc/self/fd")), threading.active_count(), len(gc.get_objects()) // 1000))
        assert children() == []
    assert held[1:] == held[:1] * 3 or held[2:] == held[1:2] * 2
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == beginning


def test_a_child_whose_parent_was_killed_ends_by_itself(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("the child's state is read in /proc")
    told = tmp_path / "told"
    told.mkdir()
    fault(monkeypatch, tmp_path, f"os.open(f'{told}/{{os.getpid()}}', os.O_CREAT); time.sleep(99)")
    reading = "import sys; from minigpt4_video.media import *; probe_guarded(sys.argv[1], Limits(seconds={}))"
    for seconds in (2.0, 15.0, 60.0):  # a child may need longer to start where the machine is busy
        with subprocess.Popen(
            [sys.executable, "-c", reading.format(seconds), str(video)], stderr=subprocess.DEVNULL
        ) as parent:
            while parent.poll() is None and not (children := os.listdir(told)):
                time.sleep(0.02)
            was_told = parent.poll() is None
            parent.kill()
        if was_told:
            break
    assert was_told
    state = Path(f"/proc/{children[0]}/stat")
    assert state.exists()
    ends = time.monotonic() + seconds + 20
    while state.exists() and " Z " not in state.read_text() and time.monotonic() < ends:
        time.sleep(0.1)
    assert time.monotonic() < ends
