"""What a run will take, counted before anything is loaded: samples, tokens, steps, memory, operations, hours.

Counts are exact where they follow from sizes; what depends on the data or the machine (tokens of texts, activations,
utilisation) is an estimate and called so.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4_video.errors import RecipeError
from minigpt4_video.messages import media_parts, text_of
from minigpt4_video.model.presets import BYTES, PRESETS, Sizes
from minigpt4_video.training.parts import find_part
from minigpt4_video.training.recipe import DataSet, Recipe
from minigpt4_video.training.sets import Listed, list_sets, open_sets

GIB = 2**30
TAGS = 3
"""Tokens of the tag that opens a frame, with Llama's tokenizer; others take as many or fewer."""
FORM = 12
"""Tokens of the chat form around a question."""
TRAINED_BYTES = 4 + 4 + 8
"""Of a trained number: itself, its gradient and AdamW's two moments, all in float32."""
CAST_BYTES = 2
"""Of a trained number beside that: its copy in 16 bits, which autocast holds through a step."""
LAYER_BYTES = 34
"""Of activations for each token, layer and channel that the backward pass needs, in 16 bits, without checkpointing."""
LOGIT_BYTES = 12
"""Of each logit: itself in 16 and in 32 bits, its gradient, and the softmax."""
TOWER_FRAMES = 32
LOOKED_AT = 1000
"""Videos or pictures of a set whose texts are counted, for the average."""


@dataclass(frozen=True)
class Gpu:
    tflops: float
    """Dense, in bfloat16, as the maker states them."""
    gib: float


GPUS = {
    "rtx4090": Gpu(165.0, 24),
    "a100-40": Gpu(312.0, 40),
    "a100": Gpu(312.0, 80),
    "h100": Gpu(989.0, 80),
    "h200": Gpu(989.0, 141),
}


@dataclass(frozen=True)
class Shape:
    """What an average video or picture of the data comes to."""

    frames: int
    prefix: float
    """Tokens of frames, tags and subtitles."""
    turns: float
    turn: float
    """Tokens of a question with its answer."""
    answer: float
    """Of these, learnt ones."""

    @property
    def tokens(self) -> float:
        return self.prefix + self.turns * self.turn


@dataclass(frozen=True)
class Forecast:
    """What a run will take; memory and operations are those of one device and of the whole run."""

    parameters: int
    trained: int
    lora: int
    projection: int
    samples: int
    turns: int
    counted: bool
    """Whether the data was at hand, or its expected size was taken from the recipe."""
    steps: int
    seen: int
    """Videos or pictures over the whole run, repeated ones counted again."""
    tokens: int
    tokens_a_step: int
    weights_gib: float
    state_gib: float
    activations_gib: float
    flops: float
    flops_tower: float
    hours: float
    gpu: str
    devices: int
    utilisation: float
    fits: bool

    @property
    def memory_gib(self) -> float:
        return self.weights_gib + self.state_gib + self.activations_gib

    def lines(self) -> list[str]:
        source = "counted" if self.counted else "expected by the recipe: the files are not at hand"
        fits = "fits" if self.fits else "DOES NOT FIT"
        return [
            f"parameters      {self.parameters:,}",
            f"trained         {self.trained:,} (LoRA {self.lora:,}, projection {self.projection:,})",
            f"samples         {self.samples:,} videos or pictures with {self.turns:,} answers ({source})",
            f"steps           {self.steps:,}, {self.seen / max(self.samples, 1):.2f} times over the data",
            f"tokens          {self.tokens:,}, {self.tokens_a_step:,} a step (estimate)",
            f"memory          {self.memory_gib:.1f} GiB a device (estimate): weights {self.weights_gib:.1f}, gradients "
            f"and optimiser {self.state_gib:.1f}, activations {self.activations_gib:.1f}; {fits} {self.gpu} "
            f"({GPUS[self.gpu].gib:g} GiB)",
            f"operations      {self.flops:.3g} FLOP, {self.flops_tower / self.flops:.0%} of them the vision tower's",
            f"time            {self.hours:.1f} h on {self.devices} x {self.gpu} at {self.utilisation:.0%} of "
            f"{GPUS[self.gpu].tflops:g} TFLOP/s (the utilisation is assumed, not measured)",
        ]


def lora_parameters(text: dict[str, Any], rank: int) -> int:
    """Of LoRA on queries and values of all layers."""
    width, heads = text["hidden_size"], text["num_attention_heads"]
    head = text.get("head_dim") or width // heads
    keys = (text.get("num_key_value_heads") or heads) * head
    return int(text["num_hidden_layers"] * rank * (width + heads * head + width + keys))


def trained_parameters(plan: Recipe, sizes: Sizes) -> int:
    learn = plan.learn
    language = {
        "frozen": 0,
        "lora": lora_parameters(sizes.text_config, learn.lora_rank),
        "full": sizes.text,
    }[learn.language]
    return sizes.projection + language + (sizes.vision if learn.vision else 0)


def shape_of(plan: Recipe, sizes: Sizes, sets: Sequence[Listed] | None) -> tuple[Shape, int, int]:
    """The average sample, weighted as the recipe draws, and how many samples and answers there are."""
    weights = [one.weight for one in plan.data]
    shapes, samples, turns = [], 0, 0
    for number, one in enumerate(plan.data):
        shape, groups = _set_shape(plan, sizes, one, None if sets is None else sets[number])
        shapes.append(shape)
        samples += groups
        turns += round(groups * shape.turns)
    if not samples:
        raise RecipeError("[[data]] tells no expected size, and its files are not at hand: there is nothing to count")

    def mean(name: str) -> float:
        total = sum(weight * getattr(shape, name) for weight, shape in zip(weights, shapes, strict=True))
        return float(total / sum(weights))

    names = ("prefix", "turns", "turn", "answer")
    return Shape(round(mean("frames")), **{name: mean(name) for name in names}), samples, turns


def _set_shape(plan: Recipe, sizes: Sizes, one: DataSet, groups: Listed | None) -> tuple[Shape, int]:
    frames = 1 if plan.stage == "image-text" else plan.frames
    count, turns, turn, answer = one.expected, float(one.expected_turns), float(one.expected_turn_tokens), 0.7
    if groups is not None:
        count, turns = len(groups), float(groups.records)
        some = [record for number in range(min(count, LOOKED_AT)) for record in groups[number].records]
        said = [sum(_tokens(text_of(message)) for message in record.messages) for record in some]
        answers = [_tokens(text_of(record.messages[-1])) for record in some]
        turn = sum(said) / len(some)
        answer = sum(answers) / max(sum(said), 1.0)
        if next(iter(media_parts(some[0].messages)), {"type": "image"})["type"] == "image":
            frames = 1
    subtitles = one.expected_subtitle_tokens if frames > 1 and plan.speech else 0
    prefix = frames * (sizes.tokens_per_frame + TAGS) + subtitles
    shape = Shape(frames, min(prefix, plan.width - turn), turns / max(count, 1), turn + FORM, turn * answer)
    return shape, count


def _tokens(text: str) -> float:
    """About how many a text is: a quarter of its letters, or each of its Chinese ones."""
    return sum(1.0 if letter > "\u2e80" else 0.25 for letter in text)


def tower_flops(sizes: Sizes) -> float:
    """Of one frame, forward."""
    vision = sizes.vision_config
    width, layers = vision["hidden_size"], vision["num_hidden_layers"]
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    linear = layers * (4 * width * width + 2 * width * vision["intermediate_size"])
    patches = 3 * vision["patch_size"] ** 2 * width * (tokens - 1)
    return float(2 * linear * tokens + 2 * patches + layers * 4 * tokens * tokens * width)


def sample_flops(plan: Recipe, sizes: Sizes, shape: Shape) -> float:
    """Of one sample with all its turns behind one prefix, forward and backward, without the tower.

    Frozen weights have no gradient of their own: forward and backward then take the same. Checkpointing computes the
    layers' forward pass once more.
    """
    text = sizes.text_config
    width, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    tables = (1 if text.get("tie_word_embeddings") else 2) * text["vocab_size"] * width
    linear = sizes.text - tables
    queries = heads * (text.get("head_dim") or width // heads)
    pairs = shape.prefix**2 / 2 + shape.turns * (shape.turn * shape.prefix + shape.turn**2 / 2)
    full = plan.learn.language == "full"
    again = 1 if plan.training.get("gradient_checkpointing") else 0
    layer_passes, attention_passes = 2 + again + (1 if full else 0), 3 + again
    lora = lora_parameters(text, plan.learn.lora_rank) * (3 + again) if plan.learn.language == "lora" else 0
    learnt = shape.turns * shape.answer
    return float(
        2 * linear * shape.tokens * layer_passes
        + 2 * lora * shape.tokens
        + 4 * pairs * queries * layers * attention_passes
        + 2 * width * text["vocab_size"] * learnt * (3 if full else 2)
        + 2 * sizes.projection * shape.frames * sizes.tokens_per_frame * 2
    )


def forecast(
    plan: Recipe,
    sizes: Sizes,
    sets: Sequence[Listed] | None,
    *,
    gpu: str = "h200",
    devices: int = 1,
    utilisation: float = 0.4,
) -> Forecast:
    """Raises RecipeError for a GPU that is not in the table and a recipe without a size of its data."""
    if gpu not in GPUS:
        raise RecipeError(f"there is no {gpu} in the table; name one of {', '.join(GPUS)}")
    if devices < 1 or not 0 < utilisation <= 1:
        raise RecipeError("give at least one device, and a utilisation above 0 and up to 1")
    shape, samples, turns = shape_of(plan, sizes, sets)
    settings = plan.training
    local = int(settings.get("per_device_train_batch_size", 8))
    batch = local * int(settings.get("gradient_accumulation_steps", 1)) * devices
    steps = int(settings.get("max_steps", -1))
    if steps <= 0:
        held = min(round(plan.evaluation.share * samples), plan.evaluation.most)
        steps = math.ceil(float(settings.get("num_train_epochs", 3)) * (samples - held) / batch)
    seen = steps * batch
    trained = trained_parameters(plan, sizes)
    once = plan.keep in ("features", "auto") and not plan.learn.vision
    encoded = min(seen, samples) if once else seen
    passes = 1
    if plan.learn.vision:
        passes = 4 if settings.get("gradient_checkpointing") else 3
    flops_tower = encoded * shape.frames * tower_flops(sizes) * passes
    flops = seen * sample_flops(plan, sizes, shape) + flops_tower
    shards = devices if plan.sharded else 1
    tower = 0 if plan.learn.vision else sizes.vision  # a frozen one is held whole by each
    lora = lora_parameters(sizes.text_config, plan.learn.lora_rank) if plan.learn.language == "lora" else 0
    weights = ((sizes.parameters - tower - (trained - lora)) / shards + tower) * BYTES[plan.learn.frozen]
    state = trained * TRAINED_BYTES / shards
    activations = _activations(plan, sizes, shape, local) + trained * CAST_BYTES
    memory = (weights + state + activations) / GIB
    return Forecast(
        parameters=sizes.parameters,
        trained=trained,
        lora=lora,
        projection=sizes.projection,
        samples=samples,
        turns=turns,
        counted=sets is not None,
        steps=steps,
        seen=seen,
        tokens=round(seen * shape.tokens),
        tokens_a_step=round(batch * shape.tokens),
        weights_gib=weights / GIB,
        state_gib=state / GIB,
        activations_gib=activations / GIB,
        flops=flops,
        flops_tower=flops_tower,
        hours=flops / (devices * GPUS[gpu].tflops * 1e12 * utilisation) / 3600,
        gpu=gpu,
        devices=devices,
        utilisation=utilisation,
        fits=memory < GPUS[gpu].gib * 0.95,
    )


def _activations(plan: Recipe, sizes: Sizes, shape: Shape, local: int) -> float:
    """Bytes at the peak of a step: what the layers keep, the largest layer, the mask, logits, and the tower's pass."""
    text, vision = sizes.text_config, sizes.vision_config
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    tokens = local * shape.tokens
    lines = max(1.0, tokens / plan.width)
    each = LAYER_BYTES * width
    kept = tokens * (2 * width * layers + each if plan.training.get("gradient_checkpointing") else each * layers)
    mask = 2 * lines * min(plan.width, shape.tokens if lines <= 1 else plan.width) ** 2
    logits = LOGIT_BYTES * local * shape.turns * shape.answer * text["vocab_size"]
    frames = local * shape.frames if plan.learn.vision else min(TOWER_FRAMES, local * shape.frames)
    patches = frames * (sizes.tokens_per_frame * sizes.merge_size + 1)
    tower = patches * LAYER_BYTES * vision["hidden_size"]
    if plan.learn.vision and not plan.training.get("gradient_checkpointing"):
        tower *= vision["num_hidden_layers"]
    features = 2 * local * shape.frames * sizes.tokens_per_frame * vision["hidden_size"] * sizes.merge_size
    return float(kept + mask + logits + tower + features)


def known_sizes(plan: Recipe, output: Path) -> Sizes:
    """Of the folder that a run starts from, or, where that is not there yet, of the model that the recipe names."""
    if plan.parts.model is not None:
        try:
            folder = find_part(output, plan.parts.model)
        except RecipeError:
            if plan.model is None:
                raise
        else:
            stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return Sizes(stored["vision_config"], stored["text_config"], stored.get("merge_size", 4))
    if plan.model not in PRESETS:
        raise RecipeError(f"model is {plan.model}; to be counted with it must be one of {', '.join(PRESETS)}")
    return PRESETS[plan.model].sizes()


def plan_run(plan: Recipe, output: Path, **options: Any) -> Forecast:
    """The forecast of a recipe, with the data where it is at hand; `options` are those of `forecast`."""
    if not plan.data:
        raise RecipeError("the recipe has no [[data]]; --plan counts runs over data sets on disk")
    sizes = known_sizes(plan, output)
    if not all(Path(one.path).exists() for one in plan.data):
        return forecast(plan, sizes, None, **options)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "records"
        list_sets(plan.data, place)
        return forecast(plan, sizes, open_sets(plan.data, place).groups, **options)
