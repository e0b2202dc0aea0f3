"""A model spread over processes by FSDP2, with checkpoints that any number of processes can go on with.

accelerate's own FSDP is left aside: without GPUs it silently becomes DDP. `fully_shard` is called here, the trainer is
told that the model owns its placement, and a checkpoint holds whole tensors by their names.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minigpt4_video.errors import RecipeError
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration

TRAINED = "trained.safetensors"
"""Of a checkpoint: what is trained, whole and by name."""
OPTIMIZER = "optimizer.pt"


def shard(model: MiniGPT4VideoForConditionalGeneration, device: torch.device) -> None:
    """Spreads the weights over all processes, layer by layer, in place.

    A frozen tower stays whole with each: it is called by itself, before the pass through the model.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.to(device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    tower = model.model.vision_tower
    learnt = any(parameter.requires_grad for parameter in tower.parameters())
    layers = [*model.model.language_model.layers, *(tower.encoder.layers if learnt else ())]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=None if learnt else set(tower.parameters()))
    model._is_fsdp_managed_module = True  # `generate` then goes on with all processes until the last is done


def is_sharded(model: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def save_trained(model: nn.Module, optimizer: Any, folder: Path, first: bool) -> None:
    """What is trained and the optimiser's state into `folder`, by the `first` of the processes; all must call it."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    state = trained_state(model)
    held = get_optimizer_state_dict(model, optimizer, options=_options())
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / TRAINED)
        torch.save(held, folder / OPTIMIZER)


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is trained, whole, on the first of the processes; all must call it. Tied weights have one name."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    state, trained = get_model_state_dict(model, options=_options()), _trained(model)
    return {name: tensor.contiguous() for name, tensor in state.items() if name in trained}


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_trained(model: nn.Module, folder: Path) -> None:
    """What `save_trained` wrote, into a model that is sharded or not. Raises RecipeError for a checkpoint of another
    kind of run."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    if not (folder / TRAINED).is_file():
        raise RecipeError(f"{folder} was written without `sharded = true`; go on with it as it was begun")
    state = load_file(folder / TRAINED)
    if (expected := _trained(model)) != set(state):
        raise RecipeError(f"{folder} does not hold what this recipe trains: {sorted(expected ^ set(state))[:2]}")
    set_model_state_dict(model, state, options=_options(strict=False))


def load_optimizer(model: nn.Module, optimizer: Any, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    held = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    set_optimizer_state_dict(model, optimizer, held, options=_options())


def _options(strict: bool = True) -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=strict)
