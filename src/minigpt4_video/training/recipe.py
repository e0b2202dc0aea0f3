"""A run as a file: TOML to a frozen record. An unknown key is an error that names its place."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from minigpt4_video.data.world.language import Kind
from minigpt4_video.errors import RecipeError

Stage = Literal["vision", "language", "image-text", "video-text", "video-qa"]


@dataclass(frozen=True)
class Source:
    """Where samples come from."""

    kind: Literal["videos", "pictures", "dialogues"]
    """`videos`: eight frames with subtitles and turns. `pictures`: single frames with captions and questions.
    `dialogues`: single frames over which several people speak."""
    weight: float = 1.0
    """How often this source is drawn from, relative to the others."""
    questions: int = 0
    """At most so many questions a video, or a picture and language."""
    captions: int = 0
    """So many captions a video, or languages a picture is captioned in."""
    first: int = 0
    """Number of the first scene."""
    things: int | None = None
    """So many things in each scene, else one to three."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds of question about videos, several of which then share a line; none for all kinds."""
    since: int = 0
    """Drawn from this line on: what is hard may wait until what is easy has been learnt."""


@dataclass(frozen=True)
class DataSet:
    """A data set on disk, in one of the formats that `minigpt4-video data list` shows. Paths are as the command line
    takes them."""

    format: str
    path: str
    """Its annotations, or its folder."""
    media: str | None = None
    """The folder of its videos or pictures."""
    texts: str | None = None
    """A table of captions, for a set without any."""
    subtitles: str | None = None
    """A folder of subtitle files, where they are not beside the videos."""
    weight: float = 1.0
    """How often it is drawn from, relative to the others."""
    languages: Mapping[str, float] = field(default_factory=dict)
    """How often each language of it is drawn, relative to the others, as `{ en = 3, zh = 1 }`; what is not named is
    left out. Empty for all alike."""
    rows: int = 0
    """Only the first so many rows of it; 0 for all."""
    expected: int = 0
    """How many videos or pictures, then questions or captions: what `--plan` counts with where the files are not at
    hand."""
    expected_turns: int = 0
    expected_turn_tokens: int = 50
    """Of a question and its answer together."""
    expected_subtitle_tokens: int = 0
    """Of a video."""


@dataclass(frozen=True)
class Evaluation:
    """What is kept back from training, to see how it goes. How often is `training.eval_steps`."""

    share: float = 0.0
    """Of the videos or pictures; 0 for none."""
    most: int = 200
    """About so many."""
    answers: int = 4
    """So many of the held-out questions are answered each time, and written beside what should have been said."""
    patience: int = 0
    """Stop after so many evaluations without a better loss; 0 for never."""


@dataclass(frozen=True)
class Guard:
    """When a run stops by itself."""

    spike: float = 0.0
    """A loss so many times the median of the last 32 stops the run; 0 for none. One that is no number always does."""
    broken: float = 0.05
    """Share of samples that may be unusable, beyond the first three."""


@dataclass(frozen=True)
class Parts:
    """Where a model's parts come from: folders, relative to the folder above the run's output, or else as they are."""

    model: str | None = None
    """A whole model of an earlier stage, or a known one by name; the other two are for a model put together from
    pretrained parts."""
    vision: str | None = None
    """A folder, or EVA-CLIP's `eva_vit_g.pth`."""
    language: str | None = None


@dataclass(frozen=True)
class Learn:
    """What is trained. The projection always is, in the three stages."""

    language: Literal["frozen", "lora", "full"] = "lora"
    vision: bool = False
    lora_rank: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    adapter: Literal["merged", "separate"] = "merged"
    """Whether LoRA is added to the weights that are saved, or lies beside them in `adapter`."""
    frozen: Literal["float32", "bfloat16"] = "float32"
    """Number type of the weights that are not trained."""


@dataclass(frozen=True)
class Optimizer:
    kind: Literal["adamw", "muon"] = "adamw"
    rate: float = 1e-4
    """Of AdamW; of embeddings, output layers, norms and biases where matrices are Muon's."""
    matrix_rate: float = 0.02
    """Of Muon's matrices."""
    weight_decay: float = 0.05
    schedule: Literal["trainer", "original"] = "trainer"
    """`trainer`: what `training.lr_scheduler_type` says. `original`: from `start` up to `rate` in
    `training.warmup_steps`, then a cosine down to `floor` that counts from the first step."""
    start: float = 1e-6
    floor: float = 8e-5


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    stage: Stage
    seed: int = 42
    width: int = 512
    """Tokens in a packed line."""
    frames: int = 8
    speech: bool = True
    """Whether videos are shown with their subtitles, and asked about them."""
    vocabulary: int = 1000
    """Tokens of the tokenizer that a language model is pretrained with."""
    parts: Parts = Parts()
    learn: Learn = Learn()
    optimizer: Optimizer = Optimizer()
    sources: tuple[Source, ...] = ()
    """Of the world; or else:"""
    data: tuple[DataSet, ...] = ()
    model: str | None = None
    """Which of the known models it is for: its sizes are what `--plan` counts with."""
    spread: float = 0.0
    """Share of the weight of a colour or shape of the world that goes to all colours or shapes alike; see `spread`."""
    keep: Literal["auto", "features", "frames", "nothing"] = "auto"
    """What is kept on disk of videos and pictures once they were read; `auto` measures what pays."""
    keep_gib: float = 100.0
    """How much of the disk that may take, in `kept` beside the run."""
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    sharded: bool = False
    """Whether the processes of a run hold a share of the weights, gradients and optimiser each (FSDP2), and not all of
    them (DDP)."""
    vision: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of a tower made from nothing, as `Blip2VisionConfig` takes them."""
    language: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of a language model made from nothing, as `LlamaConfig` takes them."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Handed as it is to `transformers.TrainingArguments`."""


RANGES: Mapping[type, Mapping[str, tuple[float, float]]] = {
    Recipe: {
        "width": (1, inf), "frames": (1, inf), "vocabulary": (1, inf), "spread": (0, 1), "keep_gib": (0, inf),
    },
    Source: {"weight": (0, inf), "questions": (0, inf), "captions": (0, inf), "first": (0, inf), "since": (0, inf)},
    DataSet: {"weight": (0, inf), "rows": (0, inf)},
    Evaluation: {"share": (0, 1), "most": (1, inf), "answers": (0, inf), "patience": (0, inf)},
    Guard: {"spike": (0, inf), "broken": (0, 1)},
    Learn: {"lora_rank": (1, inf), "lora_alpha": (1, inf), "lora_dropout": (0, 1)},
    Optimizer: dict.fromkeys(("rate", "matrix_rate", "weight_decay", "start", "floor"), (0, inf)),
}  # fmt: skip
"""Least and greatest values."""


def shipped() -> list[str]:
    """Names of the recipes in the package, as `tiny/stage3`."""
    root = resources.files("minigpt4_video") / "recipes"
    with resources.as_file(root) as folder:
        return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.toml"))


def read_recipe(name: str | Path, overrides: Mapping[str, str] | None = None, variant: str | None = None) -> Recipe:
    """The recipe in a file, or a shipped one by name; `variant` is one of those that it describes under `[variants]`.

    With `base`, a shipped recipe or a file beside this one, it starts from all that stands there, and what it says
    itself goes before: tables key by key, arrays whole. `overrides` are `key=value` or `table.key=value`, values as in
    TOML; they have the last word.
    """
    table, place = _table(name)
    variants = table.pop("variants", {})
    if variant is not None:
        if variant not in variants:
            raise RecipeError(f"{place} has no variant {variant}; it has {', '.join(variants) or 'none'}")
        table = _merged(table, variants[variant])
    for key, value in (overrides or {}).items():
        _set(table, key, value)
    recipe = _record(Recipe, table, place)
    assert isinstance(recipe, Recipe)
    return recipe


def _table(name: str | Path, above: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    """What a recipe says, with its base below it, and what to call it. Both are checked, so that a mistake is named
    with the file it is in, and one in a variant before it is chosen."""
    path = Path(name)
    if path.is_file():
        try:
            text, place = path.read_text(encoding="utf-8"), path.name
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} cannot be read as a text in UTF-8: {error}") from error
    elif str(name) in shipped():
        text = (resources.files("minigpt4_video") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        place = f"{name}.toml"
    else:
        raise RecipeError(f"there is no recipe {name}: give a .toml file or one of {', '.join(shipped())}")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{place} is not valid TOML: {error}") from error
    base = table.pop("base", None)
    if base is not None:
        beside = path.parent / str(base)
        below = str(beside) if beside.is_file() else str(base)
        if below in above:
            raise RecipeError(f"{place}: base comes back to {base}, which starts from it")
        table = _merged(_table(below, (*above, str(name)))[0], table)
    variants = table.get("variants", {})
    if not isinstance(variants, dict):
        raise RecipeError(f"{place}: variants must be a table")
    plain = {key: value for key, value in table.items() if key != "variants"}
    _record(Recipe, plain, place)
    for key, changes in variants.items():
        if not isinstance(changes, dict):
            raise RecipeError(f"{place}: variants.{key} must be a table")
        _record(Recipe, _merged(plain, changes), f"{place}: variants.{key}")
    return table, place


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the changes in it, key by key."""
    merged = dict(table)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def _set(table: dict[str, Any], key: str, value: str) -> None:
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *tables, last = key.split(".")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {key}: {name} is not a table")
    table[last] = parsed


def _record(kind: type, table: Mapping[str, Any], place: str) -> Any:
    """A dataclass from a table, checking names and types all the way down."""
    hints = get_type_hints(kind)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise RecipeError(f"{place}: unknown {unknown[0]}; it takes {', '.join(sorted(hints))}")
    missing = [
        f.name for f in dataclasses.fields(kind)
        if f.name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise RecipeError(f"{place}: {missing[0]} is missing")
    values = {name: _value(hints[name], value, f"{place}: {name}") for name, value in table.items()}
    for name, (least, most) in RANGES.get(kind, {}).items():
        if name in values and not least <= values[name] <= most:
            bounds = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
            raise RecipeError(f"{place}: {name} is {values[name]!r}; it must be {bounds}")
    return kind(**values)


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{place} must be a table")
        return _record(hint, value, place)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{place} is {value!r}; it can be {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{place} must be an array of tables")
        return tuple(_value(arguments[0], one, f"{place}[{index}]") for index, one in enumerate(value))
    if origin is Mapping or hint is Mapping:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{place} must be a table")
        return {key: _value(arguments[1], one, f"{place}.{key}") for key, one in value.items()}
    allowed = arguments or (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in allowed)
        raise RecipeError(f"{place} is {value!r}; it must be {names}")
    return value


def as_toml(recipe: Recipe) -> str:
    """The recipe with every value in force, readable by `read_recipe`."""
    plain: list[str] = []
    tables: list[str] = []
    for name, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *(f"{key} = {_toml(one)}" for key, one in value.items() if one is not None)]
        elif name in ("sources", "data"):
            for source in value:
                tables += [
                    "",
                    f"[[{name}]]",
                    *(f"{key} = {_toml(one)}" for key, one in source.items() if one is not None),
                ]
        elif value is not None:
            plain.append(f"{name} = {_toml(value)}")
    return "\n".join(plain + tables) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return repr(value)
