"""Where a model goes, and what it needs there."""

import json
import logging

import pytest
import torch

from minigpt4_video.errors import ModelError
from minigpt4_video.inference import loading
from minigpt4_video.inference.loading import find_device, find_place, load_model, memory_needed
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


def test_a_model_that_only_all_gpus_together_hold_is_spread_over_them(gpus):
    gpus(9, 12)
    assert find_place("auto", 16 * GIB) == "balanced"
    assert find_place(None, 11 * GIB) == torch.device("cuda", 1)
    gpus(9, 9)
    assert find_place("auto", 16 * GIB) == torch.device("cpu")


def test_wide_matrices_lie_by_columns_and_hold_what_the_file_holds(random_model):
    from safetensors.torch import load_file

    model = load_model(random_model, torch.device("cpu"), None)
    stored = load_file(random_model / "model.safetensors")
    by_columns = set()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, stored[name])
        if not parameter.is_contiguous():
            by_columns.add(".".join(name.split(".")[-2:]))

    assert by_columns == {f"{name}.weight" for name in ("q_proj", "o_proj", "gate_proj", "up_proj")} | {
        "lm_head.weight"
    }


def test_a_table_that_is_also_the_output_layer_keeps_its_rows(random_model, tmp_path):
    model = load_model(random_model, torch.device("cpu"), None)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")

    tied = load_model(tmp_path / "tied", torch.device("cpu"), None)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert tied.lm_head.weight.is_contiguous()


@pytest.mark.parametrize("asked", ["8bit", "4bit"])
def test_only_the_layers_of_the_language_model_take_fewer_bits(random_model, asked):
    """By the rule that transformers itself applies when it loads."""
    pytest.importorskip("bitsandbytes")
    from transformers.quantizers.quantizers_utils import should_convert_module

    settings = loading._quantization(asked, "balanced")
    assert (settings.load_in_8bit, settings.load_in_4bit) == (asked == "8bit", asked == "4bit")
    model = load_model(random_model, torch.device("cpu"), None)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            fewer = should_convert_module(name, settings.llm_int8_skip_modules)
            assert fewer == name.startswith("model.language_model.layers."), name


def test_memory_needed_counts_fewer_bits_for_the_layers_alone(random_model):
    model = load_model(random_model, torch.device("cpu"), None)
    layers = sum(parameter.numel() for parameter in model.model.language_model.layers.parameters())

    assert memory_needed(random_model, None) - memory_needed(random_model, None, "8bit") == 3 * layers
    assert memory_needed(random_model, "bfloat16") - memory_needed(random_model, "bfloat16", "4bit") == 1.5 * layers


@pytest.mark.parametrize(
    ("missing", "asked", "said"),
    [
        ("bitsandbytes", "4bit", r"4bit weights need bitsandbytes; pip install"),
        ("accelerate", "8bit", r"8bit weights need accelerate; pip install"),
        (None, "2bit", "choose 8bit, 4bit"),
    ],
)
def test_fewer_bits_that_cannot_be_had_are_refused_in_a_sentence(random_model, monkeypatch, missing, asked, said):
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(ModelError, match=said):
        load_model(random_model, "balanced", None, asked)


@pytest.mark.parametrize("asked", ["8bit", "4bit"])
def test_fewer_bits_on_the_processor_are_refused_in_a_sentence(random_model, asked):
    with pytest.raises(ModelError, match="for a GPU; leave the weights whole"):
        load_model(random_model, torch.device("cpu"), None, asked)


@pytest.fixture
def adapted(random_model, tmp_path):
    """A model folder with LoRA matrices kept apart, and the weights with them added."""
    import shutil

    peft = pytest.importorskip("peft")
    folder = tmp_path / "adapted"
    shutil.copytree(random_model, folder)
    model = load_model(random_model, torch.device("cpu"), None)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0, 0.5)
    tuned.save_pretrained(folder / "adapter")
    return folder, tuned.merge_and_unload()


def test_lora_that_was_kept_apart_is_added_to_the_weights(adapted, random_model):
    folder, expected = adapted
    model = load_model(folder, torch.device("cpu"), None)
    whole = dict(expected.named_parameters())

    assert dict(model.named_parameters()).keys() == whole.keys()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, whole[name], atol=1e-6), name
    plain = load_model(random_model, torch.device("cpu"), None)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(plain.get_parameter(name), whole[name], atol=1e-2)


def test_an_adapter_that_cannot_be_used_is_refused_in_a_sentence(adapted, monkeypatch):
    folder, _ = adapted
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"the LoRA in .* cannot be loaded"):
        load_model(folder, torch.device("cpu"), None)
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"adapter holds LoRA, which needs peft; pip install"):
        load_model(folder, torch.device("cpu"), None)
