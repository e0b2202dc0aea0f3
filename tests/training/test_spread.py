"""Label smoothing among the words of one kind."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from minigpt4_video.model.processing import MiniGPT4VideoProcessor
from minigpt4_video.training.spread import Spread, spread_of


def test_a_word_of_a_kind_gets_the_smoothed_target_and_others_keep_their_own() -> None:
    words = torch.zeros(2, 9)
    words[0, [1, 2, 3]] = 1 / 3
    words[1, [5, 6]] = 1 / 2
    logits, target = torch.randn(4, 9, requires_grad=True), torch.tensor([2, 6, 0, 8])
    soft = functional.one_hot(target, 9).float()
    soft[0] = 0.8 * soft[0] + 0.2 * words[0]
    soft[1] = 0.8 * soft[1] + 0.2 * words[1]
    wanted = functional.cross_entropy(logits, soft, reduction="sum")
    found = functional.cross_entropy(logits, target, reduction="sum") + Spread(0.2, words)(logits, target)
    torch.testing.assert_close(found, wanted)
    (gradient,) = torch.autograd.grad(found, logits, retain_graph=True)
    (right,) = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(gradient, right)


def test_colours_and_shapes_are_kinds_in_each_language(embedded: Path) -> None:
    tokenizer = MiniGPT4VideoProcessor.from_pretrained(embedded).tokenizer
    spread = spread_of(tokenizer, 0.1)
    assert spread is not None
    named = [{tokenizer.decode([i]).strip() for i in row.nonzero().flatten().tolist()} for row in spread.words]
    assert {"red", "purple"} < named[0] and {"star", "circle"} < named[1]
    assert {"红色", "紫色"} < named[2] and {"星形", "圆形"} < named[3]
    assert [len(kind) for kind in named] == [7, 4, 7, 4]
    assert spread.words.sum(1).tolist() == pytest.approx([1, 1, 1, 1])
    assert spread_of(tokenizer, 0.0) is None
