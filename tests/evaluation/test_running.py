"""A run in a folder: whole, gone on with, refused, and honest about what could not be asked."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from making import SUBTITLES, write_video
from minigpt4_video.errors import DataError
from minigpt4_video.evaluation import running
from minigpt4_video.evaluation.answering import groups_of
from minigpt4_video.evaluation.files import Row, add_rows, read_rows
from minigpt4_video.evaluation.items import Item
from minigpt4_video.evaluation.summary import summarised, values_of

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def msvd(tmp_path: Path) -> Path:
    """MSVD-QA in its authors' layout: two videos that are there, one that is missing, rows that are broken."""
    folder = tmp_path / "msvd"
    folder.mkdir()
    for name in ("-4wsuPCjDBc_5_15", "-7KMZQEsJW4_205_208"):
        write_video(folder / f"{name}.avi", seconds=1)
    (folder / "-4wsuPCjDBc_5_15.srt").write_text(SUBTITLES, encoding="utf-8")
    names = ["-4wsuPCjDBc_5_15 vid1301", "-7KMZQEsJW4_205_208 vid1302", "0bSz70pYAP0_5_15 vid1303"]
    (folder / "youtube_mapping.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    rows: list[Any] = [
        {"answer": "squirrel", "id": 1, "question": "what is eating?", "video_id": 1301},
        {"answer": "yes", "id": 2, "question": "is it brown?", "video_id": 1301},
        {"answer": "man", "id": 3, "question": "who runs?", "video_id": 1302},
        {"answer": "dog", "id": 4, "question": "what barks?", "video_id": 1303},
        {"answer": "", "id": 5, "question": "what?", "video_id": 1301},
        {"answer": "cat", "id": 6, "question": 7, "video_id": 1301},
        {"answer": "man", "id": 3, "question": "who runs?", "video_id": 1302},
        {"answer": "x", "id": 8, "question": "what?", "video_id": "../../etc/passwd"},
        "no row",
        {"answer": "woman", "id": 9, "question": "who sits?", "video_id": 1301},
    ]
    (folder / "test_qa.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "test_qa.json"


def test_a_run_from_the_command_line(command: Command, random_model: Path, msvd: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    status, said, _ = command(
        "evaluate", "msvd-qa", "--annotations", msvd, "--output", output, "--model", random_model, "--json",
        "--max-new-tokens", 4,
    )  # fmt: skip
    assert status == 0
    told = json.loads(said)
    assert told["asked"] == told["answered"] == 4 and told["videos"] == 2 and told["failed"] == []
    assert told["flaws"] == {
        "video is missing": 1,
        "lacks answer": 1,
        "question is not a text": 1,
        "has an id that another row has": 1,
        "names a file outside the media folder": 1,
        "is not an object": 1,
    }
    rows = read_rows(output / "answers.jsonl")
    assert [row["id"] for row in rows] == [
        "-4wsuPCjDBc_5_15#1", "-4wsuPCjDBc_5_15#2", "-4wsuPCjDBc_5_15#9", "-7KMZQEsJW4_205_208#3",
    ]  # fmt: skip
    assert rows[0]["subtitles"] == "-4wsuPCjDBc_5_15.srt" and rows[3]["subtitles"] == ""
    assert rows[0]["prompt"].count("<ImageHere>") == rows[0]["plan"]["frames"] == 4
    assert "hello from the start" in rows[0]["prompt"] and rows[0]["question"] in rows[0]["prompt"]
    assert set(told["by"]) == {"kind", "duration", "subtitles"}
    assert told["by"]["kind"]["who"]["exact"]["count"] == 2
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "4 of 4 questions answered" in report and "video is missing" in report
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "<script" not in page
    examples = (output / "examples.html").read_text(encoding="utf-8")
    assert examples.count("<figure>") >= 4 and "who runs?" in examples
    assert "1303" in (output / "flaws.jsonl").read_text(encoding="utf-8")


def test_a_run_is_reproducible_and_going_on_asks_nothing_again(
    command: Command, random_model: Path, msvd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(output: Path, *more: object) -> int:
        options = ("--annotations", msvd, "--output", output, "--model", random_model, "--max-new-tokens", 4)
        return command("evaluate", "msvd-qa", *options, *more)[0]

    first, second = tmp_path / "first", tmp_path / "second"
    assert run(first) == run(second) == 0
    for name in ("answers.jsonl", "scores.json", "report.md", "examples.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()

    whole = (first / "answers.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (second / "answers.jsonl").write_bytes(lines[0] + lines[1] + lines[2] + lines[3][: len(lines[3]) // 2])
    asked: list[str] = []
    from minigpt4_video.inference.video import Video

    question = Video.question
    monkeypatch.setattr(Video, "question", lambda self, text, *rest: asked.append(text) or question(self, text, *rest))
    assert run(second) == 0
    assert set(asked) == {"who runs?"}
    assert (second / "answers.jsonl").read_bytes() == whole
    assert (second / "scores.json").read_bytes() == (first / "scores.json").read_bytes()

    status, _, said = command(
        "evaluate", "msvd-qa", "--annotations", msvd, "--output", first, "--model", random_model, "--frames", 2,
        "--max-new-tokens", 4,
    )  # fmt: skip
    assert status == 2 and "was begun with other answered by" in said and "frames None, now 2" in said


class Counting:
    """Answers with the question's last word; fails for a video as it is told."""

    def __init__(self, dies_after: int | None = None, unreadable: str = "") -> None:
        self.dies_after = dies_after
        self.unreadable = unreadable
        self.asked: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"model": "counting"}

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        for number, group in enumerate(groups):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.asked += [item.id for item in group]
            bad = self.unreadable and self.unreadable in group[0].video["path"]
            yield [{"id": i.id} | ({"error": "broken"} if bad else {"answer": i.question[-4:-1]}) for i in group]


def test_what_an_interruption_left_is_not_asked_again_and_what_failed_is(msvd: Path, tmp_path: Path) -> None:
    task = running.task("msvd-qa", tmp_path / "run", msvd, None, "auto", None)
    asked, output = running.read(task), tmp_path / "run"
    dying = Counting(dies_after=1)
    with pytest.raises(KeyboardInterrupt):
        running.answer(asked, output, dying)
    failing = Counting(unreadable="-7KM")
    rows = running.answer(asked, output, failing)
    assert set(failing.asked).isdisjoint(dying.asked) and len(dying.asked) + len(failing.asked) == 4
    summary = summarised(asked, rows, values_of(asked.items, rows))
    assert summary["answered"] == 3 and [one["error"] for one in summary["failed"]] == ["broken"]
    mended = Counting()
    rows = running.answer(asked, output, mended)
    assert mended.asked == ["-7KMZQEsJW4_205_208#3"] and all("answer" in row for row in rows.values())


def test_answers_about_other_videos_of_the_same_names_are_not_taken_for_these(
    msvd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, identity = tmp_path / "run", Counting().identity()
    output.mkdir()
    other = shutil.copytree(msvd.parent, tmp_path / "other")
    running.begin(running.Task("msvd-qa", msvd), output, identity)
    monkeypatch.chdir(msvd.parent)
    running.begin(running.Task("msvd-qa", Path(msvd.name), Path()), output, identity)  # the same by other words
    for task in (running.Task("msvd-qa", msvd, other), running.Task("msvd-qa", other / msvd.name)):
        with pytest.raises(DataError, match=r"begun with other media .*, now .*; name another folder, or, if"):
            running.begin(task, output, identity)


def test_questions_and_answers_in_two_files_are_read_as_well(msvd: Path) -> None:
    rows = json.loads(msvd.read_text(encoding="utf-8"))[:3]
    asked = [{"question": r["question"], "video_name": "-4wsuPCjDBc_5_15", "question_id": f"v_{r['id']}"} for r in rows]
    answers = [{"answer": r["answer"], "type": 0, "question_id": f"v_{r['id']}"} for r in rows[:2]]
    place = msvd.with_name("test_q.json")
    place.write_text(json.dumps(asked), encoding="utf-8")
    msvd.with_name("test_a.json").write_text(json.dumps(answers), encoding="utf-8")
    read = running.read(running.Task("msvd-qa", place))
    assert [(item.id, item.reference) for item in read.items] == [
        ("-4wsuPCjDBc_5_15#v_1", "squirrel"),
        ("-4wsuPCjDBc_5_15#v_2", "yes"),
    ]
    assert [flaw.problem for flaw in read.flaws] == ["has no answer in test_a.json"]


def test_questions_about_one_video_are_asked_together_wherever_they_stand(msvd: Path) -> None:
    items = running.read(running.Task("msvd-qa", msvd)).items
    assert [item.id[-1] for item in items] == ["1", "2", "3", "9"]
    assert [[item.id[-1] for item in group] for group in groups_of(items)] == [["1", "2", "9"], ["3"]]


def test_without_any_usable_item_the_first_fault_is_told(msvd: Path) -> None:
    (msvd.parent / "none").mkdir()
    with pytest.raises(DataError, match="video is missing"):
        running.read(running.Task("msvd-qa", msvd, media=msvd.parent / "none"))
    with pytest.raises(DataError, match="--annotations"):
        running.task("msvd-qa", msvd.parent / "run", None, None, "auto", None)
    with pytest.raises(DataError, match="choose world, msvd-qa"):
        running.find("nothing")


def test_a_damaged_row_in_the_middle_is_refused_and_one_at_the_end_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    add_rows(file, [{"id": "1"}, {"id": "2"}])
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "3", "ans')
    assert [row["id"] for row in read_rows(file)] == ["1", "2"] and file.read_bytes() == whole
    file.write_bytes(b'{"id": "0", \n' + whole)
    with pytest.raises(DataError, match="damaged at byte 0"):
        read_rows(file)


def test_a_long_video_is_answered_about_by_its_clips_and_the_report_says_so(
    command: Command, random_model: Path, msvd: Path, tmp_path: Path
) -> None:
    long = msvd.parent / "-7KMZQEsJW4_205_208.avi"
    write_video(long, seconds=50)  # of which 4 frames lie further than 10 s apart
    run = ["evaluate", "msvd-qa", "--annotations", msvd, "--model", random_model, "--max-new-tokens", 4]
    status, said, _ = command(*run, "--output", tmp_path / "auto")
    assert status == 0 and "1 answers from clips of long videos" in said
    rows = {row["video"]: row for row in read_rows(tmp_path / "auto" / running.ANSWERS)}
    assert {Path(name).name for name, row in rows.items() if "evidence" in row} == {long.name}
    assert rows[str(long)]["duration"] == pytest.approx(50, abs=0.2)
    assert "1 answers come from the clips" in (tmp_path / "auto" / "report.md").read_text(encoding="utf-8")

    status, said, _ = command(*run, "--output", tmp_path / "off", "--long", "off")
    assert status == 0 and "clips" not in said
    rows = {row["video"]: row for row in read_rows(tmp_path / "off" / running.ANSWERS)}
    assert all("evidence" not in row for row in rows.values())

    status, _, err = command(*run, "--output", tmp_path / "on", "--long", "on", "--shown", "no frames")
    assert status == 2 and "--shown" in err
