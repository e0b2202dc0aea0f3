"""Recipes: a typo is named with its place, values are checked, and what was in force can be read back."""

from pathlib import Path

import pytest

from minigpt4_video.errors import RecipeError
from minigpt4_video.training.recipe import as_toml, read_recipe, shipped


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_recipe_reads_and_writes_back(tmp_path: Path) -> None:
    names = shipped()
    assert {"tiny/vision", "tiny/language", "tiny/stage1", "tiny/stage2", "tiny/stage3"} <= set(names)
    for name in names:
        recipe = read_recipe(name)
        assert read_recipe(written(tmp_path, as_toml(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('stage = "video-qa"\nwieght = 1\n', r"mine\.toml: unknown wieght; it takes"),
        ('stage = "video-qa"\n[[sources]]\nkind = "videos"\nwieght = 1\n', r"mine\.toml: sources\[0\]: unknown wieght"),
        (
            'stage = "video-qa"\n[learn]\nlanguage = "half"\n',
            r"learn: language is 'half'; it can be frozen, lora, full",
        ),
        ('stage = "video-qa"\nseed = "one"\n', r"seed is 'one'; it must be int"),
        ('stage = "video-qa"\n[[sources]]\nweight = 2\n', r"sources\[0\]: kind is missing"),
        ("seed = 1\n", "stage is missing"),
        ("stage = \n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe(written(tmp_path, text))


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="tiny/stage3"):
        read_recipe("tiny/stage9")


def test_overrides_reach_into_tables() -> None:
    recipe = read_recipe("tiny/stage3", {"seed": "9", "training.max_steps": "3", "learn.language": "lora"})
    assert (recipe.seed, recipe.training["max_steps"], recipe.learn.language) == (9, 3, "lora")
    with pytest.raises(RecipeError, match="unknown sead"):
        read_recipe("tiny/stage3", {"sead": "9"})
