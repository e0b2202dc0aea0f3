"""Collections to label, made on the spot."""

from pathlib import Path

import pytest

from making import write_sound, write_video
from minigpt4_video.data.world.files import render


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with two good videos, and with what collections hold besides."""
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    write_video(folder / "good.mp4")
    write_video(folder / "inner" / "short.mp4", seconds=0.2)
    (folder / "good.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n", encoding="utf-8")
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:400])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video", encoding="utf-8")
    write_sound(folder / "sound.mp4")
    (folder / "notes.md").write_text("notes", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of the world, with subtitles beside most of them."""
    folder = tmp_path_factory.mktemp("world")
    render(folder, count=8, language="en")
    (folder / "questions.jsonl").unlink()
    return folder
