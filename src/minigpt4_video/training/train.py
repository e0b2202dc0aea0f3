"""Recipe to run: parts, data, transformers' Trainer, and a folder that `from_pretrained` loads."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from minigpt4_video.data.world.language import chinese_words
from minigpt4_video.errors import RecipeError
from minigpt4_video.model import (
    MiniGPT4VideoConfig,
    MiniGPT4VideoForConditionalGeneration,
    MiniGPT4VideoProcessor,
)
from minigpt4_video.model.processing import IGNORED
from minigpt4_video.training.lines import Collator, DenseCollator, DensePictures, WorldLines, world_texts
from minigpt4_video.training.muon import Muon
from minigpt4_video.training.optimization import parameter_groups
from minigpt4_video.training.packing import attention
from minigpt4_video.training.pretraining import ANSWER_MULTIPLE, DenseVision, ToldFrames, spell
from minigpt4_video.training.recipe import Recipe, as_toml, read_recipe
from minigpt4_video.training.tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

WINDOW = 1024
"""Context of a model that is made from nothing."""
SCENES_FOR_WORDS = 3000
"""From so many scenes the tokenizer is learnt."""
FINISHED = "recipe.toml"
"""The effective recipe is written last, so its presence says that the run is complete."""


class PackedTrainer(Trainer):  # type: ignore[misc]
    """The loss of packed lines, with logits made for learned positions alone."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = packed_loss(model, inputs) if "words" not in inputs and "middle" not in inputs else model(**inputs)
        self._accuracy = outputs["accuracy"]
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs["accuracy"] = round(float(self._accuracy), 4)
        super().log(logs, *args, **kwargs)


def packed_loss(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], count: torch.Tensor | int | None = None
) -> dict[str, torch.Tensor]:
    """Loss of a `MiniGPT4VideoForConditionalGeneration`, possibly inside peft or DDP, on packed lines: the mean over
    the learned positions, or their sum over `count`.

    The wrapped model itself is called, because DDP and FSDP do their part in its `forward`.
    """
    inner = unwrapped(model)
    labels = inputs["labels"]
    kept = learned_positions(labels, inner.device.type == "cpu")
    frames = {name: inputs[name] for name in ("pixel_values", "image_features") if name in inputs}
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=attention(inputs, inner.config.text_config, inner.model.language_model.dtype),
        position_ids=inputs["position_ids"],
        labels=labels,
        logits_to_keep=kept,
        use_cache=False,
        num_items_in_batch=count,
        **frames,
    )
    target = labels.roll(-1, dims=1)[kept]
    learned = target != IGNORED
    right = (outputs.logits.argmax(-1) == target)[learned]
    return {"loss": outputs.loss, "accuracy": right.float().mean().detach()}


def unwrapped(model: torch.nn.Module) -> MiniGPT4VideoForConditionalGeneration:
    """The model inside peft, DDP or both."""
    while not isinstance(model, MiniGPT4VideoForConditionalGeneration):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return model


def learned_positions(labels: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Where logits are needed, (lines, tokens) of bool: before each label. `rounded` adds positions that are not learnt
    up to a multiple of `ANSWER_MULTIPLE`.
    """
    learned = labels.roll(-1, dims=1) != IGNORED
    learned[:, -1] = False
    if rounded:
        flat = learned.view(-1)
        spare = -int(flat.sum()) % ANSWER_MULTIPLE
        others = (~flat).view(labels.shape)
        others[:, -1] = False  # the label behind a line's end would be the next line's first
        flat[others.flatten().nonzero()[:spare, 0]] = True
    return learned


def train(
    recipe: str | Path, output: Path, *, resume: bool = False, overrides: Mapping[str, str] | None = None
) -> Path:
    """Runs a recipe and leaves its result in `output`: configuration, weights, processor, effective recipe.

    `resume` goes on from the last checkpoint in `output`, and does nothing where the run is complete.
    """
    plan = read_recipe(recipe, overrides)
    if resume and (output / FINISHED).exists():
        logger.warning("%s is complete already", output)
        return output
    if output.exists() and any(output.iterdir()) and not resume:
        raise RecipeError(f"{output} is not empty: give another folder, or --resume to go on with what is there")
    arguments = _arguments(plan, output)
    torch.manual_seed(plan.seed)
    processor = _processor(plan, output)
    model, dataset, collator = _setup(plan, output, processor, arguments)
    trainer = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        optimizers=(_optimizer(plan, model), None),
    )
    last = get_last_checkpoint(str(output)) if resume and output.exists() else None
    trainer.train(resume_from_checkpoint=last)
    _save(plan, trainer.accelerator.unwrap_model(trainer.model), processor, output)
    return output


def _arguments(plan: Recipe, output: Path) -> TrainingArguments:
    settings: dict[str, Any] = {
        "remove_unused_columns": False,
        "report_to": [],
        "seed": plan.seed,
        "use_cpu": not torch.cuda.is_available(),
        "save_total_limit": 2,
        "logging_steps": 20,
        "train_sampling_strategy": "sequential",  # lines are drawn at random already, and easy ones come first
        "dataloader_pin_memory": torch.cuda.is_available(),
        **plan.training,
    }
    try:
        return TrainingArguments(output_dir=str(output), **settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"[training]: {error}") from error


def _processor(plan: Recipe, output: Path) -> MiniGPT4VideoProcessor:
    """The processor of the part that the run starts from, or a new one for a model that is made from nothing."""
    origin = plan.parts.model or plan.parts.language
    if origin is not None:
        processor: MiniGPT4VideoProcessor = MiniGPT4VideoProcessor.from_pretrained(_part(output, origin))
        return processor
    sizes = Blip2VisionConfig(**{"image_size": 64, "patch_size": 8, **plan.vision})
    patches = (sizes.image_size // sizes.patch_size) ** 2
    tokenizer = build_tokenizer(world_texts(SCENES_FOR_WORDS), plan.vocabulary, chinese_words())
    return MiniGPT4VideoProcessor(
        tokenizer, tokens_per_frame=patches // 4, image_size=sizes.image_size, frames=plan.frames, window=WINDOW,
        answer_reserve=64,
    )  # fmt: skip


def _part(output: Path, name: str) -> Path:
    folder = output.parent / name
    if not (folder / "config.json").exists():
        raise RecipeError(f"{folder} holds no trained part: run the recipe that makes it first")
    return folder


def _setup(
    plan: Recipe, output: Path, processor: MiniGPT4VideoProcessor, arguments: TrainingArguments
) -> tuple[torch.nn.Module, Any, Any]:
    count = arguments.max_steps * arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    if arguments.max_steps <= 0:
        raise RecipeError("[training] max_steps is missing: the world has no end, so say how long to train")
    if plan.stage == "vision":
        tower = DenseVision(Blip2VisionConfig(**plan.vision))
        return tower, DensePictures(processor.image_size, count), DenseCollator(processor)
    data = WorldLines(processor, plan.sources, width=plan.width, count=count, seed=plan.seed, speech=plan.speech)
    collator = Collator(processor, plan.width, told=plan.stage == "language")
    if plan.stage == "language":
        tokenizer = processor.tokenizer
        sizes = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=2 * WINDOW,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **plan.language,
        )
        return ToldFrames(sizes, merge_size=4, spelling=spell(tokenizer)), data, collator
    return _learning(plan, _model(plan, output)), data, collator


def _model(plan: Recipe, output: Path) -> MiniGPT4VideoForConditionalGeneration:
    """The model of an earlier stage, or a tower and a language model put together with a new projection."""
    if plan.parts.model is not None:
        origin = _part(output, plan.parts.model)
        earlier: MiniGPT4VideoForConditionalGeneration = MiniGPT4VideoForConditionalGeneration.from_pretrained(
            origin, dtype=torch.float32
        )
        return earlier
    if plan.parts.vision is None or plan.parts.language is None:
        raise RecipeError("[parts] must name a model, or vision and language")
    tower = Blip2VisionModel.from_pretrained(_part(output, plan.parts.vision))
    language = LlamaForCausalLM.from_pretrained(_part(output, plan.parts.language))
    config = MiniGPT4VideoConfig(vision_config=tower.config, text_config=language.config)
    model = MiniGPT4VideoForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    return model


def _learning(plan: Recipe, model: MiniGPT4VideoForConditionalGeneration) -> torch.nn.Module:
    """The model with only what the recipe names left to train."""
    model.requires_grad_(False)
    if plan.learn.language == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=plan.learn.lora_rank, lora_alpha=plan.learn.lora_alpha, lora_dropout=plan.learn.lora_dropout,
            target_modules=r".*language_model.*(q|v)_proj", modules_to_save=["multi_modal_projector"],
        )  # fmt: skip
        wrapped: torch.nn.Module = get_peft_model(model, lora)
        return wrapped
    model.model.multi_modal_projector.requires_grad_(True)
    model.model.language_model.requires_grad_(plan.learn.language == "full")
    model.lm_head.requires_grad_(plan.learn.language == "full")
    model.model.vision_tower.requires_grad_(plan.learn.vision)
    return model


def _optimizer(plan: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    chosen = plan.optimizer
    if chosen.kind == "muon":
        return Muon(
            model.named_parameters(), matrix_rate=chosen.matrix_rate, rate=chosen.rate, weight_decay=chosen.weight_decay
        )
    return torch.optim.AdamW(parameter_groups(model.named_parameters(), chosen.weight_decay), lr=chosen.rate)


def _save(plan: Recipe, model: torch.nn.Module, processor: MiniGPT4VideoProcessor, output: Path) -> None:
    """Weights, configuration and processor into `output`; the effective recipe last."""
    aside = output / "saving"
    shutil.rmtree(aside, ignore_errors=True)
    if isinstance(model, DenseVision):
        model.tower.save_pretrained(aside)
    elif isinstance(model, ToldFrames):
        language = LlamaForCausalLM(model.language_model.config)
        language.model.load_state_dict(model.language_model.state_dict())
        language.save_pretrained(aside)
    else:
        if plan.learn.language == "lora":
            model = model.merge_and_unload()
        assert isinstance(model, MiniGPT4VideoForConditionalGeneration)
        tokenizer = processor.tokenizer
        model.generation_config = GenerationConfig(
            max_new_tokens=processor.answer_reserve, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model.save_pretrained(aside)
    processor.save_pretrained(aside)
    (aside / FINISHED).write_text(as_toml(plan), encoding="utf-8")
    for path in sorted(aside.iterdir(), key=lambda path: path.name == FINISHED):
        target = output / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    aside.rmdir()
