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
    assert figure.low == pytest.approx(0.665, abs=0.02) and figure.high == pytest.approx(0.835, abs=0.02)


def test_questions_of_one_video_count_as_one_draw() -> None:
    values = [1.0] * 50 + [0.0] * 50
    together, apart = mean(values, ["a"] * 50 + ["b"] * 50), mean(values, [str(n) for n in range(100)])
    assert together is not None and apart is not None
    assert (together.low, together.high) == (0.0, 1.0)
    assert apart.high - apart.low < 0.25


def test_the_mean_over_kinds_weighs_kinds_alike() -> None:
    figure = macro([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], ["1", "2", "3", "4"])
    assert figure is not None and figure.value == 0.5
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
