"""Models with heads of a size that vLLM's kernels take."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

import minigpt4_video as mv
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.chat_templates import CHATML_TEMPLATES, INSTRUCTION_TEMPLATES

KINDS = {"llama": INSTRUCTION_TEMPLATES, "qwen2": CHATML_TEMPLATES}


def write_model(made: Path, kind: str, random_model: Path) -> None:
    """One of these kinds, with random weights and the tokenizer and tower of another model."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    config = MiniGPT4VideoConfig(
        vision_config=mv.MiniGPT4VideoConfig.from_pretrained(random_model).vision_config,
        text_config={
            "model_type": kind,
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MiniGPT4VideoForConditionalGeneration(config)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(made)
    MiniGPT4VideoProcessor(
        tokenizer,
        chat_template=dict(KINDS[kind]),
        image_token_id=config.image_token_id,
        tokens_per_frame=config.tokens_per_frame,
        image_size=56,
        frames=4,
        window=700,
        answer_reserve=16,
    ).save_pretrained(made)
