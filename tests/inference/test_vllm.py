"""vLLM answers as the engine that is built in does. Run by `make test-vllm`, in an environment of its own."""

import os
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own; `make test-vllm` makes it")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"

import torch

import minigpt4_video as mv
from making import SUBTITLES, write_video
from minigpt4_video.errors import ModelError, PlanError, UserError
from minigpt4_video.inference.batching import BuiltIn, Question, Request
from minigpt4_video.inference.vllm import VLLM
from vllm_models import KINDS, write_model


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request, random_model, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    write_model(made, request.param, random_model)
    return made


@pytest.fixture(scope="module")
def chat(folder) -> mv.VideoChat:
    return mv.VideoChat.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def engine(chat, tmp_path_factory) -> VLLM:
    return VLLM(chat, tmp_path_factory.mktemp("served") / "language-model", enforce_eager=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    made = [write_video(tmp_path_factory.mktemp("videos") / f"{n}.mp4", seconds=1, rate=n + 2) for n in range(3)]
    made[1].with_suffix(".srt").write_text(SUBTITLES, encoding="utf-8")
    told = "1\n00:00:00,000 --> 00:00:01,000\n" + "the rain, and then " * 15
    made[2].with_suffix(".srt").write_text(told, encoding="utf-8")
    return made


QUESTIONS = ["What happens?", Question("Who speaks, and why?", max_new_tokens=5), "视频里发生了什么？", "What?"]


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_answers_are_those_of_the_engine_that_is_built_in(chat, engine, videos, monkeypatch, penalty):
    monkeypatch.setattr(chat.model.generation_config, "repetition_penalty", penalty)
    requests = [Request(video, QUESTIONS) for video in videos]
    expected = list(BuiltIn(chat).answer(requests))
    replies = list(engine.answer(requests))

    assert [reply.request for reply in replies] == requests
    for reply, other in zip(replies, expected, strict=True):
        for said, wanted in zip(reply.answers, other.answers, strict=True):
            assert said.text == wanted.text
            assert said.confidence == pytest.approx(wanted.confidence, abs=1e-3)
            assert said.plan == wanted.plan


def test_further_questions_about_a_video_do_not_read_it_again(engine, videos, monkeypatch):
    cached = {}
    step = engine.llm.llm_engine.step

    def watched():
        outputs = step()
        cached.update((output.request_id, output.num_cached_tokens) for output in outputs)
        return outputs

    monkeypatch.setattr(engine.llm.llm_engine, "step", watched)
    (reply,) = engine.answer([Request(videos[2], ["Why is that?"])])
    plan = reply.answers[0].plan
    cached.clear()
    list(engine.answer([Request(videos[2], ["Who is there?", "And where?"])]))

    block = engine.llm.llm_engine.vllm_config.cache_config.block_size
    whole = (plan.frame_tokens + plan.subtitle_tokens) // block * block
    assert len(cached) == 2 and whole > 0
    assert all(count >= whole for count in cached.values()), (cached, whole)


def test_a_draw_repeats_with_its_seed(engine, videos):
    asked = [Question("What?", temperature=1.3, seed=seed) for seed in (1, 2, 1)]
    (reply,) = engine.answer([Request(videos[0], asked)])
    texts = [answer.text for answer in reply.answers]

    assert texts[0] == texts[2] != texts[1]


def test_what_is_wrong_with_one_request_is_in_its_reply(engine, videos, tmp_path):
    requests = [
        Request(tmp_path / "none.mp4", ["What?"]),
        Request(videos[0], [" "]),
        Request(videos[0], [Question("What?", max_new_tokens=10**5)]),
        Request(videos[0], [Question("What?", temperature=1.0, seed=2**64)]),
        Request(videos[0], []),
        Request(videos[0], ["What?"]),
    ]
    replies = list(engine.answer(requests))

    assert [type(reply.error) for reply in replies] == [
        mv.MediaError,
        UserError,
        PlanError,
        UserError,
        type(None),
        type(None),
    ]
    assert replies[5].answers[0].text


def test_only_so_many_questions_are_in_its_hands(engine, videos, monkeypatch):
    """Each brings the embeddings of its whole prompt, which are larger than anything else that is held."""
    held = []
    step = engine.llm.llm_engine.step

    def watched():
        held.append(engine.llm.llm_engine.get_num_unfinished_requests())
        return step()

    monkeypatch.setattr(engine.llm.llm_engine, "step", watched)
    monkeypatch.setattr(engine, "together", 2)
    replies = list(engine.answer([Request(video, ["What?", "Who?", "Why?"]) for video in videos]))

    assert all(len(reply.answers) == 3 for reply in replies)
    assert max(held) == 2


def test_what_is_not_wanted_any_more_is_not_answered(engine, videos):
    def endless():
        while True:
            yield Request(videos[0], [Question("What?", max_new_tokens=60)])

    replies = engine.answer(endless())
    next(replies)
    replies.close()
    assert not engine.llm.llm_engine.has_unfinished_requests()


def test_another_model_s_folder_is_refused(chat, engine, folder):
    place = Path(engine.llm.llm_engine.model_config.model)
    with torch.no_grad():
        chat.model.lm_head.weight.add_(1.0)
    try:
        with pytest.raises(ModelError, match="does not hold this language model"):
            VLLM(chat, place)
    finally:
        with torch.no_grad():
            chat.model.lm_head.weight.sub_(1.0)


def test_settings_that_it_does_not_know_are_refused(chat, engine, videos, monkeypatch):
    monkeypatch.setattr(chat.model.generation_config, "no_repeat_ngram_size", 3)
    (reply,) = engine.answer([Request(videos[0], ["What?"])])
    assert "no_repeat_ngram_size" in str(reply.error)
