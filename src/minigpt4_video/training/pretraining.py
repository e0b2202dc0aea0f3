"""What a model that starts from nothing learns before the three stages: to see, and to read.

The vision tower learns what stands where in single pictures of the world; the language model learns the world's
sentences over frames that are told in words instead of shown. Released models skip both: their parts come pretrained.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2VisionConfig, Blip2VisionModel, LlamaConfig, LlamaModel, PreTrainedTokenizerBase

from minigpt4_video.data.world.language import ZH_COLOUR, ZH_SHAPE, ZH_SIZE
from minigpt4_video.data.world.pictures import UNKNOWN
from minigpt4_video.data.world.samples import DENSE_WORDS, PLACES
from minigpt4_video.data.world.scene import COLOURS, SHAPES, SIZES
from minigpt4_video.model.processing import IGNORED
from minigpt4_video.training.spread import Spread

NEIGHBOURS = ((1, 2, 4), (2, 4, 5))
"""How many tokens back the first heads of the first layers begin by looking; two layers together reach one to nine."""
FORGOTTEN = 0.1
"""Share of its words that a frame told in words leaves out while it is learnt from: what is seen in their place
later is not always sure either."""
ANSWER_MULTIPLE = 512
"""Answer positions are padded to a multiple of this: each new shape costs the CPU's kernels a compilation."""


class DenseVision(nn.Module):  # type: ignore[misc]
    """A tower that names colour, shape, size and place of a thing in the patch that holds its middle."""

    def __init__(self, config: Blip2VisionConfig) -> None:
        super().__init__()
        self.tower = Blip2VisionModel(config)
        self.choices = (1 + len(COLOURS), 1 + len(SHAPES), 1 + len(SIZES), 1 + PLACES, 1 + PLACES)
        self.head = nn.Linear(config.hidden_size, sum(self.choices))

    def forward(self, pixel_values: torch.Tensor, middle: torch.Tensor) -> dict[str, torch.Tensor]:
        """`pixel_values` (pictures, 3, H, W), `middle` (pictures, patches, 5) as in `DensePicture`."""
        seen = self.tower(pixel_values).last_hidden_state[:, 1:]
        scores = self.head(seen).float().split(self.choices, dim=-1)
        loss = seen.new_zeros((), dtype=torch.float32)
        for score, target in zip(scores, middle.unbind(-1), strict=True):
            each = functional.cross_entropy(
                score.flatten(0, 1), target.flatten(), reduction="none", ignore_index=UNKNOWN
            )
            here, empty = (target.flatten() > 0).float(), (target.flatten() == 0).float()
            # Most patches are empty: both kinds weigh the same, or the tower would learn to say "nothing".
            loss = loss + (each * here).sum() / here.sum() + (each * empty).sum() / empty.sum()
        known = (middle > 0).all(-1)
        named = torch.stack([score.argmax(-1) for score in scores], -1) == middle
        return {"loss": loss, "accuracy": named[known].all(-1).float().mean().detach()}


class ToldFrames(nn.Module):  # type: ignore[misc]
    """A language model that reads frames told in words: each placeholder is the sum of the words of its strip of
    patches.

    The words are the language model's own, English and Chinese at once, so that what a question says and what a frame
    shows are the same vectors from the first step on; a small table beside them tells the exact row and column.
    """

    def __init__(
        self, config: LlamaConfig, merge_size: int, spelling: torch.Tensor, spread: Spread | None = None
    ) -> None:
        """`spelling` (dense words, vocabulary): how much of each token there is in each word, see `spell`."""
        super().__init__()
        self.spread = spread
        self.language_model = LlamaModel(config)
        self.words = nn.Embedding(DENSE_WORDS, config.hidden_size, padding_idx=0)
        self.register_buffer("spelling", spelling, persistent=False)
        self.strip = nn.Parameter(torch.zeros(config.hidden_size))
        nn.init.normal_(self.words.weight, std=config.initializer_range)
        begin_with_lookup(self.language_model)
        if config.attention_bias:
            begin_with_neighbours(self.language_model)
        self.merge_size = merge_size

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        words: torch.Tensor,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Packed rows as from `pack`, and `words` (frames, patches, 5) of all rows in reading order."""
        embeddings = self.language_model.embed_tokens
        is_frame = input_ids >= embeddings.num_embeddings
        table = self.words.weight + self.spelling @ embeddings.weight
        if self.training:
            words = words.masked_fill(torch.rand(words.shape, device=words.device) < FORGOTTEN, 0)
        told = functional.embedding(words, table).sum(2)  # (frames, patches, hidden)
        told = told.unflatten(1, (-1, self.merge_size)).sum(2) + self.strip
        embeds = embeddings(input_ids.masked_fill(is_frame, 0)).masked_scatter(is_frame[..., None], told)
        return answer_loss(
            self.language_model, embeddings.weight, embeds, attention_mask, position_ids, labels, self.spread
        )


@torch.no_grad()  # type: ignore[untyped-decorator]
def begin_with_lookup(language_model: LlamaModel) -> None:
    """Starts attention as a lookup: keys equal queries, so like finds like, and outputs undo values, so it is copied.

    From an ordinary start a small model spends most of its time finding this out (mimetic initialisation, Trockman and
    Kolter 2023).
    """
    nn.init.normal_(language_model.embed_tokens.weight, std=0.1)
    for layer in language_model.layers:
        attention = layer.self_attn
        nn.init.normal_(attention.q_proj.weight, std=0.05)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.normal_(attention.v_proj.weight, std=0.05)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


@torch.no_grad()  # type: ignore[untyped-decorator]
def begin_with_neighbours(language_model: LlamaModel) -> None:
    """Starts half of the heads of the first two layers at the words just before.

    Who says what is bound by nearness alone, and a model that starts at random needs thousands of steps to find the
    neighbouring word. Needs biases at queries and keys: under rotary positions two constant vectors meet best at the
    distance by which one is turned against the other.
    """
    for layer, distances in zip(language_model.layers, NEIGHBOURS, strict=False):
        attention = layer.self_attn
        size = attention.head_dim
        turn = language_model.rotary_emb.inv_freq
        # The score one token beside the wished distance is lower by 8, so nearly all attention goes to the one place.
        length = math.sqrt(8 * math.sqrt(size) / float((1 - torch.cos(turn)).sum()))
        for head, distance in enumerate(distances):
            rows = slice(head * size, (head + 1) * size)
            attention.q_proj.weight[rows] *= 0.2
            attention.k_proj.weight[rows] *= 0.2
            attention.k_proj.bias[rows] = torch.cat([torch.ones_like(turn), torch.zeros_like(turn)]) * length
            attention.q_proj.bias[rows] = torch.cat([torch.cos(turn * distance), -torch.sin(turn * distance)]) * length


def spell(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """(dense words, vocabulary): each word of a told frame as the mean of its English tokens plus that of its Chinese.

    Rows and columns are told as top or bottom, left or right.
    """
    half = PLACES // 2
    said: list[tuple[str, str]] = [("", "")]
    said += [(colour, ZH_COLOUR[colour]) for colour in COLOURS]
    said += [(shape, ZH_SHAPE[shape]) for shape in SHAPES]
    said += [(size, ZH_SIZE[size]) for size in SIZES]
    said += [("top", "上")] * half + [("bottom", "下")] * half + [("left", "左")] * half + [("right", "右")] * half
    table = torch.zeros(len(said), len(tokenizer))
    for number, spellings in enumerate(said):
        for word in spellings:
            ids = [i for i in tokenizer(word, add_special_tokens=False)["input_ids"] if tokenizer.decode([i]).strip()]
            for token in ids:
                table[number, token] += 1 / len(ids)
    return table


def answer_loss(
    language_model: nn.Module,
    output_weights: torch.Tensor,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    labels: torch.Tensor,
    spread: Spread | None = None,
) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of the labelled positions, with logits made for those alone.

    `output_weights` (vocabulary, hidden) are the output layer's.
    """
    mask = torch.where(attention_mask, 0.0, torch.finfo(torch.float32).min)
    hidden = language_model(
        inputs_embeds=inputs_embeds, attention_mask=mask, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    target = labels[:, 1:].flatten()
    learned = (target != IGNORED).nonzero().squeeze(1)
    spare = -len(learned) % ANSWER_MULTIPLE
    kept = torch.cat([learned, learned.new_zeros(spare)])
    logits = functional.linear(hidden[:, :-1].flatten(0, 1)[kept], output_weights)[: len(learned)].float()
    loss = functional.cross_entropy(logits, target[learned])
    if spread is not None:
        loss = loss + spread(logits, target[learned]) / len(learned)
    return {"loss": loss, "accuracy": (logits.argmax(-1) == target[learned]).float().mean().detach()}
