"""Every benchmark in its published layout: read, asked and scored by a tiny model, with broken rows reported."""

from collections import Counter
from pathlib import Path

import pytest
from sets import SETS, tvqa, video_mme

from minigpt4_video.evaluation import running
from minigpt4_video.evaluation.answering import ModelAnswerer, Settings
from minigpt4_video.evaluation.benchmarks import BENCHMARKS
from minigpt4_video.evaluation.reporting import write_examples
from minigpt4_video.evaluation.summary import summarised, values_of
from minigpt4_video.inference.chat import VideoChat


@pytest.fixture(scope="module")
def chat(random_model: Path) -> VideoChat:
    return VideoChat.from_pretrained(random_model, device="cpu")


@pytest.mark.parametrize("name", SETS)
def test_a_benchmark_is_read_asked_and_scored(name: str, chat: VideoChat, tmp_path: Path) -> None:
    made = SETS[name](tmp_path / "set")
    output = tmp_path / "run"
    task = running.task(name, output, made.annotations, made.media, "auto", None)
    asked = running.read(task)
    assert {item.id: item.reference for item in asked.items} == made.right
    assert Counter(flaw.problem for flaw in asked.flaws) == made.flaws

    answerer = ModelAnswerer(chat, Settings(max_new_tokens=3))
    running.begin(task, output, answerer.identity())
    rows = running.answer(asked, output, answerer)
    benchmark = BENCHMARKS[name]
    values = values_of(asked.items, rows, benchmark.scoring)
    summary = summarised(asked, rows, values)
    assert summary["answered"] == len(made.right) and not summary["failed"]
    metrics = {"open": {"exact", "f1", "anls"}, "choice": {"accuracy", "likelihood"}, "rated": {"f1"}}
    assert set(summary["figures"]) == metrics[benchmark.scoring]
    for item in asked.items:
        assert len(rows[item.id]["openings"]) == len(item.choices)
        assert rows[item.id]["question"] in rows[item.id]["prompt"]
    write_examples(output, asked, rows, values)
    assert "<figure>" in (output / "examples.html").read_text(encoding="utf-8")


def test_all_benchmarks_are_tried_and_tell_what_they_need() -> None:
    assert set(SETS) | {"world", "msvd-qa"} == set(BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.annotations and benchmark.origin and benchmark.about
        assert name == "world" or benchmark.make is None


@pytest.mark.parametrize("name", ["tvqa", "video-mme"])
def test_with_and_without_subtitles(name: str, chat: VideoChat, tmp_path: Path) -> None:
    made = {"tvqa": tvqa, "video-mme": video_mme}[name](tmp_path / "set")
    words = {"tvqa": "House: No cane.", "video-mme": "hello from the start"}[name]
    prompts = {}
    for subtitles in ("auto", "off"):
        asked = running.read(running.Task(name, made.annotations, made.media, subtitles))
        ((row, *_), *_) = ModelAnswerer(chat, Settings(max_new_tokens=1)).answer([asked.items[:1]])
        prompts[subtitles] = row["prompt"]
    assert words in prompts["auto"] and words not in prompts["off"]
    assert prompts["off"].count("<ImageHere>") == prompts["auto"].count("<ImageHere>")


def test_subtitles_may_be_named(tmp_path: Path) -> None:
    made = tvqa(tmp_path / "set")
    file = made.annotations.with_name("tvqa_preprocessed_subtitles.jsonl").rename(tmp_path / "said.jsonl")
    asked = running.read(running.Task("tvqa", made.annotations, made.media, str(file)))
    assert asked.items[0].video["subtitles"] == [{"start": 0.2, "end": 1.0, "text": "House: No cane."}]
    asked = running.read(running.Task("tvqa", made.annotations, made.media))
    assert asked.items[0].video["subtitles"] == "off"


def test_a_span_of_a_video_is_what_is_seen_of_it(chat: VideoChat, tmp_path: Path) -> None:
    made = SETS["mvbench"](tmp_path / "set")
    asked = running.read(running.Task("mvbench", made.annotations, made.media))
    rows = [
        row
        for made in ModelAnswerer(chat, Settings(max_new_tokens=1)).answer([[i] for i in asked.items])
        for row in made
    ]
    assert min(rows[0]["times"]) >= 0.5 and max(rows[0]["times"]) < 2.5 and len(rows[0]["times"]) == 4
    assert rows[1]["times"] == [0.0, 0.333, 0.667, 1.0] or max(rows[1]["times"]) < 1.5


def test_likelihood_of_letters_is_that_of_the_model(chat: VideoChat, tmp_path: Path) -> None:
    """Against a forward pass of the whole prompt."""
    import torch

    made = video_mme(tmp_path / "set")
    item = running.read(running.Task("video-mme", made.annotations, made.media)).items[0]
    ((row,),) = ModelAnswerer(chat, Settings(max_new_tokens=2)).answer([[item]])
    video = chat.open(item.video["path"], subtitles=item.video["subtitles"])
    inputs = chat.processor(text=row["prompt"], images=list(video.footage.clip.frames), return_tensors="pt")
    with torch.inference_mode():
        logits = chat.model(**inputs).logits[0, -1].float().log_softmax(-1)
    letters = [chat.processor.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABCD"]
    assert row["openings"] == pytest.approx(logits[letters].tolist(), abs=1e-3)
