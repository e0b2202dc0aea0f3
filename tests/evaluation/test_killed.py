"""A run that is killed again and again: the same answers in the end, none asked twice, no judgement paid twice."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from minigpt4_video.evaluation import judging, running
from minigpt4_video.evaluation.files import Row, read_rows
from minigpt4_video.evaluation.items import Item
from minigpt4_video.evaluation.judging import Judge
from minigpt4_video.evaluation.measuring import measure

KILLS = 12
VIDEOS, EACH = 20, 5


class Slow:
    """Answers with the question's end after a moment, and notes what it was asked."""

    def __init__(self, asked: Path) -> None:
        self.asked = asked

    def identity(self) -> dict[str, object]:
        return {"model": "slow"}

    def answer(self, groups: Iterable[Sequence[Item]]) -> Iterator[list[Row]]:
        for group in groups:
            noted(self.asked, [item.id for item in group])
            time.sleep(0.005)
            yield [{"id": item.id, "answer": item.question[-3:]} for item in group]


def noted(file: Path, lines: Iterable[str]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write("".join(line + "\n" for line in lines))


def run(annotations: Path, output: Path, asked: Path, paid: Path) -> None:
    def ask(messages: list[dict[str, str]]) -> str:
        noted(paid, [messages[-1]["content"].splitlines()[0]])
        time.sleep(0.002)
        return '{"pred": "yes", "score": 3}'

    task = running.task("msvd-qa", output, annotations, None, "auto", None)
    measure(task, output, Slow(asked), [Judge("judge", ask)])


def test_a_run_that_is_killed_at_random_moments(tmp_path: Path) -> None:
    rows = []
    for video in range(VIDEOS):
        (tmp_path / f"vid{video}.mp4").touch()
        for number in range(EACH):
            row = {"answer": "x", "id": len(rows), "question": f"what {video} {number}?", "video_id": video}
            rows.append(row)
    annotations = tmp_path / "test_qa.json"
    annotations.write_text(json.dumps(rows), encoding="utf-8")
    run(annotations, tmp_path / "whole", tmp_path / "whole-asked", tmp_path / "whole-paid")

    output, asked, paid = tmp_path / "killed", tmp_path / "asked", tmp_path / "paid"
    draw = random.Random(7)
    forking = multiprocessing.get_context("fork")
    survived = 0
    for _ in range(KILLS):
        process = forking.Process(target=run, args=(annotations, output, asked, paid))
        process.start()
        process.join(draw.uniform(0.01, 0.12))
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        else:
            survived += 1
        process.join()
    run(annotations, output, asked, paid)

    answers = read_rows(output / "answers.jsonl")
    assert answers == read_rows(tmp_path / "whole" / "answers.jsonl") and len(answers) == len(rows)
    judged = read_rows(judging.file_of(output, "judge"))
    assert sorted(row["id"] for row in judged) == sorted(f"match/{row['id']}" for row in answers)
    # What was in work when the process was killed is all that may have been asked for again.
    questions = Counter(asked.read_text(encoding="utf-8").splitlines())
    assert len(questions) == len(rows) and questions.total() <= len(rows) + EACH * (KILLS - survived)
    payments = Counter(paid.read_text(encoding="utf-8").splitlines())
    assert len(payments) == len(rows) and payments.total() <= len(rows) + KILLS - survived
    assert survived < KILLS
    for name in ("scores.json", "verdicts.jsonl", "report.md"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
