"""A model folder back to a checkpoint of the original's form, for those who go on with the original's code."""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from minigpt4_video.errors import CheckpointError

ADAPTER_KEY = re.compile(
    r"base_model\.model\.model\.language_model\.(?P<module>layers\..+)\.lora_(?P<side>[AB])\.weight"
)
PROJECTION = "model.multi_modal_projector.linear."


@dataclass(frozen=True)
class Exported:
    lora_keys: int
    rank: int
    alpha: float
    projection_shape: tuple[int, int]
    bytes: int
    """Of the file."""

    def lines(self) -> list[str]:
        height, width = self.projection_shape
        return [
            f"LoRA keys             {self.lora_keys}, rank {self.rank}, alpha {self.alpha:g}",
            f"projection            {height} x {width}",
            f"size                  {self.bytes / 2**20:.1f} MiB",
        ]


def export(folder: str | Path, output: str | Path) -> Exported:
    """Writes LoRA and projection of a model folder to a `.pth` with the keys of the original's (peft 0.2.0's names,
    `llama_proj`), in float32.

    The base model and the tower are not part of such a file: the original reads them from their own places, so they
    must be the ones that training started from. Raises CheckpointError for a folder whose LoRA is merged or whose tower
    was trained.
    """
    source, target = Path(folder), Path(output)
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source} is no model folder: it has no config.json")
    if target.exists():
        raise CheckpointError(f"{target} exists; name another file")
    adapter = source / "adapter"
    if not adapter.is_dir():
        raise CheckpointError(
            f"{source} has no LoRA apart from its weights, which is all that the original's checkpoints hold; train "
            'with learn.adapter = "separate", or convert with --adapter keep'
        )
    recipe = source / "recipe.toml"
    if recipe.is_file() and tomllib.loads(recipe.read_text(encoding="utf-8")).get("learn", {}).get("vision"):
        raise CheckpointError(f"the vision tower of {source} was trained, and the original's checkpoints hold none")
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    state: dict[str, torch.Tensor] = {}
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        for key in sorted(file.keys()):
            match = ADAPTER_KEY.fullmatch(key)
            if match is None:
                raise CheckpointError(
                    f"{adapter} has the key {key}, which the original's checkpoints have no place for"
                )
            name = f"llama_model.base_model.model.model.{match['module']}.lora_{match['side']}.weight"
            state[name] = file.get_tensor(key).float()
    count = len(state)
    weight, bias = _stored(source, PROJECTION + "weight"), _stored(source, PROJECTION + "bias")
    state |= {"llama_proj.weight": weight.float(), "llama_proj.bias": bias.float()}
    rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    told = {"lora_r": rank, "lora_alpha": alpha, "lora_dropout": float(settings.get("lora_dropout", 0.0))}
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        torch.save({"model": state, "config": {"model": told}, "epoch": 0}, aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return Exported(count, rank, alpha, (weight.shape[0], weight.shape[1]), target.stat().st_size)


def _stored(folder: Path, name: str) -> torch.Tensor:
    """One tensor of a model folder, whose weights may lie in several files."""
    index = folder / "model.safetensors.index.json"
    file = "model.safetensors"
    if index.is_file():
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name, file)
    if not (folder / file).is_file():
        raise CheckpointError(f"{folder} lacks {file}, which holds {name}; copy it whole")
    with safe_open(folder / file, "pt") as held:
        if name not in held.keys():  # noqa: SIM118  (no mapping)
            raise CheckpointError(f"{folder / file} lacks {name}; it is no model of this kind")
        tensor: torch.Tensor = held.get_tensor(name)
        return tensor
