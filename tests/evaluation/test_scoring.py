"""Scores against values that were worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.evaluation.items import Item
from minigpt4_video.evaluation.scoring import anls, distance, exact, letter, likeliest, normalised, scores, token_f1


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        (" The Red  circle. ", "the red circle", 1.0),
        ("红色。", "红色", 1.0),
        ("red circle", "circle red", 0.0),
        ("a dog", "dog", 0.0),
        ("it's", "its", 1.0),
        ("", "", 1.0),
    ],
)
def test_exact_match_forgives_case_spaces_and_punctuation_only(answer: str, reference: str, right: float) -> None:
    assert exact(answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("a man is riding a horse", "man riding", 2 * 2 / (4 + 2)),  # man is riding horse, without articles
        ("the dog", "dog", 1.0),
        ("dog dog", "dog", 2 * 1 / (2 + 1)),
        ("cat", "dog", 0.0),
        ("", "dog", 0.0),
        ("红色的圆", "红色", 2 * 2 / (4 + 2)),
        ("the", "a", 1.0),
    ],
)
def test_token_f1(answer: str, reference: str, value: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [("kitten", "sitting", 1 - 3 / 7), ("dog", "cat", 0.0), ("Red.", "red", 1.0), ("ab", "a", 0.5), ("abc", "a", 0.0)],
)
def test_anls(answer: str, reference: str, value: float) -> None:
    assert anls(answer, reference) == pytest.approx(value)


@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_distance_is_one(first: str, second: str, third: str) -> None:
    assert distance(first, second) == distance(second, first)
    assert (distance(first, second) == 0) == (first == second)
    assert distance(first, third) <= distance(first, second) + distance(second, third)


@given(st.text("aB.,，。 \tß'é", max_size=20))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


CHOICES = ("a dog runs", "A cat", "nothing", "the man")


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(C)", "C"),
        ("C) nothing", "C"),
        ("D: because he is there", "D"),
        ("B A cat", "B"),
        ("The answer is C", "C"),
        ("Best option: (D)", "D"),
        ("I would say (B), since it sleeps", "B"),
        ("Nothing.", "C"),
        ("It shows that a dog runs away", "A"),
        ("A man and his dog", ""),  # an article, not an option
        ("(A) or (B)", ""),
        ("the man and a cat", ""),
        ("E", ""),
        ("", ""),
        ("answer is a mystery", ""),
        ("He catches a category", ""),
        ("B\nBecause it purrs", "B"),
        ("**B**", "B"),
        ("The answer is **B**.", "B"),
        ("$\\boxed{B}$", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("B - it purrs", "B"),
        ("B, a cat", "B"),
        ("B, A cat", "B"),
        ("B, since A is wrong", "B"),
        ("A, B", ""),
        ("A, B and C", ""),
        ("A\nB", ""),
        ("A and B", ""),
        ("The answer is A or B.", ""),
        ("A dog barks", ""),
        ("A-frame houses", ""),
    ],
)
def test_which_option_an_answer_takes(answer: str, taken: str) -> None:
    assert letter(answer, CHOICES) == taken


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("B。", "B"),
        ("（B）", "B"),
        ("Ｂ", "B"),
        ("答案是B", "B"),
        ("答案：B", "B"),
        ("正确答案为（C），因为……", "C"),
        ("选B", "B"),
        ("我选择C选项", "C"),
        ("不选B", ""),
        ("B、蓝色", "B"),
        ("B蓝色", "B"),
        ("是蓝色的", "B"),
        ("它是红色，不是蓝色", ""),
        ("A、B", ""),
        ("A和B", ""),
        ("A型血", "C"),
        ("绿色", ""),
    ],
)
def test_which_option_an_answer_in_chinese_takes(answer: str, taken: str) -> None:
    assert letter(answer, ("红色", "蓝色", "A型血")) == taken


def test_a_pronoun_is_no_letter_where_there_are_nine_options() -> None:
    assert letter("I think it is the third", tuple(f"thing {number}" for number in range(9))) == ""


def test_the_likeliest_letter_is_that_with_the_highest_log_probability() -> None:
    assert likeliest([-3.0, -0.5, -0.5]) == "B"
    assert likeliest([]) == ""


def test_a_choice_is_scored_by_letter_and_likelihood_and_a_short_answer_by_three_rules() -> None:
    video = {"type": "video", "path": "a.mp4"}
    choice = Item("1", video, "?", "B", CHOICES)
    assert scores(choice, "(B)", [-1.0, -2.0, -3.0, -4.0]) == {"accuracy": 1.0, "likelihood": 0.0}
    assert scores(choice, "no idea") == scores(choice, "(A), not B") == {"accuracy": 0.0}
    assert scores(choice, "It is a cat.") == {"accuracy": 1.0}
    assert scores(Item("2", video, "?", "dog"), "The dog.") == {"exact": 0.0, "f1": 1.0, "anls": 0.0}
