"""Where a model goes, and what it needs there."""

import json
import logging

import pytest
import torch

from minigpt4_video.inference.loading import find_device, load_model, memory_needed
from minigpt4_video.model.branches import Branches

GIB = 2**30


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are GPUs with so many GiB free."""

    def pretend(*free: float) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (int(free[number] * GIB), 80 * GIB))

    return pretend


def test_the_gpu_with_the_most_free_memory_is_taken(gpus):
    gpus(3, 20, 9)
    assert find_device("auto", 16 * GIB) == find_device(None) == torch.device("cuda", 1)


def test_a_model_that_no_gpu_holds_goes_to_the_processor_and_is_told_why(gpus, caplog):
    gpus(3, 12)
    logging.getLogger("minigpt4_video").propagate = True
    assert find_device("auto", 16 * GIB) == torch.device("cpu")
    assert "needs 16.0 GiB and no GPU has more than 12.0 GiB free" in caplog.text


def test_without_a_gpu_the_processor_is_taken_without_a_word(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto", 10**15) == torch.device("cpu")
    assert not caplog.records


def test_memory_needed_is_what_the_loaded_model_takes(random_model):
    model = load_model(random_model, torch.device("cpu"), None)
    window = json.loads((random_model / "processor_config.json").read_text())["window"]
    weights = sum(parameter.nbytes for parameter in model.parameters())

    assert memory_needed(random_model, None) == weights + Branches(model, 1, window - 1).memory
    assert memory_needed(random_model, "bfloat16") == memory_needed(random_model, "float32") / 2
