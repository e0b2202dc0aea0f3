"""The model that a run starts from, and what of it is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, Blip2VisionModel

from minigpt4_video.errors import CheckpointError, ModelError, RecipeError
from minigpt4_video.inference.loading import ADAPTER, find_model, load_processor
from minigpt4_video.model import (
    MiniGPT4VideoConfig,
    MiniGPT4VideoForConditionalGeneration,
    MiniGPT4VideoProcessor,
)
from minigpt4_video.model.conversion import convert_vision, processor_for, read_vision
from minigpt4_video.model.presets import PRESETS
from minigpt4_video.training.recipe import Recipe

PROJECTOR = "multi_modal_projector"
TOWER = "vision_tower"


def find_part(output: Path, name: str) -> Path:
    """A folder beside the run's, or one by its path, or a model that comes with the package."""
    for place in (output.parent / name, Path(name)):
        if (place / "config.json").exists():
            return place
    if name in PRESETS:
        try:
            return find_model(name)
        except ModelError as error:
            raise RecipeError(str(error)) from error
    raise RecipeError(f"{output.parent / name} holds no trained part: run the recipe that makes it first")


def start_processor(plan: Recipe, output: Path) -> MiniGPT4VideoProcessor | None:
    """The processor of the part that the run starts from; None for a model that is made from nothing."""
    name = plan.parts.model or plan.parts.language
    if name is None:
        return None
    folder = find_part(output, name)
    if (folder / "processor_config.json").exists():
        processor: MiniGPT4VideoProcessor = load_processor(folder)
    else:
        config = MiniGPT4VideoConfig(
            vision_config=_vision_config(plan, output), text_config=AutoConfig.from_pretrained(folder)
        )
        processor = processor_for(config, folder)
    if plan.data:  # asked as it was trained
        processor.frames = plan.frames
    return processor


def start_model(plan: Recipe, output: Path) -> MiniGPT4VideoForConditionalGeneration:
    """The model of an earlier stage, or a tower and a language model put together with a new projection."""
    kind = getattr(torch, plan.learn.frozen)
    if plan.parts.model is not None:
        folder = find_part(output, plan.parts.model)
        earlier: MiniGPT4VideoForConditionalGeneration = MiniGPT4VideoForConditionalGeneration.from_pretrained(
            folder, dtype=kind
        )
        return earlier
    if plan.parts.vision is None or plan.parts.language is None:
        raise RecipeError("[parts] must name a model, or vision and language")
    language_folder = find_part(output, plan.parts.language)
    language = AutoModelForCausalLM.from_pretrained(language_folder, dtype=kind)
    if getattr(language.get_output_embeddings(), "bias", None) is not None:
        raise RecipeError(f"the output layer of {plan.parts.language} has a bias, for which there is no place here")
    vision_config, vision_state = _vision(plan, output)
    config = MiniGPT4VideoConfig(vision_config=vision_config, text_config=language.config)
    config.dtype = kind
    model: MiniGPT4VideoForConditionalGeneration = MiniGPT4VideoForConditionalGeneration(config).to(kind)
    model.model.vision_tower.load_state_dict(vision_state)
    prefix = f"{language.base_model_prefix}."
    state = {
        name.removeprefix(prefix): tensor for name, tensor in language.state_dict().items() if name.startswith(prefix)
    }
    model.model.language_model.load_state_dict(state)
    model.lm_head.load_state_dict({"weight": language.get_output_embeddings().weight})
    return model


def _vision_config(plan: Recipe, output: Path) -> Any:
    return _vision(plan, output)[0]


def _vision(plan: Recipe, output: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Configuration and weights of a tower in a folder or in `eva_vit_g.pth`."""
    name = plan.parts.vision
    if name is None:
        raise RecipeError("[parts] must name a model, or vision and language")
    for place in (output.parent / name, Path(name)):
        if place.is_file():
            try:
                config, state, _ = convert_vision(read_vision(place), place)
            except CheckpointError as error:
                raise RecipeError(str(error)) from error
            return config, state
    if name.endswith(".pth"):
        raise RecipeError(f"there is no file {name}, neither there nor in {output.parent}; it holds the vision tower")
    tower = Blip2VisionModel.from_pretrained(find_part(output, name))
    return tower.config, tower.state_dict()


def learning(plan: Recipe, model: MiniGPT4VideoForConditionalGeneration, output: Path) -> torch.nn.Module:
    """The model with only what the recipe names left to train, that in float32.

    LoRA of the earlier stage goes on being trained where this one trains LoRA, and becomes part of the weights where it
    does not.
    """
    earlier = find_part(output, plan.parts.model) / ADAPTER if plan.parts.model is not None else None
    if earlier is not None and not earlier.is_dir():
        earlier = None
    model.requires_grad_(False)
    if plan.learn.language == "lora":
        return _with_lora(plan, model, earlier)
    if earlier is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, earlier).merge_and_unload()
        model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    model.model.language_model.requires_grad_(plan.learn.language == "full")
    model.lm_head.requires_grad_(plan.learn.language == "full")
    model.model.vision_tower.requires_grad_(plan.learn.vision)
    _trained_in_float32(model)
    return model


def _with_lora(plan: Recipe, model: MiniGPT4VideoForConditionalGeneration, earlier: Path | None) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    learn = plan.learn
    # What is trained beside LoRA must be named here: set free by hand, it would be missing from every checkpoint.
    saved = [PROJECTOR, TOWER] if learn.vision else [PROJECTOR]
    lora = LoraConfig(
        r=learn.lora_rank, lora_alpha=learn.lora_alpha, lora_dropout=learn.lora_dropout,
        target_modules=r".*language_model.*(q|v)_proj", modules_to_save=saved,
    )  # fmt: skip
    wrapped: torch.nn.Module = get_peft_model(model, lora)
    if earlier is not None:
        held = LoraConfig.from_pretrained(earlier)
        if (held.r, held.lora_alpha) != (learn.lora_rank, learn.lora_alpha):
            raise RecipeError(
                f"{earlier} has LoRA of rank {held.r} and alpha {held.lora_alpha}, not {learn.lora_rank} and "
                f"{learn.lora_alpha}; set learn.lora_rank and learn.lora_alpha to its own"
            )
        state = {
            name.removesuffix(".weight") + ".default.weight": tensor
            for name, tensor in load_file(earlier / "adapter_model.safetensors").items()
        }
        expected = {name for name, _ in wrapped.named_parameters() if ".lora_" in name}
        if expected != set(state):
            raise RecipeError(f"{earlier} does not fit the model beside it: {sorted(expected ^ set(state))[:2]}")
        wrapped.load_state_dict(state, strict=False)
    _trained_in_float32(wrapped)
    return wrapped


def _trained_in_float32(model: torch.nn.Module) -> None:
    """Small updates would be lost in 16 bits."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def trainable(model: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def write_aside(output: Path, write: Callable[[Path], None], last: str) -> None:
    """Files of `write` moved into `output` once all are written, the one named `last` at the end: its presence says
    that all are there."""
    aside = output / "saving"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for path in sorted(aside.iterdir(), key=lambda path: path.name == last):
        target = output / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    aside.rmdir()
