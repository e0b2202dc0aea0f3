"""The table of known models."""

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from minigpt4_video.errors import ModelError
from minigpt4_video.model.branches import bytes_per_slot
from minigpt4_video.model.configuration import MiniGPT4VideoConfig
from minigpt4_video.model.modeling import MiniGPT4VideoForConditionalGeneration
from minigpt4_video.model.presets import PRESETS, settings_for
from minigpt4_video.training.recipe import shipped


@pytest.mark.parametrize(
    ("name", "billions"),
    # of the language models as published, plus 0.99 for the tower and 0.01 to 0.03 for the projection
    [("llama2-7b", 6.74), ("llama2-13b", 13.02), ("mistral-7b", 7.24), ("qwen2.5-7b", 7.62), ("qwen3-8b", 8.19)],
)
def test_parameters_are_those_of_the_published_models(name, billions):
    assert PRESETS[name].parameters() / 1e9 == pytest.approx(billions + 1.01, abs=0.03)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_sizes_are_those_of_the_model_made_without_storage(name, request):
    preset = PRESETS[name]
    if preset.text_config is None:
        config = MiniGPT4VideoConfig.from_pretrained(request.getfixturevalue("embedded"))
    else:
        config = MiniGPT4VideoConfig(text_config=dict(preset.text_config))
    with torch.device("meta"):
        model = MiniGPT4VideoForConditionalGeneration(config)
    sizes = preset.sizes()

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert sizes.vision == count(model.model.vision_tower)
    assert sizes.projection == count(model.model.multi_modal_projector)
    assert sizes.parameters == count(model)
    assert sizes.tokens_per_frame == config.tokens_per_frame
    assert 2 * sizes.cache_per_token == bytes_per_slot(config.text_config, torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        weights = sum(parameter.numel() * dtype.itemsize for parameter in model.parameters())
        cache = preset.asked().window * bytes_per_slot(config.text_config, dtype)
        assert preset.memory(str(dtype).removeprefix("torch.")) == weights + cache


def test_memory_counts_weights_and_cache_by_dtype_and_frames():
    preset = PRESETS["mistral-7b"]
    cache = 2 * 32 * 8 * 128 * 7713  # keys and values, layers, heads, head, window
    assert preset.memory("bfloat16") == 2 * (preset.parameters() + cache)
    assert preset.memory("float32") == 2 * preset.memory("bfloat16")
    fewer = 2 * 2 * 32 * 8 * 128 * 80 * 64  # 80 frames of 64 tokens
    assert preset.memory("bfloat16", frames=10) == preset.memory("bfloat16") - fewer
    assert preset.memory("bfloat16", frames=90) == preset.memory("bfloat16")


def test_what_is_left_for_subtitles_follows_from_the_window():
    assert PRESETS["llama2-7b"].subtitle_budget() == 3857 - 256 - 45 * 64
    assert PRESETS["qwen3-8b"].subtitle_budget() == 7713 - 512 - 90 * 64


def test_downloads_are_about_those_published():
    sizes = {name: preset.download() / 1e9 for name, preset in PRESETS.items()}
    assert sizes["tiny"] == 0
    assert sizes["llama2-7b"] == pytest.approx(13.5 + 2.0 + 0.7, abs=0.3)
    assert sizes["qwen2.5-7b"] == pytest.approx(15.2 + 2.0, abs=0.3)


def test_frames_and_windows_are_the_original_s():
    llama, mistral = PRESETS["llama2-7b"].settings, PRESETS["mistral-7b"].settings
    assert (llama.frames, llama.window, llama.repetition_penalty) == (45, 3857, 1.5)
    assert (mistral.frames, mistral.window, mistral.repetition_penalty) == (90, 7713, 1.5)


def test_settings_follow_the_kind_of_language_model_and_its_positions():
    assert settings_for(LlamaConfig(max_position_embeddings=4096)) == PRESETS["llama2-7b"].settings
    assert settings_for(MistralConfig()) == PRESETS["mistral-7b"].settings
    assert settings_for(Qwen2Config()).chat == "chatml"
    assert settings_for(LlamaConfig(max_position_embeddings=512)).window == 512


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_model_that_has_to_be_made_says_of_what(name):
    verb = "convert" if name in ("llama2-7b", "mistral-7b") else f"train {name}/stage1"
    with pytest.raises(ModelError, match=rf"eva_vit_g.pth .* `minigpt4-video {verb}`"):
        PRESETS[name].folder()
    if verb != "convert":
        assert f"{name}/stage1" in shipped()


def test_licence_and_parts_are_named_for_every_model():
    assert all(preset.licence and preset.description for preset in PRESETS.values())
    assert [name for name, preset in PRESETS.items() if not preset.parts] == ["tiny"]
