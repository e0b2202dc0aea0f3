"""The model with tiny random weights of three language model families."""

import copy
import itertools

import numpy as np
import peft
import pytest
import torch
from tiny_models import TEXT_CONFIGS, tiny_config, tiny_model
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    TextIteratorStreamer,
)

import minigpt4_video.model
from minigpt4_video.errors import ModelError
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration

LONG = "<Img><ImageHere><Cap>a cat <Img><ImageHere><Img><ImageHere>\nWhat is it?"
SHORT = "<Img><ImageHere></Img> Who?"
WORDS = "Only words here."


@pytest.fixture
def batch(processor, frames):
    """Three frames, one, and none, in one batch."""
    return processor(text=[LONG, SHORT, WORDS], images=[frames[:3], frames[3:4], []], return_tensors="pt")


def alone(processor, frames, row):
    text, shown = [(LONG, frames[:3]), (SHORT, frames[3:4]), (WORDS, [])][row]
    return processor(text=text, images=shown, return_tensors="pt")


def answers(model, inputs, **options):
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def test_row_alone_has_the_logits_it_has_in_a_batch(model, processor, frames, batch):
    with torch.inference_mode():
        together = model(**batch).logits
        for row in range(3):
            single = model(**alone(processor, frames, row)).logits[0]
            torch.testing.assert_close(together[row, -len(single) :], single, rtol=0, atol=2e-5)


def test_row_alone_gets_the_answer_it_gets_in_a_batch(model, processor, frames, batch):
    together = answers(model, batch)
    for row in range(3):
        assert torch.equal(together[row : row + 1], answers(model, alone(processor, frames, row)))


def test_beam_search_alone_is_as_in_a_batch(model, processor, frames, batch):
    together = answers(model, batch, num_beams=3)
    for row in range(3):
        assert torch.equal(together[row : row + 1], answers(model, alone(processor, frames, row), num_beams=3))


def test_cache_changes_nothing(model, batch):
    assert torch.equal(answers(model, batch), answers(model, batch, use_cache=False))


def test_static_cache_changes_nothing(model, batch):
    static = answers(model, batch, cache_implementation="static", disable_compile=True)
    assert torch.equal(answers(model, batch), static)


def test_prefix_in_the_cache_is_not_computed_again(model, processor, frames):
    """A second question on the same frames: the cache of the first prompt, the new ids, and no pixels."""
    first = alone(processor, frames, 0)
    with torch.inference_mode():
        cache = model(**first, use_cache=True).past_key_values
    ids = torch.cat([first["input_ids"], torch.tensor([processor.encode(" And then?", add_special_tokens=False)])], 1)
    mask = torch.ones_like(ids)
    whole = answers(model, {"input_ids": ids, "attention_mask": mask, "pixel_values": first["pixel_values"]})
    resumed = answers(model, {"input_ids": ids, "attention_mask": mask, "past_key_values": copy.deepcopy(cache)})
    assert torch.equal(whole, resumed)


def test_tower_runs_once_for_an_answer(model, processor, frames, monkeypatch):
    seen = []
    tower = model.model.vision_tower
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda pixels: seen.append(len(pixels)) or forward(pixels))
    answers(model, alone(processor, frames, 0), num_beams=2)
    assert seen == [3]


def test_frame_order_and_content_reach_the_words(model, processor, frames):
    forwards = alone(processor, frames, 0)
    backwards = processor(text=LONG, images=frames[:3][::-1], return_tensors="pt")
    with torch.inference_mode():
        difference = model(**forwards).logits[0, -1] - model(**backwards).logits[0, -1]
    assert difference.abs().max() > 1e-3


def test_stored_features_stand_for_pixels(model, batch):
    with torch.inference_mode():
        seen = model(**batch).logits
        pixels = batch.pop("pixel_values")
        features = model.model.get_merged_features(pixels)
        stored = model(**batch, image_features=features).logits
    assert features.shape == (4, 4, 4 * 32)
    assert torch.equal(seen, stored)


def test_frame_token_is_a_horizontal_strip_of_patches():
    """Four patches side by side, not two by two: a change in one patch row moves that row's tokens only."""
    model = tiny_model()
    tower = model.model.vision_tower
    tower.encoder.layers = torch.nn.ModuleList()  # without attention a token sees its own patches alone
    pixels = torch.zeros(1, 3, 28, 28)
    changed = pixels.clone()
    changed[:, :, 7:14, 21:28] = 1  # second row of patches, last column
    with torch.inference_mode():
        moved = (model.get_image_features(pixels) - model.get_image_features(changed)).abs().amax(-1)[0]
    assert (moved > 1e-4).tolist() == [False, True, False, False]
    with torch.inference_mode():
        merged = (model.model.get_merged_features(pixels) - model.model.get_merged_features(changed)).abs()[0, 1]
    assert merged.view(4, 32).amax(-1).gt(1e-4).tolist() == [False, False, False, True]


def test_last_layer_norm_has_torch_s_epsilon(model):
    assert model.model.vision_tower.post_layernorm.eps == 1e-5
    assert model.model.vision_tower.encoder.layers[0].layer_norm1.eps == 1e-6


def test_packed_branches_give_the_logits_of_separate_rows(model, processor, frames):
    """One prefix with two questions behind it, hidden from each other by a 4-D mask, positions restarting."""
    if getattr(model.config.text_config, "sliding_window", None):
        model = tiny_model("llama")  # a 4-D mask replaces the window, so the two forms differ beyond it
    prefix = processor.encode("<Img><ImageHere><Img><ImageHere>\n")
    branches = [processor.encode(text, add_special_tokens=False) for text in ("Who is it?", "Why?")]
    length, sizes = len(prefix), [len(branch) for branch in branches]
    total = length + sum(sizes)
    allowed = torch.ones(total, total).tril().bool()
    allowed[length + sizes[0] :, length : length + sizes[0]] = False
    positions = torch.tensor([[*range(length), *range(length, length + sizes[0]), *range(length, length + sizes[1])]])
    pixels = processor.pixels(frames[:2])
    ids = torch.tensor([prefix + branches[0] + branches[1]])
    with torch.inference_mode():
        for mask in (allowed[None, None], torch.where(allowed, 0.0, -torch.inf)[None, None]):
            packed = model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels).logits[0]
            begin = length
            for branch in branches:
                row = model(input_ids=torch.tensor([prefix + branch]), pixel_values=pixels).logits[0, length:]
                torch.testing.assert_close(packed[begin : begin + len(branch)], row, rtol=0, atol=2e-5)
                begin += len(branch)


def test_boolean_mask_means_the_same_to_eager_attention(processor, frames):
    model = tiny_model()
    inputs = alone(processor, frames, 1)
    size = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(size, size).tril().bool()[None, None]
    with torch.inference_mode():
        by_sdpa = model(**inputs).logits
        model.set_attn_implementation("eager")
        torch.testing.assert_close(model(**inputs).logits, by_sdpa, rtol=0, atol=2e-5)


def test_only_the_asked_logits_are_made(model, batch):
    with torch.inference_mode():
        whole, last = model(**batch).logits, model(**batch, logits_to_keep=2).logits
        picked = model(**batch, logits_to_keep=torch.tensor([0, 5])).logits
    torch.testing.assert_close(last, whole[:, -2:], rtol=0, atol=1e-6)
    torch.testing.assert_close(picked, whole[:, [0, 5]], rtol=0, atol=1e-6)


def test_loss_is_the_mean_over_what_is_learned(model, processor, frames):
    inputs = processor(
        text=[LONG, SHORT], images=[frames[:3], frames[3:4]], answers=["A cat.", "Nobody at all."], return_tensors="pt"
    )
    with torch.inference_mode():
        output = model(**inputs)
        learned = inputs["labels"][:, 1:] != -100
        chance = output.logits[:, :-1].log_softmax(-1)[learned]
        expected = -chance.gather(-1, inputs["labels"][:, 1:][learned][:, None]).mean()
        summed = model(**inputs, num_items_in_batch=int(learned.sum()) * 2).loss
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(summed, expected / 2)


@pytest.mark.parametrize("shown", [0, 1, 2, 4])
def test_wrong_number_of_frames_is_refused_with_the_numbers(model, processor, frames, shown):
    inputs = alone(processor, frames, 0)
    inputs["pixel_values"] = processor.pixels(frames[:shown]) if shown else None
    with pytest.raises(ModelError, match=rf"12 frame placeholders, but {shown * 4} frame tokens .*\({shown} frames"):
        model(**inputs)


def test_frames_given_twice_are_refused(model, processor, frames):
    inputs = alone(processor, frames, 1)
    features = model.model.get_merged_features(inputs["pixel_values"])
    with pytest.raises(ModelError, match="both given"):
        model(**inputs, image_features=features)
    inputs.pop("image_features", None)
    embeds = model.prompt_embeddings(**inputs)["inputs_embeds"]
    with pytest.raises(ModelError, match="leave out pixel_values"):
        model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"])


@pytest.mark.parametrize(
    "option", ["assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "prefill_chunk_size"]
)
def test_assisted_and_lookup_decoding_of_frames_are_refused_clearly(model, processor, frames, option):
    inputs = alone(processor, frames, 1)
    with pytest.raises(ModelError, match=f"{option} cannot read frames"):
        answers(model, inputs, **{option: model if option == "assistant_model" else 1})


@pytest.mark.parametrize("option", ["assistant_model", "prompt_lookup_num_tokens", "prefill_chunk_size"])
def test_assisted_and_lookup_decoding_of_words_alone_change_nothing(model, processor, option):
    inputs = processor(text="[INST] What is what is what?[/INST]", return_tensors="pt")
    value = {"assistant_model": tiny_model(seed=1), "prompt_lookup_num_tokens": 3, "prefill_chunk_size": 5}[option]
    plain = answers(model, inputs, max_new_tokens=12)
    assert torch.equal(answers(model, inputs, max_new_tokens=12, **{option: value}), plain)


def test_words_of_the_prompt_can_be_favoured_and_its_frames_are_none_of_them(model, processor, frames):
    inputs = alone(processor, frames, 0)
    words = set(inputs["input_ids"][0].tolist()) - {processor.image_token_id}
    options = {"max_new_tokens": 1, "do_sample": False, "output_scores": True, "output_logits": True}
    made = model.generate(**inputs, **options, return_dict_in_generate=True, encoder_repetition_penalty=2.0)
    changed = (made.scores[0] != made.logits[0])[0].nonzero()[:, 0].tolist()
    assert set(changed) == words


def test_penalty_counts_new_words_only(model, processor, frames):
    """As if the prompt were embeddings, where transformers has no ids to punish."""
    inputs = alone(processor, frames, 0)
    embedded = model.prompt_embeddings(**inputs)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "repetition_penalty": 1.5}
    assert torch.equal(answers(model, inputs, **options), model.generate(**embedded, **options))
    saved = copy.deepcopy(model.generation_config)
    saved.repetition_penalty = 1.5
    del options["repetition_penalty"]
    assert torch.equal(
        answers(model, inputs, generation_config=saved, **options),
        answers(model, inputs, repetition_penalty=1.5, **options),
    )


def test_repeated_phrases_are_barred_among_new_words_only(model, processor, frames):
    words = answers(model, alone(processor, frames, 0), max_new_tokens=24, no_repeat_ngram_size=2)[0].tolist()
    pairs = list(itertools.pairwise(words))
    assert len(pairs) == len(set(pairs))


def test_placeholder_inside_the_vocabulary_is_never_generated(processor, frames):
    model = tiny_model()
    model.config.image_token_id = model.model.config.image_token_id = 105
    with torch.no_grad():
        model.lm_head.weight[105] = model.lm_head.weight.mean(0) + 10  # the likeliest by far, or the unlikeliest
    inputs = alone(processor, frames, 0)
    inputs["input_ids"][inputs["input_ids"] == 112] = 105
    for sign in (1, -1):
        with torch.no_grad():
            model.lm_head.weight[105] *= sign
        assert 105 not in answers(model, inputs, max_new_tokens=16)
        assert 105 not in answers(model, inputs, max_new_tokens=8, num_beams=3)


def test_sampling_repeats_with_its_seed_and_several_answers_come_back(model, processor, frames):
    inputs = alone(processor, frames, 0)
    options = {"do_sample": True, "temperature": 2.0, "top_k": 0, "num_return_sequences": 3, "max_new_tokens": 12}
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(answers(model, inputs, **options))
    assert drawn[0].shape == (3, 12)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len({tuple(row) for row in drawn[0].tolist()}) == 3


def test_stream_joins_to_the_answer(model, processor, frames):
    inputs = alone(processor, frames, 0)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True)
    words = answers(model, inputs, streamer=streamer)
    assert "".join(streamer) == processor.tokenizer.decode(words[0])


def test_saved_model_loads_through_the_auto_classes(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(config, MiniGPT4VideoConfig) and isinstance(again, MiniGPT4VideoForConditionalGeneration)
    assert again.model.vision_tower.post_layernorm.eps == 1e-5
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, again(**batch).logits)


def test_half_precision_stays_close(model, batch):
    half = copy.deepcopy(model).to(torch.bfloat16)
    with torch.inference_mode():
        expected, logits = model(**batch).logits, half(**batch).logits
    assert logits.dtype == torch.bfloat16
    real = batch["attention_mask"].bool()
    assert (logits.float() - expected)[real].abs().mean() < 0.1 * expected[real].abs().mean()


def test_gradient_checkpointing_gives_the_same_gradients(model, processor, frames):
    inputs = processor(text=LONG, images=frames[:3], answers="A cat.", return_tensors="pt")
    gradients = []
    for checkpointing in (False, True):
        twin = copy.deepcopy(model).train()
        if checkpointing:
            twin.gradient_checkpointing_enable()
        twin(**inputs, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in twin.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6)


def test_lora_trains_the_language_model_and_the_projection_only(model, processor, frames, tmp_path):
    """By peft's own way: `modules_to_save` keeps the projection, which `add_adapter` would lose."""
    inputs = processor(text=LONG, images=frames[:3], answers="A cat.", return_tensors="pt")
    settings = peft.LoraConfig(
        target_modules=r".*language_model.*\.(q|v)_proj", modules_to_save=["multi_modal_projector"], r=4
    )
    tuned = peft.get_peft_model(copy.deepcopy(model), settings).train()
    before = {name: value.detach().clone() for name, value in tuned.named_parameters()}
    optimizer = torch.optim.SGD([value for value in tuned.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):  # B begins at zero, so A moves from the second step on
        optimizer.zero_grad()
        tuned(**inputs).loss.backward()
        optimizer.step()
    moved = {name for name, value in tuned.named_parameters() if not torch.equal(value, before[name])}
    layers = model.config.text_config.num_hidden_layers
    assert len([name for name in moved if ".language_model." in name and "lora_" in name]) == 2 * 2 * layers
    assert all("lora_" in name or "multi_modal_projector.modules_to_save" in name for name in moved)
    assert len([name for name in moved if "multi_modal_projector" in name]) == 2

    tuned.eval().save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(**inputs).logits, tuned(**inputs).logits, rtol=0, atol=1e-5)
        assert (tuned(**inputs).logits - model(**inputs).logits).abs().max() > 1e-3


def test_sliding_window_reaches_the_language_model(processor, frames):
    with torch.inference_mode():
        inputs = alone(processor, frames, 0)
        narrow = tiny_model("mistral")
        wide = copy.deepcopy(narrow)
        config = copy.deepcopy(narrow.config)
        config.text_config.sliding_window = None
        wide = MiniGPT4VideoForConditionalGeneration(config).eval()
        wide.load_state_dict(narrow.state_dict())
        assert not torch.allclose(narrow(**inputs).logits[0, -1], wide(**inputs).logits[0, -1], atol=1e-3)


def test_configuration_tells_what_follows_from_it():
    config = MiniGPT4VideoConfig(text_config={"model_type": "llama", "vocab_size": 32000})
    assert config.tokens_per_frame == 64  # 224 px, 14 px patches, 4 patches a token
    assert config.image_token_id == 32000  # the first beyond the vocabulary
    assert config.vision_config.num_hidden_layers == 39
    assert tiny_config().tokens_per_frame == 4
    with pytest.raises(ValueError, match="16 patches, which merge_size 3 does not divide"):
        MiniGPT4VideoConfig(vision_config={"image_size": 28, "patch_size": 7}, merge_size=3)


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("gemma2", {}, "final_logit_softcapping"),
        ("cohere", {"eos_token_id": 1}, "logit_scale"),
        ("granite", {"logits_scaling": 8.0}, "logits_scaling"),
        ("gpt2", {}, "embeddings"),
    ],
)
def test_language_models_whose_logits_would_be_wrong_are_refused(kind, more, reason):
    config = tiny_config()
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"model_type": kind, "vocab_size": 64, "num_key_value_heads": 2, **more}
    with pytest.raises(ModelError, match=reason):
        MiniGPT4VideoForConditionalGeneration(
            MiniGPT4VideoConfig(vision_config=config.vision_config.to_dict(), text_config=text)
        )


def test_language_models_that_could_change_their_logits_but_do_not_are_taken():
    text = tiny_config().text_config.to_dict() | {"model_type": "granite", "logits_scaling": 1.0}
    MiniGPT4VideoForConditionalGeneration(
        MiniGPT4VideoConfig(vision_config=tiny_config().vision_config.to_dict(), text_config=text)
    )


@pytest.mark.parametrize("kind", sorted(TEXT_CONFIGS))
def test_output_layer_is_tied_where_the_language_model_s_is(kind):
    model = tiny_model(kind)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == TEXT_CONFIGS[kind].get("tie_word_embeddings", False)


def test_import_registers_the_classes():
    assert AutoConfig.for_model("minigpt4_video").__class__ is minigpt4_video.model.MiniGPT4VideoConfig


def test_frames_are_flat_and_in_the_order_of_rows(model, processor, frames):
    inputs = processor(text=[LONG, SHORT], images=[frames[:3], frames[3:4]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (4, 3, 28, 28)
    assert torch.equal(inputs["pixel_values"], processor.pixels(frames[:4]))
    with torch.inference_mode():
        embeds = model.prompt_embeddings(**inputs)["inputs_embeds"]
        tokens = model.get_video_features(inputs["pixel_values"])
    held = embeds[inputs["input_ids"] == processor.image_token_id]
    np.testing.assert_allclose(held, tokens.flatten(0, 1), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}]
)
def test_several_beams_see_the_frames_in_their_order(model, processor, frames, options):
    """Against embeddings, which hold the frames in place whatever multiplies the rows."""
    inputs = processor(text=[LONG, SHORT], images=[frames[:3], frames[3:4]], return_tensors="pt")
    embedded = model.prompt_embeddings(**inputs)
    expected = model.generate(**embedded, **{"max_new_tokens": 8, "eos_token_id": None, **options, "use_cache": True})
    assert torch.equal(answers(model, inputs, **options), expected)


def test_row_that_ends_amid_a_frame_is_refused(model, processor, frames):
    inputs = processor(text=[SHORT, SHORT], images=[frames[:1], frames[1:2]], return_tensors="pt")
    ids = inputs["input_ids"]
    ids[0, -1], ids[1, ids[1] == processor.image_token_id] = processor.image_token_id, torch.tensor([112, 112, 112, 5])
    with pytest.raises(ModelError, match=r"\[5, 3\] placeholders in frames of 4"):
        model(**inputs)
