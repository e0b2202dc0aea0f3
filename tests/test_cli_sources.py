"""What stands for a video on the command line besides a file; `tests/media` holds fetching itself."""

import functools
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minigpt4_video.media import remote as remote_module
from numbered import write_animation

Command = Callable[..., tuple[int, str, str]]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(video: Path) -> Iterator[str]:
    """Where the video lies on a web site on loopback."""
    handler = functools.partial(Silent, directory=str(video.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_address[1]}/{video.name}"
        site.shutdown()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files are gone when a command ends, however it ends."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    assert not list((tmp_path / "temporary").iterdir())


def test_an_address_is_fetched_shown_and_forgotten(
    embedded: Path, address: str, temporary: None, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_is_public", lambda found: found == "127.0.0.1")
    status, out, err = command("inspect", address, "--json", "--speech", "off")
    told = json.loads(out)
    assert status == 0 and told["video"] == address and told["streams"]["width"] > 0
    assert f"fetching {address}" in err


@pytest.mark.parametrize("verb", [("inspect",), ("ask", "What is it?"), ("caption",), ("chat",)])
def test_an_address_within_this_network_is_one_clear_line(
    verb: tuple[str, ...], address: str, temporary: None, command: Command
) -> None:
    status, out, err = command(verb[0], address, *verb[1:])
    assert status == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"error: {address} has no public address on the internet")


def test_a_page_that_is_no_video_is_told_by_its_address(
    address: str, video: Path, temporary: None, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_is_public", lambda found: found == "127.0.0.1")
    video.with_name("page.html").write_text("<html>not here</html>")
    page = address.replace(video.name, "page.html")
    status, _, err = command("ask", page, "What is it?")
    assert status == 2 and err.splitlines()[-1].startswith(f"error: {page} is not a video file")


@pytest.mark.parametrize("source", ["ftp://videos.test/a.mp4", "file:///etc/passwd", "rtsp://videos.test/a"])
def test_other_protocols_are_not_spoken(source: str, temporary: None, command: Command) -> None:
    status, _, err = command("ask", source, "What is it?")
    assert status == 2 and "is not an http or https address" in err


def test_a_youtube_link_without_yt_dlp_says_what_to_install(
    temporary: None, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    status, _, err = command("ask", "https://youtu.be/aB3-_fG6hI9", "What is it?")
    assert status == 2 and "pip install 'minigpt4-video[youtube]'" in err.splitlines()[-1]


def test_why_reading_takes_long_is_said(
    embedded: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_animation(tmp_path / "moving.gif", [100] * 20)
    assert "frame by frame" not in command("inspect", path)[2]
    monkeypatch.setattr("minigpt4_video.media.in_order.TOLD_AFTER", -1.0)
    status, _, err = command("inspect", path)
    assert status == 0 and err.count("moving.gif has to be decoded frame by frame, which takes long") >= 1
