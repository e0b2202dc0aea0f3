"""Recipe to run: parts, data, transformers' Trainer, and a folder that `from_pretrained` loads."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Blip2VisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
    TrainingArguments,
)

from minigpt4_video.data.mixture import Mixture, Part
from minigpt4_video.data.world.language import chinese_words
from minigpt4_video.errors import RecipeError
from minigpt4_video.inference.store import Store
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.messages import media_parts
from minigpt4_video.model import MiniGPT4VideoProcessor
from minigpt4_video.training.files import BUCKET, Files, FilesCollator, Group, held_out, read_sets
from minigpt4_video.training.kept import Choice, choose, encoded, normalised, tower_digest
from minigpt4_video.training.lines import Collator, DenseCollator, DensePictures, WorldLines, world_texts
from minigpt4_video.training.loop import (
    SKIPPED,
    Interruption,
    PackedTrainer,
    Patience,
    Progress,
    Sight,
    Watch,
    last_checkpoint,
    packed_loss,
    parallel,
    unwrapped,
)
from minigpt4_video.training.muon import Muon
from minigpt4_video.training.optimization import WarmupCosine, parameter_groups
from minigpt4_video.training.parts import learning, start_model, start_processor, trainable, write_aside
from minigpt4_video.training.pretraining import DenseVision, ToldFrames, spell
from minigpt4_video.training.recipe import Recipe, as_toml, read_recipe
from minigpt4_video.training.result import FINISHED, Told, save
from minigpt4_video.training.sharding import shard, trained_state
from minigpt4_video.training.spread import spread_of
from minigpt4_video.training.tokenizer import build_tokenizer

__all__ = ["packed_loss", "train"]

logger = logging.getLogger(__name__)

WINDOW = 1024
"""Context of a model that is made from nothing."""
SCENES_FOR_WORDS = 3000
"""From so many scenes the tokenizer is learnt."""
CHOICE = "keep.json"
KEPT = "kept"
"""The folder beside the run that holds frames or features of what was read."""


@dataclass
class Setup:
    """What a trainer is made of."""

    model: torch.nn.Module
    dataset: Any
    collator: Any
    sight: Sight | None = None
    held: Files | None = None
    trained: Sequence[Group] = ()
    choice: Choice | None = None
    callbacks: list[TrainerCallback] = field(default_factory=list)


def train(
    recipe: str | Path,
    output: Path,
    *,
    resume: bool = False,
    overrides: Mapping[str, str] | None = None,
    variant: str | None = None,
) -> Path:
    """Runs a recipe and leaves its result in `output`: configuration, weights, processor, effective recipe.

    `resume` goes on from the last checkpoint in `output`, and does nothing where the run is complete. A first Ctrl-C
    ends the run after the step under way, with a checkpoint, and raises KeyboardInterrupt.
    """
    plan = read_recipe(recipe, overrides, variant)
    if resume and (output / FINISHED).exists():
        logger.warning("%s is complete already", output)
        return output
    first = int(os.environ.get("RANK", "0")) == 0  # of several processes one writes, and may have begun
    if first and output.exists() and any(output.iterdir()) and not resume:
        raise RecipeError(f"{output} is not empty: give another folder, or --resume to go on with what is there")
    arguments = _arguments(plan, output)
    torch.manual_seed(plan.seed)
    processor = start_processor(plan, output) or _new_processor(plan)
    setup = _setup(plan, output, processor, arguments)
    last = last_checkpoint(output) if resume else None
    seen = 0 if last is None else int(last.rpartition("-")[2]) * _samples_a_step(arguments) // arguments.world_size
    output.mkdir(parents=True, exist_ok=True)
    interruption = Interruption()
    if plan.sharded and arguments.world_size > 1:
        shard(unwrapped(setup.model), arguments.device)
    optimizer = _optimizer(plan, setup.model)
    trainer = PackedTrainer(
        model=setup.model,
        args=arguments,
        train_dataset=setup.dataset,
        eval_dataset=setup.held,
        data_collator=setup.collator,
        optimizers=(optimizer, _schedule(plan, optimizer, arguments)),
        callbacks=[Progress(), interruption, *setup.callbacks],
        watch=Watch(plan.guard, output, seen),
        sight=setup.sight,
        held=setup.held,
        collate=setup.collator if isinstance(setup.collator, FilesCollator) else None,
        answers=plan.evaluation.answers,
        sharded=plan.sharded,
        spread=spread_of(processor.tokenizer, plan.spread),
    )
    trained = trainable(setup.model)
    with interruption.listening():
        trainer.train(resume_from_checkpoint=last)
    if interruption.asked:
        logger.warning("%s holds a checkpoint; --resume goes on from it", output)
        raise KeyboardInterrupt
    whole = trained_state(trainer.model) if plan.sharded else None
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if whole is not None and arguments.world_size > 1:
            model = learning(plan, start_model(plan, output), output)
            model.load_state_dict(whole, strict=False)
        _save(plan, trainer, model, processor, output, setup, trained)
    if arguments.world_size > 1:
        torch.distributed.barrier()  # the others must not end the run before it is whole
    return output


def _arguments(plan: Recipe, output: Path) -> TrainingArguments:
    on_cpu = not torch.cuda.is_available()
    if plan.training.get("fsdp"):
        raise RecipeError("[training] fsdp is accelerate's, which trains with DDP on CPUs; say `sharded = true` above")
    if plan.sharded and (plan.optimizer.kind == "muon" or not plan.data):
        raise RecipeError("sharded = true goes with [[data]] and the optimiser adamw; Muon needs whole matrices")
    settings: dict[str, Any] = {
        "remove_unused_columns": False,
        "report_to": [],
        "seed": plan.seed,
        "use_cpu": on_cpu,
        "save_total_limit": 2,
        "logging_steps": 20,
        "train_sampling_strategy": "sequential",  # items are drawn at random already, and easy ones come first
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        **plan.training,
    }
    if plan.evaluation.share:
        every = settings.get("eval_steps", settings.get("save_steps", 500))
        settings = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "save_steps": every,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "per_device_eval_batch_size": settings.get("per_device_train_batch_size", 8),
            **settings,
        }
    try:
        arguments = TrainingArguments(output_dir=str(output), **settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"[training]: {error}") from error
    if arguments.save_total_limit == 1:
        raise RecipeError(
            "[training] save_total_limit is 1; give at least 2, or an interruption while one checkpoint replaces the "
            "other leaves none"
        )
    return arguments


def _new_processor(plan: Recipe) -> MiniGPT4VideoProcessor:
    """For a model that is made from nothing."""
    sizes = Blip2VisionConfig(**{"image_size": 64, "patch_size": 16, **plan.vision})
    patches = (sizes.image_size // sizes.patch_size) ** 2
    tokenizer = build_tokenizer(world_texts(SCENES_FOR_WORDS), plan.vocabulary, chinese_words())
    return MiniGPT4VideoProcessor(
        tokenizer, tokens_per_frame=patches // 4, image_size=sizes.image_size, frames=plan.frames, window=WINDOW,
        answer_reserve=64,
    )  # fmt: skip


def _samples_a_step(arguments: TrainingArguments) -> int:
    """Over all processes."""
    batch: int = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return batch * max(1, int(arguments.world_size))


def _setup(plan: Recipe, output: Path, processor: MiniGPT4VideoProcessor, arguments: TrainingArguments) -> Setup:
    if plan.data:
        return _setup_files(plan, output, processor, arguments)
    count = arguments.max_steps * _samples_a_step(arguments)
    if arguments.max_steps <= 0:
        raise RecipeError("[training] max_steps is missing: the world has no end, so say how long to train")
    if plan.stage == "vision":
        tower = DenseVision(Blip2VisionConfig(**plan.vision))
        return Setup(tower, DensePictures(processor.image_size, count), DenseCollator(processor))
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
        return Setup(ToldFrames(sizes, 4, spell(tokenizer), spread_of(tokenizer, plan.spread)), data, collator)
    return Setup(learning(plan, start_model(plan, output), output), data, collator)


def steps_of(arguments: TrainingArguments, groups: int) -> int:
    """How many steps a run over so many groups has: `max_steps`, else as many as its epochs take."""
    if arguments.max_steps > 0:
        steps: int = arguments.max_steps
        return steps
    return math.ceil(float(arguments.num_train_epochs) * groups / _samples_a_step(arguments))


def _setup_files(plan: Recipe, output: Path, processor: MiniGPT4VideoProcessor, arguments: TrainingArguments) -> Setup:
    sets, flaws = read_sets(plan.data)
    kept_back: list[Group] = []
    trained: list[list[Group]] = []
    for groups in sets:
        mine, held = held_out(groups, plan.evaluation.share, plan.evaluation.most - len(kept_back))
        trained.append(mine)
        kept_back += held
    if plan.evaluation.share and not kept_back:
        raise RecipeError("[evaluation] share keeps back nothing of so few samples; give a larger share, or 0")
    total = sum(len(groups) for groups in trained)
    bad = len(flaws)
    rows = bad + sum(len(group.records) for groups in sets for group in groups)
    if bad > plan.guard.broken * rows + 3:
        raise RecipeError(
            f"{bad} of {rows} rows cannot be used, more than guard.broken = {plan.guard.broken:g}; the first: "
            f"{flaws[0].id}: {flaws[0].reason}; `minigpt4-video data check` lists them"
        )
    arguments.max_steps = steps_of(arguments, total)
    model = learning(plan, start_model(plan, output), output)
    inner = unwrapped(model)
    store = Store(output.parent / KEPT, round(plan.keep_gib * 2**30))
    choice = _settled(output, arguments, lambda: _choice(plan, sets, processor, inner, store, total, arguments))
    tower = tower_digest(inner.model, f"{arguments.bf16} {arguments.fp16}") if choice.keep == "features" else ""
    shared: dict[str, Any] = {
        "frames": plan.frames, "width": plan.width, "store": store, "keep": choice.keep, "tower": tower,
    }  # fmt: skip
    mixture = Mixture(
        [Part(len(groups), one.weight) for groups, one in zip(trained, plan.data, strict=True)], plan.seed
    )
    count = arguments.max_steps * _samples_a_step(arguments)
    dataset = Files(trained, mixture, processor, count=count, **shared)
    held_files = Files([kept_back], None, processor, count=len(kept_back), **shared) if kept_back else None
    on_cpu = arguments.device.type == "cpu"
    collator = FilesCollator(processor, plan.width, BUCKET if on_cpu else 8)
    sight = Sight(processor, store if choice.keep == "features" else None, plan.learn.vision)
    patience = plan.evaluation.patience
    return Setup(
        model, dataset, collator, sight, held_files, [group for groups in trained for group in groups], choice,
        [Patience(patience)] if patience and held_files else [],
    )  # fmt: skip


def _settled(output: Path, arguments: TrainingArguments, choose_now: Callable[[], Choice]) -> Choice:
    """What is kept, decided once for a run: times are measured for it, which are others on each process and each
    resumption, and features that were computed together differ in their last bits from kept ones."""
    place = output / CHOICE
    if arguments.process_index == 0 and not place.exists():
        choice = choose_now()
        output.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps({"keep": choice.keep, "reason": choice.reason}).encode())
    if arguments.world_size > 1:
        torch.distributed.barrier()
    return Choice(**json.loads(place.read_text(encoding="utf-8")))


def _choice(
    plan: Recipe,
    sets: Sequence[Sequence[Group]],
    processor: MiniGPT4VideoProcessor,
    model: Any,
    store: Store,
    total: int,
    arguments: TrainingArguments,
) -> Choice:
    """What is kept of what is read. A run that sees nothing twice keeps nothing unless it is told to."""
    if plan.learn.vision and plan.keep in ("auto", "features"):
        if plan.keep == "features":
            raise RecipeError("keep is features, but learn.vision trains the tower that makes them; keep frames")
        return Choice("frames", "the tower is trained")
    if plan.keep != "auto":
        return Choice(plan.keep, "the recipe says so")
    if arguments.max_steps * _samples_a_step(arguments) <= total and not plan.evaluation.share:
        return Choice("nothing", "nothing is seen twice")
    size = processor.image_size
    first = [part for groups in sets for part in media_parts(groups[0].records[0].messages)]
    picture = all(part["type"] == "image" for part in first)
    frames = 1 if picture else plan.frames
    pixels = normalised(
        torch.zeros(frames, size, size, 3, dtype=torch.uint8), processor.image_mean, processor.image_std
    ).to(arguments.device)
    model.to(arguments.device)
    choice = choose(lambda: encoded(model.model, pixels), store, total, frames * size * size * 3)
    logger.info("%s are kept: %s", choice.keep, choice.reason)
    return choice


def _optimizer(plan: Recipe, model: torch.nn.Module) -> torch.optim.Optimizer:
    chosen = plan.optimizer
    if chosen.kind == "muon":
        return Muon(
            model.named_parameters(), matrix_rate=chosen.matrix_rate, rate=chosen.rate, weight_decay=chosen.weight_decay
        )
    return torch.optim.AdamW(parameter_groups(model.named_parameters(), chosen.weight_decay), lr=chosen.rate)


def _schedule(plan: Recipe, optimizer: torch.optim.Optimizer, arguments: TrainingArguments) -> Any:
    """The original's course of the learning rate; None for the trainer's own."""
    chosen = plan.optimizer
    if chosen.schedule == "trainer":
        return None
    steps = WarmupCosine(arguments.max_steps, arguments.get_warmup_steps(arguments.max_steps), chosen.rate,
                         chosen.floor, chosen.start)  # fmt: skip
    return steps.scheduler(optimizer)


def _save(
    plan: Recipe,
    trainer: PackedTrainer,
    model: torch.nn.Module,
    processor: MiniGPT4VideoProcessor,
    output: Path,
    setup: Setup,
    trained: int,
) -> None:
    """Weights, configuration and processor into `output`; the effective recipe last."""
    if isinstance(model, (DenseVision, ToldFrames)):

        def write(folder: Path) -> None:
            if isinstance(model, DenseVision):
                model.tower.save_pretrained(folder)
            else:
                language = LlamaForCausalLM(model.language_model.config)
                language.model.load_state_dict(model.language_model.state_dict())
                language.save_pretrained(folder)
            processor.save_pretrained(folder)
            (folder / FINISHED).write_text(as_toml(plan), encoding="utf-8")

        write_aside(output, write, FINISHED)
        return
    world = trainer.args.world_size
    told = Told(
        trained=trained,
        parameters=sum(parameter.numel() for parameter in unwrapped(model).parameters()),
        samples=len(setup.trained) or len(setup.dataset),
        turns=sum(len(group.records) for group in setup.trained),
        held_out=0 if setup.held is None else len(setup.held),
        processes=world,
        parallel=parallel(trainer.model_wrapped),
        device=str(trainer.args.device) if trainer.args.device.type == "cpu" else torch.cuda.get_device_name(),
        kept="nothing" if setup.choice is None else f"{setup.choice.keep}: {setup.choice.reason}",
        history=trainer.state.log_history,
    )
    save(plan, model, processor, output, told)
    if (output / SKIPPED).exists():
        logger.warning("some samples could not be used; %s lists them", output / SKIPPED)
