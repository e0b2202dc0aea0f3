"""From a model's name to its weights and processor."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

import minigpt4_video.model  # noqa: F401  (registers the classes with transformers)
from minigpt4_video.errors import ModelError
from minigpt4_video.model.presets import BYTES, PRESETS, Sizes

logger = logging.getLogger(__name__)

GIB = 2**30

Quantized = Literal["8bit", "4bit"]
BITS: dict[str, int] = {"8bit": 8, "4bit": 4}
WHOLE = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""Parts whose weights are never quantized: the language model's layers are nearly all there is."""
SEVERAL = "balanced"
"""In the place of a device: the layers of the language model spread over all GPUs."""

ADAPTER = "adapter"
"""The folder beside the weights that holds LoRA where it is not part of them."""

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


def find_place(name: str | None, needed: int) -> torch.device | Literal["balanced"]:
    """As `find_device`, but several GPUs where none holds `needed` bytes and all together have a fifth more."""
    if name in (None, "auto") and torch.cuda.is_available():
        free = _free_memory()
        if max(free) < needed and sum(free) >= 1.2 * needed:
            return SEVERAL
    return find_device(name, needed)


def _free_memory() -> list[int]:
    """Bytes of each GPU."""
    return [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]


def find_device(name: str | None, needed: int = 0) -> torch.device:
    """None and "auto" mean the GPU with the most free memory, if that is at least the `needed` bytes, else the CPU.

    Where there are GPUs and none has enough, a warning says so. Raises ModelError for a device that is not there.
    """
    if name in (None, "auto"):
        if not torch.cuda.is_available():
            return torch.device("cpu")
        free = _free_memory()
        most = max(range(len(free)), key=lambda number: free[number])
        if free[most] >= needed:
            return torch.device("cuda", most)
        logger.warning(
            "the model needs %.1f GiB and no GPU has more than %.1f GiB free, so the processor is used, which is "
            "slower; a --dtype of 16 bit takes half of float32, --quantize less, and --device takes a GPU all the same",
            needed / GIB,
            free[most] / GIB,
        )
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f'there is no kind of device "{name}"; name cpu, cuda, or cuda:1 for the second') from error
    if device.type == "meta":
        raise ModelError('the device "meta" holds no numbers; name cpu, cuda, or cuda:1 for the second')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(f'device "{name}" cannot be used here ({reason}); try "cpu"') from error
    return device


def memory_needed(folder: Path, dtype: str | None, quantize: Quantized | None = None) -> int:
    """Bytes for the weights of a model folder and the keys and values of one full context.

    0 where the folder does not say it; what is wrong with it comes out when it is loaded.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        asked = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        sizes = Sizes(config["vision_config"], config["text_config"], config.get("merge_size", 4))
        numbers = sizes.parameters + int(asked["window"]) * sizes.cache_per_token
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        each = BYTES.get(stored if dtype is None or dtype == "auto" else dtype, 4)
        saved = sizes.layers * (each - BITS[quantize] / 8) if quantize else 0
        return int(numbers * each - saved)
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def load_processor(folder: Path) -> Any:
    """The processor of a model folder, without its weights."""
    try:
        return AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} has no usable processor: {_line(error)}") from error


def load_model(
    folder: Path,
    device: torch.device | Literal["balanced"],
    dtype: str | None,
    quantize: Quantized | None = None,
) -> Any:
    """The model in evaluation mode; `dtype` None and "auto" mean the one it was saved in.

    With `quantize` the layers of the language model hold 8 or 4 bit numbers. LoRA in the folder `adapter` is added.
    Raises ModelError where weights are missing: transformers would put random ones in their place.
    """
    if dtype not in (None, "auto", *DTYPES):
        raise ModelError(f'there is no dtype "{dtype}"; choose auto, {", ".join(DTYPES)}')
    wanted = "auto" if dtype in (None, "auto") else DTYPES[dtype]
    options: dict[str, Any] = {}
    if quantize is not None:
        options = {"quantization_config": _quantization(quantize, device), "device_map": {"": device}}
    if device == SEVERAL:
        options["device_map"] = SEVERAL
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=wanted, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"the weights in {folder} cannot be loaded: {_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}; it is incomplete")
    if (adapter := folder / ADAPTER).is_dir():
        model = _with_adapter(model, adapter, merge=quantize is None)
    if not options:
        model = model.to(device)
    if model.device.type == "cpu":
        _lay_out_by_columns(model)
    return model.eval()


def _with_adapter(model: Any, adapter: Path, merge: bool) -> Any:
    """The model with LoRA that was kept apart from its weights: added to them, or, where these have few bits, beside
    them."""
    if find_spec("peft") is None:
        raise ModelError(f'{adapter} holds LoRA, which needs peft; pip install "minigpt4-video[train]"')
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the LoRA in {adapter} cannot be loaded: {_line(error)}") from error
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model()


def _quantization(quantize: Quantized, device: torch.device | Literal["balanced"]) -> BitsAndBytesConfig:
    if quantize not in BITS:
        raise ModelError(f'weights cannot be quantized to "{quantize}"; choose {", ".join(BITS)}')
    # On the processor 8 bits are slower than whole weights, and with 4 an answer depends on the answers beside it.
    if device != SEVERAL and torch.device(device).type == "cpu":
        raise ModelError(f"{quantize} weights are for a GPU; leave the weights whole, or name a GPU as the device")
    if missing := [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]:
        raise ModelError(f'{quantize} weights need {missing[0]}; pip install "minigpt4-video[quantize]"')
    return BitsAndBytesConfig(
        load_in_8bit=quantize == "8bit",
        load_in_4bit=quantize == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=WHOLE,
    )


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
