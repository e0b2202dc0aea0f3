"""Models and a tokenizer small enough to compute with by eye, and where recorded data lie."""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MINIGPT4_VIDEO_SHARED", REPOSITORY.parent / "shared"))

TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 12},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True},
}


def tiny_config(kind: str = "llama") -> MiniGPT4VideoConfig:
    """28 px frames in 4 tokens, two layers everywhere, a vocabulary of printable characters."""
    return MiniGPT4VideoConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        text_config={
            "vocab_size": 112,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            **TEXT_CONFIGS[kind],
        },
    )


def tiny_model(kind: str = "llama", seed: int = 0) -> MiniGPT4VideoForConditionalGeneration:
    torch.manual_seed(seed)
    model = MiniGPT4VideoForConditionalGeneration(tiny_config(kind))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith(("class_embedding", "position_embedding")):
                continue
            # far enough from uniform that answers differ, and depend on what is seen
            parameter.mul_(8 if "multi_modal_projector" in name or "patch_embedding" in name else 4)
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "\n": 3}
    for code in range(32, 127):
        vocabulary[chr(code)] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return fast
