"""Sizes of a MiniGPT4-Video model, and what follows from them."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, Blip2VisionConfig, PretrainedConfig


@strict
class MiniGPT4VideoConfig(PretrainedConfig):  # type: ignore[misc]
    """A vision tower, a linear projection and a causal language model.

    `text_config` may be the configuration of any causal language model of transformers whose logits are a matrix times
    its last states, as in Llama, Mistral and Qwen; the model refuses others. `image_token_id` is the placeholder that
    stands for one frame token in `input_ids`; it is never looked up in the embedding table, so it may lie beyond the
    vocabulary (the default: the first id after it), where it can never be generated either. An untrained tower begins
    with deviation 0.02, where transformers' own default of 1e-10 for this class would not train.
    """

    model_type = "minigpt4_video"
    sub_configs = {"vision_config": Blip2VisionConfig, "text_config": AutoConfig}  # noqa: RUF012  (transformers reads it)

    vision_config: dict[str, Any] | PretrainedConfig | None = None
    text_config: dict[str, Any] | PretrainedConfig | None = None
    image_token_id: int | None = None
    merge_size: int = 4
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, PretrainedConfig):
            self.vision_config = Blip2VisionConfig(**{"initializer_range": 0.02, **(self.vision_config or {})})
        if not isinstance(self.text_config, PretrainedConfig):
            text = dict(self.text_config or {})
            self.text_config = CONFIG_MAPPING[text.pop("model_type", "llama")](**text)
        text_config: Any = self.text_config
        if self.image_token_id is None:
            self.image_token_id = text_config.vocab_size
        self.tie_word_embeddings = bool(self.tie_word_embeddings or getattr(text_config, "tie_word_embeddings", False))
        super().__post_init__(**kwargs)
        patches = self._patches
        if self.merge_size < 1 or patches % self.merge_size:
            raise ValueError(f"a frame has {patches} patches, which merge_size {self.merge_size} does not divide")

    @property
    def tokens_per_frame(self) -> int:
        """Positions one frame takes in the sequence: 64 for 224 px, 14 px patches and 4 patches a token."""
        return self._patches // self.merge_size

    @property
    def _patches(self) -> int:
        vision_config: Any = self.vision_config
        return int(vision_config.image_size // vision_config.patch_size) ** 2
