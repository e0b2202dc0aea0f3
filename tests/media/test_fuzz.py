"""Files with random damage, read in processes with limits: no exception but `MediaError`, no crash, no hang."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import damaged
from PIL import Image

from numbered import write_animation, write_video

SRT = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\n<i>words {n}</i>\n\n" for n in range(1, 20))
ASS = (
    "[Events]\nFormat: Layer, Start, End, Style, Name, Text\n"
    + "Dialogue: 0,0:00:01.00,0:00:02.00,A,B,{\\i1}words\n" * 9
)
CASES = 40


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("corpus_reader.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def made(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.suffix in (".srt", ".vtt", ".ass"):
        return {".srt": SRT, ".vtt": f"WEBVTT\n\n{SRT}", ".ass": ASS}[path.suffix].encode()
    if path.suffix in (".gif", ".webp"):
        return write_animation(path, [100] * 8).read_bytes()
    if path.suffix in (".png", ".jpg"):
        Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
        return path.read_bytes()
    codec = {".avi": "mpeg4", ".mpg": "mpeg2video", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    return write_video(path, range(30), codec=codec, g="10").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "a.mkv",
        "a.webm",
        "a.ts",
        "a.avi",
        "a.flv",
        "a.mpg",
        "a.gif",
        "a.webp",
        "a.png",
        "a.jpg",
        "a.srt",
        "a.vtt",
        "a.ass",
    ],
)
def test_random_damage_is_read_over_or_refused(name: str, tmp_path: Path, reader: subprocess.Popen[str]) -> None:
    assert reader.stdin is not None and reader.stdout is not None
    whole, chance = made(tmp_path, name), random.Random(name)
    for _ in range(CASES):
        path = tmp_path / f"damaged{Path(name).suffix}"
        subtitles = path.suffix in (".srt", ".vtt", ".ass")
        path.write_bytes(damaged(whole, chance, words=subtitles))
        request = {"path": str(path), "subtitles": subtitles, "times": [] if subtitles else [0.1, 0.9]}
        reader.stdin.write(json.dumps(request) + "\n")
        reader.stdin.flush()
        result: dict[str, Any] = json.loads(reader.stdout.readline())
        assert result["ending"] in ("read", "refused"), result
        assert result["memory"] < 2**30 and max(result["seconds"].values()) < 20
