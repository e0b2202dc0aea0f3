"""This model in lmms-eval, really run there on local files; its scores beside ours on the same answers.

Runs where lmms-eval is installed: `make test-lmms-eval`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from minigpt4_video.data.world.files import render
from minigpt4_video.evaluation import world
from minigpt4_video.evaluation.scoring import exact, letter
from minigpt4_video.inference.chat import VideoChat

COLOURS = ["red", "blue", "green", "yellow"]

FUNCTIONS = """
def visual(doc):
    return [doc["video"]]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_visual: !function functions.visual
doc_to_text: !function functions.text
doc_to_target: {target}
{more}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
{options}
"""

EXACT = "    ignore_case: true\n    ignore_punctuation: true\n"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    render(folder / "world", seed=world.FIRST, count=4, language="en")
    items = world.choose(folder / "world", 7)
    docs = [{"video": i.video["path"], "question": i.question, "answer": i.reference} for i in items]
    (folder / "open.json").write_text(json.dumps(docs), encoding="utf-8")
    (folder / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
    generating = TASK.format(
        name="world_open", data=folder / "open.json", kind="generate_until", target="answer", metric="exact_match",
        more="generation_kwargs:\n  max_new_tokens: 16\n", options=EXACT,
    )  # fmt: skip
    (folder / "world_open.yaml").write_text(generating, encoding="utf-8")
    return folder


def run(tasks: Path, task: str, output: Path, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and samples of `lmms-eval` in a process of its own."""
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "minigpt4_video", "--model_args", "pretrained=tiny,device=cpu",
        "--tasks", task, "--include_path", str(tasks), "--batch_size", "4", "--output_path", str(output),
        "--log_samples", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    results = sorted(output.rglob("*results.json"))
    assert results, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    (samples,) = output.rglob(f"*samples_{task}.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return json.loads(results[-1].read_text(encoding="utf-8"))["results"][task], rows


def test_answers_and_their_scores_are_ours(tasks: Path, tmp_path: Path) -> None:
    result, samples = run(tasks, "world_open", tmp_path)
    docs = json.loads((tasks / "open.json").read_text(encoding="utf-8"))
    said = {row["doc_id"]: row["filtered_resps"] for row in samples}
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    for number, doc in enumerate(docs[:7]):
        assert said[number] == chat.open(doc["video"], subtitles="off").ask(doc["question"], max_new_tokens=16).text
    ours = [exact(said[number], doc["answer"]) for number, doc in enumerate(docs)]
    assert 0 < sum(ours) < len(ours)
    assert result["exact_match,none"] == pytest.approx(sum(ours) / len(ours))


def test_losses_of_continuations_are_those_of_the_model(tasks: Path) -> None:
    from lmms_eval.api.instance import Instance

    from minigpt4_video.evaluation.lmms_plugin import SimpleModel
    from minigpt4_video.inference.likelihood import likelihoods

    docs = json.loads((tasks / "open.json").read_text(encoding="utf-8"))[:2]
    model = SimpleModel(pretrained="tiny", device="cpu")
    model.task_dict = {"task": {"test": docs}}
    requests = [
        Instance(
            request_type="loglikelihood",
            arguments=(docs[number]["question"], colour, lambda doc: [doc["video"]], number, "task", "test"),
            idx=at,
            metadata={"task": "task", "doc_id": number, "repeats": 1},
        )
        for at, colour in enumerate(COLOURS)
        for number in (1, 0)
    ]
    told = model.loglikelihood(requests)
    for number in (0, 1):
        part = {"type": "video", "path": docs[number]["video"], "subtitles": "off"}
        messages = [{"role": "user", "content": [part, {"type": "text", "text": docs[number]["question"]}]}]
        expected = [-one.log_probability for one in likelihoods(model.chat, messages, COLOURS)]
        assert [loss for loss, _ in told[1 - number :: 2]] == pytest.approx(expected)


def test_unknown_arguments_are_refused() -> None:
    from minigpt4_video.errors import UserError
    from minigpt4_video.evaluation.lmms_plugin import SimpleModel

    with pytest.raises(UserError, match="--model_args has frame;"):
        SimpleModel(pretrained="tiny", frame=3)


SAID = ["B", "(B)", "B.", "The answer is B", "Answer: B", "B. candles", "(B) candles", "I think (B)", "D", "A"]


@pytest.mark.parametrize("said", SAID)
def test_letters_are_read_as_lmms_eval_reads_them(said: str) -> None:
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

    options = ("apples", "candles", "berries", "all the same")
    assert letter(said, options) == extract_mcq_answer(said, choices=["A", "B", "C", "D"])
