"""The table of known models: what each is made of, what it may be used for, and what it needs.

Only `tiny` comes with the package. The others are made from files their owners hand out: see `parts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minigpt4_video.errors import ModelError

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
VISION = "eva_vit_g.pth (EVA-CLIP ViT-g/14, as BLIP-2 distributes it)"


@dataclass(frozen=True)
class Settings:
    """How a model is asked: everything that depends on what it was trained with, and not on its weights."""

    frames: int
    window: int
    """Tokens a prompt and its answer may take together."""
    answer_reserve: int
    repetition_penalty: float
    chat: Literal["instruction", "chatml"]


LLAMA = Settings(frames=45, window=1 + 3600 + 256, answer_reserve=256, repetition_penalty=1.5, chat="instruction")
"""The lengths the original trained Llama-2 with, begin token included."""
MISTRAL = Settings(frames=90, window=1 + 7200 + 512, answer_reserve=512, repetition_penalty=1.5, chat="instruction")
QWEN = Settings(frames=90, window=1 + 7200 + 512, answer_reserve=512, repetition_penalty=1.0, chat="chatml")

ORIGINAL_WINDOWS = {"llama": 3700, "mistral": 7500}
"""Where the original cut a prompt on the left at inference; only `truncation="original-left"` uses them."""


@dataclass(frozen=True)
class Preset:
    """A model by name."""

    name: str
    description: str
    parts: tuple[str, ...]
    """What has to be at hand; empty for what the package brings."""
    licence: str
    text_config: dict[str, Any] | None
    """Sizes of its language model, to tell the memory before anything is at hand; None for the embedded one."""
    settings: Settings | None

    def parameters(self) -> int:
        """Counted from a model without storage; for the embedded one from its own configuration."""
        import torch

        from minigpt4_video.model.configuration import MiniGPT4VideoConfig
        from minigpt4_video.model.modeling import MiniGPT4VideoForConditionalGeneration

        if self.text_config is None:
            config = MiniGPT4VideoConfig.from_pretrained(self.folder())
        else:
            config = MiniGPT4VideoConfig(text_config=dict(self.text_config))
        with torch.device("meta"):
            model = MiniGPT4VideoForConditionalGeneration(config)
        return sum(parameter.numel() for parameter in model.parameters())

    def memory(self, bytes_per_parameter: float = 2.0) -> int:
        """Bytes for the weights and, at the full window, the key-value cache of one row (16 bit)."""
        cache = 0
        if self.text_config is not None and self.settings is not None:
            text = self.text_config
            heads = text["num_attention_heads"]
            head = text.get("head_dim") or text["hidden_size"] // heads
            cache = (
                2 * 2 * text["num_hidden_layers"] * text.get("num_key_value_heads", heads) * head * self.settings.window
            )
        return int(self.parameters() * bytes_per_parameter) + cache

    def folder(self) -> Path:
        """Where the embedded model lies. Raises ModelError for one that has to be converted first."""
        if self.parts:
            raise ModelError(
                f"{self.name} does not come with the package; make it from {' + '.join(self.parts)} with "
                "`minigpt4-video convert`, then give the folder"
            )
        place = EMBEDDED / self.name
        if not (place / "config.json").is_file():
            raise ModelError(f"the embedded model is missing from {place}; install minigpt4-video again")
        return place


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", "embedded; knows a small world of shapes, in English and Chinese", (), "Apache-2.0", None, None),
        Preset(
            "llama2-7b",
            "the original's Llama-2 model",
            ("video_llama_checkpoint_last.pth", "Llama-2-7b-chat-hf", VISION),
            "checkpoint BSD-3-Clause, Llama 2 Community License, EVA-CLIP MIT",
            {
                "model_type": "llama",
                "vocab_size": 32000,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            LLAMA,
        ),
        Preset(
            "mistral-7b",
            "the original's Mistral model",
            ("video_mistral_checkpoint_last.pth", "Mistral-7B-Instruct-v0.2", VISION),
            "checkpoint BSD-3-Clause, Apache-2.0, EVA-CLIP MIT",
            {
                "model_type": "mistral",
                "vocab_size": 32000,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "sliding_window": None,
            },
            MISTRAL,
        ),
        Preset(
            "llama2-13b",
            "Llama-2 13B; there is no original checkpoint, train it",
            ("Llama-2-13b-chat-hf", VISION),
            "Llama 2 Community License, EVA-CLIP MIT",
            {
                "model_type": "llama",
                "vocab_size": 32000,
                "hidden_size": 5120,
                "intermediate_size": 13824,
                "num_hidden_layers": 40,
                "num_attention_heads": 40,
                "num_key_value_heads": 40,
            },
            LLAMA,
        ),
        Preset(
            "qwen2.5-7b",
            "Qwen2.5 7B Instruct; there is no original checkpoint, train it",
            ("Qwen2.5-7B-Instruct", VISION),
            "Apache-2.0, EVA-CLIP MIT",
            {
                "model_type": "qwen2",
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            QWEN,
        ),
        Preset(
            "qwen3-8b",
            "Qwen3 8B; there is no original checkpoint, train it",
            ("Qwen3-8B", VISION),
            "Apache-2.0, EVA-CLIP MIT",
            {
                "model_type": "qwen3",
                "vocab_size": 151936,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
            },
            QWEN,
        ),
    )
}


def settings_for(text_config: Any) -> Settings:
    """How to ask a model with this language model, as the original asked its own; never beyond its positions."""
    kind = text_config.model_type
    settings = MISTRAL if kind == "mistral" else QWEN if kind.startswith("qwen") else LLAMA
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is None or positions >= settings.window:
        return settings
    return Settings(
        frames=settings.frames,
        window=positions,
        answer_reserve=min(settings.answer_reserve, positions // 8),
        repetition_penalty=settings.repetition_penalty,
        chat=settings.chat,
    )
