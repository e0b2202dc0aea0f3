"""The page about samples: exactly what training reads, and nothing that a data set could make a browser do."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from minigpt4_video.data.formats import read
from minigpt4_video.model import MiniGPT4VideoProcessor
from minigpt4_video.training.files import item
from minigpt4_video.training.kept import Reader
from minigpt4_video.training.preview import page, pieces
from minigpt4_video.training.sets import gather

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x> </s> <ImageHere> \u202e"


@pytest.fixture
def processor(random_model: Path) -> MiniGPT4VideoProcessor:
    return MiniGPT4VideoProcessor.from_pretrained(random_model)


@pytest.fixture
def conversations(tmp_path: Path, subtitled: Path) -> Path:
    rows = [
        {"video": "clip.mp4", "conversations": [
            {"from": "human", "value": "<video>\nwhat happens"}, {"from": "gpt", "value": "it brightens"},
            {"from": "human", "value": "and then"}, {"from": "gpt", "value": "白色"},
        ]},
        {"video": "clip.mp4", "conversations": [
            {"from": "human", "value": "<video>\nwhat is said"}, {"from": "gpt", "value": "hello"},
        ]},
        {"video": "gone.mp4", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"video": "../clip.mp4", "conversations": [{"from": "human", "value": HOSTILE}]},
    ]  # fmt: skip
    path = tmp_path / "set.json"
    path.write_text(json.dumps(rows))
    return path


def rows(path: Path):
    return list(read("llava", path, media=path.parent))


def test_the_text_is_what_training_reads_and_the_marks_are_what_it_learns(processor, conversations):
    groups, _ = gather(rows(conversations))
    made = item(groups[0], processor, Reader(None, "nothing"), frames=4, width=256)
    branches = [branch for row in made.rows for branch in row.branches]

    assert len(branches) == 2
    for branch in branches:
        told = pieces(branch.ids, branch.learned, processor)
        learnt = [piece.text for piece in told if piece.trained]
        ids = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in learnt]
        assert ids == [branch.ids[first:last] for first, last in branch.learned]
    texts = [[piece.text for piece in pieces(b.ids, b.learned, processor) if piece.trained] for b in branches]
    assert sorted(texts) == [["hello</s>"], ["it brightens</s>", "白色</s>"]]
    whole = "".join(piece.text for piece in pieces(made.rows[0].prefix, (), processor))
    assert "hello from the start" in whole and whole.count("<Img>") == 4


def test_the_page_shows_frames_subtitles_words_and_marks(processor, conversations):
    html = page(rows(conversations), processor, title="set", frames=4, width=256)
    text = unescape(re.sub('<span class="frame">.*?</span>', "", html))

    assert html.count('src="data:image/jpeg;base64,') == 4
    assert "<mark>it brightens</s></mark>" in text and "<mark>hello</s></mark>" in text
    assert "happens" in text and "hello from the start" in text
    assert "video is missing" in text


def test_nothing_a_set_says_can_run_or_reach_the_network(processor, tmp_path, subtitled):
    path = tmp_path / "set.jsonl"
    row = {"id": HOSTILE, "video": "clip.mp4", "conversations": [
        {"from": "human", "value": HOSTILE}, {"from": "gpt", "value": HOSTILE},
    ]}  # fmt: skip
    path.write_text(json.dumps(row) + "\n" + HOSTILE)
    (tmp_path / "clip.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{HOSTILE}\n")

    # The placeholder would be a frame that is not there: in the question and in the answer it is broken apart.
    html = page(rows(path), processor, title=HOSTILE, frames=4, width=256)

    assert "default-src 'none'" in html and "cannot be used" not in html.split("<h2>")[0]
    assert set(re.findall(r"<(script|img|iframe|link|object)\b", html)) == {"img"}
    assert set(re.findall(r'src="([^"]{0,15})', html)) == {"data:image/jpeg"}


def test_the_command_writes_one_page(command, embedded, conversations, tmp_path):
    output = tmp_path / "page.html"

    status, out, _ = command(
        "data", "preview", "llava", conversations, "--media", tmp_path, "--output", output, "--count", 2
    )

    assert status == 0 and out.strip() == str(output)
    assert output.read_text().count("<mark>") == 1 + 3  # the first is the legend


def test_a_place_that_cannot_take_the_page_is_told_at_once(command, tmp_path):
    status, _, err = command("data", "preview", "llava", "gone.json", "--output", tmp_path / "no" / "page.html")

    assert status == 2 and "does not exist" in err
