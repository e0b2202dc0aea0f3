"""The world's benchmark: what is chosen, what is withheld, and how it is counted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt4_video.data.world.files import render
from minigpt4_video.errors import DataError, UserError
from minigpt4_video.evaluation.answering import ModelAnswerer, Settings
from minigpt4_video.evaluation.items import Item
from minigpt4_video.evaluation.world import choose, make, prior, table
from minigpt4_video.inference.chat import VideoChat


def item(name: str, kind: str, language: str = "en", reference: str = "red") -> Item:
    tags = {"kind": kind, "language": language, "needs": "picture"}
    return Item(name, {"type": "video", "path": "a.mp4"}, "?", reference, tags=tags)


def test_accuracy_is_the_mean_over_kinds_not_over_questions() -> None:
    items = [item(str(number), "colour") for number in range(4)] + [item("4", "count", "zh", "两个")]
    counted = table(items, {"0": "red", "1": "Red.", "2": "blue", "3": "red", "4": "三个"})
    assert counted["by_kind"] == {"colour": 0.75, "count": 0.0}
    assert counted["macro"] == 0.375
    assert counted["by_language"] == {"en": 0.75, "zh": 0.0}


def test_the_prior_always_gives_the_commonest_answer_of_a_language() -> None:
    items = [item(r, "colour", reference=r) for r in ("red", "red", "blue")] + [item("4", "colour", "zh", "红色")]
    assert prior(items) == {"colour": 0.75}


def test_questions_are_spread_over_kinds(tmp_path: Path) -> None:
    render(tmp_path, seed=0, count=12)
    items = choose(tmp_path, 5)
    assert len(items) == 60 and len({one.tags["kind"] for one in items}) == 14
    assert len({one.id for one in items}) == 60 == len({(one.video["path"], one.question) for one in items})
    with pytest.raises(UserError, match="render a world"):
        choose(tmp_path / "none", 5)


def test_a_benchmark_that_was_made_small_grows_by_the_same_videos(tmp_path: Path) -> None:
    make(tmp_path, 8)
    first = choose(tmp_path, 7)
    make(tmp_path, 20)
    assert len(first) == 14 and choose(tmp_path, 7)[:14] == first
    assert len(list(tmp_path.glob("*.mp4"))) == 3


@pytest.mark.parametrize("shown", ["all", "no subtitles", "no frames", "nothing"])
def test_what_is_withheld_does_not_reach_the_model(
    shown: Any, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path, seed=2, count=3)
    asked = next(one for one in choose(tmp_path, 40) if Path(one.video["path"]).with_suffix(".srt").exists())
    chat = VideoChat.from_pretrained(random_model)
    spread: list[float] = []
    encode = VideoChat.encode
    monkeypatch.setattr(
        VideoChat,
        "encode",
        lambda self, frames: spread.append(float(max(f.std() for f in frames))) or encode(self, frames),
    )
    ((row,),) = ModelAnswerer(chat, Settings(shown=shown, max_new_tokens=8)).answer([[asked]])
    said = Path(asked.video["path"]).with_suffix(".srt").read_text(encoding="utf-8")
    words = said.splitlines()[2].split(" ")[-1].rstrip(".。")
    without_question = row["prompt"].replace(asked.question, "")
    assert (words in without_question) == (shown in ("all", "no frames"))
    assert any(value > 0 for value in spread) == (shown in ("all", "no subtitles"))
    assert ("<ImageHere>" in row["prompt"]) == (shown != "nothing")


def test_the_record_of_a_file_is_what_the_benchmark_reads(tmp_path: Path) -> None:
    render(tmp_path, seed=9, count=1)
    row = json.loads((tmp_path / "questions.jsonl").read_text(encoding="utf-8"))
    chosen = choose(tmp_path, 100)
    assert {one.question for one in chosen} == {question["text"] for question in row["questions"]}
    assert str(tmp_path / SimpleNamespace(**row).video) == chosen[0].video["path"]


@pytest.mark.parametrize("line", ["{broken", "{}", "[]", '{"video": "a.mp4", "questions": [{}]}'])
def test_a_damaged_list_of_questions_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "questions.jsonl").write_text(f'{{"video": "a.mp4", "questions": []}}\n{line}\n')
    with pytest.raises(DataError, match=r"questions\.jsonl is damaged in line 2: .*; render the world again"):
        choose(tmp_path, 7)
