"""The world's benchmark: what is chosen, what is withheld, and how it is counted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt4_video.data.world.files import render
from minigpt4_video.errors import UserError
from minigpt4_video.evaluation.world import Answered, Item, answers, choose, normalised, prior, table
from minigpt4_video.inference.chat import VideoChat


def item(kind: str, language: str = "en", reference: str = "red", needs: str = "picture", video: str = "a.mp4") -> Item:
    return Item(video, kind, needs, language, "?", reference)


def test_accuracy_is_the_mean_over_kinds_not_over_questions() -> None:
    results = [Answered(item("colour"), "all", said) for said in ("red", "Red.", "blue", "red")]
    results.append(Answered(item("count", "zh", "两个"), "all", "三个"))
    counted = table(results)
    assert counted["by_kind"] == {"colour": 0.75, "count": 0.0}
    assert counted["macro"] == 0.375
    assert counted["by_language"] == {"en": 0.75, "zh": 0.0}


def test_exact_match_forgives_case_spaces_and_the_last_full_stop_only() -> None:
    assert normalised(" The Red  circle. ") == "the red circle"
    assert normalised("红色。") == "红色"
    assert normalised("red circle") != normalised("circle red")


def test_the_prior_always_gives_the_commonest_answer_of_a_language() -> None:
    items = [item("colour", reference=r) for r in ("red", "red", "blue")] + [item("colour", "zh", "红色")]
    assert prior(items) == {"colour": 0.75}


def test_questions_are_spread_over_kinds(tmp_path: Path) -> None:
    render(tmp_path, seed=0, count=12)
    items = choose(tmp_path, 5)
    assert len(items) == 60 and len({one.kind for one in items}) == 14
    assert len({(one.video, one.question) for one in items}) == 60
    with pytest.raises(UserError, match="render a world"):
        choose(tmp_path / "none", 5)


@pytest.mark.parametrize("shown", ["all", "no subtitles", "no frames", "nothing"])
def test_what_is_withheld_does_not_reach_the_model(
    shown: Any, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path, seed=2, count=3)
    items = [one for one in choose(tmp_path, 40) if (tmp_path / one.video).with_suffix(".srt").exists()]
    name = items[0].video
    chat = VideoChat.from_pretrained(random_model)
    seen: list[tuple[str, int]] = []
    prepare, encode = type(chat.processor).prepare, VideoChat.encode

    def watched(self: Any, messages: Any, **options: Any) -> Any:
        prepared = prepare(self, messages, **options)
        seen.append((prepared.text, len(prepared.frames)))
        return prepared

    spread: list[float] = []
    monkeypatch.setattr(type(chat.processor), "prepare", watched)
    monkeypatch.setattr(
        VideoChat,
        "encode",
        lambda self, frames: spread.append(float(max(f.std() for f in frames))) or encode(self, frames),
    )
    done = list(answers(chat, tmp_path, [one for one in items if one.video == name][:1], shown))
    assert len(done) == 1 and done[0].shown == shown
    texts = " ".join(text for text, _ in seen)
    said = (tmp_path / name).with_suffix(".srt").read_text(encoding="utf-8")
    words = said.splitlines()[2].split(" ")[-1].rstrip(".。")
    without_question = texts.replace(done[0].item.question, "")
    assert (words in without_question) == (shown in ("all", "no frames"))
    assert any(value > 0 for value in spread) == (shown in ("all", "no subtitles"))


def test_the_record_of_a_file_is_what_the_benchmark_reads(tmp_path: Path) -> None:
    render(tmp_path, seed=9, count=1)
    row = json.loads((tmp_path / "questions.jsonl").read_text(encoding="utf-8"))
    chosen = choose(tmp_path, 100)
    assert {one.question for one in chosen} == {question["text"] for question in row["questions"]}
    assert SimpleNamespace(**row).video == chosen[0].video
