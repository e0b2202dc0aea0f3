"""Label smoothing among words of one kind.

A model that has never met a blue square learns more than what it is shown: that blue things are no squares, and by
force of that habit it calls the first one a triangle. Where a colour or a shape of the world is to be said, a share of
the weight goes to all colours, or all shapes, alike; what was merely never met is then no longer pushed down.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from minigpt4_video.data.world.language import ZH_COLOUR, ZH_SHAPE
from minigpt4_video.data.world.scene import COLOURS, SHAPES


@dataclass(frozen=True)
class Spread:
    """What is added to a cross-entropy so that it becomes the smoothed one."""

    share: float
    words: torch.Tensor
    """(kinds, vocabulary): one over the number of its words where a token is of a kind, elsewhere 0."""

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Sum over positions. `logits` (positions, vocabulary), `target` (positions,)."""
        words = self.words.to(logits.device)
        kind = (words[:, target] > 0).to(logits.dtype)  # (kinds, positions); a word is of one kind
        scores = logits.log_softmax(-1)
        alike = torch.einsum("kp,kv,pv->p", kind, words, scores)
        said = scores.gather(1, target[:, None])[:, 0]
        return self.share * ((said - alike) * kind.sum(0)).sum()


def spread_of(tokenizer: PreTrainedTokenizerBase, share: float) -> Spread | None:
    """Over the colours and the shapes of the world that are one token each, in each language by itself; none where the
    share is 0."""
    if share == 0:
        return None
    kinds = (COLOURS, SHAPES, tuple(ZH_COLOUR.values()), tuple(ZH_SHAPE.values()))
    words = torch.zeros(len(kinds), len(tokenizer))
    for number, kind in enumerate(kinds):
        last = [tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in kind]
        whole = [token for token, word in zip(last, kind, strict=True) if tokenizer.decode([token]).strip() == word]
        words[number, whole] = 1 / max(1, len(whole))
    return Spread(share, words)
