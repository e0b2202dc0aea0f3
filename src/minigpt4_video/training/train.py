"""Recipe to run: parts, data, transformers' Trainer, and a folder that `from_pretrained` loads."""

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
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

from minigpt4_video.data.mixture import Mixture
from minigpt4_video.data.world.language import chinese_words
from minigpt4_video.errors import RecipeError
from minigpt4_video.inference.store import Store
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.messages import media_parts
from minigpt4_video.model import MiniGPT4VideoProcessor
from minigpt4_video.model.branches import PACKED
from minigpt4_video.model.settling import settle_functions
from minigpt4_video.training.files import BUCKET, Files, FilesCollator
from minigpt4_video.training.kept import Choice, choose, encoded, normalised, tower_digest
from minigpt4_video.training.lines import Collator, DenseCollator, DensePictures, WorldLines, world_texts
from minigpt4_video.training.loop import (
    SKIPPED,
    TOLERATED,
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
from minigpt4_video.training.sets import (
    RECORDS,
    UNUSABLE,
    Listed,
    Sets,
    held_out,
    list_sets,
    open_sets,
    parts_of,
    settings_of,
    tell_unusable,
    wait_for_sets,
)
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
BEGUN = "begun.toml"
"""The effective recipe, from the beginning of a run; a complete one has `recipe.toml`."""
DRAWN = "drawn.json"
"""What decides which samples a step learns from."""
IDLE = {
    "learning_rate": "say optimizer.rate",
    "weight_decay": "say optimizer.weight_decay",
    "optim": "say optimizer.kind",
    "optim_args": "say [optimizer]",
    "optim_target_modules": "say [optimizer]",
    "adam_beta1": "leave it out",
    "adam_beta2": "leave it out",
    "adam_epsilon": "leave it out",
    "label_smoothing_factor": "leave it out",
}
"""Options of transformers' trainer about what it is given here, optimiser and loss; and what to do in their place."""
NUMBERS: Sequence[tuple[str, Any, int]] = (
    ("max_steps", int, -1),
    ("num_train_epochs", (int, float), 0),
    ("per_device_train_batch_size", int, 1),
    ("per_device_eval_batch_size", int, 1),
    ("gradient_accumulation_steps", int, 1),
)
"""Options of transformers' trainer that it takes whatever they are, with the type and the least value of each."""
MAY_CHANGE = re.compile(
    r"keep_gib|model|guard\..*|evaluation\.(answers|patience)|training\.(max_steps|num_train_epochs"
    r"|per_device_.*_batch_size|gradient_accumulation_steps|gradient_checkpointing.*|(save|eval)_steps"
    r"|save_total_limit|logging_.*|report_to|run_name|dataloader_.*|ddp_.*)"
)
"""What may be another when a run is gone on with: its length, what it tells and keeps, and how work is cut up."""
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
    choice: Choice | None = None
    samples: int = 0
    """Videos or pictures to learn from, and below how many answers there are about them."""
    turns: int = 0
    unusable: int = 0
    """Rows of the sets that cannot be used."""
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
    settle_functions()  # not every stage makes a whole model
    torch.manual_seed(plan.seed)
    processor = start_processor(plan, output) or _new_processor(plan)
    setup = _setup(plan, output, processor, arguments)
    last = last_checkpoint(output) if resume else None
    output.mkdir(parents=True, exist_ok=True)
    _begin(plan, output, arguments, goes_on=last is not None)
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
        watch=Watch(plan.guard, output, _seen(last, arguments)),
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
        shutil.rmtree(output / RECORDS, ignore_errors=True)
    if arguments.world_size > 1:
        torch.distributed.barrier()  # the others must not end the run before it is whole
    return output


def _arguments(plan: Recipe, output: Path) -> TrainingArguments:
    on_cpu = not torch.cuda.is_available()
    if plan.training.get("fsdp"):
        raise RecipeError("[training] fsdp is accelerate's, which trains with DDP on CPUs; say `sharded = true` above")
    for name in plan.training:
        if name in IDLE:
            raise RecipeError(f"[training] {name} has no effect here; {IDLE[name]}")
        if name.startswith("lr_scheduler_") and plan.optimizer.schedule == "original":
            raise RecipeError(
                f'[training] {name} has no effect where optimizer.schedule is "original"; say "trainer" there, or '
                f"leave {name} out"
            )
    if not plan.data and not plan.sources and plan.stage != "vision":
        raise RecipeError("the recipe has neither [[data]] nor [[sources]]: there is nothing to learn from")
    if plan.evaluation.share and not plan.data:
        raise RecipeError("[evaluation] share keeps back samples of [[data]], and this recipe has none; leave it out")
    if plan.optimizer.schedule == "original" and not plan.optimizer.rate:
        raise RecipeError('[optimizer] rate is 0, which schedule = "original" cannot run up to; give a greater one')
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
        "ddp_find_unused_parameters": plan.learn.vision,  # words alone do not pass the tower
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
    for name, kinds, least in NUMBERS:
        if not isinstance(value := getattr(arguments, name), kinds) or value < least:
            raise RecipeError(f"[training] {name} is {value!r}; it must be a number, and at least {least}")
    if "tensorboard" in arguments.report_to and not (find_spec("tensorboard") or find_spec("tensorboardX")):
        raise RecipeError("[training] report_to names tensorboard, which is not there; pip install tensorboard")
    if arguments.n_gpu > 1:  # transformers would cut each batch into pieces, and lines from what they show
        logger.warning("one of %d GPUs is used; torchrun starts a process for each", arguments.n_gpu)
        arguments._n_gpu = 1
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


def _seen(checkpoint: str | None, arguments: TrainingArguments) -> int:
    """How many samples all processes together read before a checkpoint."""
    return 0 if checkpoint is None else int(checkpoint.rpartition("-")[2]) * _samples_a_step(arguments)


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


def _begin(plan: Recipe, output: Path, arguments: TrainingArguments, *, goes_on: bool) -> None:
    """Notes the recipe, and what decides the samples of a step. Raises RecipeError for a run that `goes_on` with
    others: it would learn from some twice and from some never, and nobody would see it."""
    decides = {
        "number of samples in a step": _samples_a_step(arguments),
        "seed": plan.seed,
        "[[data]]": settings_of(plan.data),
        "[[sources]]": [asdict(one) for one in plan.sources],
        "[evaluation] share or most": [plan.evaluation.share, plan.evaluation.most],
    }
    drawn, begun = output / DRAWN, output / BEGUN
    if goes_on and drawn.exists():
        noted = json.loads(drawn.read_text(encoding="utf-8"))
        for name, now in json.loads(json.dumps(decides)).items():
            if (before := noted.get(name, now)) != now:
                told = f", {before} and not {now}" if isinstance(now, int) else ""
                raise RecipeError(
                    f"{output} was begun with another {name}{told}; go on with it as it was begun, or begin anew in "
                    "another folder"
                )
    if goes_on and begun.exists():  # each by itself: another process may be between writing the one and the other
        _check_begun(plan, output)
    if arguments.process_index == 0:
        for note, text in ((drawn, json.dumps(decides, indent=1)), (begun, as_toml(plan))):
            if not (goes_on and note.exists()):
                write_whole(note, text.encode())


def _check_begun(plan: Recipe, output: Path) -> None:
    """Raises RecipeError where a run was begun by a recipe that differs in more than `MAY_CHANGE`: its result would be
    of neither."""
    before, now = _flat(read_recipe(output / BEGUN)), _flat(plan)
    for name in {**before, **now}:
        if before.get(name) != now.get(name) and not MAY_CHANGE.fullmatch(name):
            raise RecipeError(
                f"{output} was begun with another {name}, {before.get(name)} and not {now.get(name)}; go on with it as "
                "it was begun, or begin anew in another folder"
            )


def _flat(plan: Recipe) -> dict[str, Any]:
    """Values of a recipe by their names, without those of `_begin` that are lists."""
    found: dict[str, Any] = {}
    for name, value in asdict(plan).items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        elif name not in ("data", "sources"):
            found[name] = value
    return found


def _listed(plan: Recipe, output: Path, arguments: TrainingArguments) -> Sets:
    """The sets of the run, listed by one of its processes. Raises RecipeError where too many rows cannot be used."""
    folder = output / RECORDS
    if arguments.process_index == 0:
        list_sets(plan.data, folder)
    else:
        wait_for_sets(plan.data, folder)
    found = open_sets(plan.data, folder)
    if found.first is not None:
        if found.flawed > plan.guard.broken * found.rows + TOLERATED:
            raise RecipeError(
                f"{found.flawed} of {found.rows} rows cannot be used, more than guard.broken = {plan.guard.broken:g}; "
                f"the first: {found.first.id}: {found.first.reason}; `minigpt4-video data check` lists them"
            )
        if arguments.process_index == 0:
            logger.warning("%d of %d rows cannot be used; %s lists them", found.flawed, found.rows, output / UNUSABLE)
            tell_unusable(folder, output)
    return found


def _setup_files(plan: Recipe, output: Path, processor: MiniGPT4VideoProcessor, arguments: TrainingArguments) -> Setup:
    found = _listed(plan, output, arguments)
    trained, kept_back = held_out(found.groups, plan.evaluation)
    total, held = sum(map(len, trained)), sum(map(len, kept_back))
    arguments.max_steps = steps_of(arguments, total)
    model = learning(plan, start_model(plan, output), output)
    inner = unwrapped(model)
    # Not for the world's lines: they are short, and the embedded model is repeated bit for bit with whole masks.
    inner.model.language_model.set_attn_implementation(PACKED)
    store = Store(output.parent / KEPT, round(plan.keep_gib * 2**30))
    choice = _settled(output, arguments, lambda: _choice(plan, trained, processor, inner, store, arguments))
    tower = tower_digest(inner.model, f"{arguments.bf16} {arguments.fp16}") if choice.keep == "features" else ""
    shared: dict[str, Any] = {
        "frames": plan.frames, "width": plan.width, "store": store, "keep": choice.keep, "tower": tower,
        "speech": plan.speech,
    }  # fmt: skip
    parts = [part for one, groups in zip(plan.data, trained, strict=True) for part in parts_of(one, groups)]
    mixture = Mixture([part for _, part in parts], plan.seed)
    count = arguments.max_steps * _samples_a_step(arguments)
    dataset = Files([groups for groups, _ in parts], mixture, processor, count=count, **shared)
    held_files = Files(kept_back, None, processor, count=held, **shared) if held else None
    on_cpu = arguments.device.type == "cpu"
    collator = FilesCollator(processor, plan.width, BUCKET if on_cpu else 8)
    sight = Sight(processor, store if choice.keep == "features" else None, plan.learn.vision)
    patience = plan.evaluation.patience
    return Setup(
        model, dataset, collator, sight, held_files, choice, total, sum(groups.records for groups in trained),
        found.flawed, [Patience(patience)] if patience and held_files else [],
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
    sets: Sequence[Listed],
    processor: MiniGPT4VideoProcessor,
    model: Any,
    store: Store,
    arguments: TrainingArguments,
) -> Choice:
    """What is kept of what is read. A run that sees nothing twice keeps nothing unless it is told to."""
    if plan.learn.vision and plan.keep in ("auto", "features"):
        if plan.keep == "features":
            raise RecipeError("keep is features, but learn.vision trains the tower that makes them; keep frames")
        return Choice("frames", "the tower is trained")
    if plan.keep != "auto":
        return Choice(plan.keep, "the recipe says so")
    total = sum(map(len, sets))
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
        samples=setup.samples or len(setup.dataset),
        turns=setup.turns,
        unusable=setup.unusable,
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
