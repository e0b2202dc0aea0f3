"""Another language model with another chat form goes through every path: Qwen's, in Chinese."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import minigpt4_video as mv
from minigpt4_video.inference.batching import BuiltIn, Request
from minigpt4_video.inference.store import Store
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.chat_templates import CHATML_TEMPLATES

QUESTIONS = ["视频里发生了什么？", "谁在说话？"]


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def folder(request, random_model, tmp_path_factory) -> Path:
    """The shape of Qwen's 7B and 8B in two layers: grouped heads, biases or normed queries and keys."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    kind = {"qwen2": {}, "qwen3": {"head_dim": 16}}[request.param]
    config = MiniGPT4VideoConfig(
        vision_config=mv.MiniGPT4VideoConfig.from_pretrained(random_model).vision_config,
        text_config={
            "model_type": request.param,
            "vocab_size": len(tokenizer),
            "hidden_size": 56,
            "intermediate_size": 148,
            "num_hidden_layers": 2,
            "num_attention_heads": 7,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **kind,
        },
    )
    made = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MiniGPT4VideoForConditionalGeneration(config)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(made)
    MiniGPT4VideoProcessor(
        tokenizer,
        chat_template=dict(CHATML_TEMPLATES),
        image_token_id=config.image_token_id,
        tokens_per_frame=config.tokens_per_frame,
        image_size=56,
        frames=4,
        window=400,
        answer_reserve=16,
    ).save_pretrained(made)
    return made


def test_every_path_gives_what_generate_gives(folder, subtitled, tmp_path):
    store = Store(tmp_path / "kept")
    chat = mv.VideoChat.from_pretrained(folder, device="cpu", store=store)
    expected = []
    for question in QUESTIONS:
        shown = {"type": "video", "path": str(subtitled), "subtitles": "auto"}
        messages = [{"role": "user", "content": [shown, {"type": "text", "text": question}]}]
        inputs = chat.processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        assert "<|im_start|>assistant" in chat.processor.apply_chat_template(messages)
        made = chat.model.generate(**inputs, max_new_tokens=16, do_sample=False)
        said = chat.processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        expected.append(said.strip())
        assert chat.answer(messages).text == expected[-1]
    video = chat.open(subtitled)

    assert [video.ask(question).text for question in QUESTIONS] == expected
    assert ["".join(video.stream(question)) for question in QUESTIONS] == expected
    assert [answer.text for answer in video.ask_many(QUESTIONS)] == expected
    (reply,) = BuiltIn(chat).answer([Request(subtitled, QUESTIONS)])
    assert [answer.text for answer in reply.answers] == expected
    again = mv.VideoChat.from_pretrained(folder, device="cpu", store=store).open(subtitled)
    assert [answer.text for answer in again.ask_many(QUESTIONS)] == expected
    talk = again.chat()
    assert talk.ask(QUESTIONS[0]) == expected[0]
    second = talk.ask("然后呢？", max_new_tokens=4)
    assert chat.open(subtitled).continue_(talk.messages[:-1], max_new_tokens=4).answer.text == second
