"""How well a text fits what is seen, by a CLIP-like model that knows both."""

from pathlib import Path
from typing import Any

import numpy as np

from minigpt4_video.errors import ModelError

FRAMES = (0.25, 0.5, 0.75)
"""Where in a clip the frames are that are looked at."""


class Agreement:
    """The mean cosine between a text and a clip's frames, by a folder with a CLIP model of transformers. A text longer
    than the model can read is cut off there."""

    def __init__(self, folder: Path, device: Any = None) -> None:
        """Raises ModelError for a folder that holds no such model."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            vision, text = self.model.config.vision_config, self.model.config.text_config
            self.size, self.longest = int(vision.image_size), int(text.max_position_embeddings)
            self.model.get_image_features, self.model.get_text_features  # noqa: B018
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{folder} holds no model that knows texts and pictures, such as CLIP: {reason}"
            ) from error
        self._torch = torch

    def __call__(self, frames: np.ndarray[Any, np.dtype[np.uint8]], texts: list[str]) -> list[float]:
        """One number a text, between -1 and 1; `frames` are uint8 (N, H, W, 3) RGB."""
        torch = self._torch
        chosen = [frames[min(int(at * len(frames)), len(frames) - 1)] for at in FRAMES]
        pixels = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 255
        size = (self.size, self.size)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        ids = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        device = self.model.device
        with torch.inference_mode():
            seen = _vectors(self.model.get_image_features(pixel_values=((pixels - mean) / deviation).to(device)))
            read = _vectors(self.model.get_text_features(**ids.to(device)))
        return [round(float(value), 4) for value in (read @ seen.T).mean(-1)]


def _vectors(given: Any) -> Any:
    """Of length 1. Newer transformers give a whole output, of which they are the pooled one."""
    vectors = getattr(given, "pooler_output", given)
    return vectors / vectors.norm(dim=-1, keepdim=True)
