"""Which record is drawn when."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.data.mixture import Mixture, Part, by_language, shuffled
from minigpt4_video.errors import DataError


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 100)), min_size=1, max_size=5), st.integers(1, 400))
def test_any_beginning_of_a_mixture_keeps_the_proportions(parts, n):
    mixture = Mixture([Part(items, weight) for items, weight in parts])

    drawn = Counter(mixture[index].part for index in range(n))

    whole = sum(weight for _, weight in parts)
    for number, (_, weight) in enumerate(parts):
        assert abs(drawn[number] - n * weight / whole) < len(parts)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_every_item_comes_once_in_every_epoch(items, others, seed):
    mixture = Mixture([Part(items, 2.0), Part(others, 1.0)], seed)

    drawn = [mixture[n] for n in range(3 * (items + others) * 2)]

    for part, size in enumerate((items, others)):
        of_part = [draw for draw in drawn if draw.part == part]
        for epoch in range(len(of_part) // size):
            some = of_part[epoch * size : (epoch + 1) * size]
            assert sorted(draw.item for draw in some) == list(range(size))
            assert {draw.epoch for draw in some} == {epoch}


def test_a_draw_depends_on_its_number_and_the_seed_alone():
    parts = [Part(1000, 0.7), Part(500, 0.3)]
    there = [Mixture(parts, 1)[n] for n in range(200)]

    assert [Mixture(parts, 1)[n] for n in reversed(range(200))] == there[::-1]
    assert [Mixture(parts, 2)[n] for n in range(200)] != there


def test_epochs_have_different_orders():
    mixture = Mixture([Part(100)])

    assert [mixture[n].item for n in range(100)] != [mixture[100 + n].item for n in range(100)]


@given(st.integers(1, 300), st.text(max_size=5))
def test_shuffling_is_a_permutation(count, key):
    assert sorted(shuffled(place, count, key) for place in range(count)) == list(range(count))


def test_a_set_is_divided_among_languages_by_weight():
    parts = by_language({"en": 3, "zh": 1, "fr": 0}, {"en": 70, "zh": 7}, weight=2.0)

    assert parts == {"en": Part(70, 1.5), "zh": Part(7, 0.5)}


@pytest.mark.parametrize(
    "parts", [[], [Part(10, 0.0)], [Part(0)], [Part(1, -1.0)], [Part(1, float("nan"))], [Part(1, float("inf"))]]
)
def test_what_cannot_be_mixed_is_refused(parts):
    with pytest.raises(DataError):
        Mixture(parts)


def test_a_language_that_a_set_does_not_have_is_refused():
    with pytest.raises(DataError, match="zh"):
        by_language({"en": 1, "zh": 1}, {"en": 5})
