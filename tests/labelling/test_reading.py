"""Files are read in a child that may hang, crash or lie: that is one error, and the next file has another child."""

import subprocess
import sys

import pytest

from minigpt4_video.errors import MediaError
from minigpt4_video.labelling import reading
from minigpt4_video.labelling.reading import Form, Reader
from minigpt4_video.labelling.sources import Source
from minigpt4_video.media import Limits

FORM = Form(4, 56, 256, 16, 4)
real = reading._start


def child(code: str):
    """In the place of the child that reads: one that runs this code when it is asked for the first file."""

    def start(form: Form, limits: Limits) -> "subprocess.Popen[bytes]":
        reading._start = real
        begin = "import os, sys, time\nos.write(1, b'\\n')\nsys.stdin.readline()\n"
        return subprocess.Popen([sys.executable, "-c", begin + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    return start


@pytest.mark.parametrize(
    "code, why",
    [
        ("time.sleep(600)", "took longer than 2 s"),
        ("os.kill(os.getpid(), 11)", "crashed"),
        ("os.write(1, (2).to_bytes(8, 'little') + b'[]')", "crashed"),
        ("os.write(1, (2**40).to_bytes(8, 'little'))", "more than was asked for"),
        ("os.write(1, (20).to_bytes(8, 'little') + b'half'); time.sleep(600)", "took longer than 2 s"),
    ],
)
def test_a_child_that_fails_is_the_error_of_its_file_alone(video, monkeypatch, code, why):
    monkeypatch.setattr(reading, "_start", child(code))
    reader = Reader(FORM, Limits(seconds=2))
    try:
        with pytest.raises(MediaError, match=why):
            reader.read(Source("bad.mp4", str(video)), video)
        reader.limits = Limits(seconds=60)
        seen = reader.read(Source("good.mp4", str(video)), video)
    finally:
        reader.close()

    assert seen.footage.clip.frames.shape == (4, 56, 56, 3)


def test_a_file_is_not_blamed_for_a_machine_on_which_a_child_takes_long_to_start(video, monkeypatch):
    def slowly(form: Form, limits: Limits) -> "subprocess.Popen[bytes]":
        started = real(form, limits)
        line = [sys.executable, "-c", "import os, sys, time; time.sleep(4); os.execv(sys.argv[1], sys.argv[1:])"]
        started.kill()
        started.communicate()
        return subprocess.Popen([*line, *started.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(reading, "_start", slowly)
    reader = Reader(FORM, Limits(seconds=3))
    try:
        assert len(reader.read(Source("good.mp4", str(video)), video).footage.clip.frames) == 4
    finally:
        reader.close()
