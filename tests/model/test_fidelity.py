"""What the original computed, from its own files: see docs/fidelity.md."""

import re

import numpy as np
import peft
import pytest
import torch
from tiny_models import REPOSITORY

from minigpt4_video.model.presets import ORIGINAL_WINDOWS
from minigpt4_video.training.optimization import WarmupCosine, parameter_groups


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(ours.float(), torch.from_numpy(theirs), rtol=0, atol=tolerance)


def new_tokens(golden, inputs, **options) -> list[list[int]]:
    generated = golden.model.generate(**inputs, **options)
    return generated[:, inputs["input_ids"].shape[1] :].tolist()


def same_words(ours: list[list[int]], theirs: list[list[int]]) -> None:
    """Equal ids; a batch stops when its last row does, so rows may be recorded with another number of paddings."""
    assert len(ours) == len(theirs)
    for mine, recorded in zip(ours, theirs, strict=True):
        assert mine[: len(recorded)] == recorded


def test_pixels_are_the_original_s_bit_for_bit(golden):
    assert torch.equal(golden.processor.pixels(golden.frames), torch.from_numpy(golden.arrays("inputs")["pixels"]))


def test_vision_tokens_merge_and_projection_agree(golden):
    recorded, model = golden.arrays("vision"), golden.model.model
    pixels = golden.processor.pixels(golden.frames[: len(recorded["merged"])])
    with torch.inference_mode():
        close(model.vision_tower(pixels).last_hidden_state, recorded["ln_vision"], 1e-5)
        close(model.get_merged_features(pixels), recorded["merged"], 1e-5)
        close(model.get_image_features(pixels), recorded["projected"], 1e-5)


def test_every_segment_has_the_original_s_token_ids(golden):
    compared = 0
    for case in golden.cases.values():
        if not isinstance(case, dict):
            continue
        rows = (
            zip(case.get("prompts", ()), case["segment_token_ids"], strict=True)
            if isinstance(case.get("segment_token_ids"), list)
            else ()
        )
        turns = ((turn["prompt"], turn["segment_token_ids"]) for turn in case.get("turns", ()))
        for prompt, segments in (*rows, *turns):
            frame = [golden.processor.image_token_id] * golden.processor.tokens_per_frame
            expected = segments[0] + [token for segment in segments[1:] for token in frame + segment]
            assert golden.processor.encode(prompt) == expected
            compared += 1
    assert compared >= 8


def test_tokenizer_gives_the_slow_tokenizer_s_ids(golden):
    for case in golden.cases["tokenizer_cases"]:
        tokenizer = golden.processor.tokenizer
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids_no_special"], case["text"]
        assert tokenizer(case["text"])["input_ids"] == case["ids_special"], case["text"]


def test_prompt_logits_agree_at_every_position(golden):
    for name in ("video", "image_eos", "video_batch", "image_batch"):
        inputs, recorded = golden.inputs(name), golden.arrays(name)
        assert inputs["attention_mask"].tolist() == recorded["attention_mask"].tolist()
        with torch.inference_mode():
            logits = golden.model(**inputs).logits
        assert logits.shape[1] == golden.cases[name]["prompt_tokens_total"]
        kept = recorded["logits"].shape[1]  # of batches only the last positions are recorded
        real = inputs["attention_mask"][:, -kept:].bool()
        close(logits[:, -kept:][real], recorded["logits"][real.numpy()], 1e-4)


def test_embedded_prompt_and_layers_agree(golden):
    if not golden.has("video_llm_layers"):
        pytest.skip("the trimmed set holds no layers")
    inputs, recorded, layers = golden.inputs("video"), golden.arrays("video"), golden.arrays("video_llm_layers")
    with torch.inference_mode():
        close(golden.model.prompt_embeddings(**inputs)["inputs_embeds"], recorded["inputs_embeds"], 1e-5)
        hidden = golden.model(**inputs, output_hidden_states=True).hidden_states
    for layer in range(len(layers) - 2):
        close(hidden[layer + 1], layers[f"layer{layer}"], 1e-4)
    close(hidden[-1], layers["final_norm"], 1e-4)


@pytest.mark.parametrize("name", ["video", "video_rp1", "video_q2", "video_batch", "image_batch", "image_eos"])
def test_greedy_answers_are_the_original_s(golden, name):
    inputs = golden.inputs(name)
    same_words(new_tokens(golden, inputs, **golden.cases[name]["generate_kwargs"]), golden.cases[name]["generated_ids"])


def test_logits_of_every_decoding_step_agree(golden):
    inputs, recorded = golden.inputs("video"), golden.arrays("video")
    options = golden.cases["video"]["generate_kwargs"]
    output = golden.model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    close(torch.stack(output.logits, dim=1), recorded["decode_logits"], 2e-4)


def test_frame_features_from_a_store_give_the_same_answer(golden):
    inputs = golden.inputs("video")
    with torch.inference_mode():
        inputs["image_features"] = golden.model.model.get_merged_features(inputs.pop("pixel_values"))
    options = golden.cases["video"]["generate_kwargs"]
    assert new_tokens(golden, inputs, **options) == golden.cases["video"]["generated_ids"]


def test_both_turns_of_a_chat_agree(golden):
    for number, turn in enumerate(golden.cases["chat"]["turns"], start=1):
        recorded = golden.arrays(f"chat_turn{number}")
        inputs = golden.processor(text=turn["prompt"], images=[golden.frames[0]], return_tensors="pt")
        with torch.inference_mode():
            close(golden.model(**inputs).logits[:, -1], recorded["logits_last"], 1e-4)
        options = {
            name: turn["generate_kwargs"][name]
            for name in ("max_new_tokens", "num_beams", "do_sample", "repetition_penalty", "length_penalty")
        }
        assert new_tokens(golden, inputs, **options) == [turn["generated_ids"]]


def test_chat_templates_write_the_original_s_prompts(golden):
    def question(text, part):
        return [{"role": "user", "content": [part, {"type": "text", "text": text}]}]

    first, second = golden.cases["chat"]["turns"]
    picture = {"type": "image", "image": golden.frames[0]}
    messages = question(first["question"], picture)
    assert golden.processor.apply_chat_template(messages, chat_template="demo") == first["prompt"]
    messages += [
        {"role": "assistant", "content": first["text"]},
        {"role": "user", "content": second["question"]},
    ]
    assert golden.processor.apply_chat_template(messages, chat_template="demo") == second["prompt"]


def test_too_long_prompt_is_cut_as_the_original_did_only_by_name(golden):
    case = golden.cases["video_truncated"]
    inputs = golden.inputs("video_truncated")
    window = ORIGINAL_WINDOWS[golden.config["kind"]]
    assert inputs["input_ids"].shape[1] > window == case["prompt_tokens_total"]
    with torch.inference_mode():
        cut = golden.model.prompt_embeddings(**inputs, truncation="original-left", window=window)
        logits = golden.model(**cut, logits_to_keep=1).logits[:, -1]
    close(logits, golden.arrays("video_truncated")["prefill_last_logits"], 1e-4)
    same_words(golden.model.generate(**cut, **case["generate_kwargs"]).tolist(), case["generated_ids"])


@pytest.fixture
def trainable(golden):
    """The model as the original trained it: LoRA on the language model and the projection move, nothing else."""
    from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration

    base = MiniGPT4VideoForConditionalGeneration.from_pretrained(golden.kept)
    model = peft.PeftModel.from_pretrained(base, golden.kept / "adapter", is_trainable=True)
    base.model.multi_modal_projector.requires_grad_(True)
    return model.train()


def training_inputs(golden, name):
    case = golden.cases[name]
    texts = [f"[INST] {instruction}[/INST]" for instruction in case["instruction_input"]]
    return golden.processor(text=texts, images=golden.rows(case), answers=case["answer"], return_tensors="pt")


def ours(name: str) -> str:
    """An original parameter's name here."""
    if name.startswith("llama_proj"):
        return name.replace("llama_proj", "base_model.model.model.multi_modal_projector.linear")
    path = name.removeprefix("llama_model.base_model.model.model.").replace(".weight", ".default.weight")
    return f"base_model.model.model.language_model.{path}"


@pytest.mark.parametrize("name", ["train", "train_image"])
def test_training_loss_agrees(golden, trainable, name):
    loss = trainable(**training_inputs(golden, name)).loss
    assert loss.item() == pytest.approx(golden.cases[name]["loss"], abs=1e-5)


def test_gradients_and_one_optimiser_step_agree(golden, trainable):
    trainable(**training_inputs(golden, "train")).loss.backward()
    parameters = {name: value for name, value in trainable.named_parameters() if value.requires_grad}
    gradients, after = golden.arrays("train_grads"), golden.arrays("train_after_step")
    assert {ours(name) for name in gradients} == set(parameters)
    for name, recorded in gradients.items():
        difference = np.linalg.norm(parameters[ours(name)].grad.numpy() - recorded)
        assert difference <= 1e-4 * np.linalg.norm(recorded), name
    torch.optim.AdamW(parameter_groups(trainable.named_parameters()), lr=1e-4, betas=(0.9, 0.999), eps=1e-8).step()
    for name, recorded in after.items():
        close(parameters[ours(name)].detach(), recorded, 1e-6)


def test_decayed_parameters_are_those_of_the_original(golden, trainable):
    decayed, free = parameter_groups(trainable.named_parameters())
    recorded = golden.cases["checkpoint"]["optimizer_param_groups"]
    assert [len(group["params"]) for group in (decayed, free)] == [len(group["params"]) for group in recorded]
    assert [group["weight_decay"] for group in (decayed, free)] == [group["weight_decay"] for group in recorded]


def test_vectors_and_what_is_named_as_a_bias_or_norm_do_not_decay():
    def parameter(*shape, learned=True):
        return torch.nn.Parameter(torch.zeros(shape), requires_grad=learned)

    named = {
        "layer.weight": parameter(2, 2),
        "scale": parameter(2),
        "ln_vision.weight": parameter(2, 2),
        "deep.bias": parameter(2, 2),
        "frozen.weight": parameter(2, 2, learned=False),
    }
    decayed, free = parameter_groups(named.items(), weight_decay=0.1)
    assert [id(one) for one in decayed["params"]] == [id(named["layer.weight"])]
    assert [id(one) for one in free["params"]] == [
        id(named[name]) for name in ("scale", "ln_vision.weight", "deep.bias")
    ]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_learning_rate_runs_as_the_original_s(golden):
    recorded = golden.cases["lr_schedule"]
    schedule = WarmupCosine(
        steps=recorded["max_epoch"] * recorded["iters_per_epoch"],
        warmup_steps=recorded["warmup_steps"],
        peak=recorded["init_lr"],
        floor=recorded["min_lr"],
        start=recorded["warmup_lr"],
    )
    assert [schedule.rate(step) for step in range(len(recorded["lr"]))] == pytest.approx(recorded["lr"], rel=1e-9)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=schedule.peak)
    scheduler = schedule.scheduler(optimizer)
    rates = []
    for _ in recorded["lr"]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(recorded["lr"], rel=1e-6)


def test_nothing_of_a_long_training_sample_is_cut(golden):
    """The original cut the question off at its limit, and the end token off the answer (train_truncated)."""
    case = golden.cases["train_truncated"]
    recorded = golden.arrays("train_truncated")
    inputs = training_inputs(golden, "train_truncated")
    end = golden.processor.tokenizer.eos_token_id
    for row, (text, answer) in enumerate(zip(case["instruction_input"], case["answer"], strict=True)):
        learned = inputs["labels"][row][inputs["labels"][row] != -100].tolist()
        assert learned == golden.processor.tokenizer(f"{answer}</s>", add_special_tokens=False)["input_ids"]
        assert learned[-1] == end
        length = int(inputs["attention_mask"][row].sum())
        prompt = inputs["input_ids"][row, : length - len(learned)].tolist()
        assert prompt == golden.processor.encode(f"[INST] {text}[/INST]")
    assert int((inputs["labels"] != -100).sum()) > int((recorded["labels"] != -100).sum())


def test_padding_is_never_attended_nor_learned(golden):
    """The original's conversations held attended padding (train_conv), and every row was padded to a constant."""
    inputs = training_inputs(golden, "train")
    lengths = inputs["attention_mask"].sum(dim=1)
    width = inputs["input_ids"].shape[1]
    assert int(lengths.max()) == width < golden.arrays("train")["attention_mask"].shape[1]
    for row, length in enumerate(lengths.tolist()):
        assert inputs["attention_mask"][row, :length].all()
        assert (inputs["labels"][row, length:] == -100).all()


def test_every_test_that_the_table_names_exists():
    table = (REPOSITORY / "docs" / "fidelity.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", table))
    there = {
        name
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= there, sorted(named - there)
