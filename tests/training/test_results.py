"""What a run leaves: LoRA in the weights or apart, stages that go on with it, a card, and the way back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minigpt4_video.errors import RecipeError
from minigpt4_video.inference.loading import load_model
from minigpt4_video.model.exporting import export
from minigpt4_video.training.train import train

FAST = "[optimizer]\nrate = 0.05\n"


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_lora_apart_is_the_same_model_as_lora_merged(
    recipe: Callable[..., Path], random_model: Path, tmp_path: Path
) -> None:
    merged = train(recipe(tables=FAST), tmp_path / "runs" / "merged")
    apart = train(recipe(tables=FAST, learn='adapter = "separate"'), tmp_path / "runs" / "apart")

    started, plain = load_file(random_model / "model.safetensors"), load_file(apart / "model.safetensors")
    changed = {name for name in plain if not torch.equal(plain[name], started[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)  # the base is as it was
    lora = adapter(apart)
    assert len(lora) == 2 * 2 * len({name.split("layers.")[1].split(".")[0] for name in lora})
    assert any(value.abs().max() > 0 for name, value in lora.items() if "lora_B" in name)
    one, two = (load_model(folder, torch.device("cpu"), None).state_dict() for folder in (merged, apart))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], msg=lambda text, n=name: f"{n}: {text}")
    assert any(not torch.equal(two[name], plain[name]) for name in plain if "q_proj" in name)


def test_the_next_stage_goes_on_with_the_lora_of_the_one_before(recipe: Callable[..., Path], tmp_path: Path) -> None:
    first = train(recipe(tables=FAST, learn='adapter = "separate"'), tmp_path / "runs" / "first")
    still = "[optimizer]\nrate = 0.0\nweight_decay = 0.0\n"
    second = recipe(tables=still, training="max_steps = 1", learn='adapter = "separate"')
    on = {"parts.model": "first"}
    train(second, tmp_path / "runs" / "second", overrides=on)
    one, two = adapter(first), adapter(tmp_path / "runs" / "second")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(RecipeError, match="LoRA of rank 4"):
        train(second, tmp_path / "runs" / "third", overrides=on | {"learn.lora_rank": "8"})
    # What follows without LoRA has it in its weights.
    full = on | {"learn.language": "full", "learn.adapter": "merged"}
    whole = train(second, tmp_path / "runs" / "whole", overrides=full)
    found, expected = load_file(whole / "model.safetensors"), load_model(first, torch.device("cpu"), None).state_dict()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=lambda text, n=name: f"{n}: {text}")


def test_a_trained_folder_goes_back_to_a_checkpoint_of_the_original(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    made = train(recipe(tables=FAST, learn='adapter = "separate"'), tmp_path / "runs" / "a")
    told = export(made, tmp_path / "back.pth")
    state = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert told.rank == 4 and told.lora_keys == len(state) - 2
    trained = load_file(made / "model.safetensors")
    assert torch.equal(state["llama_proj.bias"], trained["model.multi_modal_projector.linear.bias"])
    key = "llama_model.base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
    ours = "base_model.model.model.language_model.layers.0.self_attn.v_proj.lora_B.weight"
    assert torch.equal(state[key], adapter(made)[ours]) and state[key].abs().max() > 0


def test_the_card_is_filled_from_the_run(recipe: Callable[..., Path], tmp_path: Path) -> None:
    made = train(
        recipe(changes='keep = "nothing"\nmodel = "llama2-7b"', tables="[evaluation]\nshare = 0.4\nanswers = 1\n",
               learn='adapter = "separate"'),
        tmp_path / "runs" / "a",
    )  # fmt: skip
    card, told = (made / "README.md").read_text(), json.loads((made / "run.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# llama2-7b: stage 3" in card and "videoinstruct-100k: 4 videos or pictures" in card
    assert f"| Trained | {told['trained']:,} of {told['parameters']:,} numbers (projection, LoRA) |" in card
    assert "| Ran on | cpu, 1 process(es), one process |" in card and "| Steps | 3 |" in card
    losses = [one["eval_loss"] for one in told["log"] if "eval_loss" in one]
    assert f"| Best held-out loss | {min(losses):.4f} |" in card
    assert "peft.PeftModel.from_pretrained" in card and str(tmp_path) not in card.replace(told["device"], "")


def test_a_run_that_was_cut_off_while_it_saved_is_not_taken_for_complete(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    made = train(recipe(), tmp_path / "runs" / "a")
    whole = load_file(made / "model.safetensors")
    (made / "recipe.toml").unlink()
    shutil.copytree(made, made / "saving")  # as an interruption leaves it
    train(recipe(), made, resume=True)
    assert (made / "recipe.toml").exists() and not (made / "saving").exists()
    again = load_file(made / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
