"""A job from a folder to a table: a status for everything, nothing lost, nothing twice, and resumable."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from making import write_video
from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.alarms import LEAST
from minigpt4_video.labelling.cuts import Cutting
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests


def rows_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "labels.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_file_ends_in_one_status_with_its_reason(mixed, tmp_path, random_model):
    order = Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4)

    label(order)

    rows = {row["video"]: row for row in rows_of(order.output)}
    assert len(rows_of(order.output)) == len(rows) == 8
    assert {name for name, row in rows.items() if row["status"] in ("success", "truncated")} == {
        "good.mp4",
        "inner/short.mp4",
    }
    assert {name for name, row in rows.items() if row["status"] == "skipped"} == {"good.srt", "notes.md"}
    for name in ("broken.mp4", "empty.mp4", "text.mp4", "sound.mp4"):
        assert rows[name]["status"] == "error"
        assert rows[name]["stage"] == "read"
        assert name in rows[name]["error"]
        assert str(tmp_path) not in rows[name]["error"]
    good = rows["good.mp4"]
    assert good["said"] == "hello"
    assert good["said_in"] == "good.srt"
    assert len(good["frames"]) == 4
    assert good["confidence"] < 0
    assert good["revision"] and good["prompt"] and good["model"]
    assert rows["inner/short.mp4"]["subtitles"] == "off"


def test_the_table_is_the_lines(mixed, tmp_path, random_model):
    import pyarrow.parquet as pq

    label(Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4))

    assert pq.read_table(tmp_path / "out" / "labels.parquet").to_pylist() == rows_of(tmp_path / "out")


def test_labels_are_what_asking_gives(world, tmp_path, embedded):
    import minigpt4_video as mv

    asked = requests(("brief", "tags"), ("en", "zh"))
    label(Order(str(world), tmp_path / "out", asked))

    chat = mv.VideoChat.from_pretrained("tiny")
    rows = [row for row in rows_of(tmp_path / "out") if row["video"].endswith(".mp4")]
    assert len(rows) == 4 * 8
    for name in sorted({row["video"] for row in rows})[:3]:
        video = chat.open(world / name)
        for row in (row for row in rows if row["video"] == name):
            answer = video.ask(row["prompt"])
            assert (row["text"], row["status"]) == (answer.text, "success")
            assert row["confidence"] == pytest.approx(answer.confidence, abs=1e-4)


def test_a_long_answer_is_truncated_and_says_so(world, tmp_path, embedded):
    label(Order(str(world), tmp_path / "out", requests(("detailed",)), max_new_tokens=3))

    rows = [row for row in rows_of(tmp_path / "out") if row["video"].endswith(".mp4")]
    assert {row["status"] for row in rows} == {"truncated"}
    assert all(row["tokens"] == 3 and "3 tokens" in row["error"] for row in rows)


def test_a_finished_job_does_nothing_again(mixed, tmp_path, random_model):
    order = Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4)
    label(order)
    before = rows_of(order.output)

    done = label(order)

    assert (done.done_before, done.statuses.total()) == (8, 0)
    assert rows_of(order.output) == before


def test_retrying_labels_what_failed_and_keeps_the_rest(mixed, tmp_path, random_model):
    order = Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4)
    label(order)
    before = {row["video"]: row for row in rows_of(order.output)}
    (mixed / "broken.mp4").write_bytes((mixed / "good.mp4").read_bytes())

    done = label(Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4, again="errors"))

    after = {row["video"]: row for row in rows_of(order.output)}
    assert done.statuses.total() == 4
    assert after["broken.mp4"]["status"] != "error"
    assert after["broken.mp4"]["attempt"] == 1
    assert {name for name in after if after[name] != before[name]} == {
        "broken.mp4", "empty.mp4", "text.mp4", "sound.mp4",
    }  # fmt: skip


def test_retrying_comes_to_the_last_of_many_files_that_stay_broken(world, tmp_path, random_model):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(LEAST + 1):
        (folder / f"{number:02d}.mp4").write_bytes(b"no video")
    order = Order(str(folder), tmp_path / "out", model=str(random_model), max_new_tokens=4, max_failures=1)
    label(order)
    shutil.copy(min(world.glob("*.mp4")), folder / f"{LEAST}.mp4")

    label(replace(order, max_failures=0.5, again="errors"))

    assert [row["video"] for row in rows_of(order.output) if row["status"] != "error"] == [f"{LEAST}.mp4"]


@pytest.mark.parametrize(
    "change",
    [
        {"requests": requests(("tags",))},
        {"requests": requests(questions=["Who?"])},
        {"frames": 2},
        {"max_new_tokens": 5},
        {"subtitles": "off"},
        {"temperature": 0.5},
        {"vllm": Path("language-model")},
        {"agreement": Path("clip")},
    ],
)
def test_going_on_with_other_settings_is_refused(mixed, tmp_path, random_model, change):
    order = {"collection": str(mixed), "output": tmp_path / "out", "model": str(random_model), "max_new_tokens": 4}
    label(Order(**order))

    with pytest.raises(LabellingError, match="another"):
        label(Order(**order | change))


def test_going_on_with_other_weights_is_refused(mixed, tmp_path, random_model):
    model = tmp_path / "model"
    shutil.copytree(random_model, model)
    order = Order(str(mixed), tmp_path / "out", model=str(model), max_new_tokens=4)
    label(order)
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1.5}))

    with pytest.raises(LabellingError, match="revision"):
        label(order)


def test_going_on_with_a_changed_collection_is_refused(world, tmp_path, random_model):
    folder = tmp_path / "in"
    shutil.copytree(world, folder)
    videos = sorted(folder.glob("*.mp4"))
    order = Order(str(folder), tmp_path / "out", model=str(random_model), max_new_tokens=4, max_alike=1)
    label(order)

    videos[0].unlink()
    videos[1].touch()
    assert label(order).statuses.total() == 0
    shutil.copy(videos[2], folder / "added.mp4")
    with pytest.raises(LabellingError, match=r"new: added.mp4\).*another folder"):
        label(order)
    (folder / "added.mp4").unlink()
    write_video(videos[3], seconds=1)
    with pytest.raises(LabellingError, match=rf"\(changed: {videos[3].name}\)"):
        label(order)


def test_a_changed_table_is_another_collection(world, tmp_path, random_model):
    one, two = sorted(world.glob("*.mp4"))[:2]
    table = tmp_path / "videos.csv"
    table.write_text(f"id,video\na,{one}\nb,{two}\n")
    order = Order(str(table), tmp_path / "out", model=str(random_model), max_new_tokens=4)
    label(order)

    table.write_text(f"id,video\na,{two}\nb,{one}\n")
    with pytest.raises(LabellingError, match="new: a and 1 more"):
        label(order)
    table.write_text(f"id,video,end\na,{one},\nb,{two},1\n")
    with pytest.raises(LabellingError, match="new: b"):
        label(order)


def test_a_cut_collection_is_compared_before_it_is_cut(tmp_path, random_model):
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "a.mp4", seconds=4)
    order = Order(str(folder), tmp_path / "out", cutting=Cutting(window=2.0), model=str(random_model), max_new_tokens=4)
    label(order)

    assert label(order).done_before == 2
    write_video(folder / "b.mp4")
    with pytest.raises(LabellingError, match=r"new: b\.mp4"):
        label(order)


def test_labels_inside_the_collection_are_no_part_of_it(tmp_path, random_model):
    write_video(tmp_path / "a.mp4")
    order = Order(str(tmp_path), tmp_path / "labels", model=str(random_model), max_new_tokens=4)

    label(order)

    assert [row["video"] for row in rows_of(order.output)] == ["a.mp4"]
    assert label(order).done_before == 1


def test_a_folder_with_other_files_is_not_written_into(mixed, tmp_path, random_model):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(LabellingError, match="thesis"):
        label(Order(str(mixed), tmp_path / "out", model=str(random_model)))


def test_two_processes_do_not_label_into_one_folder(mixed, tmp_path, random_model):
    from minigpt4_video.labelling.job import held

    with held(tmp_path / "out"), pytest.raises(LabellingError, match="another process"):
        label(Order(str(mixed), tmp_path / "out", model=str(random_model)))


def test_the_command_labels_and_tells(mixed, tmp_path, random_model, command):
    line = ["label", mixed, "--output", tmp_path / "out", "--model", random_model, "--max-new-tokens", 4, "--json"]

    status, out, _ = command(*line)

    assert status == 0
    told = json.loads(out)
    assert told["rows"] == 8
    assert sum(told["statuses"].values()) == 8
    status, out, err = command(*line, "--style", "tags")
    assert (status, out) == (2, "")
    assert "another requests" in err or "another" in err


def test_what_would_be_left_out_without_a_word_is_refused(mixed, tmp_path, command):
    line = ["label", mixed, "--output", tmp_path / "out"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scene.json").write_text("{}")
    for more, told in (
        (["--where", "nonsense"], "--export"),
        (["--where", "1", "--browse", "1"], "--browse"),
        (["--schema", tmp_path / "a" / "scene.json", "--schema", tmp_path / "b" / "scene.json"], "two schemas"),
    ):
        status, _, err = command(*line, *more)
        assert (status, told in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_installed_is_told_of(mixed, tmp_path, random_model, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    line = ["label", mixed, "--output", tmp_path / "out", "--model", random_model, "--vllm", tmp_path / "llm"]

    status, out, err = command(*line)

    assert (status, out) == (2, "")
    assert "vLLM cannot be used here" in err and "Traceback" not in err
    assert not (tmp_path / "llm").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests

def kill(progress):
    if progress.clips == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

label(Order(sys.argv[1], Path(sys.argv[2]), requests(("brief", "tags")), keep_every=0), kill)
"""


def test_a_kill_loses_and_doubles_nothing(world, tmp_path, embedded):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    label(Order(str(world), undisturbed, requests(("brief", "tags"))))

    line = [sys.executable, "-c", KILLED, str(world), str(killed), "3"]
    assert subprocess.run(line, capture_output=True, timeout=250).returncode == -signal.SIGKILL
    done = label(Order(str(world), killed, requests(("brief", "tags"))))

    def told(folder: Path) -> list[tuple]:
        return [(row["id"], row["status"], row["text"]) for row in rows_of(folder)]

    assert done.done_before > 0
    assert told(killed) == told(undisturbed)


def test_questions_about_a_long_clip_rest_on_the_part_that_they_are_about(tmp_path, random_model):
    folder = tmp_path / "films"
    folder.mkdir()
    write_video(folder / "film.mp4", seconds=130, rate=2)
    (folder / "film.srt").write_text("1\n00:01:10,000 --> 00:01:12,000\nhello\n", encoding="utf-8")
    asked = requests(("brief",), ("en",), ("Who says hello?",))
    for long in ("auto", "off"):
        label(Order(str(folder), tmp_path / long, asked, model=str(random_model), max_new_tokens=4, long=long))
    clips, whole = ([row for row in rows_of(tmp_path / name) if row["duration"]] for name in ("auto", "off"))

    caption, answer = clips
    assert (caption["evidence"], len(caption["frames"])) == ("", 4)
    (part,) = json.loads(answer["evidence"])
    assert part == [60.0, 120.0, 1.0]
    assert (answer["said"], answer["frames"], answer["said_in"]) == ("hello", [], "film.srt")
    assert [(row["evidence"], len(row["frames"])) for row in whole] == [("", 4), ("", 4)]
    assert clips[0]["text"] == whole[0]["text"]


def test_a_collection_of_which_nothing_can_be_read_ends_with_its_reasons(tmp_path, random_model):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.mp4").write_bytes(b"no video")

    label(Order(str(tmp_path / "in"), tmp_path / "out", model=str(random_model), max_new_tokens=4, together=2))

    rows = rows_of(tmp_path / "out")
    assert [(row["video"], row["status"], row["stage"]) for row in rows] == [
        (f"{number}.mp4", "error", "read") for number in range(3)
    ]


def test_labels_that_were_lost_from_the_disk_are_missed_and_made_again(mixed, tmp_path, random_model):
    order = Order(str(mixed), tmp_path / "out", model=str(random_model), max_new_tokens=4, keep_every=0)
    label(order)
    before = [row | {"seconds": None} for row in rows_of(order.output)]
    pieces = sorted((order.output / "rows").glob("*.parquet"))
    pieces[3].unlink()

    done = label(order)

    assert (done.done_before, done.statuses.total()) == (7, 1)
    assert [row | {"seconds": None} for row in rows_of(order.output)] == before
    pieces[4].write_bytes(b"damaged")
    with pytest.raises(LabellingError, match=f"{pieces[4].name}.*remove it"):
        label(order)
