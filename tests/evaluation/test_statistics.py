"""Intervals and tests: right in cases that can be worked out, and aware that a video's questions hang together."""

import numpy as np
import pytest

from minigpt4_video.evaluation.statistics import compared, macro, mcnemar, mean


def test_a_mean_lies_in_its_interval_and_repeats() -> None:
    values = [1.0, 0.0, 1.0, 1.0] * 25
    videos = [str(number) for number in range(100)]
    figure = mean(values, videos)
    assert figure is not None and figure == mean(values, videos)
    assert figure.value == 0.75 and figure.count == 100
    # 1.96 standard errors of 100 independent draws: 0.085
    assert figure.low == pytest.approx(0.665, abs=0.008) and figure.high == pytest.approx(0.835, abs=0.008)


def test_questions_of_one_video_count_as_one_draw() -> None:
    values = [1.0] * 50 + [0.0] * 50
    together, apart = mean(values, ["a"] * 50 + ["b"] * 50), mean(values, [str(n) for n in range(100)])
    assert together is not None and apart is not None
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.high - apart.low < 0.25


def test_a_video_weighs_as_much_as_it_has_questions() -> None:
    long, short = [f"long {n // 9}" for n in range(90)], [f"short {n}" for n in range(10)]
    figure = mean([1.0] * 90 + [0.0] * 10, long + short)
    assert figure is not None and figure.low < figure.value == 0.9 < figure.high


def test_the_mean_over_kinds_weighs_kinds_alike() -> None:
    figure = macro([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], ["1", "2", "3", "4"])
    assert figure is not None and figure.value == 0.5
    kinds, videos = (["a"] * 9 + ["b"]) * 20, [f"{number // 10}" for number in range(200)]
    figure = macro([float(kind == "a") for kind in kinds], kinds, videos)
    assert figure is not None and (figure.low, figure.value, figure.high) == (0.5, 0.5, 0.5)
    assert mean([], []) is None


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 2 / 32), (1, 6, 2 * 8 / 128)])
def test_mcnemar_is_the_sign_test(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)


def test_two_runs_that_are_alike_do_not_differ_and_others_do() -> None:
    draws = np.random.default_rng(0)
    first = [float(one) for one in draws.random(200) < 0.5]
    videos = [str(number) for number in range(200)]
    same = compared(first, first, videos)
    assert same is not None and same.value == 0 and same.p_value == 1.0 and same.mcnemar == 1.0
    better = [max(one, float(at % 4 == 0)) for at, one in enumerate(first)]
    found = compared(first, better, videos)
    assert found is not None and found.value > 0 and found.low > 0 and found.p_value < 0.01
    assert found.second_only == round(found.value * 200) and found.first_only == 0


def test_a_difference_lies_in_its_interval() -> None:
    found = compared([0.0] * 400, [1.0] * 120 + [0.0] * 280, [str(number) for number in range(400)])
    assert found is not None and found.value == 0.3
    # 1.96 standard errors of 400 independent draws: 1.96 * sqrt(0.3 * 0.7 / 400) = 0.045
    assert found.low == pytest.approx(0.255, abs=0.004) and found.high == pytest.approx(0.345, abs=0.004)


def test_two_videos_are_two_draws_however_many_questions_they_have() -> None:
    found = compared([0.0] * 100, [1.0] * 50 + [0.0] * 50, ["a"] * 50 + ["b"] * 50)
    assert found is not None and (found.low, found.high) == (0.0, 1.0)
    assert found.p_value == 1.0  # swapping one of two videos, the other being alike, differs as much every time


def test_chance_alone_is_told_for_both_directions() -> None:
    videos = [str(number) for number in range(5)]
    better, worse = compared([0.0] * 5, [1.0] * 5, videos), compared([1.0] * 5, [0.0] * 5, videos)
    assert better is not None and worse is not None
    # Of the 32 ways to swap five videos two differ as much: all and none.
    assert better.p_value == worse.p_value == pytest.approx(2 / 32, abs=0.015)
