"""Frames to tokens to words: vision tower, projection, language model.

A frame is `tokens_per_frame` placeholders in `input_ids`; their embeddings are replaced by what the tower sees. A
picture is a one-frame video, and a batch may mix rows with many frames and rows with none: the frames of all rows lie
one after another in `pixel_values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModel,
    Blip2VisionModel,
    EncoderRepetitionPenaltyLogitsProcessor,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from minigpt4_video.errors import ModelError
from minigpt4_video.model.configuration import MiniGPT4VideoConfig
from minigpt4_video.model.settling import settle_functions

LAYER_NORM_EPS = 1e-5
"""Of the layer norm after the tower. The original adds its own with torch's default; its blocks have 1e-6."""

BLIND_TO_FRAMES = ("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "prefill_chunk_size")
"""Options of `generate` that a prompt with frames cannot have."""


@dataclass
class MiniGPT4VideoModelOutput(BaseModelOutputWithPast):  # type: ignore[misc]
    """`last_hidden_state` (batch, sequence, hidden) and the frame tokens it was made with."""

    image_hidden_states: torch.Tensor | None = None
    """(frames, tokens_per_frame, hidden), after the projection."""


@dataclass
class MiniGPT4VideoCausalLMOutput(ModelOutput):  # type: ignore[misc]
    """`logits` (batch, kept positions, vocabulary); `loss` is the mean over the labels that are not -100."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


class MiniGPT4VideoMultiModalProjector(nn.Module):  # type: ignore[misc]
    """One linear layer from merged patches to the language model's width: (..., 4 * vision) to (..., hidden)."""

    def __init__(self, config: MiniGPT4VideoConfig) -> None:
        super().__init__()
        vision, text = config.vision_config, config.text_config
        self.linear = nn.Linear(vision.hidden_size * config.merge_size, text.hidden_size, bias=True)  # type: ignore[union-attr]

    def forward(self, merged: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.linear(merged.to(self.linear.weight.dtype))
        return projected


class MiniGPT4VideoPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    config_class = MiniGPT4VideoConfig
    config: MiniGPT4VideoConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _is_record_asked(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)


CHANGES_LOGITS = {"final_logit_softcapping": None, "logit_scale": 1, "logits_scaling": 1, "lm_head_multiplier": 1}
"""Settings of language models that change what their output layer gives, and the values that change nothing."""


def check_language_model(text_config: Any) -> None:
    """Raises ModelError for a language model that does more than read embeddings and end in a matrix of words."""
    kind = text_config.model_type
    for name, nothing in CHANGES_LOGITS.items():
        if getattr(text_config, name, nothing) not in (None, nothing):
            raise ModelError(
                f"a language model of the kind {kind} changes its logits by {name}, which is not done here, so its "
                "answers would be others; take one such as Llama, Mistral or Qwen"
            )


class MiniGPT4VideoModel(MiniGPT4VideoPreTrainedModel):
    """Everything but the output layer."""

    def __init__(self, config: MiniGPT4VideoConfig) -> None:
        super().__init__(config)
        settle_functions()
        self.vision_tower = Blip2VisionModel(config.vision_config)
        self.vision_tower.post_layernorm.eps = LAYER_NORM_EPS
        self.multi_modal_projector = MiniGPT4VideoMultiModalProjector(config)
        check_language_model(config.text_config)
        self.language_model = AutoModel.from_config(config.text_config)
        if config.tie_word_embeddings and not hasattr(self.language_model, "embed_tokens"):
            kind = self.language_model.config.model_type
            raise ModelError(
                f"a language model of the kind {kind} does not keep its embeddings where they can be tied to the "
                "output layer; take one such as Llama, Mistral or Qwen"
            )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_merged_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(frames, 3, H, W) to (frames, tokens_per_frame, merge_size * vision): what `image_features` takes.

        The class token is dropped, and `merge_size` consecutive tokens in raster order (a horizontal strip of patches,
        not a square) are laid side by side.
        """
        seen = self.vision_tower(
            pixel_values.to(self.vision_tower.dtype)
        ).last_hidden_state  # (frames, 1 + patches, vision)
        return seen[:, 1:].reshape(seen.shape[0], self.config.tokens_per_frame, -1)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(frames, 3, H, W) to (frames, tokens_per_frame, hidden): the tokens the language model reads."""
        features: torch.Tensor = self.multi_modal_projector(self.get_merged_features(pixel_values))
        return features

    def get_video_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The same as `get_image_features`: a video is its frames."""
        return self.get_image_features(pixel_values)

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The sequence as the language model reads it, (batch, sequence, hidden), and its frame tokens.

        `pixel_values` (frames, 3, H, W) or, already through the tower, `image_features` (frames, tokens_per_frame,
        merge_size * vision). Raises ModelError when the placeholders are not as many as the frame tokens.
        """
        if pixel_values is not None and image_features is not None:
            raise ModelError("pixel_values and image_features were both given; give one of them")
        if pixel_values is None and image_features is None:
            return self.place_frames(input_ids, None), None
        if pixel_values is not None:
            features = self.get_image_features(pixel_values)
        else:
            features = self.multi_modal_projector(image_features)
        embeds = self.place_frames(input_ids, features)
        return embeds, features.to(embeds.device, embeds.dtype)

    def place_frames(self, input_ids: torch.Tensor, frame_tokens: torch.Tensor | None) -> torch.Tensor:
        """Embeddings (batch, sequence, hidden) with `frame_tokens` (frames, tokens_per_frame, hidden) in the places of
        the placeholders. Raises ModelError when they are not as many.
        """
        is_frame = input_ids == self.config.image_token_id  # (batch, sequence)
        self.check_count(is_frame, 0 if frame_tokens is None else frame_tokens.shape[0] * frame_tokens.shape[1])
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_frame, 0))
        if frame_tokens is None:
            return embeds
        here = is_frame.to(embeds.device)[..., None]  # where the embeddings lie on another device than the tower
        return embeds.masked_scatter(here, frame_tokens.to(embeds.device, embeds.dtype))

    def check_count(self, is_frame: torch.Tensor, tokens: int) -> None:
        """Raises ModelError unless `is_frame` (batch, sequence) marks as many positions as there are frame tokens."""
        if torch.compiler.is_compiling() or (tokens == 0 and is_frame.shape[1] == 1):
            return  # one decoded word is never a placeholder, and looking would stall the device at every step
        placeholders = int(is_frame.sum())
        each = self.config.tokens_per_frame
        if placeholders != tokens:
            raise ModelError(
                f"the text has {placeholders} frame placeholders, but {tokens} frame tokens were given "
                f"({tokens // each} frames of {each}); give one frame for every <ImageHere>"
            )
        if (is_frame.sum(dim=1) % each).any():
            raise ModelError(
                f"a row ends amid a frame: {is_frame.sum(dim=1).tolist()} placeholders in frames of {each}"
            )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,  # a dict from generate, by kind of layer
        position_ids: torch.Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MiniGPT4VideoModelOutput | tuple[Any, ...]:
        """`attention_mask` is (batch, sequence), or (batch, 1, queries, keys) with `position_ids` for packed
        branches.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        features = None
        if inputs_embeds is None:
            inputs_embeds, features = self.embed(input_ids, pixel_values, image_features)
        elif pixel_values is not None or image_features is not None:
            raise ModelError("inputs_embeds hold the frames already; leave out pixel_values and image_features")
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4 and attention_mask.dtype == torch.bool:
            hidden = torch.full((), torch.finfo(inputs_embeds.dtype).min, dtype=inputs_embeds.dtype)  # eager adds masks
            attention_mask = torch.where(attention_mask, 0.0, hidden.to(attention_mask.device))
        return_dict = kwargs.pop("return_dict", None)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        output = MiniGPT4VideoModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            image_hidden_states=features,
        )
        return output if self._is_record_asked(return_dict) else output.to_tuple()


class NewTokensOnly(LogitsProcessor):  # type: ignore[misc]
    """Lets a processor see the generated tokens, but not the prompt.

    The original gave the language model embeddings, so transformers' penalties counted new tokens only; and a
    placeholder beyond the vocabulary must not be looked up in the scores.
    """

    def __init__(self, processor: LogitsProcessor, prompt_length: int) -> None:
        self.processor = processor
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        processed: torch.Tensor = self.processor(input_ids[:, self.prompt_length :], scores)
        return processed


class MiniGPT4VideoForConditionalGeneration(MiniGPT4VideoPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The whole model: `model(**inputs).logits`, `model.generate(**inputs)`."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: MiniGPT4VideoConfig) -> None:
        super().__init__(config)
        self.model = MiniGPT4VideoModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)  # type: ignore[union-attr]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(frames, 3, H, W) to (frames, tokens_per_frame, hidden)."""
        return self.model.get_image_features(pixel_values)

    def get_video_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(frames, 3, H, W) to (frames, tokens_per_frame, hidden)."""
        return self.model.get_video_features(pixel_values)

    def prompt_embeddings(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        *,
        truncation: Literal["original-left"] | None = None,
        window: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """A prompt as `inputs_embeds` (batch, sequence, hidden) and its `attention_mask`, for `generate(**...)`.

        `truncation="original-left"` does what the original did to a prompt longer than its window (3700 tokens for
        Llama-2, 7500 for Mistral): the last `window` positions are kept, so that the begin token and the first frames
        are lost and one frame may lose a part. Nothing here does it unasked; the planner fits a prompt instead.
        """
        embeds, _ = self.model.embed(input_ids, pixel_values, image_features)
        if truncation == "original-left":
            if window is None:
                raise ModelError("truncation needs a window; give the number of tokens to keep")
            embeds, attention_mask = embeds[:, -window:], attention_mask[:, -window:]
        return {"inputs_embeds": embeds, "attention_mask": attention_mask}

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,  # named, because generate() reads this signature
        position_ids: torch.Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> MiniGPT4VideoCausalLMOutput | tuple[Any, ...]:
        """Logits of every position, or of the last `logits_to_keep` (an int, or the positions themselves).

        `labels` (batch, sequence) are not shifted and -100 where nothing is to be learned; the loss is the mean over
        the others, or their sum over `num_items_in_batch` when a trainer passes it. With labels and a
        `logits_to_keep` of bool (batch, sequence), logits (marked positions, vocabulary) are made and learnt for the
        marked positions alone, which is the same loss where these are the ones whose next label is to be learned.
        """
        return_dict = kwargs.pop("return_dict", None)
        counted = {name: kwargs.pop(name) for name in ("num_items_in_batch",) if name in kwargs}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_features=image_features,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        loss = None
        if isinstance(logits_to_keep, torch.Tensor) and logits_to_keep.dtype == torch.bool:
            logits = self.lm_head(outputs.last_hidden_state[logits_to_keep])
            if labels is not None:
                loss = _summed_loss(logits, labels.roll(-1, dims=1)[logits_to_keep], **counted)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, kept])
        if labels is not None and loss is None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **counted)
        output = MiniGPT4VideoCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )
        return output if self._is_record_asked(return_dict) else output.to_tuple()

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,  # named, because generate() reads this signature too
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Frames go in with the prompt; later steps find them in the cache.

        `image_features` are all frames, or one tensor for each row as it was before beams multiplied the rows.
        """
        prepared: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            if image_features is not None and not isinstance(image_features, torch.Tensor):
                copies = len(input_ids) // len(image_features)
                image_features = torch.cat([row for row in image_features for _ in range(copies)])
            prepared["pixel_values"] = pixel_values
            prepared["image_features"] = image_features
        return prepared

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, with two differences.

        `repetition_penalty` and `no_repeat_ngram_size` count new tokens only, never the words of the prompt, and the
        frame placeholder is never generated. Raises ModelError for what cannot read frames in a prompt: assisted and
        prompt-lookup decoding make candidates from its ids, where frames are only placeholders, and
        `prefill_chunk_size` would cut it amid them. A prompt of words alone may have all of them.
        """
        ids = kwargs.get("input_ids", inputs)
        embeds = kwargs.get("inputs_embeds")
        prompt = ids if ids is not None else embeds
        settings = generation_config if generation_config is not None else self.generation_config

        def asked(name: str) -> Any:
            value = kwargs.get(name)
            return value if value is not None else getattr(settings, name, None)

        pixels, features = kwargs.pop("pixel_values", None), kwargs.pop("image_features", None)
        has_frames = pixels is not None or features is not None
        if has_frames:
            if blind := [name for name in BLIND_TO_FRAMES if asked(name)]:
                raise ModelError(f"generating with {' and '.join(blind)} cannot read frames; leave it out")
            kwargs["image_features"] = self._rows_of_features(ids, embeds, pixels, features)
        prompt_length = 0 if ids is None else ids.shape[1]
        processors = LogitsProcessorList()
        penalty, ngram = asked("repetition_penalty"), asked("no_repeat_ngram_size")
        if penalty is not None and penalty != 1.0:
            processors.append(NewTokensOnly(RepetitionPenaltyLogitsProcessor(penalty), prompt_length))
            kwargs["repetition_penalty"] = 1.0
        if ngram:
            processors.append(NewTokensOnly(NoRepeatNGramLogitsProcessor(ngram), prompt_length))
            kwargs["no_repeat_ngram_size"] = 0
        token = self.config.image_token_id
        favour = asked("encoder_repetition_penalty")
        if ids is not None and favour is not None and favour != 1.0:  # for the prompt's words; frames are none of them
            is_word = ids != token
            some_word = ids.gather(1, is_word.int().argmax(dim=1, keepdim=True))  # (batch, 1)
            processors.append(EncoderRepetitionPenaltyLogitsProcessor(favour, torch.where(is_word, ids, some_word)))
            kwargs["encoder_repetition_penalty"] = 1.0
        if token is not None and token < self.lm_head.out_features:
            device = prompt.device if prompt is not None else self.device
            processors.append(SuppressTokensLogitsProcessor([token], device=device))
        processors.extend(logits_processor or [])
        return super().generate(inputs, generation_config, logits_processor=processors, **kwargs)

    def _rows_of_features(
        self,
        ids: torch.Tensor | None,
        embeds: torch.Tensor | None,
        pixels: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """Merged features, one tensor a row: beams multiply rows, and would multiply single frames in a flat tensor."""
        if ids is None or embeds is not None:
            raise ModelError("inputs_embeds hold the frames already; leave out pixel_values and image_features")
        if pixels is not None and features is not None:
            raise ModelError("pixel_values and image_features were both given; give one of them")
        if pixels is not None:
            with torch.no_grad():
                features = self.model.get_merged_features(pixels)
        assert features is not None  # one of the two was given
        is_frame = ids == self.config.image_token_id
        self.model.check_count(is_frame, features.shape[0] * features.shape[1])
        frames: list[int] = (is_frame.sum(dim=1) // self.config.tokens_per_frame).tolist()
        return tuple(features.split(frames))


def _summed_loss(
    logits: torch.Tensor, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy of `logits` (positions, vocabulary), summed in float32 over `num_items_in_batch`, else the number
    of targets that are not -100; 0 where there are none.
    """
    total = nn.functional.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100)
    count = (targets != -100).sum() if num_items_in_batch is None else num_items_in_batch
    loss: torch.Tensor = total / max(count, 1) if isinstance(count, int) else total / count.clamp(min=1)
    return loss
