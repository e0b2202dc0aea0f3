"""The page's files, and what the server tells it: frames, plan, subtitles, report, within the server's limits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from making import SUBTITLES, write_video
from minigpt4_video.inference import VideoChat
from minigpt4_video.serving.api import create_app
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.page import add_page
from minigpt4_video.serving.page.routes import STATIC
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.sources import Sources
from minigpt4_video.serving.uploads import Uploads

WORDS: dict[str, dict[str, str]] = json.loads((STATIC / "words.json").read_bytes())
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}
KEY = "a-key-for-these-tests"
LIMITS = Limits(frames=40, messages=6, text=5000, waiting=2)


@pytest.fixture(scope="module")
def chat(random_model: Path) -> VideoChat:
    return VideoChat.from_pretrained(random_model, device="cpu")


@pytest.fixture(scope="module")
def service(chat: VideoChat) -> Iterator[Service]:
    service = Service(chat, LIMITS)
    yield service
    service.close()


def page_of(service: Service, folder: Path, *keys: str) -> TestClient:
    uploads = Uploads(folder, service.limits)
    app = create_app(service, Sources(service.limits, uploads, None, ()), uploads, keys=Keys(keys))
    add_page(app, service, uploads)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def page(service: Service, tmp_path: Path) -> TestClient:
    return page_of(service, tmp_path / "uploads")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


def sent(page: TestClient, path: Path, **options: Any) -> str:
    answer = page.post("/v1/files", files={"file": (path.name, path.read_bytes())}, **options)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def looked(page: TestClient, file: str, **wanted: Any) -> dict[str, Any]:
    answer = page.post("/v1/page/footage", json={"file_id": file} | wanted)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(page: TestClient, file: str, **wanted: Any) -> tuple[int, str, str]:
    answer = page.post("/v1/page/footage", json={"file_id": file} | wanted)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


# Words


def test_both_languages_say_the_same_things():
    def values(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", text))

    assert WORDS.keys() == {"en", "zh"}
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for name, english in WORDS["en"].items():
        chinese = WORDS["zh"][name]
        assert english and chinese
        # An error that the server has put into English is said in Chinese without it.
        assert values(chinese) == values(english) or values(english) == {"message"}, name
        assert re.search("[，\u4e00-\u9fff]", chinese), name


def test_every_word_of_the_page_is_there_and_every_word_is_used():
    named = set(re.findall(r'data-word(?:-label|-placeholder)?="(\w+)"', (STATIC / "index.html").read_text("utf-8")))
    scripts = "".join(SCRIPTS.values())
    quoted = set(re.findall(r'"(\w+)"', scripts))
    named |= set(re.findall(r'say\("(\w+)"', scripts)) | {
        f"error_{code}" for code in re.findall(r'Refusal\("(\w+)"', scripts)
    }

    assert named <= WORDS["en"].keys()
    used = named | quoted | {f"error_{word}" for word in quoted}
    assert WORDS["en"].keys() <= used


def test_examples_have_their_files_and_questions_in_both_languages():
    examples = json.loads((STATIC / "examples" / "examples.json").read_bytes())

    assert len(examples) >= 3
    for example in examples:
        assert (STATIC / "examples" / example["video"]).is_file()
        assert (STATIC / "examples" / example["subtitles"]).is_file()
        assert example["title"].keys() == example["questions"].keys() == WORDS.keys()
        assert all(example["questions"].values())


# Files


SUGGESTED = {
    "circle-and-triangle.mp4": [["it moves right", "Emma", "bottom right"], ["向右移动", "绿色", "右下"]],
    "star-and-square.mp4": [["it moves left", "Grace", "bottom right"], ["向左移动", "Grace", "右下"]],
    "star-and-circle.mp4": [["it moves right", "two", "blue"], ["向右移动", "牛奶", "小雪"]],
}
"""What is true of the examples, in the order of their questions, in English and in Chinese."""


def test_suggested_questions_are_answered_rightly_by_the_embedded_model():
    examples = STATIC / "examples"
    tiny = VideoChat.from_pretrained("tiny", device="cpu")
    for example in json.loads((examples / "examples.json").read_bytes()):
        video = tiny.open(examples / example["video"], subtitles=examples / example["subtitles"])
        for language, truth in zip(("en", "zh"), SUGGESTED[example["video"]], strict=True):
            talk = video.chat()
            assert [talk.ask(question) for question in example["questions"][language]] == truth


def test_the_page_allows_a_browser_nothing_but_this_server(page: TestClient):
    answer = page.get("/")

    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert set(" ".join(policy.values()).split()) <= {"'self'", "'none'", "data:", "blob:"}
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


def test_no_file_of_the_page_names_another_host():
    for path in STATIC.rglob("*.*"):
        if path.suffix != ".mp4":
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text), path


def test_all_that_the_page_loads_is_there(page: TestClient):
    html = page.get("/").text
    addresses = {*re.findall(r'(?:src|href)="(/[^"]+)"', html), "/page/words.json"}
    addresses |= {f"/page/{name}" for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}

    assert len(addresses) > 10
    for address in addresses:
        answer = page.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if address.endswith(".js"):
            assert answer.headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path", ["/page/../routes.py", "/page/%2e%2e/routes.py", "/page/..%2froutes.py", "/page/", "/page//etc/passwd"]
)
def test_nothing_but_the_page_s_files_is_given(page: TestClient, path: str):
    answer = page.get(path)

    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["message"]


# What the model sees


def test_the_frames_and_the_plan_are_the_model_s(page: TestClient, chat: VideoChat, clip: Path):
    clip.with_suffix(".srt").write_text(SUBTITLES, encoding="utf-8")
    video = chat.open(clip)

    cues = [cue._asdict() for cue in video.footage.cues]
    seen = looked(page, sent(page, clip), subtitles=cues, messages=[{"role": "user", "content": "What is it?"}])

    plan = video.plan("What is it?")
    assert [frame["time"] for frame in seen["frames"]] == list(video.footage.clip.times)
    assert [frame["text"] for frame in seen["frames"]] == list(plan.kept_subtitles)
    assert all(frame["seen"] and frame["picture"].startswith("data:image/jpeg;base64,") for frame in seen["frames"])
    assert seen["plan"]["total"] == plan.total
    assert seen["plan"]["question_tokens"] == plan.question_tokens
    assert seen["left_out"] == {"frames": 0, "all_frames": 4, "words": 0, "all_words": seen["left_out"]["all_words"]}
    assert (seen["width"], seen["height"], seen["subtitles"]) == (
        video.footage.info.width,
        video.footage.info.height,
        True,
    )


def test_the_plan_is_that_of_the_whole_conversation(page: TestClient, chat: VideoChat, clip: Path):
    first, *others = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A clip."},
        {"role": "user", "content": "And then?"},
    ]

    seen = looked(page, sent(page, clip), messages=[first, *others], num_frames=3, pictures=False)

    video = chat.open(clip, frames=3)
    plan = video.continue_([*video.footage.conversation(first["content"]), *others]).plan
    assert (seen["plan"]["total"], seen["plan"]["question_tokens"]) == (plan.total, plan.question_tokens)
    assert len(seen["frames"]) == 3
    assert "picture" not in seen["frames"][0]


def test_another_number_of_frames_is_another_plan(page: TestClient, clip: Path):
    file = sent(page, clip)

    few, many = (looked(page, file, num_frames=number) for number in (2, 6))

    assert [len(few["frames"]), len(many["frames"])] == [few["plan"]["frames"], many["plan"]["frames"]] == [2, 6]
    assert many["plan"]["frame_tokens"] == 3 * few["plan"]["frame_tokens"]
    assert many["available"] >= 6


def test_what_does_not_fit_is_told_in_numbers(page: TestClient, clip: Path):
    cues = [{"start": 0.0, "end": 2.0, "text": "word " * 400}]

    seen = looked(page, sent(page, clip), subtitles=cues)

    assert seen["left_out"]["all_words"] == 400
    assert seen["left_out"]["words"] == 400 - sum(len(frame["text"].split()) for frame in seen["frames"]) > 0


def test_frames_for_which_there_is_no_room_are_refused(page: TestClient, clip: Path):
    status, code, message = refused(
        page, sent(page, clip), num_frames=20, messages=[{"role": "user", "content": "so " * 60}]
    )

    assert (status, code) == (400, "plan")
    assert "ask for at most 7" in message


def test_pictures_of_a_tall_video_are_small(page: TestClient, tmp_path: Path):
    from PIL import Image

    path = tmp_path / "tall.png"
    Image.new("RGB", (8, 4000), "red").save(path)

    seen = looked(page, sent(page, path))

    assert len(seen["frames"]) == 1
    assert len(seen["frames"][0]["picture"]) < 5000


# Files that cannot be used


def test_a_file_that_is_no_video_is_refused_in_a_sentence(page: TestClient, tmp_path: Path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all" * 100)

    status, code, message = refused(page, sent(page, path))

    assert (status, code) == (400, "media")
    assert message.startswith("The file") and message.endswith(".")
    assert "/" not in message.replace(".mp4", "") and "file-" not in message


def test_subtitles_are_read_in_their_encoding(page: TestClient):
    content = SUBTITLES.encode() + "\n9\n00:00:08,000 --> 00:00:09,000\n绿色三角形向右移动，小明喜欢苹果。\n".encode(
        "gb18030"
    )

    answer = page.post(
        "/v1/page/subtitles", params={"name": "clip.srt"}, content=content.replace(SUBTITLES.encode(), b"")
    )

    assert answer.json()["cues"] == [{"start": 8.0, "end": 9.0, "text": "绿色三角形向右移动，小明喜欢苹果。"}]


@pytest.mark.parametrize("name", ["clip.srt", "clip.vtt", "../../etc/passwd", "clip.exe", "a" * 5000])
def test_what_is_no_subtitle_file_is_refused_in_a_sentence(page: TestClient, name: str):
    answer = page.post("/v1/page/subtitles", params={"name": name}, content=bytes(range(256)) * 20)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "subtitles"
    assert "/tmp" not in answer.json()["error"]["message"]


# Limits


@pytest.mark.parametrize(
    "wanted",
    [
        {"num_frames": 41},
        {"num_frames": 0},
        {"messages": [{"role": "user", "content": "a" * 5001}]},
        {"subtitles": [{"start": 0, "end": 1, "text": ""}] * 300},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 4},
        {"messages": [{"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "system", "content": "b"}]},
        {"subtitles": "/etc/passwd"},
        {"path": "/etc/passwd"},
    ],
)
def test_a_request_for_more_than_is_allowed_is_refused(page: TestClient, clip: Path, wanted: dict[str, Any]):
    status, _, message = refused(page, sent(page, clip), **wanted)

    assert status == 400
    assert "passwd" not in message


@pytest.mark.parametrize("file", ["", "file-" + "0" * 32, "../../etc/passwd", "/etc/passwd", "file:///etc/passwd"])
def test_only_uploads_are_looked_at(page: TestClient, file: str):
    assert refused(page, file)[:2] == (404, "file_not_found")


def test_a_full_server_says_when_to_come_back(page: TestClient, service: Service, clip: Path):
    file = sent(page, clip)
    with service.admitted(), service.admitted():
        answer = page.post("/v1/page/footage", json={"file_id": file})
        subtitles = page.post("/v1/page/subtitles", params={"name": "a.srt"}, content=SUBTITLES.encode())

    assert answer.status_code == subtitles.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_the_page_tells_the_server_s_limits(page: TestClient, service: Service):
    told = page.get("/v1/page/settings").json()

    assert told["limits"]["bytes"] == service.limits.media_bytes
    assert told["limits"]["duration"] == service.limits.decoding.duration
    assert 1 < told["frames"]["most"] <= LIMITS.frames
    assert told["captions"]["zh"].keys() == told["captions"]["en"].keys() == {"brief", "detailed", "tags"}


# Keys


def test_a_key_is_demanded_for_all_but_the_page_itself(service: Service, tmp_path: Path, clip: Path):
    page = page_of(service, tmp_path / "uploads", KEY, KEY + "-of-another")
    known, other = ({"Authorization": f"Bearer {key}"} for key in (KEY, KEY + "-of-another"))
    file = sent(page, clip, headers=known)

    assert page.get("/").status_code == page.get("/page/app.js").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert page.get("/v1/page/settings", headers=headers).status_code == 401
        for path in ("footage", "report", "subtitles?name=a.srt"):
            assert page.post(f"/v1/page/{path}", json={"file_id": file}, headers=headers).status_code == 401
    assert page.get("/v1/page/settings", headers=known).status_code == 200
    assert page.post("/v1/page/footage", json={"file_id": file}, headers=known).status_code == 200
    assert page.post("/v1/page/footage", json={"file_id": file}, headers=other).status_code == 404


def test_a_page_of_another_site_gets_nothing(page: TestClient):
    assert page.get("/v1/page/settings", headers={"Origin": "http://example.org"}).status_code == 403
    assert page.get("/", headers={"Host": "example.org"}).status_code == 403


# The report


def test_the_report_is_a_page_by_itself(page: TestClient, clip: Path):
    turns = [
        {"question": "What <b>is</b> it?", "answer": "<script>alert(1)</script>", "confidence": -0.1, "seconds": 0.5},
        {"question": "And then?", "answer": "Nothing.", "confidence": 0.0, "seconds": 0.25},
    ]
    wanted = {"title": "holiday.mp4", "turns": turns, "messages": [{"role": "user", "content": "And then?"}]}

    answer = page.post("/v1/page/report", json={"file_id": sent(page, clip)} | wanted)

    html = answer.text
    assert "attachment" in answer.headers["Content-Disposition"]
    assert "holiday.mp4" in html and "And then?" in html and "Nothing." in html
    assert "<script" not in html and "&lt;script&gt;" in html and "What &lt;b&gt;is" in html
    assert html.count("data:image/jpeg") == 4
    assert not re.search(r'(?:src|href)="(?!data:)', html)
