import io
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult

import pytest
from PIL import Image

from minigpt4_video.media import (
    MediaError,
    SourceRules,
    find_subtitles,
    probe,
    read_clip,
    read_subtitles,
    source_file,
)
from minigpt4_video.media import remote as remote_module
from minigpt4_video.media.sources import is_encrypted
from numbered import write_video

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
        elif self.path == "/dripping":
            for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 400:
                try:
                    self.wfile.write(bytes([letter]))
                except OSError:
                    return
                time.sleep(0.05)
        elif self.path == "/dripping-chunks":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
            for _ in range(400):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)
        elif self.path == "/parts":
            begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            piece = WHOLE[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(piece) - 1}/{len(WHOLE)}")
            self.send_header("Content-Length", str(len(piece)))
            self.end_headers()
            self.wfile.write(piece)
        elif self.path == "/nothing-of-it":
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 0-0/{len(WHOLE)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
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
    ("target", "follows"),
    [
        ("/b", True),
        ("//videos.test/b", True),
        ("https://videos.test/b", True),
        ("http://videos.test/b", False),
        ("ftp://videos.test/b", False),
    ],
)
def test_an_encrypted_address_leads_to_encrypted_ones_only(
    target: str, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    class Redirecting:
        status = 302
        headers: ClassVar = {"Location": target}

        def request(self, *_: object, **__: object) -> None:
            pass

        def getresponse(self) -> "Redirecting":
            return self

    @contextmanager
    def connect(parts: SplitResult, *_: object) -> Iterator[Redirecting]:
        connected.append(parts.geturl())
        yield Redirecting()

    monkeypatch.setattr(remote_module, "_connected", connect)
    says = "redirects more than 5 times" if follows else "redirects to an address without encryption"
    with pytest.raises(MediaError, match=says), source_file("https://videos.test/a", SourceRules(hosts=None)):
        pass
    assert connected == ["https://videos.test/a", *["https://videos.test/b"] * 5 * follows]


@pytest.mark.parametrize(
    ("path", "rules", "says"),
    [
        ("/endless", {"largest": 100_000}, "is larger than the 100000 bytes that are allowed"),
        ("/clip.mp4", {"largest": 1000}, "is larger than the 1000 bytes that are allowed"),
        ("/slow", {"seconds": 0.5}, "took longer than 0.5 s"),
        ("/dripping", {"seconds": 1.0}, "took longer than 1 s"),
        ("/dripping-chunks", {"seconds": 1.0}, "took longer than 1 s"),
        ("/broken", {}, "broke off|cannot be fetched"),
        ("/absent?secret=1", {}, r"/absent cannot be fetched \(status 404\)"),
    ],
)
def test_what_is_too_much_or_not_there_is_one_clear_error(
    site: Site, path: str, rules: dict[str, float], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    began = time.monotonic()
    allowed = SourceRules(**{"hosts": (site.host,), "seconds": 20.0} | rules)
    with pytest.raises(MediaError, match=says) as error, source_file(f"http://{site.host}{path}", allowed):
        pass
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - began < 8 and not list(tmp_path.iterdir())


def test_nothing_is_taken_of_what_says_that_it_is_too_large(site: Site) -> None:
    rules, into = SourceRules(hosts=(site.host,), largest=len(WHOLE) - 1), io.BytesIO()
    for path, part in (("/clip.mp4", None), ("/parts", 4096)):
        with pytest.raises(MediaError, match="is larger than the"):
            remote_module.fetch(f"http://{site.host}{path}", rules, into, part=part)
    assert not into.getvalue()


def test_a_fetched_file_that_is_no_video_is_told_by_its_address(site: Site) -> None:
    address = f"http://{site.host}/clip.mp4?key=1"
    with pytest.raises(MediaError) as error, source_file(address, site.rules) as file:
        probe(file)
    assert str(error.value).startswith(f"http://{site.host}/clip.mp4 is not a video file")


def test_a_large_file_can_be_fetched_in_parts(site: Site) -> None:
    for part in (4096, len(WHOLE), 10**6):
        into = io.BytesIO()
        remote_module.fetch(f"http://{site.host}/parts", site.rules, into, part=part)
        assert into.getvalue() == WHOLE
    assert len(site.asked) == 3 + 1 + 1
    small = SourceRules(hosts=(site.host,), largest=5000)
    for path, rules, says in [("/parts", small, "larger than the 5000"), ("/nothing-of-it", site.rules, "broke off")]:
        with pytest.raises(MediaError, match=says):
            remote_module.fetch(f"http://{site.host}{path}", rules, io.BytesIO(), part=4096)


def test_an_address_that_does_not_answer_gives_way_to_the_next_of_the_same_host(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = site.server_address[1]
    monkeypatch.setattr(remote_module, "_is_public", lambda address: address.startswith("127.0.0."))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (f"127.0.0.{n}", port)) for n in (9, 1)])
    tried = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address[0])
        if address[0] == "127.0.0.9":
            raise OSError(101, "Network is unreachable")
        connected = socket.socket()
        connected.settimeout(timeout)
        connected.connect(address)
        return connected

    monkeypatch.setattr(socket, "create_connection", connect)
    with source_file(f"http://videos.test:{port}/clip.mp4", SourceRules(hosts=None)) as file:
        assert file.read_bytes() == WHOLE
    assert tried == ["127.0.0.9", "127.0.0.1"]


def test_a_host_that_begins_with_a_dot_stands_for_those_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    hosts = ["a.videos.test", "b.a.videos.test", "videos.test", "xvideos.test", "videos.test.evil.test"]
    for address in [*(f"https://{host}/" for host in hosts), "https://a.videos.test:8443/"]:
        with pytest.raises(MediaError), source_file(address, SourceRules(hosts=(".videos.test",))):
            pass
    assert asked == hosts[:2]


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
        *("::7f00:1", "::ffff:0:7f00:1", "fec0::1", "5f00::1", "192.0.0.8", "192.88.99.1", "::ffff:192.88.99.1"),
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


@pytest.fixture
def special(tmp_path: Path) -> Iterator[Path]:
    """A folder of things that are no files, under names of videos and subtitles."""
    for suffix in ("mp4", "srt"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        (tmp_path / f"folder.{suffix}").mkdir()
        (tmp_path / f"zeros.{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"terminal.{suffix}").symlink_to("/dev/tty")
        (tmp_path / f"round.{suffix}").symlink_to(tmp_path / f"round.{suffix}")
        (tmp_path / f"nowhere.{suffix}").symlink_to(tmp_path / "absent")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / f"socket.{suffix}"))
    yield tmp_path


@pytest.mark.timeout(60)
def test_what_is_no_ordinary_file_is_refused_at_once(special: Path) -> None:
    readings = (probe, find_subtitles, read_subtitles, lambda path: read_clip(path, 2))
    paths = [*special.iterdir(), Path("/dev/zero"), Path("/dev/stdin"), Path("/proc/self/environ"), Path("x\0y.mp4")]
    for path in paths:
        for read in readings:
            with pytest.raises(MediaError) as error:
                read(path)
            assert "\n" not in str(error.value)
        with pytest.raises(MediaError), source_file(path, SourceRules(folders=(special, Path("/dev"), Path("/proc")))):
            pass


def test_special_files_beside_a_video_are_no_subtitles(special: Path) -> None:
    for name in ("pipe", "folder", "zeros", "round", "nowhere", "socket"):
        video = write_video(special / f"{name}.mkv", range(3))
        assert find_subtitles(video) is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "-i.mp4",
            "--help.mp4",
            "concat:a.mp4|b.mp4",
            "file:a.mp4",
            "pipe:0",
            "data:video,x",
            "subfile,,start,0:a.mp4",
        ),
        *("a%03d.png.mp4", "a*.mp4", "two\nlines.mp4", "a\r\x1b[31mred.mp4", "right\u202eleft.mp4", "$(id).mp4"),
        *("a b;c&d.mp4", "tee:a.mp4", "crypto:a.mp4", "\udcff.mp4", "http:a.mp4"),
    ],
)
def test_a_name_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "plain.mkv", range(5))
    os.rename(video, name)
    for given in (name, Path(name), tmp_path / name):
        assert probe(given).width == 64 and len(read_clip(given, 5).frames) == 5
    with source_file(name, SourceRules(folders=(tmp_path,))) as file:
        assert file.name == name
    Path(name).write_bytes(b"no video")
    with pytest.raises(MediaError) as error:
        probe(name)
    assert not re.search(r"[\x00-\x1f\x7f\u202e\ud800-\udfff]", str(error.value))


def test_a_film_hidden_behind_countless_boxes_does_not_hold_the_reader_up(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "clip.mp4", range(5), movflags="+faststart").read_bytes()
    beginning = int.from_bytes(whole[:4])
    (tmp_path / "boxes.mp4").write_bytes(whole[:beginning] + b"\0\0\0\x08free" * 2_000_000 + whole[beginning:])
    began = time.process_time()
    assert not is_encrypted(tmp_path / "boxes.mp4")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("read", [probe, lambda path: read_clip(path, 2), lambda path: read_clip(path, 2, size=(9, 9))])
def test_a_picture_that_claims_a_giant_size_is_refused_before_memory_is_taken(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(48001 * 200)))
    path = tmp_path / "giant.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + rows + chunk(b"IEND", b""))
    began = time.process_time()
    with pytest.raises(MediaError, match=r"too large .* scale it"):
        read(path)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "tiff", "webp"])
def test_a_picture_of_any_kind_that_is_too_large_is_called_so(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / f"large.{suffix}"
    Image.new("RGB", (80, 50)).save(path)
    assert read_clip(path, 1).frames.shape == (1, 50, 80, 3)
    for module in ("sources", "animations"):
        monkeypatch.setattr(f"minigpt4_video.media.{module}.LARGEST_PICTURE", 79 * 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 50)  # where PIL begins to warn, for which nobody asked
    with pytest.raises(MediaError, match="has pictures of 80x50, too large to read; scale it"):
        probe(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30 * 50)  # where it refuses
    with pytest.raises(MediaError, match="too large"):
        probe(path)
    assert not recwarn.list


READ_AND_TELL = """
import re, sys
from pathlib import Path
from minigpt4_video.media import MediaError, read_clip
try:
    print(*read_clip(sys.argv[1], 4, size=(24, 32)).frames.shape)
except MediaError as error:
    print(error)
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10)
"""


@pytest.mark.parametrize(
    ("suffix", "mode", "side", "says"),
    [
        ("jpg", "RGB", 11_000, "1 24 32 3"),
        ("png", "RGB", 10_000, "1 24 32 3"),
        ("gif", "P", 11_000, "too large to read"),
        ("gif", "P", 6_000, "2 24 32 3"),
        ("webp", "RGB", 8_000, "too large to read"),
    ],
)
def test_a_small_file_of_a_large_picture_does_not_fill_the_memory(
    tmp_path: Path, suffix: str, mode: str, side: int, says: str
) -> None:
    if sys.platform != "linux":
        pytest.skip("the peak of memory is read in /proc")
    path = tmp_path / f"large.{suffix}"
    more = {"save_all": True, "append_images": [Image.new(mode, (side, side), 1)]} if suffix == "gif" else {}
    Image.new(mode, (side, side)).save(path, method=0, quality=0, compress_level=1, **more)
    command = [sys.executable, "-c", READ_AND_TELL, str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert says in told[0] and int(told[1]) < 500  # MiB


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
        "master": f'#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,URI="a.vtt"\n#EXT-X-STREAM-INF:A=9\n{address}/a.m3u8\n',
        "ism": f'<SmoothStreamingMedia><StreamIndex Type="video" Url="{address}/a"/></SmoothStreamingMedia>',
        "idx": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
        "timestamp: 00:00:01:000, filepos: 000000000\n",
        "lavfi": f"movie={sibling.name}",
        "rtsp": f"rtsp://127.0.0.1:9/a\n{address}/a\n",
        "imf": f'<AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Path>{address}/a</Path></AssetMap>',
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
from minigpt4_video.media import MediaError, find_subtitles, read_clip, read_clip_guarded, read_subtitles
def clip(path):
    return read_clip(path, 2)
def guarded(path):
    return read_clip_guarded(path, 2, size=(9, 9))
readings = {"here": (clip, find_subtitles, read_subtitles), "child": (guarded,)}[sys.argv[1]]
def read(path):
    for reading in readings:
        try:
            reading(path)
        except MediaError:
            pass
read(sys.argv[2])
os.path.exists("/begin-watching")
for path in sys.argv[3:]:
    read(path)
"""


@pytest.mark.parametrize("where", ["here", "child"])
def test_hostile_files_open_no_other_file_and_no_socket(tmp_path: Path, where: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("system calls are watched with strace, which is not installed")
    video = write_video(tmp_path / "video.mp4", range(5))
    files = hostile_files(tmp_path, "http://127.0.0.1:9")
    if where == "child":
        # a child takes half a second to start, ten times that on a busy machine
        files = files[:18:3]
    calls = tmp_path / "calls"
    traced = "trace=open,openat,socket,connect,sendto,execve,stat,newfstatat,access,faccessat2"
    command = [strace, "-f", "--seccomp-bpf", "-o", str(calls), "-e", traced, sys.executable, "-c", READ_EACH, where]
    watched = subprocess.run([*command, str(video), *map(str, files)], capture_output=True, text=True, timeout=280)
    if watched.returncode and "ptrace" in watched.stderr:
        pytest.skip("strace may not watch processes here")
    assert watched.returncode == 0, watched.stderr
    _, begun, after = calls.read_text().partition("/begin-watching")
    assert begun
    opened = set(re.findall(r'open(?:at)?\([^"]*"([^"]*)"', after))
    assert {str(file) for file in files} <= opened
    assert not any(name.startswith(str(tmp_path)) and Path(name) not in (*files, tmp_path) for name in opened)
    assert not re.search(r"\b(socket|connect|sendto)\(", after)
    started = set(re.findall(r'execve\("([^"]*)"', after))
    assert started == ({sys.executable} if where == "child" else set())
