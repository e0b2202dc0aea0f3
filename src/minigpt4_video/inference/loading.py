"""From a model's name to its weights and processor."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor

import minigpt4_video.model  # noqa: F401  (registers the classes with transformers)
from minigpt4_video.errors import ModelError
from minigpt4_video.model.presets import BYTES, PRESETS, Sizes

logger = logging.getLogger(__name__)

GIB = 2**30

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def find_model(name: str | Path) -> Path:
    """The folder of a model by its path or its name in the presets. Raises ModelError where that is no model."""
    folder = Path(name)
    if not folder.is_dir() and str(name) in PRESETS:
        folder = PRESETS[str(name)].folder()
    if not folder.exists():
        raise ModelError(f'there is no model "{name}"; name a model folder, or one of {", ".join(PRESETS)}')
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            f"{folder} is no model folder: it has no config.json; `minigpt4-video convert` makes such folders"
        )
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{config} cannot be read as the configuration of a model: {error}") from error
    if kind != "minigpt4_video":
        raise ModelError(
            f"{folder} holds a {kind} model, not a minigpt4_video one; `minigpt4-video convert` makes those"
        )
    return folder


def find_device(name: str | None, needed: int = 0) -> torch.device:
    """None and "auto" mean the GPU with the most free memory, if that is at least the `needed` bytes, else the CPU.

    Where there are GPUs and none has enough, a warning says so. Raises ModelError for a device that is not there.
    """
    if name in (None, "auto"):
        if not torch.cuda.is_available():
            return torch.device("cpu")
        free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
        most = max(range(len(free)), key=lambda number: free[number])
        if free[most] >= needed:
            return torch.device("cuda", most)
        logger.warning(
            "the model needs %.1f GiB and no GPU has more than %.1f GiB free, so the processor is used, which is "
            "slower; a --dtype of 16 bit takes half of float32, and --device takes a GPU all the same",
            needed / GIB,
            free[most] / GIB,
        )
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(f'device "{name}" cannot be used here ({reason}); try "cpu"') from error
    return device


def memory_needed(folder: Path, dtype: str | None) -> int:
    """Bytes for the weights of a model folder and the keys and values of one full context.

    0 where the folder does not say it; what is wrong with it comes out when it is loaded.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        asked = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        sizes = Sizes(config["vision_config"], config["text_config"], config.get("merge_size", 4))
        numbers = sizes.parameters + int(asked["window"]) * sizes.cache_per_token
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        return numbers * BYTES.get(stored if dtype is None or dtype == "auto" else dtype, 4)
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def load_processor(folder: Path) -> Any:
    """The processor of a model folder, without its weights."""
    try:
        return AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} has no usable processor: {_line(error)}") from error


def load_model(folder: Path, device: torch.device, dtype: str | None) -> Any:
    """The model in evaluation mode; `dtype` None and "auto" mean the one it was saved in.

    Raises ModelError where weights are missing: transformers would put random ones in their place.
    """
    if dtype not in (None, "auto", *DTYPES):
        raise ModelError(f'there is no dtype "{dtype}"; choose auto, {", ".join(DTYPES)}')
    wanted = "auto" if dtype in (None, "auto") else DTYPES[dtype]
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype=wanted, output_loading_info=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights in {folder} cannot be loaded: {_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}; it is incomplete")
    model = model.to(device).eval()
    if device.type == "cpu":
        _lay_out_by_columns(model)
    return model


def _lay_out_by_columns(model: Any) -> None:
    """Keep the matrices of the language model that widen column by column in memory; their values stay.

    One token is a product of such a matrix with a vector, which the processor's libraries compute up to twice as fast
    from columns as from rows, and that of many tokens as fast. `benchmarks/decode_profile.py` measures it.
    """
    wide = [*model.model.language_model.layers.modules()]
    if model.lm_head.weight is not model.get_input_embeddings().weight:  # a table that is looked up needs its rows
        wide.append(model.lm_head)
    for module in wide:
        if isinstance(module, torch.nn.Linear) and module.weight.dtype == torch.float32:
            outer, inner = module.weight.shape
            if outer >= inner:
                module.weight.data = module.weight.data.t().contiguous().t()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
