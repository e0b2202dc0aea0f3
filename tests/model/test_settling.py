"""Functions of MKL are called by one thread before several call them together."""

from pathlib import Path

import pytest
import torch

from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, settling


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, torch.dtype, str]]:
    """Name, count of numbers, type and device of each call."""
    calls: list[tuple[str, int, torch.dtype, str]] = []

    def watched(function):
        def call(numbers):
            calls.append((function.__name__, numbers.numel(), numbers.dtype, numbers.device.type))
            return function(numbers)

        return call

    monkeypatch.setattr(settling, "FUNCTIONS", tuple(watched(function) for function in settling.FUNCTIONS))
    return calls


def test_a_model_settles_them_before_its_first_pass_even_where_it_has_no_weights(called, random_model: Path):
    config = MiniGPT4VideoConfig.from_pretrained(random_model)
    with torch.device("meta"):
        MiniGPT4VideoForConditionalGeneration(config)

    assert {name for name, *_ in called} >= {"sin", "cos", "sqrt", "exp", "log", "tanh", "erf"}
    assert {kind for *_, kind, _ in called} == {torch.float32, torch.float64}
    assert {(count, device) for _, count, _, device in called} == {(1, "cpu")}  # more would be shared among threads


def test_what_is_settled_stays_what_it_was():
    numbers = torch.linspace(0.1, 0.9, 50_000)
    before = [function(numbers) for function in settling.FUNCTIONS]
    settling.settle_functions()

    assert all(torch.equal(one, function(numbers)) for one, function in zip(before, settling.FUNCTIONS, strict=True))
