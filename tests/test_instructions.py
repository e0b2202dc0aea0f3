from random import Random

import pytest

from minigpt4_video.instructions import CAPTION_STYLE, IMAGE_CAPTION, VIDEO_CAPTION, draw


@pytest.mark.parametrize("pools", [VIDEO_CAPTION, IMAGE_CAPTION])
def test_each_pool_has_a_dozen_different_instructions_in_both_languages(pools: dict[str, tuple[str, ...]]) -> None:
    assert set(pools) == {"en", "zh"}
    for language, pool in pools.items():
        assert len(set(pool)) == len(pool) >= 12
        for text in pool:
            assert text == text.strip() and any("\u4e00" <= letter <= "\u9fff" for letter in text) == (language == "zh")


def test_every_style_of_caption_can_be_asked_for_in_both_languages() -> None:
    assert {language: set(styles) for language, styles in CAPTION_STYLE.items()} == {
        language: {"brief", "detailed", "tags"} for language in ("en", "zh")
    }


def test_a_seed_draws_the_same_instructions_again_and_all_are_drawn() -> None:
    pool = VIDEO_CAPTION["en"]
    first, second = ([draw(pool, random) for _ in range(300)] for random in (Random(3), Random(3)))
    assert first == second and set(first) == set(pool)
