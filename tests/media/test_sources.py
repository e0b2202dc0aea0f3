import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from numbered import write_video

from minigpt4_video.media import MediaError, SourceRules, probe, read_clip, source_file
from minigpt4_video.media import remote as remote_module

WHOLE = bytes(range(256)) * 40


class Site(ThreadingHTTPServer):
    """A web site on loopback that keeps the paths it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.rules = SourceRules(hosts=(self.host,), seconds=20.0)


class Answers(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/again":
            self.send_response(301)
            self.send_header("Location", "/again")
            self.end_headers()
        elif self.path.startswith("/clip.mp4"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(WHOLE)))
            self.end_headers()
            self.wfile.write(WHOLE)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(10_000):
                try:
                    self.wfile.write(WHOLE)
                except OSError:
                    return
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.1)
        elif self.path == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.write(WHOLE)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Loopback counts as public here, and nothing else does, so that no test leaves this machine."""
    monkeypatch.setattr(remote_module, "_is_public", lambda address: address == "127.0.0.1")
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield site
        site.shutdown()


def test_an_address_becomes_a_file_that_goes_away(site: Site) -> None:
    with source_file(f"http://{site.host}/clip.mp4?key=1", site.rules) as file:
        assert file.read_bytes() == WHOLE and file.suffix == ".mp4"
    assert not file.exists() and site.asked == ["/clip.mp4?key=1"]


def test_redirects_are_followed_to_what_is_allowed_only(site: Site) -> None:
    with source_file(f"http://{site.host}/to//clip.mp4", site.rules) as file:
        assert file.read_bytes() == WHOLE
    for target, says in [
        ("http://localhost:9/x", "Videos are not fetched from localhost"),
        ("http://169.254.169.254/latest", r"Videos are not fetched from 169\.254\.169\.254"),
        ("file:///etc/passwd", "is not an http or https address"),
        ("gopher://127.0.0.1/", "is not an http or https address"),
    ]:
        with pytest.raises(MediaError, match=says), source_file(f"http://{site.host}/to/{target}", site.rules):
            pass
    with (
        pytest.raises(MediaError, match="redirects more than 5 times"),
        source_file(f"http://{site.host}/again", site.rules),
    ):
        pass


def test_a_redirect_to_an_address_that_is_not_public_is_refused_though_every_host_is_allowed(site: Site) -> None:
    rules = SourceRules(hosts=None, seconds=20.0)
    target = f"http://{site.host}/to/http://127.0.0.2:{site.server_address[1]}/clip.mp4"
    with pytest.raises(MediaError, match="has no public address"), source_file(target, rules):
        pass
    assert not any(path.startswith("/clip") for path in site.asked)


@pytest.mark.parametrize(
    ("path", "rules", "says"),
    [
        ("/endless", {"largest": 100_000}, "is larger than the 100000 bytes that are allowed"),
        ("/clip.mp4", {"largest": 1000}, "is larger than the 1000 bytes that are allowed"),
        ("/slow", {"seconds": 0.5}, "took longer than 0.5 s"),
        ("/broken", {}, "broke off|cannot be fetched"),
        ("/absent?secret=1", {}, r"/absent cannot be fetched \(status 404\)"),
    ],
)
def test_what_is_too_much_or_not_there_is_one_clear_error(
    site: Site, path: str, rules: dict[str, float], says: str
) -> None:
    allowed = SourceRules(**{"hosts": (site.host,), "seconds": 20.0} | rules)
    with pytest.raises(MediaError, match=says) as error, source_file(f"http://{site.host}{path}", allowed):
        pass
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
        ),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::"),
    ],
)
def test_addresses_that_are_not_public_are_known_in_every_spelling(address: str) -> None:
    assert not remote_module._is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address: str) -> None:
    assert remote_module._is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:7f00:1]"]
)
def test_this_machine_is_not_reached_by_any_spelling_of_its_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))
    with pytest.raises(MediaError), source_file(f"http://{host}:1/clip.mp4", SourceRules(hosts=None)):
        pass


def test_a_name_is_resolved_once_and_no_mixture_of_addresses_is_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = site.server_address[1]
    resolved: list[str] = []
    addresses = ["127.0.0.1"]
    true = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> list[object]:
        if host == "videos.test":
            resolved.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        return true(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    rules = SourceRules(hosts=(f"videos.test:{port}",))
    with source_file(f"http://videos.test:{port}/clip.mp4", rules) as file:
        assert file.read_bytes() == WHOLE
    assert resolved == ["videos.test"]
    addresses.append("10.0.0.1")
    with (
        pytest.raises(MediaError, match="has no public address"),
        source_file(f"http://videos.test:{port}/clip.mp4", rules),
    ):
        pass


@pytest.mark.parametrize(
    "address",
    [
        *(
            "http://videos.test@127.0.0.1/",
            "http://user:pw@videos.test/",
            "http://videos.test\\@evil.test/",
            "http://vidéos.test/",
        ),
        *(
            "http://videos.test:99999/",
            "http://videos.test/a b",
            "http:///clip.mp4",
            "http://[::1/",
            "http://evil.test/",
        ),
        *(
            "ftp://videos.test/a.mp4",
            "file:///etc/passwd",
            "concat:a|b",
            "rtsp://videos.test/",
            "http://videos.test.evil.test/",
        ),
        *("http://videos.test:8080/", "http://sub.videos.test/", "data://videos.test/"),
    ],
)
def test_no_other_host_or_protocol_is_spoken_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(MediaError), source_file(address, SourceRules(hosts=("videos.test",))):
        pass


def test_addresses_are_refused_where_nothing_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(MediaError, match=r"Videos are not fetched from videos\.test"):
        source_file("https://videos.test/clip.mp4", SourceRules()).__enter__()


def test_files_come_from_the_allowed_folders_only(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media_private").mkdir()
    inside, outside = tmp_path / "media" / "a.mp4", tmp_path / "media_private" / "b.mp4"
    inside.write_bytes(WHOLE)
    outside.write_bytes(WHOLE)
    (tmp_path / "media" / "link.mp4").symlink_to(outside)
    rules = SourceRules(folders=(tmp_path / "media",))
    with source_file(inside, rules) as file:
        assert file == inside.resolve()
    for other in (outside, tmp_path / "media" / "link.mp4", tmp_path / "media" / ".." / "media_private" / "b.mp4"):
        with (
            pytest.raises(MediaError, match="lies in no folder from which files may be read"),
            source_file(other, rules),
        ):
            pass
    with pytest.raises(MediaError, match="is larger than the 100 bytes"), source_file(inside, SourceRules(largest=100)):
        pass


def hostile_files(folder: Path, address: str) -> list[Path]:
    """Playlists and scripts that name a file beside them and an address, under honest and other names."""
    sibling = write_video(folder / "sibling.ts", range(25), codec="mpeg2video")
    contents = {
        "hls": f"#EXTM3U\n#EXTINF:1,\n{sibling.name}\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n",
        "key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}/key"\n#EXTINF:1,\n{sibling}\n',
        "concat": f"ffconcat version 1.0\nfile {sibling.name}\nfile {address}/a.ts\n",
        "dash": f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation id="1">'
        f"<BaseURL>{address}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<image xlink:href="{address}/a.png" width="9" height="9"/></svg>',
        "asx": f'<asx version="3.0"><entry><ref href="{address}/a.wmv"/></entry></asx>',
        "pls": f"[playlist]\nFile1={address}/a.mp3\nNumberOfEntries=1\n",
    }
    files = []
    for kind, content in contents.items():
        for suffix in (".mp4", ".ts", f".{kind}"):
            files.append(folder / f"{kind}{suffix}")
            files[-1].write_text(content)
    return files


def test_hostile_files_reach_no_address(tmp_path: Path, site: Site) -> None:
    for file in hostile_files(tmp_path, f"http://{site.host}"):
        for read in (probe, lambda file: read_clip(file, 2)):
            with pytest.raises(MediaError):
                read(file)
    assert site.asked == []


READ_EACH = """
import os, sys
from minigpt4_video.media import MediaError, read_clip
def read(path):
    try:
        read_clip(path, 2)
    except MediaError:
        return
read(sys.argv[1])
os.path.exists("/begin-watching")
for path in sys.argv[2:]:
    read(path)
"""


def test_hostile_files_open_no_other_file_and_no_socket(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("system calls are watched with strace, which is not installed")
    video = write_video(tmp_path / "video.mp4", range(5))
    files = hostile_files(tmp_path, "http://127.0.0.1:9")
    calls = tmp_path / "calls"
    command = [strace, "-f", "-o", str(calls), "-e", "trace=open,openat,socket,connect,sendto,execve,stat,newfstatat"]
    watched = subprocess.run(
        [*command, sys.executable, "-c", READ_EACH, str(video), *map(str, files)], capture_output=True, text=True
    )
    if watched.returncode and "ptrace" in watched.stderr:
        pytest.skip("strace may not watch processes here")
    assert watched.returncode == 0, watched.stderr
    _, begun, after = calls.read_text().partition("/begin-watching")
    assert begun
    opened = set(re.findall(r'open(?:at)?\([^"]*"([^"]*)"', after))
    assert {str(file) for file in files} <= opened
    assert not any(name.startswith(str(tmp_path)) and Path(name) not in files for name in opened)
    assert not re.search(r"\b(socket|connect|sendto|execve)\(", after)
