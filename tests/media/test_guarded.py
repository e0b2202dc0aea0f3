import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numbered import write_video

from minigpt4_video.media import (
    Cue,
    Limits,
    MediaError,
    probe,
    probe_guarded,
    read_clip,
    read_clip_guarded,
    read_subtitles_guarded,
)


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
    began = time.monotonic()
    with pytest.raises(MediaError) as error:
        read_clip_guarded(video, 5, size=(24, 32), limits=Limits(seconds=3.0))
    assert time.monotonic() - began < 20
    assert says in str(error.value) and "clip.mkv" in str(error.value) and "\n" not in str(error.value)


def test_frames_that_do_not_fit_what_is_told_are_refused(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = rb'{"warnings": [], "error": null, "result": {"times": [0.0, 1.0], "duration": 2.0}}' + b"\n" + bytes(2304)
    fault(monkeypatch, tmp_path, f"os.write(1, {answer!r}); os._exit(0)")
    with pytest.raises(MediaError, match="did not tell frames and times alike"):
        read_clip_guarded(video, 5, size=(24, 32))


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


def test_no_child_outlives_its_reading(video: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("children are counted in /proc")
    read_clip_guarded(video, 5, size=(24, 32))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not any("media.child" in Path(f"/proc/{child}/cmdline").read_text() for child in children)
    assert isinstance(read_clip_guarded(video, 1, size=(24, 32)).frames, np.ndarray)
