"""One measurement from end to end: read, answer, judge, score, report. Every step goes on where it stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video.errors import DataError
from minigpt4_video.evaluation import judging, running
from minigpt4_video.evaluation.answering import Answerer
from minigpt4_video.evaluation.files import Row, add_rows, read_json, write_json
from minigpt4_video.evaluation.items import Benchmark
from minigpt4_video.evaluation.judging import Agreement, Budget, Case, Judge, Outcome, agreement
from minigpt4_video.evaluation.published import published_table
from minigpt4_video.evaluation.reporting import write_examples, write_reports
from minigpt4_video.evaluation.running import Asked, Task
from minigpt4_video.evaluation.summary import summarised, values_of
from minigpt4_video.evaluation.tables import Table

VERDICTS = "verdicts.jsonl"

Progress = Callable[[str, int, int], None]
"""Hears what is done, how much of it, and of how much."""


class Measured(NamedTuple):
    summary: Mapping[str, Any]
    stopped: str
    """Why judging ended before its end; "" where it did not."""


def measure(
    task: Task,
    output: Path,
    answerer: Answerer,
    judges: Sequence[Judge] = (),
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Raises DataError where the benchmark cannot be read or the folder holds another run."""
    benchmark = running.find(task.benchmark)
    asked = running.read(task)
    check_judges(task.benchmark, benchmark, len(judges))
    running.begin(task, output, answerer.identity())
    rows = running.answer(asked, output, answerer, _named(progress, "answers"))
    wanted = wanted_cases(asked, rows, benchmark)
    outcomes = [
        judging.judge_all(wanted, judge, output, budget or Budget(), _named(progress, f"judgements by {judge.name}"))
        for judge in judges
    ]
    values = values_of(asked.items, rows, benchmark.scoring)
    for judge, outcome in zip(judges, outcomes, strict=True):
        for item, metric, value in judging.values(outcome.rows, judge.name):
            values[item][metric] = value
    summary = summarised(asked, rows, values)
    summary["judged"] = [_judged(judge, outcome) for judge, outcome in zip(judges, outcomes, strict=True)]
    same = _agreement(judges, outcomes)
    summary["agreement"] = asdict(same) if same else None
    _write_verdicts(output / VERDICTS, asked, rows, values)
    write_json(output / running.SCORES, summary)
    tables = [*published_table(task.benchmark, summary), *_judge_tables(summary)]
    write_reports(output, read_json(output / running.RUN), summary, tables)
    write_examples(output, asked, rows, values)
    return Measured(summary, next((outcome.stopped for outcome in outcomes if outcome.stopped), ""))


def check_judges(name: str, benchmark: Benchmark, count: int) -> None:
    """Raises DataError where a judge has nothing to say."""
    if count and not benchmark.dimensions:
        raise DataError(f"{name} is scored by the options that are chosen and needs no judge")
    if count > 2:
        raise DataError("more than two judges were named; agreement is told of two")


def wanted_cases(asked: Asked, rows: Mapping[str, Row], benchmark: Benchmark) -> list[Case]:
    answers = {name: row["answer"] for name, row in rows.items() if "answer" in row}
    return judging.cases(asked.items, answers, benchmark.dimensions)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return (lambda done, of: progress(what, done, of)) if progress is not None else None


def _judged(judge: Judge, outcome: Outcome) -> dict[str, Any]:
    errors = [{"id": row["id"], "error": row["error"]} for row in outcome.rows.values() if "error" in row]
    told = {"judge": judge.name, "judged": len(outcome.rows) - len(errors), "missing": outcome.missing}
    return told | {"stopped": outcome.stopped, "failed": errors}


def _agreement(judges: Sequence[Judge], outcomes: Sequence[Outcome]) -> Agreement | None:
    if len(judges) != 2:
        return None
    return agreement(outcomes[0].rows, outcomes[1].rows, (judges[0].name, judges[1].name))


def _write_verdicts(
    file: Path, asked: Asked, rows: Mapping[str, Row], values: Mapping[str, Mapping[str, float]]
) -> None:
    """What each answer was worth, which is what two runs are compared by."""
    file.unlink(missing_ok=True)
    told = (
        {
            "id": item.id,
            "video": item.shows,
            "question": item.question,
            "reference": item.reference,
            "answer": rows[item.id]["answer"],
            "kind": item.tags.get("kind", ""),
            "values": values[item.id],
        }
        for item in asked.items
        if item.id in values
    )
    add_rows(file, told)


def _judge_tables(summary: Mapping[str, Any]) -> list[Table]:
    tables = []
    if summary["judged"]:
        rows = [[one["judge"], str(one["judged"]), str(one["missing"]), one["stopped"]] for one in summary["judged"]]
        tables.append(Table("Judges", ["judge", "judgements", "missing", "ended early because"], rows))
    failed = [(one["judge"], row) for one in summary["judged"] for row in one["failed"]]
    if failed:
        rows = [[judge, row["id"], row["error"]] for judge, row in failed[:50]]
        tables.append(Table("Judgements that failed", ["judge", "item", "why"], rows, f"{len(failed)} in all."))
    if same := summary["agreement"]:
        rows = [
            ["judged by both", str(same["count"])],
            ["same yes or no", "" if same["same"] is None else f"{100 * same['same']:.1f} %"],
            ["Cohen's kappa", "" if same["kappa"] is None else f"{same['kappa']:.3f}"],
            ["mean score difference", f"{same['score_difference']:+.2f}"],
            ["mean score distance", f"{same['score_distance']:.2f}"],
        ]
        tables.append(Table("Agreement of " + " and ".join(same["judges"]), ["", ""], rows))
    return tables
