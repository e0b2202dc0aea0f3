"""What a question asks for, and what clips are asked for it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.long_video.questions import is_yes, moment_question, presence_question


@pytest.mark.parametrize(
    ("asked", "each"),
    [
        ("How many times is there a red circle?", "Is there a red circle?"),
        ("how many times does Anna speak", "Does Anna speak?"),
        ("有几次能看到红色圆形？", "能看到红色圆形吗？"),
        ("How many people are there?", None),
        ("有几个物体？", None),
    ],
)
def test_what_counts_moments_is_asked_at_each(asked, each):
    assert moment_question(asked) == each


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("yes", True),
        ("Yes, there is.", True),
        ("There is a dog.", True),
        ("Now yes", True),
        ("Yes, though it is not near.", True),
        ("no", False),
        ("There is no dog.", False),
        ("I don't see a dog.", False),
        ("The dog is not there.", False),
        ("", False),
        ("有", True),
        ("是的，有一只狗。", True),
        ("没有", False),
        ("这里没有狗。", False),
        ("并没有", False),
        ("不是", False),
    ],
)
def test_yes_is_told_from_no(said, yes):
    assert is_yes(said) is yes


@pytest.mark.parametrize(
    ("asked", "described", "each"),
    [
        ("What does the red cat do?", ["A dog runs.", "A red cat runs."], "Is there a red cat?"),
        ("Where are the two orange cats?", ["An orange cat runs."], "Is there an orange cats?"),
        ("红色的猫怎么了？", ["一只红色的猫在跑。"], "有红色的猫吗？"),
        ("T恤是什么颜色？", ["一件T恤。"], "有T恤吗？"),
        ("A cat: red or black?", ["a cat: red or black?"], "Is there a red or black?"),
        ("What is it?", ["What it is."], None),
        ("猫在哪里？", ["猫跑。"], None),
        ("Where is the zebra?", ["A cat."], None),
        ("Where is the zebra?", [], None),
        ("", ["A cat."], None),
    ],
)
def test_whether_a_thing_is_there_is_asked_in_the_words_that_found_it(asked, described, each):
    assert presence_question(asked, described) == each


@pytest.mark.parametrize(
    ("asked", "described", "heard"),
    [
        ("Who likes tea?", "Anna likes tea.", "Anna: I like tea."),
        ("谁喜欢下雨？", "小芳喜欢下雨。", "小芳：我喜欢下雨。"),
    ],
)
def test_what_was_heard_need_not_be_seen(asked, described, heard):
    assert presence_question(asked, [described], ["", heard]) is None
    assert presence_question(asked, [described], ["", "Hello!"]) is not None


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_any_texts_make_a_question_or_none(asked, described):
    made = presence_question(asked, described)
    assert made is None or made.endswith(("?", "？"))


@pytest.mark.parametrize("asked", ["红色圆形" * 200_000, "red circle " * 200_000, "the " * 200_000])
def test_a_long_question_is_compared_in_no_time(asked):
    described = ["大红色圆形出现。小红色圆形不动。" * 6, "The red red circle, the red circle. " * 6] * 6
    began = time.process_time()

    presence_question(asked, described, ["红红红红" * 400])
    assert time.process_time() - began < 3
