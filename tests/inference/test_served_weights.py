"""The language model alone, as vLLM is given it. Needs no vLLM."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from minigpt4_video.errors import ModelError
from minigpt4_video.inference.loading import load_model
from minigpt4_video.inference.vllm import write_language_model


@pytest.fixture(scope="module")
def model(random_model):
    return load_model(random_model, torch.device("cpu"), None)


def test_what_is_written_computes_the_same_and_is_written_once(model, tmp_path, monkeypatch):
    folder = tmp_path / "some" / "where"
    write_language_model(model, folder)
    ids = torch.tensor([[1, 5, 9, 30]])
    with torch.inference_mode():
        alone = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        assert torch.allclose(alone, model(input_ids=ids).logits, atol=1e-5)
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("it was written again"))
    write_language_model(model, folder)


@pytest.mark.parametrize("same", [True, False])
def test_a_folder_that_another_process_has_written_meanwhile_is_taken_if_it_holds_the_same(
    model, tmp_path, monkeypatch, same
):
    folder = tmp_path / "here"
    whole = Path.rename

    def late(aside, target):
        other = tmp_path / "other"
        other.mkdir()
        for file in aside.iterdir():
            (other / file.name).write_bytes(file.read_bytes() if same else b"another")
        whole(other, target)
        whole(aside, target)

    monkeypatch.setattr(Path, "rename", late)
    if same:
        write_language_model(model, folder)
    else:
        with pytest.raises(ModelError, match="does not hold this language model"):
            write_language_model(model, folder)
    assert [file.name for file in tmp_path.iterdir()] == ["here"]
