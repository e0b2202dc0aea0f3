from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.errors import PlanError
from minigpt4_video.planning import Plan, plan

WORDS = st.lists(st.sampled_from(["a", "red", "ball", "rolls", "over", "网球", "你好吗"]), max_size=12).map(" ".join)
COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "letters": len,
    "pieces": lambda text: -(-len(text.encode()) // 3),
}


def made(
    subtitles: list[str], window: int = 400, *, count: str = "words", question: int = 20, reserve: int = 30
) -> Plan:
    return plan(
        question_tokens=question,
        subtitles=subtitles,
        tokens_per_frame=10,
        window=window,
        answer_reserve=reserve,
        count=COUNTS[count],
    )


def test_what_fits_is_kept_whole() -> None:
    result = made(["a red ball", "", "rolls"])
    assert result.kept_frames == (0, 1, 2) and result.kept_subtitles == ("a red ball", "", "rolls")
    assert (result.frames, result.frame_tokens, result.tag_tokens, result.left_out) == (3, 30, 3, ())
    assert result.subtitle_tokens == 3 + 1  # "<Cap>a", "red", "ball" and "<Cap>rolls"
    assert result.total == 30 + 3 + result.subtitle_tokens + 20 + 30


@given(
    st.lists(WORDS, min_size=1, max_size=40),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 700),
    st.sampled_from(sorted(COUNTS)),
)
def test_the_plan_fits_and_keeps_the_question_and_the_whole_video(
    subtitles: list[str], question: int, reserve: int, window: int, count: str
) -> None:
    options = {"count": count, "question": question, "reserve": reserve}
    frame = 10 + COUNTS[count]("<Img>")
    if question + reserve + frame > window:
        with pytest.raises(PlanError, match=str(window)):
            made(subtitles, window, **options)
        return
    result = made(subtitles, window, **options)
    assert result == made(subtitles, window, **options)
    assert result.total <= window
    assert result.total == (result.frame_tokens + result.tag_tokens + result.subtitle_tokens + question + reserve)
    assert (result.question_tokens, result.answer_reserve, result.window) == (question, reserve, window)
    assert result.frames == len(result.kept_frames) == len(result.kept_subtitles) >= 1
    assert result.frames == min(len(subtitles), (window - question - reserve) // frame)
    steps = {after - before for before, after in zip(result.kept_frames, result.kept_frames[1:], strict=False)}
    assert all(step > 0 for step in steps) and max(steps, default=0) - min(steps, default=0) <= 1
    share = len(subtitles) / result.frames
    assert result.kept_frames[0] <= share and len(subtitles) - 1 - result.kept_frames[-1] <= share
    whole, kept = " ".join(subtitles).split(), " ".join(result.kept_subtitles).split()
    if "".join(whole) != "".join(kept):
        assert any("subtitle words were left out" in sentence for sentence in result.left_out)
    if result.frames < len(subtitles):
        assert any("frames were left out" in sentence for sentence in result.left_out)


def test_subtitles_are_shortened_before_a_frame_is_left_out() -> None:
    result = made(["word " * 30] * 10, window=200)
    assert result.frames == 10
    assert 0 < result.subtitle_tokens < 300 and result.total <= 200
    assert result.left_out == (
        "260 of 300 subtitle words were left out, from the ends of the longest texts: the window of 200 tokens is full;"
        " with fewer frames more of them fit.",
    )


def test_the_longest_texts_are_cut_and_short_ones_stay() -> None:
    result = made(["short one", "a " * 200, "b " * 100], window=150)
    kept = [len(text.split()) for text in result.kept_subtitles]
    assert kept[0] == 2 and kept[1] == kept[2] < 100


def test_words_are_cut_whole_and_chinese_between_characters() -> None:
    result = made(["wonderful " * 50, "网球" * 50], window=160, count="letters")
    english, chinese = result.kept_subtitles
    assert english and set(english.split()) == {"wonderful"}
    assert len(chinese) == len(english.split()) and set(chinese) <= {"网", "球"}


def test_frames_are_left_out_evenly_and_their_texts_move_to_the_next() -> None:
    subtitles = [f"t{index}" for index in range(6)]
    result = plan(
        question_tokens=0,
        subtitles=subtitles,
        tokens_per_frame=90,
        window=300,
        answer_reserve=0,
        count=lambda text: len(text.split()),
    )
    assert result.kept_frames == (1, 3, 5)
    assert result.kept_subtitles == ("t0 t1", "t2 t3", "t4 t5")
    assert result.left_out == (
        "3 of 6 frames were left out, evenly over the whole video: the window of 300 tokens has room for 3.",
    )


def test_a_question_that_leaves_no_room_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        PlanError, match=r"question \(380 tokens\).*answer \(30\).*one frame \(11\) need 421.*holds 400"
    ):
        made([""], question=380)


def test_no_frames_is_an_error() -> None:
    with pytest.raises(PlanError, match="at least one frame"):
        made([])
