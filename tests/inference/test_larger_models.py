"""The larger language models, small in depth and width, go through every path; Qwen's in Chinese in its own form."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import minigpt4_video as mv
from minigpt4_video.cli.output import visible
from minigpt4_video.inference.batching import BuiltIn, Request
from minigpt4_video.inference.store import Store
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.chat_templates import CHATML_TEMPLATES, INSTRUCTION_TEMPLATES
from minigpt4_video.model.presets import PRESETS

QUESTIONS = ["视频里发生了什么？", "谁在说话？"]


@pytest.fixture(scope="module", params=["llama2-13b", "qwen2.5-7b", "qwen3-8b"])
def folder(request, random_model, tmp_path_factory) -> Path:
    """The shape of a preset in two layers, with an eighth of its width and of its heads or fewer."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    preset = PRESETS[request.param].text_config
    heads = max(4, preset["num_attention_heads"] // 8)
    config = MiniGPT4VideoConfig(
        vision_config=mv.MiniGPT4VideoConfig.from_pretrained(random_model).vision_config,
        text_config=preset
        | {
            "vocab_size": len(tokenizer),
            "hidden_size": heads * 12,
            "intermediate_size": heads * 32,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads * preset["num_key_value_heads"] // preset["num_attention_heads"]),
            "head_dim": 16 if "head_dim" in preset else 12,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    )
    made = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MiniGPT4VideoForConditionalGeneration(config)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    model.generation_config.repetition_penalty = 1.5  # without, random weights say one word again and again
    model.save_pretrained(made)
    MiniGPT4VideoProcessor(
        tokenizer,
        chat_template=dict(CHATML_TEMPLATES if request.param.startswith("qwen") else INSTRUCTION_TEMPLATES),
        image_token_id=config.image_token_id,
        tokens_per_frame=config.tokens_per_frame,
        image_size=56,
        frames=4,
        window=400,
        answer_reserve=16,
    ).save_pretrained(made)
    return made


def test_every_path_gives_what_generate_gives(folder, subtitled, tmp_path, command):
    store = Store(tmp_path / "kept")
    chat = mv.VideoChat.from_pretrained(folder, device="cpu", store=store)
    opening = "<|im_start|>assistant" if chat.model.config.text_config.model_type.startswith("qwen") else "[/INST]"
    expected = []
    for question in QUESTIONS:
        shown = {"type": "video", "path": str(subtitled), "subtitles": "auto"}
        messages = [{"role": "user", "content": [shown, {"type": "text", "text": question}]}]
        inputs = chat.processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        assert opening in chat.processor.apply_chat_template(messages)
        made = chat.model.generate(**inputs, max_new_tokens=16, do_sample=False)
        said = chat.processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        expected.append(said.strip())
        assert chat.answer(messages).text == expected[-1]
    video = chat.open(subtitled)

    assert expected[0] != expected[1] and all(len(set(said)) > 4 for said in expected)
    assert [video.ask(question).text for question in QUESTIONS] == expected
    assert ["".join(video.stream(question)) for question in QUESTIONS] == expected
    assert [answer.text for answer in video.ask_many(QUESTIONS)] == expected
    (reply,) = BuiltIn(chat).answer([Request(subtitled, QUESTIONS)])
    assert [answer.text for answer in reply.answers] == expected
    assert command("ask", subtitled, QUESTIONS[0], "--model", folder, "--device", "cpu")[:2] == (
        0,
        f"{visible(expected[0])}\n",
    )
    again = mv.VideoChat.from_pretrained(folder, device="cpu", store=store).open(subtitled)
    assert [answer.text for answer in again.ask_many(QUESTIONS)] == expected
    talk = again.chat()
    assert talk.ask(QUESTIONS[0]) == expected[0]
    second = talk.ask("然后呢？", max_new_tokens=4)
    assert chat.open(subtitled).continue_(talk.messages[:-1], max_new_tokens=4).answer.text == second
