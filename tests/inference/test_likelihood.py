"""How likely given answers are: what a forward pass over prompt and answer says, for each as if it stood alone."""

from pathlib import Path

import pytest
import torch

from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.likelihood import likelihoods
from minigpt4_video.messages import Message

ANSWERS = ["what happens", "the video", "x", ""]


@pytest.mark.parametrize("seen", [True, False])
def test_likelihoods_are_those_of_whole_passes(random_model: Path, video: Path, seen: bool) -> None:
    chat = VideoChat.from_pretrained(random_model, device="cpu")
    shown = [{"type": "video", "path": str(video)}] if seen else []
    messages: list[Message] = [{"role": "user", "content": [*shown, {"type": "text", "text": "What is it?"}]}]
    found = likelihoods(chat, messages, ANSWERS)
    prepared = chat.processor.prepare(messages)
    for answer, one in zip(ANSWERS, found, strict=True):
        behind = chat.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([chat.processor.encode(prepared.text) + list(behind)])
        pixels = {"pixel_values": chat.processor.pixels(prepared.frames)} if seen else {}
        with torch.inference_mode():
            logits = chat.model(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits[0].float()
        certainty = logits.log_softmax(-1)[ids.shape[1] - len(behind) - 1 : -1]
        total = sum(float(row[token]) for row, token in zip(certainty, behind, strict=True))
        assert one.tokens == len(behind)
        assert one.log_probability == pytest.approx(total, abs=1e-3)
        assert one.is_greedy == all(int(row.argmax()) == token for row, token in zip(certainty, behind, strict=True))
