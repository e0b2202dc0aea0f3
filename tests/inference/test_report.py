"""The page about an answer: whole in itself, and safe with what strangers wrote into subtitles."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from minigpt4_video.inference.answer import Answer, Timings
from minigpt4_video.inference.report import Shown, Turn, page
from minigpt4_video.planning import Plan

HOSTILE = "</figcaption><script>alert('\"')</script><img src=x onerror=alert(1)>&lt;"


def shown(*subtitles: str, title: str = "clip.mp4", width: int = 64) -> Shown:
    count = len(subtitles)
    frames = np.full((count, 48, width, 3), 128, np.uint8)
    return Shown(title, "3.0 s", frames, [float(index) for index in range(count)], subtitles)


def answer(kept: dict[int, str], text: str = "A cat.", left_out: tuple[str, ...] = ()) -> Answer:
    plan = Plan(
        frames=len(kept),
        frame_tokens=40,
        tag_tokens=10,
        subtitle_tokens=20,
        question_tokens=5,
        answer_reserve=25,
        window=200,
        total=100,
        kept_subtitles=tuple(kept.values()),
        kept_frames=tuple(kept),
        left_out=left_out,
    )
    return Answer(text, -0.105, plan, Timings(0.1, 0.2, 0.7))


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_it_shows_question_answer_confidence_times_and_subtitles():
    html = page(shown("hello", ""), [Turn("What is it?", answer({0: "hello", 1: ""}))], "tiny")
    told = Elements(html).text

    for words in [
        "clip.mp4",
        "What is it?",
        "A cat.",
        "90 %",
        "0:00.0",
        "0:01.0",
        "hello",
        "2 frames: 40 tokens",
        "tiny",
    ]:
        assert words in told


def test_it_needs_nothing_from_elsewhere():
    html = page(shown("hello", ""), [Turn("What?", answer({0: "hello", 1: ""}))], "tiny")
    elements = Elements(html)

    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in elements.tags}
    assert re.findall(r"(?:https?:)?//\w", html.replace("data:image/jpeg;base64,", "").split("<figure")[0]) == []
    sources = [attributes["src"] for tag, attributes in elements.tags if tag == "img"]
    assert len(sources) == 2 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in elements.tags)


def test_the_frames_are_in_it_and_wide_ones_are_made_smaller():
    html = page(shown("", width=640), [Turn("What?", answer({0: ""}))], "tiny")
    data = re.search(r"base64,([^\"]+)", html)
    assert data is not None
    picture = Image.open(BytesIO(base64.b64decode(data[1])))

    assert picture.format == "JPEG" and picture.size == (320, 24)
    assert abs(int(np.asarray(picture).mean()) - 128) <= 2


@pytest.mark.parametrize("place", ["subtitle", "question", "answer", "title", "note", "model"])
def test_hostile_text_stays_text(place):
    words = {
        name: HOSTILE if name == place else name
        for name in ("subtitle", "question", "answer", "title", "note", "model")
    }
    said = answer({0: words["subtitle"]}, words["answer"], (words["note"],))
    html = page(shown(words["subtitle"], title=words["title"]), [Turn(words["question"], said)], words["model"])
    elements = Elements(html)

    assert HOSTILE in elements.text
    assert [tag for tag, _ in elements.tags].count("img") == 1
    assert "script" not in {tag for tag, _ in elements.tags}


def test_a_frame_that_was_left_out_is_shown_as_such_and_the_reason_told():
    html = page(
        shown("a", "b", "c"), [Turn("What?", answer({0: "a", 2: "b c"}, left_out=("1 frame was left out.",)))], "tiny"
    )

    assert Elements(html).text.count("(left out)") == 1
    assert "1 frame was left out." in html and "b c" in html


def test_the_bar_has_the_plan_in_proportion():
    html = page(shown(""), [Turn("What?", answer({0: ""}))], "tiny")
    widths = {name: float(width) for name, width in re.findall(r'<i class="(\w+)" style="width:([\d.]+)%">', html)}

    assert widths == {"frames": 20.0, "tags": 5.0, "subtitles": 10.0, "words": 2.5, "reserve": 12.5, "free": 50.0}


def test_chinese_is_written_as_itself():
    html = page(shown("你好，世界"), [Turn("发生了什么？", answer({0: "你好，世界"}, "一只猫。"))], "tiny")
    assert "你好，世界" in html and "一只猫。" in html and '<meta charset="utf-8">' in html


def test_an_empty_answer_is_said_to_be_empty():
    assert "(no words)" in page(shown(""), [Turn("What?", answer({0: ""}, ""))], "tiny")
