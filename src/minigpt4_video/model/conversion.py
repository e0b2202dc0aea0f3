"""Original checkpoints to a folder that `from_pretrained` loads.

The original keeps three things apart: the base language model, EVA-CLIP's `eva_vit_g.pth`, and a small `.pth` with LoRA
matrices and the projection. Its loader dropped what did not match without a word; this one counts everything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Blip2VisionConfig, GenerationConfig

from minigpt4_video.errors import CheckpointError
from minigpt4_video.model.chat_templates import CHATML_TEMPLATES, INSTRUCTION_TEMPLATES
from minigpt4_video.model.configuration import MiniGPT4VideoConfig
from minigpt4_video.model.modeling import MiniGPT4VideoForConditionalGeneration
from minigpt4_video.model.presets import settings_for
from minigpt4_video.model.processing import MiniGPT4VideoProcessor
from minigpt4_video.model.tokenization import TOKENIZER_FILE, check_sentencepiece, load_tokenizer

RECORD = "conversion.json"
"""The file in the output that says what was made of what."""

LORA_KEY = re.compile(
    r"^(?:llama_model\.)?base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$"
)
PROJECTION_KEYS = ("llama_proj.weight", "llama_proj.bias")
DEFAULT_ALPHA = 16.0
"""Every configuration of the original has it, so a checkpoint without its configuration is taken to have it too."""
DEFAULT_DROPOUT = 0.05

EVA_BLOCKS = 40
"""Blocks in the published `eva_vit_g.pth`; the original builds one fewer and lets the last one go."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Lora:
    """Low-rank additions to a language model: for each module name, A (rank, in) and B (out, rank)."""

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    rank: int
    alpha: float
    dropout: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def delta(self, module: str) -> torch.Tensor:
        """What is added to the module's weight, (out, in), in float32."""
        a, b = self.pairs[module]
        return self.scale * (b.float() @ a.float())

    @property
    def norm(self) -> float:
        """Frobenius norm of all additions together; 0 for an untrained adapter."""
        return math.sqrt(sum(float(self.delta(module).square().sum()) for module in self.pairs))


@dataclass(frozen=True)
class Conversion:
    """What a conversion used, and what it left."""

    lora_keys: int
    lora_rank: int
    lora_alpha: float
    lora_norm: float
    adapter: str
    projection_keys: int
    projection_shape: tuple[int, int]
    projection_mean: float
    projection_std: float
    vision_keys: int
    vision_blocks: int
    vision_heads: int
    language_keys: int
    unused_checkpoint_keys: tuple[str, ...]
    unused_vision_keys: tuple[str, ...]
    dtype: str
    bytes: int
    """Of the weights, which is about what loading them takes."""

    def lines(self) -> list[str]:
        """The report as lines to print."""

        def left(keys: tuple[str, ...]) -> str:
            return f"{len(keys)} ({', '.join(_shortened(keys))})" if keys else "0"

        return [
            f"LoRA keys used        {self.lora_keys}, rank {self.lora_rank}, alpha {self.lora_alpha:g}, {self.adapter}",
            f"LoRA norm             {self.lora_norm:.6g}",
            f"projection keys used  {self.projection_keys} {self.projection_shape[0]} x {self.projection_shape[1]}, "
            f"mean {self.projection_mean:.3g}, deviation {self.projection_std:.3g}",
            f"vision keys used      {self.vision_keys} ({self.vision_blocks} blocks, {self.vision_heads} heads)",
            f"language keys used    {self.language_keys}",
            f"checkpoint keys left  {left(self.unused_checkpoint_keys)}",
            f"vision keys left      {left(self.unused_vision_keys)}",
            f"weights               {self.bytes / 2**30:.2f} GiB in {self.dtype}",
        ]


@dataclass(frozen=True)
class Verification:
    """What an owner of the released checkpoints compares: is the adapter in, and does it help?"""

    parameters: int
    bytes: int
    loss: float
    """Of the expected answer on the clip, as converted."""
    loss_without_lora: float
    lora_norm: float
    projection_std: float

    def lines(self) -> list[str]:
        return [
            f"parameters            {self.parameters:,}",
            f"memory for weights    {self.bytes / 2**30:.2f} GiB",
            f"LoRA norm             {self.lora_norm:.6g}",
            f"projection deviation  {self.projection_std:.3g}",
            f"loss with LoRA        {self.loss:.4f}",
            f"loss without LoRA     {self.loss_without_lora:.4f}",
        ]


def convert(
    official_checkpoint: str | Path,
    language_model: str | Path,
    vision: str | Path,
    output: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    adapter: Literal["merge", "keep"] = "merge",
    vision_heads: int | None = None,
) -> Conversion:
    """Writes `output`, a folder for `from_pretrained`, and says what went into it.

    `official_checkpoint` is the original's `.pth`, `language_model` the folder of the base model it was trained on, and
    `vision` is `eva_vit_g.pth`. `dtype` is "float32", "float16", "bfloat16", or "auto" for the base model's own.
    With `adapter="keep"` the base stays as it is and the LoRA matrices go to `output/adapter`, for
    `peft.PeftModel.from_pretrained(model, output / "adapter")`. `vision_heads` is needed only for a tower that is not
    EVA-CLIP ViT-g, since a state dict does not tell.

    Raises CheckpointError, with the numbers, when no LoRA or no projection key matches, or shapes are those of another
    language model; then nothing is written.
    """
    folder, target = Path(language_model), Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not empty; name another output folder")
    _check_writable(target)
    if adapter == "keep" and find_spec("peft") is None:
        raise CheckpointError('keeping LoRA apart needs peft; pip install "minigpt4-video[train]"')
    if (folder / TOKENIZER_FILE).is_file():
        check_sentencepiece()
    wanted = _dtype(dtype)
    checkpoint = read_checkpoint(official_checkpoint)
    lora, projection, left = checkpoint.lora, checkpoint.projection, checkpoint.unused
    tower = read_vision(Path(vision))
    vision_config, vision_state, vision_left = convert_vision(tower, Path(vision), heads=vision_heads)
    text_config, language = _language_model(folder, wanted)
    kind: torch.dtype = language.dtype
    _check_fit(lora, projection, language, text_config, vision_config, Path(official_checkpoint), folder)

    config = MiniGPT4VideoConfig(vision_config=vision_config, text_config=text_config)
    config.dtype = kind
    prefix = f"{language.base_model_prefix}."
    state: Tensors = {}
    for name, tensor in language.state_dict().items():
        module = name.removesuffix(".weight")
        if adapter == "merge" and name.endswith(".weight") and module in lora.pairs:
            tensor = (tensor.float() + lora.delta(module)).to(kind)
        if name.startswith(prefix):
            state[f"model.language_model.{name.removeprefix(prefix)}"] = tensor.to(kind)
        elif name == "lm_head.weight":
            if not config.tie_word_embeddings:
                state[name] = tensor.to(kind)
        else:
            raise CheckpointError(
                f"{folder} has the weight {name}, which has no place here; use a model with an lm_head"
            )
    language_keys = len(state)
    state |= {f"model.vision_tower.{name}": tensor.to(kind) for name, tensor in vision_state.items()}
    state["model.multi_modal_projector.linear.weight"] = projection["llama_proj.weight"].to(kind)
    state["model.multi_modal_projector.linear.bias"] = projection["llama_proj.bias"].to(kind)

    with torch.device("meta"):
        model = MiniGPT4VideoForConditionalGeneration(config)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:  # a line for each weight of another shape
        reason = str(error).split("\n\t")[-1].strip()
        raise CheckpointError(f"the three files do not fit each other ({reason}); check that each is whole") from error
    missing = [name for name in missing if name != "lm_head.weight" or not config.tie_word_embeddings]
    if missing or unexpected:
        raise CheckpointError(
            f"{len(missing)} weights are missing ({', '.join(_shortened(missing))}) and {len(unexpected)} have no "
            f"place ({', '.join(_shortened(unexpected))}); check that {folder} is a whole model"
        )
    if config.tie_word_embeddings:
        model.tie_weights()

    weight = projection["llama_proj.weight"].float()
    report = Conversion(
        lora_keys=2 * len(lora.pairs),
        lora_rank=lora.rank,
        lora_alpha=lora.alpha,
        lora_norm=lora.norm,
        adapter="merged" if adapter == "merge" else "kept apart",
        projection_keys=len(projection),
        projection_shape=(weight.shape[0], weight.shape[1]),
        projection_mean=float(weight.mean()),
        projection_std=float(weight.std()),
        vision_keys=len(tower) - len(vision_left),
        vision_blocks=vision_config.num_hidden_layers,
        vision_heads=vision_config.num_attention_heads,
        language_keys=language_keys,
        unused_checkpoint_keys=left,
        unused_vision_keys=vision_left,
        dtype=str(kind).removeprefix("torch."),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    )
    processor = processor_for(config, folder)
    model.generation_config = _generation_config(
        language.generation_config, processor.tokenizer, processor.answer_reserve
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
        if adapter == "keep":
            _save_adapter(lora, aside / "adapter", prefix)
        (aside / RECORD).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        aside.chmod(0o755)  # mkdtemp makes it private
        if target.exists():
            target.rmdir()
        aside.rename(target)
    except BaseException:  # also when interrupted: nothing half-written stays
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return report


def processor_for(config: MiniGPT4VideoConfig, language_model: Path) -> MiniGPT4VideoProcessor:
    """The processor of a model whose language model's tokenizer is in this folder, with its kind's chat form."""
    settings = settings_for(config.text_config)
    vision_config: Any = config.vision_config
    return MiniGPT4VideoProcessor(
        load_tokenizer(language_model),
        chat_template=dict(CHATML_TEMPLATES if settings.chat == "chatml" else INSTRUCTION_TEMPLATES),
        image_token_id=config.image_token_id,
        tokens_per_frame=config.tokens_per_frame,
        image_size=vision_config.image_size,
        frames=settings.frames,
        window=settings.window,
        answer_reserve=settings.answer_reserve,
    )


@dataclass(frozen=True)
class Official:
    """An original checkpoint, taken apart."""

    lora: Lora
    projection: Tensors
    unused: tuple[str, ...]


def read_checkpoint(path: str | Path) -> Official:
    """LoRA and projection of an original `.pth`, under any of its spellings.

    Accepts peft 0.2.0's keys, those with `.default.` of later ones, and a leading `module.`. Raises CheckpointError
    when it holds no LoRA, no projection, or half of a pair.
    """
    place = Path(path)
    loaded = _load(place, "a checkpoint", nested=True)
    weights, config = loaded.get("model", loaded), loaded.get("config")
    if not isinstance(weights, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise CheckpointError(f'{place} holds no state dict under "model"; give the .pth that the original saved')
    sides: dict[str, dict[str, torch.Tensor]] = {}
    projection: Tensors = {}
    unused: list[str] = []
    for key, tensor in weights.items():
        name = re.sub(r"^(module\.)+", "", key)
        if match := LORA_KEY.match(name):
            sides.setdefault(match["module"], {})[match["side"]] = tensor
        elif name in PROJECTION_KEYS:
            projection[name] = tensor
        else:
            unused.append(key)
    if not sides or len(projection) != len(PROJECTION_KEYS):
        raise CheckpointError(
            f"{place} has {len(weights)} keys, of which {len(sides)} modules with LoRA and {len(projection)} of the "
            f"{len(PROJECTION_KEYS)} projection keys match ({', '.join(_shortened(unused)) or 'none'} are left); "
            "give a checkpoint of MiniGPT4-Video"
        )
    halves = [module for module, pair in sides.items() if len(pair) != 2]
    if halves:
        raise CheckpointError(f"{place} has only one of the two LoRA matrices of {', '.join(_shortened(halves))}")
    flat = [module for module, pair in sides.items() if any(side.ndim != 2 for side in pair.values())]
    if flat:
        raise CheckpointError(f"{place} has LoRA that are no matrices in {', '.join(_shortened(flat))}")
    pairs = {module: (pair["A"], pair["B"]) for module, pair in sides.items()}
    ranks = {a.shape[0] for a, _ in pairs.values()} | {b.shape[1] for _, b in pairs.values()}
    if len(ranks) != 1:
        raise CheckpointError(f"{place} mixes LoRA ranks {sorted(ranks)}; one rank is expected")
    settings = config.get("model") if isinstance(config, Mapping) else None
    settings = settings if isinstance(settings, Mapping) else {}
    try:
        alpha = float(settings.get("lora_alpha", DEFAULT_ALPHA))
        dropout = float(settings.get("lora_dropout", DEFAULT_DROPOUT))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{place} has a lora_alpha or lora_dropout that is no number") from error
    return Official(Lora(pairs, ranks.pop(), alpha, dropout), projection, tuple(unused))


def read_vision(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of `eva_vit_g.pth`. Raises CheckpointError."""
    return _load(path, "a vision file")


def convert_vision(
    tower: Mapping[str, torch.Tensor], place: Path, *, heads: int | None = None
) -> tuple[Blip2VisionConfig, Tensors, tuple[str, ...]]:
    """EVA-CLIP's keys to `Blip2VisionModel`'s: its configuration, its weights, and the keys that are left.

    The last block is dropped, as the original does with the published file, and the layer norm after the tower is the
    identity, since nothing loads or trains it.
    """
    blocks = sorted({int(key.split(".")[1]) for key in tower if re.match(r"blocks\.\d+\.", key)})
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    absent = [key for key in needed if key not in tower]
    if absent or len(blocks) < 2:
        raise CheckpointError(
            f"{place} has {len(tower)} keys and {len(blocks)} blocks, without {', '.join(absent) or 'enough blocks'}; "
            "give EVA-CLIP's eva_vit_g.pth"
        )
    shapes = tower["patch_embed.proj.weight"].shape, tower["pos_embed"].shape
    if [len(shape) for shape in shapes] != [4, 3]:
        raise CheckpointError(
            f"{place} has patches and positions of the shapes {shapes}; give EVA-CLIP's eva_vit_g.pth"
        )
    used = len(blocks) if len(blocks) == EVA_BLOCKS - 1 else len(blocks) - 1
    width, _, patch, _ = tower["patch_embed.proj.weight"].shape
    side = math.isqrt(tower["pos_embed"].shape[1] - 1)
    state: Tensors = {
        "embeddings.class_embedding": tower["cls_token"],
        "embeddings.position_embedding": tower["pos_embed"],
        "embeddings.patch_embedding.weight": tower["patch_embed.proj.weight"],
        "embeddings.patch_embedding.bias": tower["patch_embed.proj.bias"],
        "post_layernorm.weight": torch.ones(width),
        "post_layernorm.bias": torch.zeros(width),
    }
    taken = set(needed)
    names = {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.proj": "self_attn.projection",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    try:
        for block in blocks[:used]:
            old, new = f"blocks.{block}", f"encoder.layers.{block}"
            for theirs, ours in names.items():
                for part in ("weight", "bias"):
                    state[f"{new}.{ours}.{part}"] = tower[f"{old}.{theirs}.{part}"]
                    taken.add(f"{old}.{theirs}.{part}")
            query, value = tower[f"{old}.attn.q_bias"], tower[f"{old}.attn.v_bias"]
            state[f"{new}.self_attn.qkv.weight"] = tower[f"{old}.attn.qkv.weight"]
            state[f"{new}.self_attn.qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
            taken |= {f"{old}.attn.q_bias", f"{old}.attn.v_bias", f"{old}.attn.qkv.weight"}
    except KeyError as error:
        raise CheckpointError(f"{place} lacks {error}; give EVA-CLIP's eva_vit_g.pth") from error
    config = Blip2VisionConfig(
        hidden_size=width,
        intermediate_size=tower["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=used,
        num_attention_heads=_heads(width, heads),
        image_size=side * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
        qkv_bias=True,
    )
    return config, state, tuple(key for key in tower if key not in taken)


def verify(
    folder: str | Path,
    official_checkpoint: str | Path,
    clip: str | Path,
    *,
    subtitles: str | Path | None = None,
    question: str = "Describe this video.",
    answer: str,
    device: str = "cpu",
) -> Verification:
    """The loss of `answer` on a clip, as converted and with the LoRA additions taken out.

    An adapter that arrived makes a known description likelier, so the first loss should be clearly the smaller one.
    """
    from minigpt4_video.messages import question as ask

    official = read_checkpoint(official_checkpoint)
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(folder, dtype="auto").to(device).eval()
    processor = MiniGPT4VideoProcessor.from_pretrained(folder)
    prepared = processor.prepare(ask(str(clip), question, subtitles=str(subtitles) if subtitles else "off"))
    inputs = processor(text=prepared.text, images=[list(prepared.frames)], answers=[answer], return_tensors="pt").to(
        device
    )
    record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    if record["adapter"] != "merged":
        _add(model, official.lora, 1.0)
    with torch.inference_mode():
        loss = float(model(**inputs).loss)
        _add(model, official.lora, -1.0)
        bare = float(model(**inputs).loss)
    weights = list(model.parameters())
    return Verification(
        parameters=sum(weight.numel() for weight in weights),
        bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        loss=loss,
        loss_without_lora=bare,
        lora_norm=official.lora.norm,
        projection_std=float(official.projection["llama_proj.weight"].float().std()),
    )


def _add(model: MiniGPT4VideoForConditionalGeneration, lora: Lora, sign: float) -> None:
    language = model.model.language_model
    for module in lora.pairs:
        weight = language.get_submodule(module.split(".", 1)[1]).weight
        weight.data.copy_((weight.data.float() + sign * lora.delta(module).to(weight.device)).to(weight.dtype))


def _load(path: Path, what: str, *, nested: bool = False) -> dict[str, Any]:
    """A `.pth` without running code from it: tensors and plain containers only."""
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; give {what}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            try:
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files in torch's old format cannot be mapped
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path} cannot be read as {what} ({reason}); it must hold tensors only") from error
    if isinstance(loaded, Mapping) and not nested and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path} holds {type(loaded).__name__}, not a state dict; give {what}")
    return dict(loaded)


def _language_model(folder: Path, dtype: torch.dtype | Literal["auto"]) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a language model's folder (no config.json); give the base model")
    try:
        config = AutoConfig.from_pretrained(folder)
        language, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{folder} cannot be loaded as a language model ({reason})") from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise CheckpointError(f"{folder} lacks {len(absent)} weights ({', '.join(_shortened(absent))}); copy it whole")
    return config, language


def _check_fit(
    lora: Lora,
    projection: Tensors,
    language: Any,
    text_config: Any,
    vision_config: Blip2VisionConfig,
    checkpoint: Path,
    folder: Path,
) -> None:
    """Raises CheckpointError unless every matrix has its place in this very language model."""
    modules = {
        name.removesuffix(".weight"): tensor
        for name, tensor in language.state_dict().items()
        if name.endswith(".weight") and tensor.ndim == 2
    }
    wrong = []
    for module, (a, b) in lora.pairs.items():
        if module not in modules:
            wrong.append(f"{module} is not there")
        elif modules[module].shape != (b.shape[0], a.shape[1]):
            wrong.append(f"{module} is {_by(modules[module].shape)}, LoRA {_by((b.shape[0], a.shape[1]))}")
    targets = {module.rsplit(".", 1)[-1] for module in lora.pairs}
    without = [module for module in modules if module.rsplit(".", 1)[-1] in targets and module not in lora.pairs]
    wrong += [f"{module} has no LoRA" for module in without]
    if wrong:
        raise CheckpointError(
            f"{checkpoint} was trained on another language model than {folder}: {len(lora.pairs)} LoRA pairs, "
            f"{len(wrong)} misfits ({'; '.join(wrong[:3])}); give the base it was trained on"
        )
    expected = (text_config.hidden_size, 4 * vision_config.hidden_size)
    found = tuple(projection["llama_proj.weight"].shape)
    if found != expected:
        raise CheckpointError(
            f"{checkpoint} projects {_by(found)}, but {folder} and the vision file need {_by(expected)} "
            "(language width x 4 vision widths); give the files it was trained with"
        )


def _save_adapter(lora: Lora, folder: Path, prefix: str) -> None:
    from peft import LoraConfig

    folder.mkdir()
    names = sorted({module.rsplit(".", 1)[-1] for module in lora.pairs})
    LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf".*language_model.*\.({'|'.join(names)})",
    ).save_pretrained(folder)
    tensors = {
        f"base_model.model.model.language_model.{module.removeprefix(prefix)}.lora_{side}.weight": tensor.contiguous()
        for module, pair in lora.pairs.items()
        for side, tensor in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors")


def _generation_config(base: GenerationConfig, tokenizer: Any, answer: int) -> GenerationConfig:
    """Greedy with the original's penalty on repeated words; the base's end and padding tokens."""
    end = base.eos_token_id if base.eos_token_id is not None else tokenizer.eos_token_id
    first_end = end[0] if isinstance(end, list) else end
    return GenerationConfig(
        bos_token_id=base.bos_token_id if base.bos_token_id is not None else tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=base.pad_token_id if base.pad_token_id is not None else first_end,
        repetition_penalty=1.5,
        max_new_tokens=answer,
    )


def _heads(width: int, named: int | None) -> int:
    """As named, else 88 channels a head as in ViT-g (1408 wide, 16 heads), or 16 as in miniature towers."""
    if named is not None:
        if named < 1 or width % named:
            raise CheckpointError(f"a vision tower {width} wide cannot have {named} heads; give a divisor of {width}")
        return named
    size = 88 if width % 88 == 0 else 16
    if width % size:
        raise CheckpointError(f"a vision tower {width} wide does not tell its heads; name them (--vision-heads)")
    return width // size


def _check_writable(folder: Path) -> None:
    """Refuse a place where the new folder cannot be made, before the work. Raises CheckpointError."""
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CheckpointError(f"{folder} cannot be written: {above} is no folder to write in; name another output")


def _dtype(dtype: str | torch.dtype) -> torch.dtype | Literal["auto"]:
    kinds: dict[str, torch.dtype | Literal["auto"]] = {
        "auto": "auto",
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in kinds:
        raise CheckpointError(f"the dtype {dtype!r} is not known; use {', '.join(kinds)}")
    return kinds[dtype]


def _by(shape: Any) -> str:
    return " x ".join(str(int(size)) for size in shape)


def _shortened(keys: Any, most: int = 4) -> list[str]:
    """Key names with their layer numbers left open, each once, at most `most` and how many more."""
    names = list(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", key) for key in keys))
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more kinds"]
