"""Many requests at once, a server that is killed, and memory over thousands of requests."""

import hashlib
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from minigpt4_video.data.world.files import render
from served import CLIP, KEY, Server, asked, data_url, serving, video

pytestmark = pytest.mark.slow

KEYS = (KEY, KEY[::-1])
QUESTIONS = (
    "Describe the video.",
    "What color is the triangle?",
    "Which object appears first?",
    "What is said in the video?",
    "视频里有什么？",
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos of the world, each with subtitles beside it."""
    folder = tmp_path_factory.mktemp("videos")
    return [file for file in render(folder, seed=7, count=12) if file.with_suffix(".srt").is_file()]


class Question(NamedTuple):
    video: int
    key: int
    text: str
    frames: int | None
    subtitles: bool
    temperature: float
    seed: int
    most: int
    stream: bool


def drawn(chance: random.Random, videos: int) -> Question:
    return Question(
        chance.randrange(videos),
        chance.randrange(len(KEYS)),
        chance.choice(QUESTIONS),
        chance.choice((None, None, 3, 6)),
        chance.random() < 0.5,
        chance.choice((0.0, 0.7, 1.5)),
        chance.randrange(2**40),
        chance.choice((4, 12, 30)),
        chance.random() < 0.5,
    )


def given_by(client: openai.OpenAI, part: dict[str, Any], question: Question, subtitles: Path) -> str:
    said: Any = client.chat.completions.create(
        model="tiny",
        messages=asked(part, question.text),
        temperature=question.temperature,
        seed=question.seed,
        max_tokens=question.most,
        stream=question.stream,
        extra_body={
            "num_frames": question.frames,
            "subtitles": subtitles.read_text(encoding="utf-8") if question.subtitles else "off",
        },
    )
    if question.stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in said)
    return str(said.choices[0].message.content)


@pytest.mark.timeout(3000)
def test_a_thousand_requests_at_once_are_each_answered_as_alone(tmp_path: Path, videos: list[Path], alone):
    chance = random.Random(11)
    questions = [drawn(chance, len(videos)) for _ in range(1000)]
    with serving(tmp_path, "--api-key", KEYS[0], "--api-key", KEYS[1]) as server:
        clients = [server.client(key, timeout=600) for key in KEYS]
        ids = [[client.files.create(file=file, purpose="user_data").id for file in videos] for client in clients]

        def ask(question: Question) -> str:
            name = ids[question.key][question.video]
            part = video(data_url(videos[question.video]) if question.seed % 4 == 0 else name)
            return given_by(clients[question.key], part, question, videos[question.video].with_suffix(".srt"))

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, questions))

    for question, answer in zip(questions, answers, strict=True):
        file = videos[question.video]
        expected = alone(
            file,
            question.text,
            subtitles=file.with_suffix(".srt") if question.subtitles else "off",
            frames=question.frames,
            temperature=question.temperature,
            seed=question.seed,
            max_new_tokens=question.most,
        )
        assert answer == expected, question


@pytest.mark.timeout(1500)
def test_what_was_kept_is_sound_after_the_process_is_killed(tmp_path: Path, videos: list[Path], alone):
    kept: dict[str, Path] = {}
    lock = threading.Lock()
    for life in range(3):
        with serving(tmp_path) as server:
            client = server.client(timeout=60)
            known = {file.id for file in client.files.list().data}
            assert set(kept) <= known  # whatever a client was told is there
            for name in known:
                content = client.files.content(name).read()
                assert hashlib.sha256(content).digest() in {hashlib.sha256(f.read_bytes()).digest() for f in videos}
            for name, file in list(kept.items())[:4]:
                answer = client.chat.completions.create(model="tiny", messages=asked(video(name), QUESTIONS[0]))
                assert answer.choices[0].message.content == alone(file, QUESTIONS[0])

            def work(file: Path, client: openai.OpenAI = client) -> None:
                with suppress(openai.OpenAIError):
                    while True:
                        name = client.files.create(file=file, purpose="user_data").id
                        with lock:
                            kept[name] = file
                        client.chat.completions.create(model="tiny", messages=asked(video(name), QUESTIONS[0]))

            threads = [threading.Thread(target=work, args=(file,), daemon=True) for file in videos[:4]]
            for thread in threads:
                thread.start()
            time.sleep(4 + life)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
            for thread in threads:
                thread.join(60)
    assert len(kept) > 3
    assert not [file for file in (tmp_path / "store").rglob("*.part") if time.time() - file.stat().st_mtime > 3600]


def resident(server: Server) -> int:
    """Bytes of memory that the server's process has in use."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.timeout(3000)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_two_thousand_requests(tmp_path: Path, videos: list[Path]):
    chance = random.Random(3)
    with serving(tmp_path) as server:
        client = server.client(timeout=600)

        def ask(number: int) -> None:
            question = drawn(chance, len(videos))
            part = video(data_url(videos[question.video]))
            if number % 10 == 0:
                with suppress(openai.BadRequestError):  # and what cannot be used
                    broken = video(data_url(b"no video" + bytes([number % 256])))
                    given_by(client, broken, question, videos[0].with_suffix(".srt"))
            elif number % 3 == 0:
                client.chat.completions.create(model="tiny", messages=asked(question.text), max_tokens=8)
            else:
                given_by(client, part, question, videos[question.video].with_suffix(".srt"))

        held = []
        with ThreadPoolExecutor(8) as pool:
            for begin in range(0, 2000, 250):
                list(pool.map(ask, range(begin, begin + 250)))
                held.append(resident(server))

    print("MiB after every 250 requests:", [round(size / 2**20) for size in held])
    assert held[-1] - held[3] < 24 * 2**20, held


@pytest.mark.timeout(3000)
def test_no_request_that_the_document_allows_is_a_fault(server: Server):
    import schemathesis  # which takes seconds to import
    from schemathesis.checks import CHECKS, load_all_checks

    schema = schemathesis.openapi.from_url(server.address.removesuffix("/v1") + "/openapi.json")
    load_all_checks()
    fault = CHECKS.get_by_names(["not_a_server_error"])
    asked_of = 0
    made_wrong: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @given(case=strategy)
            @settings(
                max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
            )
            def holds(case: Any) -> None:
                nonlocal asked_of
                asked_of += 1
                case.call_and_validate(checks=fault, timeout=120)

            if mode is schemathesis.GenerationMode.POSITIVE:
                holds()
                continue
            with suppress(Unsatisfiable):  # where nothing that can be sent would be wrong
                holds()
                made_wrong.add(operation.label)
    assert asked_of > 300
    assert {"POST /v1/chat/completions", "POST /v1/files"} <= made_wrong


@pytest.mark.timeout(1500)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=st.text(min_size=1), stop=st.lists(st.text(), max_size=4), subtitles=st.text())
def test_any_words_are_answered_or_refused(server: Server, text: str, stop: list[str], subtitles: str):
    try:
        answer = server.client().chat.completions.create(
            model="tiny",
            messages=asked(video(data_url(CLIP)), text),
            stop=stop,
            max_tokens=8,
            extra_body={"subtitles": subtitles},
        )
    except openai.BadRequestError:
        return
    assert not any(one in answer.choices[0].message.content for one in stop if one)
