"""What `data check` finds, and what it costs."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from data_sets import panda, write
from making import write_sound, write_video
from minigpt4_video.data.checking import Seen, check
from minigpt4_video.data.formats import FORMATS, read

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "data_check.py"


def write_cmd(folder: Path, rows: list[tuple[str, str]]) -> Path:
    return write(folder / "cmd.json", [{"image_id": name, "caption": caption} for name, caption in rows])


def test_every_kind_of_fault_is_counted_with_examples(tmp_path):
    (tmp_path / "a.mp4").touch()
    set_ = write_cmd(tmp_path, [("a", "A dog."), ("a", "Again."), ("gone", "x"), ("a", " "), ("a", "word " * 1001)])

    report = check(read("cmd", set_, media=tmp_path)).as_json()

    assert report["records"] == 3 and report["flawed rows"] == 2
    assert report["missing"]["problems"]["video is missing"] == {"count": 1, "examples": ["cmd.json row 3: gone"]}
    assert report["broken"]["problems"] == {"caption is empty": {"count": 1, "examples": ["cmd.json row 4"]}}
    assert report["duplicate"]["count"] == 2
    (long,) = report["too long"]["problems"].values()
    assert long["count"] == 1 and long["examples"][0].startswith("a: 10")


def test_examples_are_few_however_many_there_are(tmp_path):
    set_ = write_cmd(tmp_path, [(str(n), "") for n in range(100)])

    problem = check(read("cmd", set_)).as_json()["broken"]["problems"]["lacks caption"]

    assert problem["count"] == 100 and len(problem["examples"]) == 5


def test_chinese_is_counted_by_characters(tmp_path):
    set_ = write_cmd(tmp_path, [("a", "狗" * 40), ("b", "dog " * 10)])

    report = check(read("cmd", set_), longest=30)

    assert report.count("too long") == 1
    assert report.languages == {"zh": 1, "en": 1}


def test_opening_finds_media_that_do_not_play(tmp_path):
    write_video(tmp_path / "good.mp4")
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(random.Random(0).randbytes(5000))
    rows = [
        {"id": "late", "video": "good.mp4", "text": "x", "start": 60, "end": 70},
        *({"id": name, "video": f"{name}.mp4", "text": "x"} for name in ("good", "sound", "empty", "noise")),
    ]
    set_ = write(tmp_path / "l.jsonl", rows)

    shut = check(read("labels", set_, media=tmp_path))
    report = check(read("labels", set_, media=tmp_path), open_media=True).as_json()

    assert shut.count("broken") == 0
    problems = report["broken"]["problems"]
    assert problems["starts after the end of its video"]["count"] == 1
    assert problems["video cannot be read"]["count"] == 3
    assert not any("good" in example for example in problems["video cannot be read"]["examples"])


def test_names_seen_before_are_found_however_far_apart(monkeypatch):
    monkeypatch.setattr("minigpt4_video.data.checking.BUFFERED", 16)
    draw = random.Random(3)
    names = [str(draw.randrange(800)) for _ in range(2000)]
    seen = Seen()

    found = [twice for name in names for twice in seen.add(name)] + seen.rest()

    assert len(found) == len(names) - len(set(names))
    assert set(found) == {name for name in names if names.count(name) > 1}


def test_the_command_tells_and_counts(command, tmp_path):
    set_ = write(tmp_path / "p.csv", [panda(), panda("b", caption="['x']"), panda("c", clips=1)])

    status, out, err = command("data", "check", "panda-70m", set_)

    assert status == 0
    assert "samples:   3 (3 videos, 0 pictures)" in out
    assert "1 x lists of different lengths" in out and "p.csv line 3" in out
    assert "--media" in err
    assert json.loads(command("data", "check", "panda-70m", set_, "--json")[1])["broken"]["count"] == 1


def test_a_hostile_detail_cannot_steer_the_terminal(command, tmp_path):
    set_ = write(
        tmp_path / "c.json", [{"image_id": "\x1b[2J\u202egone", "caption": "x"}, {"image_id": 1, "caption": "x"}]
    )

    out = command("data", "check", "cmd", set_, "--media", tmp_path)[1]

    assert "\x1b" not in out and "\u202e" not in out


@pytest.mark.parametrize(
    "arguments", [("nothing", "x.json"), ("cmd", "gone.json"), ("cmd", "x.json", "--media", "gone"), ("cmd", "x.json")]
)
def test_what_cannot_be_checked_is_one_line(command, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("[]")

    status, _, err = command("data", "check", *arguments)

    assert status == 2
    assert err.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in err


def test_the_formats_are_listed(command):
    assert set(json.loads(command("data", "list", "--json")[1])) == set(FORMATS)
    assert "panda-70m" in command("data", "list")[1]


def test_checking_loads_no_torch(tmp_path):
    set_ = write(tmp_path / "p.csv", [panda()])
    code = (
        "import sys; from minigpt4_video.cli import main; "
        f"status = main(['data', 'check', 'panda-70m', {str(set_)!r}, '--json']); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_a_million_rows_are_checked_within_a_minute_and_a_gigabyte():
    done = subprocess.run([sys.executable, BENCHMARK], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)

    assert measured["rows"] == 1_000_000 and measured["flawed_rows"] == 1000
    assert measured["peak_mib"] < 1024
    assert measured["cpu_seconds"] < 60  # the clock on the wall tells of others on the machine as well
