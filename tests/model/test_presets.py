"""The table of known models."""

import pytest
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from minigpt4_video.errors import ModelError
from minigpt4_video.model.presets import PRESETS, settings_for


@pytest.mark.parametrize(
    ("name", "billions"),
    # of the language models as published, plus 0.99 for the tower and 0.01 to 0.03 for the projection
    [("llama2-7b", 6.74), ("llama2-13b", 13.02), ("mistral-7b", 7.24), ("qwen2.5-7b", 7.62), ("qwen3-8b", 8.19)],
)
def test_parameters_are_those_of_the_published_models(name, billions):
    assert PRESETS[name].parameters() / 1e9 == pytest.approx(billions + 1.01, abs=0.03)


def test_memory_counts_weights_and_cache():
    preset = PRESETS["mistral-7b"]
    cache = 2 * 2 * 32 * 8 * 128 * 7713  # keys and values, 16 bit, layers, heads, head, window
    assert preset.memory() == 2 * preset.parameters() + cache
    assert preset.memory(0.5) < preset.memory() / 2


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
    with pytest.raises(ModelError, match=r"eva_vit_g.pth .* `minigpt4-video convert`"):
        PRESETS[name].folder()


def test_licence_and_parts_are_named_for_every_model():
    assert all(preset.licence and preset.description for preset in PRESETS.values())
    assert [name for name, preset in PRESETS.items() if not preset.parts] == ["tiny"]
