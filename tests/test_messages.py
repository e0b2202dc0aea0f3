from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.errors import UserError
from minigpt4_video.messages import answered, check_messages, media_parts, parts, question, text_of

VIDEO = {"type": "video", "path": "clip.mp4"}
TEXT = {"type": "text", "text": "What happens?"}


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "What happens?"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        user(VIDEO, TEXT),
        user(VIDEO),
        user({"type": "image", "image": object()}, {"type": "image", "url": "https://example.org/a.png"}, TEXT),
        user({**VIDEO, "start": 1.5, "end": 4, "num_frames": 8, "subtitles": "auto"}, TEXT),
        user({**VIDEO, "subtitles": [{"start": 0, "end": 1.5, "text": "hello"}]}, TEXT),
        user({"type": "video", "frames": np.zeros((2, 4, 4, 3), np.uint8), "times": [0.0, 1.0]}, TEXT),
        [*user(VIDEO, TEXT), {"role": "assistant", "content": "A ball rolls."}, {"role": "user", "content": "Where?"}],
    ],
)
def test_conversations_in_the_schema_are_accepted(messages: list[dict[str, Any]]) -> None:
    check_messages(messages)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "must be a list of at least one message"),
        ("hello", "must be a list of at least one message"),
        (None, "must be a list of at least one message"),
        (["hello"], "Message 1 is str 'hello'"),
        ([{"content": "x"}], "Message 1 lacks 'role'"),
        ([{"role": "user"}], "Message 1 lacks 'content'"),
        ([{"role": "user", "content": "x", "name": "y"}], "unknown key 'name'"),
        ([{"role": "robot", "content": "x"}], "has the role 'robot'; use one of system, user, assistant"),
        ([{"role": "assistant", "content": "x"}], "Message 1 is by the assistant where the user should speak"),
        ([*user(TEXT), *user(TEXT)], "Message 2 is by the user where the assistant should speak"),
        ([*user(TEXT), {"role": "system", "content": "x"}], "only the first message can be one"),
        ([{"role": "system", "content": "x"}], "a system message only"),
        ([{"role": "system", "content": [VIDEO]}, *user(TEXT)], "a video by the system"),
        ([*user(TEXT), {"role": "assistant", "content": [VIDEO]}], "a video by the assistant"),
        ([*user(TEXT), {"role": "assistant", "content": ""}], "the answer is empty"),
        ([{"role": "user", "content": "  \n"}], "the question is empty"),
        ([{"role": "user", "content": []}], "needs as content a text or a list of at least one part"),
        ([{"role": "user", "content": None}], "not nothing"),
        (user("x"), "Message 1, part 1 is str 'x'"),
        (user({"text": "x"}), "has the type None"),
        (user({"type": "audio", "path": "a.wav"}), "has the type 'audio'; use text, image or video"),
        (user({"type": "text"}), "lacks 'text'"),
        (user({"type": "text", "text": 3}), "has int 3 as its text"),
        (user({"type": "video"}), "needs exactly one of path, url, frames to say which video; it has none"),
        (user({**VIDEO, "url": "https://example.org/a.mp4"}), "it has path and url"),
        (user({"type": "image"}), "needs exactly one of path, url, image"),
        (user({"type": "image", "image": None}), "has no picture"),
        (user({"type": "image", "path": "a.png", "start": 1}), "unknown key 'start'"),
        (user({**VIDEO, "fps": 2}), "unknown key 'fps'"),
        (user({"type": "video", "url": "file:///etc/passwd"}), "begins with http:// or https://"),
        (user({"type": "video", "path": ""}), "give the name of a file"),
        (user({"type": "video", "path": 3}), "give the name of a file"),
        (user({"type": "video", "frames": []}), "has no frames"),
        (user({"type": "video", "frames": 3}), "has no frames"),
        (user({**VIDEO, "start": -1}), "has the start -1"),
        (user({**VIDEO, "end": float("nan")}), "has the end nan"),
        (user({**VIDEO, "start": "1"}), "has the start '1'"),
        (user({**VIDEO, "start": 5, "end": 5}), "ends at 5 s, not after its start at 5 s"),
        (user({**VIDEO, "start": 10**400}), "has the start 1000"),
        (user({"type": "video", "frames": [1, 2], "times": ["a", "b"]}), "times that are no seconds"),
        (user({"type": "video", "frames": [1], "times": [float("inf")]}), "times that are no seconds"),
        (user({**VIDEO, "subtitles": [{"start": 10**400, "end": 10**401, "text": "x"}]}), "needs numbers of seconds"),
        (user({**VIDEO, "num_frames": 0}), "a whole number of at least 1"),
        (user({**VIDEO, "num_frames": True}), "a whole number of at least 1"),
        (user({**VIDEO, "times": [0.0]}), "has times without frames"),
        (user({"type": "video", "frames": [1, 2], "times": [0.0]}), "one time for each of its 2 frames"),
        (user({**VIDEO, "subtitles": 3}), "has int 3 as subtitles"),
        (user({**VIDEO, "subtitles": ["hello"]}), "cue 1 is str 'hello'"),
        (user({**VIDEO, "subtitles": [{"start": 0, "text": "x"}]}), "cue 1 lacks 'end'"),
        (user({**VIDEO, "subtitles": [{"start": 0, "end": "1", "text": "x"}]}), "cue 1 needs numbers of seconds"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(messages: object, says: str) -> None:
    with pytest.raises(UserError) as error:
        check_messages(messages)
    assert says in str(error.value) and "\n" not in str(error.value) and str(error.value).endswith(".")


KEYS = st.sampled_from(["role", "content", "type", "text", "path", "user", "video"])
VALUES = st.none() | st.integers() | st.text() | st.sampled_from(["user", "text", "video"])


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_nothing_does_worse_than_a_user_error(messages: object) -> None:
    try:
        check_messages(messages)
    except UserError:
        return
    assert isinstance(messages, list) and messages


def test_a_question_takes_a_path_an_address_or_frames() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    for given_video, key, value in (
        (Path("a/clip.mp4"), "path", "a/clip.mp4"),
        ("https://example.org/clip.mp4", "url", "https://example.org/clip.mp4"),
        (frames, "frames", frames),
    ):
        (part,) = media_parts(question(given_video, "Why?", num_frames=4))
        assert part["type"] == "video" and (part[key] is value or part[key] == value)
        assert part["num_frames"] == 4


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(UserError, match="the question is empty"):
        question("clip.mp4", " ")


def test_a_conversation_goes_on_without_changing_what_was_said() -> None:
    asked = question("clip.mp4", "Why?")
    whole = answered(asked, "Because.")
    check_messages(whole)
    assert len(asked) == 1 and text_of(whole[-1]) == "Because."


def test_a_plain_text_is_a_content_of_one_part() -> None:
    message = {"role": "user", "content": "Why?"}
    assert parts(message) == [{"type": "text", "text": "Why?"}]
    assert text_of(message) == "Why?"
    assert text_of({"role": "user", "content": [TEXT, VIDEO, TEXT]}) == "What happens?\nWhat happens?"
