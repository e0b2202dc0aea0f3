"""The page in headless Chromium, with the embedded model behind it: `make test-page`."""

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from making import write_video
from minigpt4_video.data.world.films import write_films
from minigpt4_video.serving.page.routes import STATIC
from served import CLIP, KEY, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: make test-page")
CHROMIUM = os.environ.get("MINIGPT4_VIDEO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 120_000
"""Milliseconds after which what does not come is taken for missing; machines that run tests may be busy."""
QUESTION, FOLLOW_UP = "What happens to the green triangle?", "What color is the triangle?"
SUBTITLES = CLIP.with_suffix(".srt")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("page"), "--page") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: install it, or name it by MINIGPT4_VIDEO_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield running
        running.close()


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    """Open the page; at the end, nothing may have gone wrong in it and nothing may have left this machine."""
    opened, wrong, asked = [], [], []

    def open_page(at: Server = server, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "locale": "en-US"} | options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        context.on("request", lambda request: asked.append((at.port, request.url)))
        page.goto(at.address.removesuffix("v1"))
        opened.append(context)
        return page

    open_page.wrong = wrong  # type: ignore[attr-defined]
    yield open_page
    for context in opened:
        context.close()
    # A refusal by the server is a line in the browser's console, whatever the page does with it.
    assert [line for line in wrong if not re.search(r"status of (400|401|404|413|429)", line)] == []
    here = re.compile(r"(data:|blob:http://127\.0\.0\.1:|http://127\.0\.0\.1:(\d+)/)")
    for port, url in asked:
        assert (found := here.match(url)) and found[2] in (None, str(port)), url


def opened(page: Any, *files: Path) -> Any:
    """The page with a video, and subtitles where they are given."""
    page.wait_for_selector("#examples button")
    if len(files) > 1:
        page.set_input_files("#subtitle-file", files[1])
    page.set_input_files("#file", files[0])
    page.wait_for_selector("#strip img")
    return page


def answers(page: Any, number: int) -> list[str]:
    """The answers, once there are so many."""
    page.wait_for_selector(f".turn:nth-of-type({number}) .about")
    return [text.split(": ", 1)[1] for text in page.locator(".turn .answered").all_text_contents()]


def ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")


def until(page: Any, expression: str) -> None:
    """Wait for something to be true in the page; its policy forbids Playwright's own way of waiting."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def faults(page: Any) -> list[str]:
    """What axe holds for a serious or critical fault."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe: make test-page")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Runtime.evaluate", {"expression": axe.AXE_SCRIPT})  # the page's policy allows no other way
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.fixture(scope="module")
def alone() -> Any:
    """The same video, opened in this process."""
    from minigpt4_video.inference import VideoChat

    return VideoChat.from_pretrained("tiny", device="cpu").open(CLIP, subtitles=SUBTITLES)


def test_a_video_is_asked_and_asked_again(visit: Visit, alone: Any):
    page = opened(visit(), CLIP, SUBTITLES)

    ask(page, QUESTION)
    answers(page, 1)
    ask(page, FOLLOW_UP)

    talk = alone.chat()
    assert answers(page, 2) == [talk.ask(QUESTION), talk.ask(FOLLOW_UP)]
    assert page.locator(".turn .asked").all_text_contents() == [f"You: {QUESTION}", f"You: {FOLLOW_UP}"]
    said = page.locator("#strip span").all_text_contents()
    assert any("I am the green triangle" in text for text in said)
    assert "8 frames" in page.locator(".about").first.text_content()
    assert re.search(r"confidence \d+ %", page.locator(".about").first.text_content())


def test_a_new_conversation_knows_nothing_of_the_old_one(visit: Visit, alone: Any):
    page = opened(visit(), CLIP, SUBTITLES)
    ask(page, FOLLOW_UP)
    answers(page, 1)

    page.click("#again")
    assert page.locator(".turn").count() == 0
    ask(page, QUESTION)

    assert answers(page, 1) == [alone.ask(QUESTION).text]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_video_is_described(visit: Visit, alone: Any, language: str):
    page = opened(visit(), CLIP, SUBTITLES)
    page.select_option("#caption-language", language)

    for number, style in enumerate(("brief", "detailed", "tags"), start=1):
        page.click(f"[data-style={style}]")
        assert answers(page, number)[-1] == alone.caption(style, language).text


def test_another_number_of_frames_is_seen_planned_and_asked_about(visit: Visit, alone: Any):
    page = opened(visit(), CLIP, SUBTITLES)
    before = page.locator("#legend").text_content()

    page.fill("#frames", "3")

    until(page, "document.querySelectorAll('#strip img').length === 3")
    assert page.locator("#frames-number").text_content() == "3"
    assert "3 frames" in page.locator("#legend").text_content() != before
    ask(page, QUESTION)
    three = alone.model.open(CLIP, subtitles=SUBTITLES, frames=3)
    assert answers(page, 1) == [three.ask(QUESTION).text]
    assert "3 frames" in page.locator(".about").text_content()


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_long_video_is_indexed_and_buttons_take_the_player_to_the_moments(
    visit: Visit, tmp_path_factory: pytest.TempPathFactory, locale: str
):
    (film,) = write_films(tmp_path_factory.mktemp("film"), minutes=4, size=64, language="en")
    (row,) = map(json.loads, (film.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    one = next(question for question in row["questions"] if question["kind"] == "who")
    page = opened(visit(locale=locale), film, film.with_suffix(".srt"))
    assert not page.locator("#long").is_hidden() and "clip" not in page.locator("#clip-facts").text_content()

    ask(page, one["text"])

    page.wait_for_selector(".turn .about")
    assert page.locator(".turn .answered").text_content().endswith(one["answer"])
    assert {"en-US": "From:", "zh-CN": "依据："}[locale] in page.locator(".moments").text_content()
    page.locator(".moments button").first.click()
    (moment,) = one["moments"]
    until(page, f"Math.abs(document.getElementById('player').currentTime - {moment}) < 60")
    assert abs(float(page.locator("#strip button").first.get_attribute("data-time")) - moment) < 60
    until(page, "!/%/.test(document.getElementById('long').textContent)")
    assert faults(page) == []


def test_a_click_on_a_frame_takes_the_player_there(visit: Visit):
    page = opened(visit(), CLIP)
    frame = page.locator("#strip button").nth(5)

    frame.click()

    wanted = float(frame.get_attribute("data-time"))
    until(page, f"Math.abs(document.getElementById('player').currentTime - {wanted}) < 0.01")
    assert wanted > 1
    assert frame.get_attribute("aria-current") == "true"
    assert page.locator("[aria-current=true]").count() == 1


def test_all_of_it_works_by_keyboard(visit: Visit):
    page = visit()
    page.wait_for_selector("#examples button")

    def tab_to(selector: str) -> None:
        for _ in range(40):
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"{selector} cannot be reached")

    tab_to("#file")
    tab_to("#examples button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#strip img")
    assert page.evaluate("document.activeElement.id") == "clip-name"  # where reading goes on
    tab_to("#frames")
    tab_to("#strip button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    wanted = page.locator("#strip button").nth(1).get_attribute("data-time")
    until(page, f"document.getElementById('player').currentTime === {wanted}")
    tab_to("#question")
    page.keyboard.type("What does Frank do?")
    page.keyboard.press("Enter")
    assert answers(page, 1)[0]


def test_a_chinese_browser_gets_a_chinese_page_and_english_at_a_click(visit: Visit):
    page = visit(locale="zh-CN")
    assert page.locator("#start-title").text_content() == "向视频提问"
    assert page.get_attribute("html", "lang") == "zh-CN"
    page.click("#examples button >> nth=2")
    page.wait_for_selector("#strip img")
    page.click(".welcome button >> nth=0")
    assert answers(page, 1) == ["向右移动"]
    assert "帧画面" in page.locator(".about").text_content()

    page.click("[data-language=en]")

    assert page.locator("#chat-title").text_content() == "Conversation"
    assert "8 frames" in page.locator(".about").text_content()
    page.reload()
    page.wait_for_selector("#examples button")
    assert page.locator("#start-title").text_content() == "Ask your video"


def test_a_bad_file_is_told_in_a_sentence_and_the_next_one_opens(visit: Visit, tmp_path: Path):
    bad, empty = tmp_path / "bad.mp4", tmp_path / "empty.mp4"
    bad.write_bytes(b"this is no video " * 500)
    empty.touch()
    page = visit()
    page.wait_for_selector("#examples button")

    page.set_input_files("#file", bad)
    page.wait_for_selector("#start-notice:visible")
    sentence = page.locator("#start-notice").text_content()
    assert sentence.startswith("The file") and sentence.count(". ") == 0 and "file-" not in sentence
    page.click("[data-language=zh]")
    assert page.locator("#start-notice").text_content().startswith("无法读取这个视频")
    page.click("[data-language=en]")
    page.set_input_files("#file", empty)
    until(page, "document.getElementById('start-notice').textContent.includes('empty.mp4 is empty')")

    opened(page, CLIP)
    assert page.locator("#start-notice").is_hidden()


def test_bad_subtitles_are_told_and_the_video_stays(visit: Visit, tmp_path: Path):
    bad = tmp_path / "bad.srt"
    bad.write_bytes(bytes(range(256)) * 50)
    page = opened(visit(), CLIP)

    page.set_input_files("#later-subtitles", bad)
    page.wait_for_selector("#stage-notice:visible")
    page.set_input_files("#later-subtitles", SUBTITLES)

    until(page, "document.getElementById('strip').textContent.includes('I am the green triangle')")
    assert page.locator("#stage-notice").is_hidden()
    assert page.locator("#clip-facts").text_content().endswith("subtitles: clip.srt")
    assert page.evaluate("document.getElementById('player').textTracks.length") == 1


def test_a_file_that_is_too_large_is_not_even_sent(visit: Visit):
    page = visit()
    page.wait_for_selector("#examples button")
    sent = []
    page.on("request", lambda request: sent.append(request.url))

    page.evaluate("""() => {
        const files = new DataTransfer();
        const large = new File(["a"], "large.mp4");
        Object.defineProperty(large, "size", { value: 2 ** 40 });
        files.items.add(large);
        const input = document.getElementById("file");
        Object.defineProperty(input, "files", { value: [large] });
        input.dispatchEvent(new Event("change"));
    }""")

    page.wait_for_selector("#start-notice:visible")
    assert (
        "large.mp4 is too large: 1024 GB, and the server takes up to 1 GB"
        in page.locator("#start-notice").text_content()
    )
    assert sent == []


def test_files_may_be_dropped_anywhere(visit: Visit):
    page = visit()
    page.wait_for_selector("#examples button")

    page.evaluate(
        """async ([video, subtitles]) => {
            const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes(video)], "clip.mp4", { type: "video/mp4" }));
            dataTransfer.items.add(new File([bytes(subtitles)], "clip.srt"));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(path.read_bytes()).decode() for path in (CLIP, SUBTITLES)],
    )

    page.wait_for_selector("#strip img")
    assert page.locator("#dropping").is_hidden()
    assert "I am the green triangle" in page.locator("#strip").text_content()


def test_what_the_browser_cannot_play_is_shown_by_its_frames(visit: Visit, tmp_path: Path):
    page = opened(visit(), write_video(tmp_path / "clip.avi"))

    page.wait_for_selector("#unplayable:visible")
    page.locator("#strip button").nth(2).click()

    assert page.locator("#still").get_attribute("src") == page.locator("#strip img").nth(2).get_attribute("src")


def test_a_picture_is_a_video_of_one_frame(visit: Visit, tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (300, 200), "green").save(tmp_path / "green.png")
    page = opened(visit(), tmp_path / "green.png")

    assert page.locator("#strip img").count() == 1
    assert page.locator("#frames").is_disabled()
    assert page.locator("#still").is_visible() and page.locator("#unplayable").is_hidden()


def test_the_report_is_downloaded(visit: Visit, tmp_path: Path):
    page = opened(visit(), CLIP, SUBTITLES)
    ask(page, QUESTION)
    answer = answers(page, 1)[0]

    with page.expect_download() as download:
        page.click("#report")

    assert download.value.suggested_filename == "clip.html"
    download.value.save_as(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert QUESTION in html and answer in html and html.count("data:image/jpeg") == 8
    assert not re.search(r'(?:src|href)="(?!data:)', html)


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_a_telephone_shows_all_of_it(visit: Visit, language: str):
    page = visit(viewport={"width": 375, "height": 740}, has_touch=True, locale=language)

    def all_within() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        for element in page.locator("button:visible, label.button:visible, input:visible, textarea:visible").all():
            if element.evaluate("element => !element.closest('#strip') && !element.matches('.hidden-input')"):
                box = element.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= 375, element.evaluate(
                    "element => element.outerHTML"
                )

    page.wait_for_selector("#examples button")
    all_within()
    page.tap("#examples button >> nth=0")
    page.wait_for_selector("#strip img")
    page.fill("#question", QUESTION)
    page.tap("#send")
    answers(page, 1)
    all_within()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_it_is_accessible(visit: Visit, tmp_path: Path, scheme: str, language: str):
    page = visit(color_scheme=scheme, locale=language)
    page.wait_for_selector("#examples button")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    page.set_input_files("#file", bad)
    page.wait_for_selector("#start-notice:visible")
    assert faults(page) == []

    opened(page, CLIP, SUBTITLES)
    assert faults(page) == []
    page.click("[data-style=detailed]")
    answers(page, 1)
    page.locator("#strip button").nth(2).click()
    assert faults(page) == []


def test_an_answer_can_be_stopped(visit: Visit):
    page = opened(visit(), CLIP)
    held = []
    page.route("**/v1/chat/completions", lambda route: held.append(route))  # an answer that takes long

    ask(page, QUESTION)
    page.click("#stop")

    page.wait_for_selector("#send:visible")
    assert "Stopped." in page.locator(".turn").text_content()
    page.unroute("**/v1/chat/completions")
    ask(page, QUESTION)
    page.wait_for_selector(".turn:nth-of-type(2) .about")


def test_a_busy_server_is_asked_again(visit: Visit):
    page = opened(visit(), CLIP)
    tried = []

    def busy_once(route: Any) -> None:
        tried.append(time.monotonic())
        if len(tried) > 1:
            route.continue_()
        else:
            route.fulfill(status=429, headers={"Retry-After": "2"}, json={"error": {"message": "busy", "code": None}})

    page.route("**/v1/chat/completions", busy_once)
    ask(page, QUESTION)

    assert answers(page, 1)[0]
    assert tried[1] - tried[0] > 1.9
    assert page.locator("#chat-notice").is_hidden()


def test_who_waits_for_a_busy_server_can_stop_begin_anew_or_take_another_video(visit: Visit):
    page = opened(visit(), CLIP)
    busy = {"status": 429, "headers": {"Retry-After": "600"}, "json": {"error": {"message": "busy", "code": None}}}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**busy))

    ask(page, QUESTION)
    page.wait_for_selector(".turn:has-text('600')")
    page.click("#stop")
    page.wait_for_selector(".turn:has-text('Stopped.')")
    ask(page, QUESTION)
    page.wait_for_selector(".turn:nth-of-type(2):has-text('600')")
    page.click("#again")
    until(page, "!document.querySelector('.turn')")
    ask(page, QUESTION)
    page.wait_for_selector(".turn:has-text('600')")
    page.click("#another")
    opened(page, CLIP)
    page.unroute("**/v1/chat/completions")
    ask(page, QUESTION)

    assert answers(page, 1)[0]


def test_a_stream_that_breaks_off_is_told(visit: Visit):
    page = opened(visit(), CLIP)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, body='data: {"choices": []}\n\n'))

    ask(page, QUESTION)

    page.wait_for_selector("#chat-notice:visible")
    assert page.locator("#chat-notice").text_content() == "The answer broke off; ask again."


def test_an_upload_that_has_expired_is_sent_again(visit: Visit, server: Server):
    page = opened(visit(), CLIP)
    files = server.client().files
    for file in files.list():
        files.delete(file.id)

    ask(page, QUESTION)

    assert answers(page, 1)[0]
    assert page.locator("#chat-notice").is_hidden()


def test_what_is_not_needed_any_more_is_deleted(visit: Visit, server: Server):
    before = {file.id for file in server.client().files.list()}
    page = opened(visit(), CLIP)
    assert len({file.id for file in server.client().files.list()} - before) == 1

    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click("#another")

    assert {file.id for file in server.client().files.list()} <= before


def test_a_server_with_a_key_asks_for_it(visit: Visit, tmp_path: Path):
    with serving(tmp_path, "--page", "--api-key", KEY) as locked:
        page = visit(locked)
        page.wait_for_selector("#key-dialog[open]")
        assert faults(page) == []
        assert page.locator("#examples button").count() == 0
        page.keyboard.press("Escape")
        assert page.locator("#key-dialog").is_visible()

        page.fill("#key", "wrong" * 5)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-notice:visible")
        page.fill("#key", KEY)
        page.keyboard.press("Enter")

        opened(page, CLIP)
        ask(page, QUESTION)
        assert answers(page, 1)[0]
        page.reload()
        page.wait_for_selector("#examples button")
        assert page.locator("#key-dialog").is_hidden()


def test_every_file_of_the_page_is_used(visit: Visit):
    page = visit()
    loaded: set[str] = set()
    page.on("request", lambda request: loaded.add(request.url.split("#")[0].rsplit("/", 1)[1]))
    page.reload()
    page.wait_for_selector("#examples button")
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#strip img")

    assert {path.name for path in STATIC.glob("*.*")} - {"index.html"} <= loaded
