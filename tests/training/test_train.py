"""The five recipes of the embedded model, in miniature: each leaves a folder that loads, and a resumed run is the
same run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minigpt4_video.errors import RecipeError
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.training import train as training
from minigpt4_video.training.train import train

SMALL = {
    "training.max_steps": "2",
    "training.per_device_train_batch_size": "2",
    "training.warmup_steps": "1",
    "training.lr_scheduler_kwargs": "{ num_decay_steps = 1 }",
    "training.bf16": "false",
}


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SCENES_FOR_WORDS", 120)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_stages_follow_each_other_and_train_what_the_recipe_names(tmp_path: Path, video: Path) -> None:
    for name in ("vision", "language", "stage1", "stage2", "stage3"):
        train(f"tiny/{name}", tmp_path / name, overrides=SMALL)
    first, second = weights(tmp_path / "stage1"), weights(tmp_path / "stage2")
    language = weights(tmp_path / "language")
    tower = weights(tmp_path / "vision")
    changed = {name for name in second if not torch.equal(first[name], second[name])}
    assert any("multi_modal_projector" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    assert all(torch.equal(first[f"model.vision_tower.{name}"], value) for name, value in tower.items())
    for name, value in language.items():  # stage 1 trains the projection alone
        mine = name if name.startswith("lm_head") else name.replace("model.", "model.language_model.", 1)
        assert torch.equal(first[mine], value), name
    assert (
        VideoChat.from_pretrained(tmp_path / "stage3").open(video).ask("What happens?", max_new_tokens=4).plan.frames
        > 0
    )


def test_lora_is_merged_into_the_saved_model(tmp_path: Path) -> None:
    for name in ("vision", "language", "stage1"):
        train(f"tiny/{name}", tmp_path / name, overrides=SMALL)
    lora = SMALL | {"learn.language": "lora", "learn.lora_rank": "4", "optimizer.rate": "0.05"}
    train("tiny/stage2", tmp_path / "stage2", overrides=lora)
    before, after = weights(tmp_path / "stage1"), weights(tmp_path / "stage2")
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed) and any("multi_modal_projector" in name for name in changed)
    assert not any(part in name for name in changed for part in ("k_proj", "mlp", "embed_tokens", "vision_tower"))


def test_a_resumed_run_ends_with_the_same_weights_as_an_uninterrupted_one(tmp_path: Path) -> None:
    steps = SMALL | {"training.max_steps": "4", "training.save_steps": "2"}
    train("tiny/language", tmp_path / "whole", overrides=steps)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    train("tiny/language", tmp_path / "again", resume=True, overrides=steps)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_complete_run_is_left_alone_and_a_full_folder_is_not_overwritten(tmp_path: Path) -> None:
    train("tiny/vision", tmp_path / "vision", overrides=SMALL)
    made = (tmp_path / "vision" / "model.safetensors").stat().st_mtime_ns
    train("tiny/vision", tmp_path / "vision", resume=True, overrides=SMALL)
    assert (tmp_path / "vision" / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(RecipeError, match="not empty"):
        train("tiny/vision", tmp_path / "vision", overrides=SMALL)


def test_a_missing_part_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run the recipe that makes it first"):
        train("tiny/stage2", tmp_path / "stage2", overrides=SMALL)
    assert not (tmp_path / "stage2").exists() or not any((tmp_path / "stage2").iterdir())


def test_an_unknown_training_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learning_rat"):
        train("tiny/vision", tmp_path / "vision", overrides=SMALL | {"training.learning_rat": "1"})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("learning_rate = 1e-3", "learning_rate has no effect here; say optimizer.rate"),
        ("weight_decay = 0.1", "weight_decay has no effect here; say optimizer.weight_decay"),
        ("optim = 'sgd'", "optim has no effect here; say optimizer.kind"),
        ("adam_epsilon = 1e-5", "adam_epsilon has no effect here; leave it out"),
        ("label_smoothing_factor = 0.1", "label_smoothing_factor has no effect here; leave it out"),
        ("lr_scheduler_type = 'constant'", 'lr_scheduler_type has no effect where optimizer.schedule is "original"'),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_by_name(
    recipe: Callable[..., Path], tmp_path: Path, option: str, said: str
) -> None:
    place = recipe(tables='[optimizer]\nschedule = "original"\n', training=f"max_steps = 1\n{option}")
    with pytest.raises(RecipeError, match=said):
        train(place, tmp_path / "runs" / "a")
