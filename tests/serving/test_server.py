"""The server as a process of its own, asked by OpenAI's own client."""

import io
import json
import signal
import threading
import time
import urllib.request
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from PIL import Image

from served import CLIP, KEY, Server, asked, data_url, serving, video

COLOR = "What color is the triangle?"
STORY = "Describe the video."


def told(url: str, key: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def test_an_answer_is_what_the_model_says_alone(client: openai.OpenAI, alone):
    answer = client.chat.completions.create(model="tiny", messages=asked(video(data_url(CLIP)), COLOR))

    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert answer.choices[0].message.content == alone(CLIP, COLOR)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 8 * 4  # eight frames of four tokens


def test_a_question_about_the_same_video_reads_only_its_own_words(client: openai.OpenAI):
    messages = asked(video(data_url(CLIP), num_frames=5), COLOR)
    client.chat.completions.create(model="tiny", messages=messages)

    again = client.chat.completions.create(model="tiny", messages=messages)

    assert again.usage.prompt_tokens_details.cached_tokens > 5 * 4


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI):
    request = {"model": "tiny", "messages": asked(video(data_url(CLIP)), STORY)}
    whole = client.chat.completions.create(**request)

    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))

    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_without_usage_ends_with_its_last_choice(client: openai.OpenAI):
    chunks = list(client.chat.completions.create(model="tiny", messages=asked("Hello?"), stream=True))

    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_max_tokens_ends_an_answer(client: openai.OpenAI):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model="tiny", messages=asked(video(data_url(CLIP)), STORY), **{name: 3})
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop(client: openai.OpenAI, stream: bool):
    request = {"model": "tiny", "messages": asked(video(data_url(CLIP)), STORY)}
    whole = client.chat.completions.create(**request).choices[0].message.content
    stop = whole[len(whole) // 2 :][:5]  # lies across words

    given = client.chat.completions.create(**request, stop=["no such words", stop], stream=stream)

    if stream:
        chunks = [chunk.choices[0] for chunk in given]
        text, reason = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        text, reason = given.choices[0].message.content, given.choices[0].finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


def test_a_seed_makes_a_draw_repeatable_and_is_that_of_the_library(client: openai.OpenAI, alone):
    def drawn(seed: int, **options) -> str:
        messages = asked(video(data_url(CLIP)), STORY)
        options = {"model": "tiny", "messages": messages, "temperature": 1.5, "seed": seed, **options}
        return client.chat.completions.create(**options).choices[0].message.content

    assert drawn(5) == drawn(5) == alone(CLIP, STORY, temperature=1.5, seed=5)
    assert len({drawn(seed) for seed in range(5)}) > 1
    assert drawn(5, top_p=1e-6) == drawn(6, top_p=1e-6) == alone(CLIP, STORY)


def test_n_answers_follow_each_other_in_their_seeds(client: openai.OpenAI, alone):
    answer = client.chat.completions.create(
        model="tiny", messages=asked(video(data_url(CLIP)), STORY), temperature=1.5, seed=5, n=3
    )

    said = [choice.message.content for choice in answer.choices]
    assert said == [alone(CLIP, STORY, temperature=1.5, seed=5 + number) for number in range(3)]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_n_answers_can_be_streamed(client: openai.OpenAI):
    request = {"model": "tiny", "messages": asked("Hello?"), "temperature": 1.5, "seed": 5, "n": 2}
    whole = [choice.message.content for choice in client.chat.completions.create(**request).choices]

    said = ["", ""]
    for chunk in client.chat.completions.create(**request, stream=True):
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert said == whole


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_the_tokens_of_the_text(client: openai.OpenAI, alone, stream: bool):
    given = client.chat.completions.create(
        model="tiny",
        messages=asked(video(data_url(CLIP)), STORY),
        logprobs=True,
        top_logprobs=3,
        stream=stream,
    )

    if stream:
        choices = [chunk.choices[0] for chunk in given]
        text = "".join(choice.delta.content or "" for choice in choices)
        told = [one for choice in choices if choice.logprobs for one in choice.logprobs.content]
    else:
        text, told = given.choices[0].message.content, given.choices[0].logprobs.content
    assert "".join(one.token for one in told) == text
    assert b"".join(bytes(one.bytes) for one in told) == text.encode()
    for one in told:
        assert one.logprob <= 0
        assert len(one.top_logprobs) == 3
        assert max(rival.logprob for rival in one.top_logprobs) == pytest.approx(one.logprob)  # the likeliest was taken


def test_a_conversation_goes_on(client: openai.OpenAI):
    messages = asked(video(data_url(CLIP)), COLOR)
    first = client.chat.completions.create(model="tiny", messages=messages)
    messages.append(first.choices[0].message.model_dump())  # with all its empty fields, as clients do
    messages.append({"role": "user", "content": "And what color is the circle?"})

    second = client.chat.completions.create(model="tiny", messages=messages)

    assert second.choices[0].message.content
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert second.usage.prompt_tokens_details.cached_tokens > 8 * 4


def test_a_file_is_uploaded_once_and_named_by_its_id(client: openai.OpenAI, alone):
    kept = client.files.create(file=CLIP, purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600})
    try:
        assert kept.expires_at - kept.created_at == 3600
        assert client.files.retrieve(kept.id) == kept
        assert kept in client.files.list().data
        assert client.files.content(kept.id).read() == CLIP.read_bytes()
        for part in ({"type": "file", "file": {"file_id": kept.id}}, video(kept.id)):
            answer = client.chat.completions.create(model="tiny", messages=asked(part, COLOR))
            assert answer.choices[0].message.content == alone(CLIP, COLOR)
    finally:
        assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(kept.id)


def test_subtitles_come_through_extra_body_or_with_the_video(client: openai.OpenAI, alone):
    srt = CLIP.with_suffix(".srt")
    cues = [{"start": 0.1, "end": 2.0, "text": "the green triangle comes"}]
    question = "What is said in the video?"
    expected = alone(CLIP, question, subtitles=srt)
    assert expected != alone(CLIP, question)

    def answer(part, **extra) -> str:
        request = {"model": "tiny", "messages": asked(part, question), "extra_body": extra}
        return client.chat.completions.create(**request).choices[0].message.content

    url = data_url(CLIP)
    assert answer(video(url), subtitles=srt.read_text(encoding="utf-8")) == expected
    assert answer(video(url, subtitles=srt.read_text(encoding="utf-8"))) == expected
    assert answer(video(url, subtitles="off"), subtitles=srt.read_text(encoding="utf-8")) == alone(CLIP, question)
    assert answer(video(url), subtitles=cues)


def test_a_picture_is_shown_by_itself_and_beside_a_video(client: openai.OpenAI):
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    image = {"type": "image_url", "image_url": {"url": data_url(picture.getvalue(), "image/png"), "detail": "low"}}

    one = client.chat.completions.create(model="tiny", messages=asked(image, "What color is it?"))
    both = client.chat.completions.create(model="tiny", messages=asked(video(data_url(CLIP)), image, STORY))

    assert one.choices[0].message.content
    assert both.usage.prompt_tokens > one.usage.prompt_tokens + 7 * 4


def test_the_models_are_told(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="another", messages=asked("Hello?"))
    assert refused.value.code == "model_not_found"


def test_health_and_figures(server: Server, client: openai.OpenAI):
    client.chat.completions.create(model="tiny", messages=asked("Hello?"))
    root = server.address.removesuffix("/v1")

    assert json.loads(told(f"{root}/health")) == {"status": "ok"}
    assert json.loads(told(f"{root}/ready")) == {"status": "ready"}
    figures = told(f"{root}/metrics")
    for name in (
        'requests_total{route="/v1/chat/completions",status="200"}',
        "time_to_first_token_seconds_count",
        "generated_tokens_total",
        "queue_length",
        "prompt_tokens_kept_total",
        "decode_failures_total",
    ):
        assert f"minigpt4_video_{name}" in figures
    paths = json.loads(told(f"{root}/openapi.json"))["paths"]
    assert {"/v1/chat/completions", "/v1/files", "/v1/models", "/health", "/ready", "/metrics"} <= set(paths)


def test_what_is_wrong_with_a_request_is_told_in_openai_s_form(client: openai.OpenAI):
    for options, param in [
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"subtitle": "off"}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ({"frequency_penalty": 1}, None),
        (
            {"messages": asked({"type": "video_url", "video_url": {"url": "ftp://a/b"}}, "Hello?")},
            "messages.0.content.0",
        ),
        *[
            ({"messages": asked("Hello?", part)}, f"messages.0.content.1{place}")
            for part, place in [
                (video("data:", num_frames=0), ".video_url.num_frames"),
                (video("data:", num_frame=8), ".video_url.num_frame"),
                (video("data:", subtitles=[{"start": 0, "end": "later", "text": ""}]), ".video_url.subtitles.0.end"),
                ({"type": "image_url", "image_url": "data:"}, ".image_url"),
                ({"type": "text"}, ".text"),
                ({"type": "file", "file": {"id": "file-1"}}, ".file.file_id"),
                ({"type": "input_audio", "input_audio": {}}, ""),
                ({"text": "a"}, ""),
            ]
        ],
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"extra_body": {"subtitles": [{"start": -1, "end": 1, "text": ""}]}}, "subtitles.0.start"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{"model": "tiny", "messages": asked("Hello?")} | options)
        assert refused.value.type == "invalid_request_error"
        assert refused.value.param == param
        assert refused.value.body["message"]


def test_what_changes_nothing_is_taken(client: openai.OpenAI):
    client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be brief."}, *asked("Hello?"), *asked("Are you there?")],
        user="someone",
        frequency_penalty=0,
        presence_penalty=0,
        response_format={"type": "text"},
        tools=[],
        parallel_tool_calls=True,
        metadata={"a": "b"},
    )


def test_others_than_this_machine_need_a_key(command):
    status, _, error = command("serve", "--host", "0.0.0.0", "--port", "0")
    assert status == 2 and "--api-key" in error

    status, _, error = command("serve", "--api-key", "short", "--port", "0")
    assert status == 2 and "key" in error


def test_keys_open_the_door_and_keep_apart_what_is_whose(tmp_path: Path):
    other = KEY[::-1]
    with serving(tmp_path, "--api-key", KEY, "--api-key", other) as server:
        for key in ("none", KEY[:-1], KEY + "x", "é" * 20):
            request = urllib.request.Request(
                f"{server.address}/models", headers={"Authorization": f"Bearer {key}".encode()}
            )
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request, timeout=30)
        mine, theirs = server.client(KEY), server.client(other)
        kept = mine.files.create(file=CLIP, purpose="user_data")
        with pytest.raises(openai.NotFoundError):
            theirs.files.retrieve(kept.id)
        with pytest.raises(openai.NotFoundError):
            theirs.chat.completions.create(model="tiny", messages=asked(video(kept.id), COLOR))
        assert theirs.files.list().data == []

        request = {"model": "tiny", "messages": asked(video(data_url(CLIP)), COLOR)}
        read = [
            who.chat.completions.create(**request).usage.prompt_tokens_details.cached_tokens for who in (mine, theirs)
        ]
        assert read == [0, 0]  # what was read for one key is not told to another by how quick it is
        again = mine.chat.completions.create(**request)
        assert again.usage.prompt_tokens_details.cached_tokens > 0

        root = server.address.removesuffix("/v1")
        assert told(f"{root}/health")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            told(f"{root}/metrics")
        assert told(f"{root}/metrics", KEY)


def test_a_full_queue_says_when_to_come_back_and_one_who_leaves_makes_room(tmp_path: Path):
    with serving(tmp_path, "--waiting", "1") as server:
        client = server.client()
        request = {"model": "tiny", "messages": asked("Tell me a long story."), "temperature": 2, "seed": 3}
        stream = client.chat.completions.create(**request, max_tokens=900, stream=True)
        next(iter(stream))

        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="tiny", messages=asked("Hello?"))
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.code == "queue_full"

        stream.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert client.chat.completions.create(model="tiny", messages=asked("Hello?"), max_tokens=2)
                break
            except openai.RateLimitError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        figures = told(server.address.removesuffix("/v1") + "/metrics")
        assert "minigpt4_video_answers_in_progress 0.0" in figures


def test_what_is_being_answered_comes_to_its_end_when_the_server_stops(tmp_path: Path):
    with serving(tmp_path) as server:
        client = server.client()
        stream = client.chat.completions.create(
            model="tiny", messages=asked(video(data_url(CLIP)), STORY), stream=True, max_tokens=64
        )
        first = next(iter(stream))

        server.process.send_signal(signal.SIGINT)
        rest = list(stream)

        assert first.choices and rest[-1].choices[0].finish_reason == "stop"
        assert server.process.wait(30) == 130


def test_requests_on_different_videos_are_answered_together(server: Server):
    client = server.client()
    said: dict[int, str] = {}

    def ask(number: int) -> None:
        answer = client.chat.completions.create(
            model="tiny", messages=asked(video(data_url(CLIP), num_frames=2 + number), STORY)
        )
        said[number] = answer.choices[0].message.content

    for number in range(4):
        ask(number)
    by_themselves, said = said, {}
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert said == by_themselves
