"""Recipes: a typo is named with its place, values are checked, and what was in force can be read back."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt4_video.data.formats import FORMATS
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


def test_a_recipe_starts_from_its_base_and_says_what_differs(tmp_path: Path) -> None:
    written(tmp_path, 'base = "llama2-7b/stage3"\nframes = 8\n[training]\nmax_steps = 5\n')
    mine = read_recipe(tmp_path / "mine.toml", variant="full")
    base = read_recipe("llama2-7b/stage3", variant="full")
    assert (mine.frames, mine.training["max_steps"]) == (8, 5)
    assert mine.data == base.data and mine.training["bf16"] and mine.learn == base.learn
    below = tmp_path / "below.toml"
    below.write_text('base = "mine.toml"\nseed = 7\n[[data]]\nformat = "cmd"\npath = "here"\n')
    again = read_recipe(below)
    assert (again.seed, again.frames, [one.path for one in again.data]) == (7, 8, ["here"])


def test_mistakes_of_a_base_are_named_with_the_file_they_are_in(tmp_path: Path) -> None:
    child = tmp_path / "child.toml"
    child.write_text('base = "mine.toml"\n')
    written(tmp_path, 'stage = "video-qa"\nwieght = 1\n')
    with pytest.raises(RecipeError, match=r"mine\.toml: unknown wieght"):
        read_recipe(child)
    written(tmp_path, 'base = "child.toml"\n')
    with pytest.raises(RecipeError, match="comes back"):
        read_recipe(child)
    written(tmp_path, 'base = "nowhere/stage1"\n')
    with pytest.raises(RecipeError, match="there is no recipe nowhere/stage1"):
        read_recipe(child)


def test_the_recipe_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found
    for one in found:
        recipe = read_recipe(written(tmp_path, one))
        assert recipe.data and {one.format for one in recipe.data} <= set(FORMATS)
    rows = re.findall(r"^\| (`.*?) \|.*\|$", text, re.MULTILINE)  # the table of formats names each
    assert set(FORMATS) <= {name for row in rows for name in re.findall("`(.*?)`", row)}


def test_variants_are_checked_before_one_is_chosen(tmp_path: Path) -> None:
    place = written(tmp_path, 'stage = "video-qa"\n[variants.full]\nlern = { language = "full" }\n')
    with pytest.raises(RecipeError, match=r"variants\.full: unknown lern"):
        read_recipe(place)
    with pytest.raises(RecipeError, match="has no variant fast; it has full, vision"):
        read_recipe("llama2-7b/stage3", variant="fast")


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("tiny/stage3", "evaluation.share=0.1", r"\[evaluation\] share keeps back samples of \[\[data\]\]"),
        ("tiny/stage3", "evaluation.share=5", r"tiny/stage3\.toml: evaluation: share is 5\.0; it must be from 0 to 1"),
        ("llama2-7b/stage3", "data=[]", r"neither \[\[data\]\] nor \[\[sources\]\]"),
        ("tiny/stage3", "frames=0", "frames is 0; it must be at least 1"),
        ("tiny/stage3", "learn.lora_rank=0", "learn: lora_rank is 0; it must be at least 1"),
        ("tiny/stage3", "optimizer.rate=nan", "optimizer: rate is nan; it must be at least 0"),
        ("llama2-7b/stage3", "optimizer.rate=0", 'rate is 0, which schedule = "original" cannot run up to'),
        ("tiny/stage3", 'training.max_steps="x"', r"\[training\].* 'x'|max_steps is 'x'; it must be a number"),
        ("tiny/stage3", "training.per_device_train_batch_size=0", "per_device_train_batch_size is 0; .* at least 1"),
        ("tiny/stage3", "training.gradient_accumulation_steps=0", "gradient_accumulation_steps is 0; .* at least 1"),
    ],
)
def test_a_value_that_cannot_be_trained_with_is_the_user_s_fault(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, name: str, key: str, said: str
) -> None:
    status, _, told = command("train", name, "--output", tmp_path / "run", "--set", key)
    assert status == 2 and re.search(said, told), told
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_no_text_is_the_user_s_fault(tmp_path: Path) -> None:
    place = tmp_path / "mine.toml"
    place.write_bytes('stage = "video-qa"'.encode("utf-16"))
    with pytest.raises(RecipeError, match=r"mine\.toml cannot be read as a text in UTF-8"):
        read_recipe(place)
