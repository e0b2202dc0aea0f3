"""Frames that are equal in every byte are encoded once, and the model reads the same as if each had been encoded."""

import numpy as np
import pytest
import torch
from PIL import Image

import minigpt4_video as mv


@pytest.fixture(scope="module")
def chat(random_model) -> mv.VideoChat:
    return mv.VideoChat.from_pretrained(random_model, device="cpu")


@pytest.fixture
def blinking(tmp_path):
    """A picture and another by turns, four times each."""
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(2)] * 4
    path = tmp_path / "blinking.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    return path


def test_each_distinct_frame_is_encoded_once(chat, blinking, monkeypatch):
    opened = chat.open(blinking, frames=8)
    assert len(opened.footage.clip.frames) == 8
    encoded = []
    whole = chat.model.model.get_merged_features
    monkeypatch.setattr(
        chat.model.model, "get_merged_features", lambda pixels: encoded.append(len(pixels)) or whole(pixels)
    )

    opened.ask("What blinks?", max_new_tokens=2)

    assert encoded == [2]


def test_what_is_encoded_once_stands_at_each_of_its_places(chat, blinking):
    opened = chat.open(blinking, frames=8)

    tokens = opened.frame_tokens(range(8))

    alone = chat.encode(list(opened.footage.clip.frames))
    torch.testing.assert_close(tokens, alone, atol=1e-5, rtol=1e-5)  # of another batch, other roundings
    assert torch.equal(tokens[:2], tokens[6:])
    assert (tokens[0] - tokens[1]).abs().max() > 0.1
