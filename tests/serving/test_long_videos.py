"""A long video behind the server: indexed beside answering, once, and asked about by its clips."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from making import write_video
from minigpt4_video.data.world.films import write_films
from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.store import Store
from minigpt4_video.long_video.choosing import open_video
from minigpt4_video.media.guarded import Limits as DecodingLimits
from minigpt4_video.serving import films
from minigpt4_video.serving.api import create_app
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.page import add_page
from minigpt4_video.serving.scheduler import Closing
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.sources import Sources
from minigpt4_video.serving.uploads import Uploads

LIMITS = Limits(decoding=DecodingLimits(frames=100))  # so that a film is read in several stretches


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (video,) = write_films(tmp_path_factory.mktemp("film"), minutes=4, size=64)
    return video


def questions(film: Path, scope: str) -> list[dict[str, Any]]:
    (row,) = map(json.loads, (film.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [one for one in row["questions"] if one["scope"] == scope]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def chat(store: Store) -> VideoChat:
    return VideoChat.from_pretrained("tiny", device="cpu", store=store)


@pytest.fixture(scope="module")
def service(chat: VideoChat) -> Iterator[Service]:
    service = Service(chat, LIMITS)
    yield service
    service.close()


def client_of(service: Service, folder: Path) -> TestClient:
    uploads = Uploads(folder, service.limits)
    app = create_app(service, Sources(service.limits, uploads, None, ()), uploads)
    add_page(app, service, uploads)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def client(service: Service, tmp_path: Path) -> TestClient:
    return client_of(service, tmp_path / "uploads")


def sent(client: TestClient, path: Path) -> str:
    answer = client.post("/v1/files", files={"file": (path.name, path.read_bytes())})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def cues(film: Path) -> str:
    return film.with_suffix(".srt").read_text(encoding="utf-8")


def ask(client: TestClient, file: str, film: Path, *said: str, **options: Any) -> Any:
    """`said` are the user's and the model's words in turn."""
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)
    ]
    shown = {"type": "file", "file": {"file_id": file}}
    messages[0]["content"] = [shown, {"type": "text", "text": said[0]}]
    return client.post("/v1/chat/completions", json={"messages": messages, "subtitles": cues(film)} | options)


def test_answers_and_evidence_are_those_of_the_same_index_without_a_server(client, service, chat, film, store):
    file = sent(client, film)
    asked = [*questions(film, "order")[:2], *questions(film, "moment")[:3], questions(film, "count")[0]]
    assert ask(client, file, film, asked[0]["text"]).status_code == 200
    video = open_video(chat, film)  # whose store has the index by now
    for one in asked:
        answer = ask(client, file, film, one["text"])
        assert answer.status_code == 200, answer.text
        told, alone = answer.json(), video.ask(one["text"])
        assert told["choices"][0]["message"]["content"] == alone.text
        assert told["evidence"] == [part._asdict() for part in alone.evidence]
    assert sum(video.ask(one["text"]).text == one["answer"] for one in asked) > len(asked) / 2
    assert store.held()["index"].entries == 1
    assert len(service.scheduler._kept) < len(asked) + service.scheduler.rows  # and nothing of some 50 clips


def test_where_one_of_several_clips_is_meant_it_is_asked_apart_and_shown_alone(client, chat, film):
    """With all that a request may want, which an answer that is there already would not have."""
    file = sent(client, film)
    video = open_video(chat, film)
    for text in ("What does the circle do?", "What does the star do?", "方形怎么了？"):
        assert len(video.find(text)) > 1
        alone = video.ask(text)
        told = ask(client, file, film, text, logprobs=True).json()
        (choice,) = told["choices"]
        assert choice["message"]["content"] == alone.text and choice["logprobs"]["content"]
        assert told["evidence"] == [part._asdict() for part in alone.evidence]


def test_a_stream_begins_with_the_evidence_and_a_short_video_has_none(client, film, tmp_path):
    file = sent(client, film)
    for scope in ("moment", "count"):
        text = questions(film, scope)[0]["text"]
        body = ask(client, file, film, text, stream=True).text
        chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        assert body.endswith("data: [DONE]\n\n") and chunks[0]["evidence"]
        assert all("evidence" not in chunk for chunk in chunks[1:])
        whole = ask(client, file, film, text).json()
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert (said, chunks[0]["evidence"]) == (whole["choices"][0]["message"]["content"], whole["evidence"])
    assert "evidence" not in ask(client, file, film, text, long="off").json()
    short = sent(client, write_video(tmp_path / "short.mp4"))
    assert "evidence" not in ask(client, short, film, "What happens?").json()


def test_a_question_that_names_nothing_is_about_the_clips_of_the_one_before(client, film):
    file = sent(client, film)
    first = questions(film, "moment")[0]
    before = ask(client, file, film, first["text"]).json()
    after = ask(client, file, film, first["text"], first["answer"], "And then?").json()
    assert after["evidence"] == before["evidence"]


def test_an_index_is_made_once_and_found_by_the_next_server(client, chat, film, tmp_path, monkeypatch):
    text = questions(film, "moment")[0]["text"]
    first = ask(client, sent(client, film), film, text).json()

    def again(*args: Any, **options: Any) -> None:
        raise AssertionError("it was indexed again")

    monkeypatch.setattr(films, "make_index", again)
    later = Service(chat, LIMITS)
    try:
        other = client_of(later, tmp_path / "later")
        assert ask(other, sent(other, film), film, text).json()["evidence"] == first["evidence"]
    finally:
        later.close()


def test_who_cannot_wait_is_told_how_far_it_is_and_it_goes_on_without_the_upload(film, tmp_path):
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    text = questions(film, "moment")[0]["text"]
    service = Service(chat, Limits(seconds=1.0))
    try:
        client = client_of(service, tmp_path / "uploads")
        file = sent(client, film)
        while (answer := ask(client, file, film, text)).json()["error"]["code"] == "timeout":
            pass  # a busy machine may take that long to read the frames of the whole
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "indexing")
        assert answer.headers["Retry-After"] and "% so far" in answer.json()["error"]["message"]
        client.delete(f"/v1/files/{file}")
        look = {"file_id": sent(client, film), "subtitles": seconds_of(film), "pictures": False}
        shares = {client.post("/v1/page/footage", json=look).json()["indexed"]}
        begun = time.monotonic()
        while len(shares) < 3:
            assert time.monotonic() < begun + 300, "the index stands still"
            shares.add(client.post("/v1/page/footage", json=look).json()["indexed"])
        (making,) = service.films._making.values()
    finally:
        service.close()
    with pytest.raises(Closing):
        making.done.result(60)


def seconds_of(film: Path) -> list[dict[str, Any]]:
    from minigpt4_video.media import read_subtitles

    return [cue._asdict() for cue in read_subtitles(film.with_suffix(".srt"))]


def test_only_so_many_wait_to_be_indexed(film, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "MOST", 0)
    service = Service(VideoChat.from_pretrained("tiny", device="cpu"), LIMITS)
    try:
        client = client_of(service, tmp_path / "uploads")
        answer = ask(client, sent(client, film), film, questions(film, "moment")[0]["text"])
        assert answer.status_code == 429 and answer.headers["Retry-After"]
    finally:
        service.close()


def test_a_server_without_long_videos_makes_no_index(film, tmp_path):
    service = Service(VideoChat.from_pretrained("tiny", device="cpu"), LIMITS, long="off")
    try:
        client = client_of(service, tmp_path / "uploads")
        answer = ask(client, sent(client, film), film, questions(film, "moment")[0]["text"], long="on")
        assert answer.status_code == 200 and "evidence" not in answer.json()
    finally:
        service.close()


def test_the_page_sees_the_clips_that_the_question_is_about(client, film):
    file = sent(client, film)
    one = questions(film, "moment")[0]
    evidence = ask(client, file, film, one["text"]).json()["evidence"]
    look = {"file_id": file, "subtitles": seconds_of(film)}
    whole = client.post("/v1/page/footage", json=look).json()
    assert whole["indexed"] == 1.0 and whole["frames"][-1]["time"] > 200
    told = client.post("/v1/page/footage", json=look | {"messages": [{"role": "user", "content": one["text"]}]}).json()
    times = [frame["time"] for frame in told["frames"]]
    assert times and all(any(part["start"] <= time < part["end"] for part in evidence) for time in times)
    assert all(frame["picture"].startswith("data:image/") for frame in told["frames"])
    turn = {"question": one["text"], "answer": one["answer"], "confidence": -0.1, "seconds": 1.0}
    report = {"messages": [{"role": "user", "content": one["text"]}], "title": "film", "turns": [turn]}
    assert 'class="evidence"' in client.post("/v1/page/report", json=look | report).text
