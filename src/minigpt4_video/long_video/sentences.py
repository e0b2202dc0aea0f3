"""Sentences as vectors, by any encoder that transformers loads, from a folder or the hub."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minigpt4_video.errors import ModelError
from minigpt4_video.inference.store import module_digest

Vectors = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

AT_ONCE = 32
LONGEST = 512
"""Tokens of a text; what is beyond them is not in its vector."""


class Encoder:
    """Texts to vectors of length 1. The mean over the tokens, or the first where the folder's `1_Pooling` says so."""

    def __init__(self, name: str | Path) -> None:
        """`name` is a folder, else a name on the hub. Raises ModelError for what cannot be loaded."""
        from transformers import AutoModel, AutoTokenizer

        self.name = str(name)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model: Any = AutoModel.from_pretrained(name).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{name} cannot be loaded as a sentence encoder; name a folder with tokenizer, config.json and weights"
            ) from error
        self._takes_first = _takes_first(str(name))

    @cached_property
    def digest(self) -> str:
        """Of its weights: encoders of other names may be the same, and of one name others."""
        return module_digest(self._model)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(texts, width) float32."""
        parts = []
        for first in range(0, len(texts), AT_ONCE):
            some = list(texts[first : first + AT_ONCE])
            inputs = self._tokenizer(some, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state.float()
            if self._takes_first:
                pooled = hidden[:, 0]
            else:
                mask = inputs["attention_mask"][..., None]
                pooled = (hidden * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
        return np.concatenate(parts)


def _takes_first(name: str) -> bool:
    from transformers.utils import cached_file

    try:
        file = cached_file(name, "1_Pooling/config.json")
        told = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):  # it has none, or the hub cannot be asked
        return False
    return isinstance(told, dict) and bool(told.get("pooling_mode_cls_token"))
