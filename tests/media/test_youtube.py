"""YouTube cannot be reached from tests: a site on loopback stands in for it, yt-dlp's own reader of plain web pages for
its reader of YouTube, and what yt-dlp tells of a YouTube video is written down here."""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minigpt4_video.media import MediaError, SourceRules, find_subtitles, read_clip, read_subtitles, source_file
from minigpt4_video.media import remote as remote_module
from minigpt4_video.media import youtube as youtube_module
from minigpt4_video.media.youtube import is_youtube, youtube_video
from numbered import numbers_of, write_video

NAME = "aB3-_fG6hI9"
LINK = f"https://youtu.be/{NAME}"
PAGE = b"""<html><title>A clip</title><video><source src="/clip.mp4" type="video/mp4">
<track kind="subtitles" srclang="en" src="/en.vtt"></video></html>"""
WRITTEN = "WEBVTT\n\n00:00.500 --> 00:01.000\nwritten in {}\n"
ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:01.000 align:start position:0%
~
the<00:00:00.300><c> first</c><00:00:00.500><c> line</c>

00:00:01.000 --> 00:00:01.010 align:start position:0%
the first line
~

00:00:01.010 --> 00:00:02.000 align:start position:0%
the first line
and<00:00:01.300><c> the</c><00:00:01.500><c> second</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
and the second
~

00:00:02.010 --> 00:00:03.000 align:start position:0%
and the second
then<00:00:02.300><c> a</c><00:00:02.500><c> third</c>
""".replace("~", " ")


class Site(ThreadingHTTPServer):
    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.video = video
        self.asked: list[tuple[str, str | None]] = []

    def address(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def told(self, **changes: Any) -> dict[str, Any]:
        """What yt-dlp tells of a YouTube video, as far as it is used."""
        tracks = {code: [{"ext": kind, "url": self.address(f"/{code}.{kind}")} for kind in ("json3", "vtt")] for code in
                  ("de", "en", "pt-BR")}  # fmt: skip
        captions = {code: [{"ext": "vtt", "url": self.address("/rolling.vtt")}] for code in ("en-orig", "en", "fr")}
        return {
            "id": NAME,
            "duration": 3,
            "language": "en",
            "live_status": "not_live",
            "formats": [
                {"ext": "mp4", "protocol": "http", "vcodec": "avc1", "height": 360, "url": self.address("/clip.mp4")}
            ],
            "subtitles": tracks | {"live_chat": [{"ext": "json", "url": self.address("/chat")}]},
            "automatic_captions": captions,
        } | changes


class Answers(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        language, _, kind = self.path.strip("/").partition(".")
        body = PAGE
        if self.path == "/clip.mp4":
            body = self.server.video
        elif self.path == "/rolling.vtt":
            body = ROLLING.encode()
        elif kind == "vtt":
            body = WRITTEN.format(language).encode()
        elif not self.path.startswith("/watch?v=" + NAME):
            self.send_error(404)
            return
        status = 200
        if self.headers["Range"] and self.path == "/clip.mp4":
            begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            status, whole, body = 206, len(body), body[begin : end + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{whole}")
        self.send_header("Content-Type", "video/mp4" if self.path == "/clip.mp4" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Loopback in the place of YouTube, fetched in small parts; nothing leaves this machine."""
    video = write_video(tmp_path / "whole.mp4", range(75))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(remote_module, "_is_public", lambda address: address == "127.0.0.1")
    with Site(video.read_bytes()) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        monkeypatch.setattr(youtube_module, "WATCH", site.address("/watch?v="))
        monkeypatch.setattr(youtube_module, "PROTOCOLS", {"http"})
        monkeypatch.setattr(youtube_module, "PART", 1000)
        monkeypatch.setattr(youtube_module, "RULES", SourceRules(hosts=(site.host,), seconds=20.0))
        yield site
        site.shutdown()
    assert not list((tmp_path / "temporary").iterdir())


@pytest.fixture
def page_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed; the extra youtube brings it")
    monkeypatch.setattr(youtube_module, "EXTRACTORS", ["generic", "html5"])


Tell = Callable[..., None]


@pytest.fixture
def tell(site: Site, monkeypatch: pytest.MonkeyPatch) -> Tell:
    def tell(**changes: Any) -> None:
        monkeypatch.setattr(youtube_module, "_told", lambda address: site.told(**changes))

    return tell


def test_a_link_becomes_a_file_with_its_subtitles_beside_it(site: Site, page_reader: None) -> None:
    with youtube_video(LINK) as file:
        assert file.name == f"{NAME}.mp4" and file.read_bytes() == site.video
        assert numbers_of(read_clip(file, 3).frames) == [12, 37, 62]
        found = find_subtitles(file)
        assert found is not None and found.path.name == f"{NAME}.en.vtt" and found.language == "en"
        assert [cue.text for cue in read_subtitles(found.path)] == ["written in en"]
    assert not file.exists()
    parts = [span for path, span in site.asked if path == "/clip.mp4" and span is not None]
    assert parts[:2] == ["bytes=0-999", "bytes=1000-1999"] and len(parts) == -(-len(site.video) // 1000)


def test_subtitles_are_left_where_none_are_wanted(site: Site, page_reader: None) -> None:
    with youtube_video(LINK, subtitles=False) as file:
        assert find_subtitles(file) is None
    assert not any(path.endswith(".vtt") for path, _ in site.asked)


def test_what_yt_dlp_cannot_find_is_one_line(
    site: Site, page_reader: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(youtube_module, "WATCH", site.address("/absent/"))
    with pytest.raises(MediaError, match=r"cannot be had from YouTube \(.*404") as error, youtube_video(LINK):
        pass
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value) and len(str(error.value)) < 400
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_a_link_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(MediaError, match=r"YouTube links need yt-dlp; install it with: pip install"):
        youtube_video(LINK).__enter__()


@pytest.mark.parametrize(
    "link",
    [
        *(f"https://www.youtube.com/watch?v={NAME}", f"http://youtube.com/watch?list=PLx&v={NAME}&t=9s#x"),
        *(
            f"https://youtu.be/{NAME}?si=abc",
            f"https://m.youtube.com/shorts/{NAME}",
            f"HTTPS://WWW.YouTube.com/live/{NAME}",
        ),
        *(f"https://music.youtube.com/watch?v={NAME}", f"https://www.youtube-nocookie.com/embed/{NAME}/"),
    ],
)
def test_of_a_link_the_name_of_one_video_is_taken(link: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def told(address: str) -> dict[str, Any]:
        asked.append(address)
        return site.told()

    monkeypatch.setattr(youtube_module, "_told", told)
    assert is_youtube(link)
    with youtube_video(link):
        assert asked == [site.address(f"/watch?v={NAME}")]


@pytest.mark.parametrize(
    "path",
    ["", "playlist?list=PLx", "@someone", "channel/UCx", "watch?v=short", f"watch?v={NAME}x", "results?search_query=x"],
)
def test_lists_channels_and_broken_links_are_refused_before_anything_is_asked(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(youtube_module, "_told", lambda address: pytest.fail("YouTube was asked"))
    with pytest.raises(MediaError, match="names no single video"):
        youtube_video(f"https://www.youtube.com/{path}").__enter__()


@pytest.mark.parametrize(
    "source",
    [
        *("clip.mp4", "youtube.com/watch?v=x", f"https://youtube.com.evil.test/watch?v={NAME}", "https://[::1/"),
        *(
            f"https://evil.test/www.youtube.com/watch?v={NAME}",
            f"ftp://youtube.com/{NAME}",
            f"https://x@evil.test/{NAME}",
        ),
    ],
)
def test_other_sources_are_not_taken_for_youtube(source: str) -> None:
    assert not is_youtube(source)


def test_the_guard_of_a_server_lets_no_link_through() -> None:
    with pytest.raises(MediaError, match=r"Videos are not fetched from youtu\.be"):
        source_file(LINK, SourceRules()).__enter__()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"duration": 99999}, "lasts 99999 s and 14400 s are allowed"),
        ({"live_status": "is_live", "duration": None}, "is not over yet"),
        ({"live_status": "is_upcoming"}, "is not over yet"),
        ({"_type": "playlist", "entries": []}, "is a list of videos"),
        ({"formats": []}, "comes in no form that can be fetched"),
        ({"formats": None}, "comes in no form that can be fetched"),
    ],
)
def test_what_is_no_single_whole_video_is_refused_before_it_is_fetched(
    changes: dict[str, Any], says: str, tell: Tell, site: Site
) -> None:
    tell(**changes)
    with pytest.raises(MediaError, match=says):
        youtube_video(LINK).__enter__()
    assert site.asked == []


def test_a_video_of_too_many_bytes_is_refused(tell: Tell, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tell()
    monkeypatch.setattr(youtube_module, "RULES", SourceRules(hosts=(site.host,), largest=1500))
    with pytest.raises(MediaError, match="is larger than the 1500 bytes"):
        youtube_video(LINK).__enter__()


def test_nothing_is_fetched_from_elsewhere_than_youtube(
    tell: Tell, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell()
    monkeypatch.undo()
    monkeypatch.setattr(youtube_module, "_told", lambda address: site.told())
    monkeypatch.setattr(youtube_module, "PROTOCOLS", {"http"})
    with pytest.raises(MediaError, match=r"Videos are not fetched from 127\.0\.0\.1"):
        youtube_video(LINK).__enter__()
    assert site.asked == []


def offered(height: int, **changes: Any) -> dict[str, Any]:
    usual = {"ext": "mp4", "protocol": "https", "vcodec": "avc1.4d", "acodec": "none", "height": height, "url": "u"}
    return usual | changes


def test_the_smallest_form_that_is_large_enough_is_taken_with_sound_where_there_is_any() -> None:
    best, sounding = offered(360), offered(240, acodec="mp4a")
    unusable = [
        offered(360, protocol="m3u8_native", acodec="mp4a"),
        offered(360, protocol="http_dash_segments", acodec="mp4a"),
        offered(360, ext="mhtml"),
        offered(0, vcodec="none", acodec="mp4a"),
        offered(360, has_drm=True, acodec="mp4a"),
    ]
    silent = [offered(144), offered(240), offered(360, vcodec="av01"), best, offered(720), offered(2160)]
    assert youtube_module._chosen_format([*unusable, *silent]) is best
    assert youtube_module._chosen_format([*unusable, *silent, sounding]) is sounding
    assert youtube_module._chosen_format(silent[:2]) is silent[1]
    assert youtube_module._chosen_format(unusable) is None


@pytest.mark.parametrize(
    ("language", "changes", "name", "says"),
    [
        (None, {}, "en", "written in en"),
        (None, {"language": "de"}, "de", "written in de"),
        (None, {"language": None}, "en", "written in en"),
        ("de", {}, "de", "written in de"),
        ("pt", {}, "pt-BR", "written in pt-BR"),
        ("pt_br", {}, "pt-BR", "written in pt-BR"),
        ("fr", {}, "fr.automatic", "the first line"),
        ("xx", {}, "en", "written in en"),
        (None, {"subtitles": {}}, "en.automatic", "the first line"),
        (None, {"subtitles": None, "language": None}, "en.automatic", "the first line"),
    ],
)
def test_subtitles_by_people_come_before_automatic_ones_and_the_wanted_language_before_others(
    language: str | None, changes: dict[str, Any], name: str, says: str, tell: Tell
) -> None:
    tell(**changes)
    with youtube_video(LINK, language=language) as file:
        found = find_subtitles(file, language)
        assert found is not None and found.path.name == f"{NAME}.{name}.vtt"
        assert read_subtitles(found.path)[0].text == says


def test_automatic_captions_tell_each_line_once(tell: Tell) -> None:
    tell(subtitles={})
    with youtube_video(LINK) as file:
        found = find_subtitles(file)
        assert found is not None
        said = read_subtitles(found.path)
    assert [cue.text for cue in said] == ["the first line", "and the second", "then a third"]
    assert [round(cue.start) for cue in said] == [0, 1, 2]


def test_a_translation_by_machine_is_taken_only_where_its_language_was_asked_for(tell: Tell) -> None:
    tell(subtitles={}, language="ja", automatic_captions={"fr": [{"ext": "vtt", "url": "http://x.test/"}]})
    with youtube_video(LINK) as file:
        assert find_subtitles(file) is None


def test_a_video_whose_subtitles_cannot_be_had_is_there_without(
    tell: Tell, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    tell(subtitles={"en": [{"ext": "vtt", "url": site.address("/absent")}]})
    with youtube_video(LINK) as file:
        assert find_subtitles(file) is None and file.read_bytes() == site.video
    assert "The subtitles on YouTube cannot be had" in caplog.text
