"""The table of known models: what each is made of, what it may be used for, and what it needs.

Only `tiny` comes with the package. The others are made from files their owners hand out: see `parts`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minigpt4_video.errors import ModelError

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
VISION = "eva_vit_g.pth (EVA-CLIP ViT-g/14, as BLIP-2 distributes it)"
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


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


EVA_CLIP = {
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "image_size": 224,
    "patch_size": 14,
}
CHECKPOINT = 680 * 10**6
"""About what a checkpoint of the original takes: LoRA matrices, projection, and the state of its optimiser."""


@dataclass(frozen=True)
class Sizes:
    """What follows from a configuration, without making the model."""

    vision_config: dict[str, Any]
    text_config: dict[str, Any]
    merge_size: int

    @property
    def parameters(self) -> int:
        return self.vision + self.projection + self.text

    @property
    def tokens_per_frame(self) -> int:
        return self._patches // self.merge_size

    @property
    def cache_per_token(self) -> int:
        """Numbers that are kept of a token: its keys and values in all layers."""
        return 2 * int(self.text_config["num_hidden_layers"]) * self._key_width

    @property
    def vision(self) -> int:
        """Patches, positions and class token; in each layer two norms, attention and two linear layers; a norm."""
        config = self.vision_config
        width, inner = config["hidden_size"], config["intermediate_size"]
        patches = 3 * width * config["patch_size"] ** 2 + width
        layer = 4 * width + 4 * (width * width + width) + 2 * width * inner + inner + width
        return int(patches + (self._patches + 2) * width + config["num_hidden_layers"] * layer + 2 * width)

    @property
    def projection(self) -> int:
        width = self.text_config["hidden_size"]
        return int(self.vision_config["hidden_size"] * self.merge_size * width + width)

    @property
    def text(self) -> int:
        """Embeddings, the output layer where it is not tied to them, the layers and a norm."""
        config = self.text_config
        tables = 1 if config.get("tie_word_embeddings") else 2
        return int((tables * config["vocab_size"] + 1) * config["hidden_size"]) + self.layers

    @property
    def layers(self) -> int:
        """Of the language model, in the Llama form."""
        config = self.text_config
        width, heads = config["hidden_size"], config["num_attention_heads"]
        queries = heads * self._head
        attention = 2 * width * queries + 2 * width * self._key_width
        if config["model_type"] == "qwen2":
            attention += queries + 2 * self._key_width  # biases
        if config.get("attention_bias"):
            attention += queries + 2 * self._key_width + width  # biases, that of the output with them
        if config["model_type"] == "qwen3":
            attention += 2 * self._head  # norms of queries and keys
        layer = attention + 3 * width * config["intermediate_size"] + 2 * width
        return int(config["num_hidden_layers"] * layer)

    @property
    def _patches(self) -> int:
        return int(self.vision_config["image_size"] // self.vision_config["patch_size"]) ** 2

    @property
    def _head(self) -> int:
        config = self.text_config
        return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])

    @property
    def _key_width(self) -> int:
        return int(self.text_config.get("num_key_value_heads") or self.text_config["num_attention_heads"]) * self._head


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

    def sizes(self) -> Sizes:
        """Counted from the configuration alone. Raises ModelError for an embedded model that is missing."""
        if self.text_config is not None:
            return Sizes({**EVA_CLIP}, {**self.text_config}, 4)
        stored = json.loads((self.folder() / "config.json").read_text(encoding="utf-8"))
        return Sizes(stored["vision_config"], stored["text_config"], stored.get("merge_size", 4))

    def asked(self) -> Settings:
        """How it is asked; for the embedded one, as stored beside it."""
        if self.settings is not None:
            return self.settings
        stored = json.loads((self.folder() / "processor_config.json").read_text(encoding="utf-8"))
        return Settings(stored["frames"], stored["window"], stored["answer_reserve"], 1.0, "instruction")

    def parameters(self) -> int:
        return self.sizes().parameters

    def memory(self, dtype: str = "bfloat16", frames: int | None = None) -> int:
        """Bytes for the weights and the keys and values of one video with its question and answer.

        With fewer `frames` than the model's own number the context is as much shorter. What a pass takes on top for a
        moment is some hundred MiB, as frames are encoded a few at a time.
        """
        sizes, asked = self.sizes(), self.asked()
        context = asked.window - (0 if frames is None else asked.frames - frames) * sizes.tokens_per_frame
        return BYTES[dtype] * (sizes.parameters + min(context, asked.window) * sizes.cache_per_token)

    def subtitle_budget(self) -> int:
        """Tokens that are left for subtitles, tags and the question where all frames are shown."""
        asked = self.asked()
        return asked.window - asked.answer_reserve - asked.frames * self.sizes().tokens_per_frame

    def download(self) -> int:
        """About how many bytes its parts are: 16-bit weights of tower and language model, and the checkpoint."""
        if not self.parts:
            return 0
        sizes = self.sizes()
        return 2 * (sizes.vision + sizes.text) + (CHECKPOINT if len(self.parts) == 3 else 0)

    def way(self) -> str:
        """How to get it, in a line."""
        made, verb = "make it", "convert"
        if len(self.parts) < 3:
            made, verb = "there is no checkpoint of it: train one", f"train {self.name}/stage1"
        return (
            f"{made} from {' + '.join(self.parts)} (about {self.download() / 1e9:.0f} GB to download) with "
            f"`minigpt4-video {verb}`, then give the folder"
        )

    def folder(self) -> Path:
        """Where the embedded model lies. Raises ModelError for one that has to be made first."""
        if self.parts:
            raise ModelError(f"{self.name} does not come with the package; {self.way()}")
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
