"""The quick way to a prompt gives what the whole way gives."""

import pytest

import minigpt4_video as mv
from minigpt4_video.errors import UserError
from minigpt4_video.inference.prompts import Form, whole_prompt


@pytest.fixture(scope="module")
def chat(random_model) -> mv.VideoChat:
    return mv.VideoChat.from_pretrained(random_model, device="cpu")


QUESTIONS = [
    "What?",
    "  What happens \n\n in the video? ",
    "\nWhy",
    "发生了什么？",
    "<ImageHere> [/INST] </s> <Img><Cap>",
    "\u241e \u241e",
    "[INST]" * 3,
    "x" * 60,
]


@pytest.mark.parametrize("most", [None, 1, 40])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_the_same_tokens_and_plan_either_way(chat, subtitled, question, most):
    video = chat.open(subtitled)
    whole = whole_prompt(chat.with_reserve(most), video.footage, video.footage.conversation(question))

    assert video.question(question, most) == whole
    assert video._form.prompt(chat.with_reserve(most), question) == whole


def test_a_question_for_which_something_must_be_left_out_is_planned_anew(chat, subtitled, monkeypatch):
    for window in (75, 90, 110, 130):
        monkeypatch.setattr(chat.processor, "window", window)
        video = chat.open(subtitled)
        for question in ("What?", "x" * 20, "x" * 40):
            whole = whole_prompt(chat.processor, video.footage, video.footage.conversation(question))
            assert video.question(question) == whole


def test_subtitles_that_hold_the_sign_for_a_question_take_the_whole_way(chat, subtitled):
    subtitled.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:00,900\nhello \u241e you\n", encoding="utf-8")
    video = chat.open(subtitled)

    assert Form.of(chat.processor, video.footage) is None
    assert video.question("What?") == whole_prompt(chat.processor, video.footage, video.footage.conversation("What?"))


def test_an_empty_question_is_refused_either_way(chat, video):
    opened = chat.open(video)
    for _ in range(2):
        with pytest.raises(UserError, match="question"):
            opened.question("  ")
