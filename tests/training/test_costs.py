"""What a run will take: counts agree with models made without memory, and every part of the data counts."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, Blip2VisionConfig
from typer.testing import CliRunner

from minigpt4_video.cli import app
from minigpt4_video.errors import RecipeError
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration
from minigpt4_video.model.presets import PRESETS
from minigpt4_video.training.costs import GIB, forecast, known_sizes, plan_run, sample_flops, shape_of
from minigpt4_video.training.parts import learning, trainable
from minigpt4_video.training.recipe import Learn, Parts, read_recipe, shipped

BIG = [name for name in shipped() if not name.startswith("tiny/")]
MODELS = [name for name in PRESETS if name != "tiny"]
KNOWN = {"llama2-7b": (33_554_432, 23_072_768), "llama2-13b": (52_428_800, 28_840_960)}


def on_meta(name: str) -> MiniGPT4VideoForConditionalGeneration:
    """The known model with the shapes of its weights and without their memory."""
    sizes = PRESETS[name].sizes()
    text = AutoConfig.for_model(**sizes.text_config)
    with torch.device("meta"):
        config = MiniGPT4VideoConfig(vision_config=Blip2VisionConfig(**sizes.vision_config), text_config=text)
        return MiniGPT4VideoForConditionalGeneration(config).to(torch.bfloat16)


def test_every_big_model_has_the_four_recipes_and_their_variants() -> None:
    assert sorted(BIG) == sorted(
        f"{name}/{step}" for name in MODELS for step in ("align", "stage1", "stage2", "stage3")
    )
    for name in BIG:
        assert read_recipe(name).model == name.split("/")[0]
        assert read_recipe(name, variant="full").learn.language == "full"
        vision = read_recipe(name, variant="vision")
        assert vision.learn.vision and vision.keep != "features"


@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_the_model_itself(name: str, tmp_path: Path) -> None:
    model = on_meta(name)
    learned: dict[Learn, torch.nn.Module] = {}
    for variant, step in product((None, "full", "vision"), ("stage1", "align", "stage2", "stage3")):
        plan = replace(read_recipe(f"{name}/{step}", variant=variant), parts=Parts())
        if plan.learn not in learned:
            learned[plan.learn] = learning(plan, copy.deepcopy(model), tmp_path / "run")
        made = learned[plan.learn]
        told = forecast(plan, known_sizes(plan, tmp_path), None)

        assert told.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert told.trained == trainable(made)
        if variant != "full":
            assert (told.lora, told.projection) == KNOWN.get(name, (told.lora, told.projection))
        held = 0
        for part, parameter in made.named_parameters():
            if "original_module" not in part:  # peft's copy of what is trained beside LoRA, which moves off no device
                held += parameter.numel() * parameter.itemsize
        weights = told.weights_gib * GIB + told.trained * 4
        assert weights == pytest.approx(held, rel=1e-6)
        assert told.state_gib * GIB == told.trained * 16
    assert len(learned) == 3


@pytest.mark.parametrize("name", BIG)
def test_every_big_recipe_is_planned_without_weights_or_data(name: str, tmp_path: Path) -> None:
    told = plan_run(read_recipe(name), tmp_path / "runs" / "x")
    assert not told.counted and told.fits
    assert told.steps == read_recipe(name).training["max_steps"]
    assert told.hours > 0 and told.flops > told.flops_tower > 0


def test_operations_are_those_counted_for_the_original_by_hand() -> None:
    """A stage-3 answer of Llama: 25 TFLOP with checkpointing and the tower's share, 22 without the tower
    (100 tokens a pair, 7.515 pairs behind 3,060 tokens)."""
    plan = read_recipe("llama2-7b/stage3")
    sizes = PRESETS["llama2-7b"].sizes()
    shape, _, turns = shape_of(plan, sizes, None)
    assert turns == 99_378
    alone = replace(shape, prefix=3060, turn=100.0, answer=70.0)
    assert sample_flops(plan, sizes, alone) / shape.turns == pytest.approx(21.9e12, rel=0.03)
    loose = replace(plan, training={**plan.training, "gradient_checkpointing": False})
    assert sample_flops(loose, sizes, alone) / shape.turns == pytest.approx(14.8e12, rel=0.03)


def test_time_and_memory_follow_the_devices_and_what_is_trained() -> None:
    plan, sizes = read_recipe("llama2-7b/stage3"), PRESETS["llama2-7b"].sizes()
    one = forecast(plan, sizes, None, gpu="a100", utilisation=0.5)
    two = forecast(plan, sizes, None, gpu="a100", devices=2, utilisation=0.25)
    assert one.steps == two.steps and two.seen == 2 * one.seen  # a step of two devices has twice as many
    assert two.hours == pytest.approx(2 * one.hours, rel=0.1)
    full = read_recipe("llama2-7b/stage3", variant="full")
    assert not forecast(full, sizes, None, gpu="a100").fits
    sharded = replace(full, sharded=True)
    assert forecast(sharded, sizes, None, gpu="a100", devices=8).fits
    with pytest.raises(RecipeError, match="rtx4090"):
        forecast(plan, sizes, None, gpu="abacus")
    with pytest.raises(RecipeError, match="utilisation"):
        forecast(plan, sizes, None, utilisation=0.0)


def test_what_layers_keep_is_what_the_backward_pass_saves() -> None:
    """The estimate of activations against what torch really holds for a Llama of one layer more, in 16 bits."""
    from minigpt4_video.training.costs import LAYER_BYTES

    def saved(layers: int) -> int:
        config = AutoConfig.for_model(
            "llama", hidden_size=256, intermediate_size=688, num_hidden_layers=layers, num_attention_heads=4,
            vocab_size=64,
        )  # fmt: skip
        from transformers import LlamaModel

        model = LlamaModel(config).to(torch.bfloat16)
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.requires_grad_(False)
        embeds = torch.randn(1, 512, 256, dtype=torch.bfloat16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        assert out.requires_grad
        return sum(held.values())

    each = (saved(3) - saved(2)) / (512 * 256)
    assert each == pytest.approx(LAYER_BYTES, rel=0.25)


def test_data_that_is_at_hand_is_counted(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe(tables="[evaluation]\nshare = 0.34\n", training="num_train_epochs = 3")
    told = plan_run(read_recipe(path), tmp_path / "runs" / "a")
    assert told.counted and (told.samples, told.turns) == (6, 16)
    assert told.steps == 6  # 3 times over the 4 that are not held out, two in a step


def test_the_command_tells_it_in_lines_and_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "mistral-7b/stage2", "--plan", "--gpu", "h100", "--devices", "4", "--variant", "vision"]
    lines = CliRunner().invoke(app, command)
    assert lines.exit_code == 0 and "4 x h100 at 40% of 989 TFLOP/s" in lines.output, lines.output
    told: dict[str, Any] = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert told["projection"] == 23_072_768 and told["devices"] == 4 and told["memory_gib"] > 15
    assert not (tmp_path / "runs").exists()
