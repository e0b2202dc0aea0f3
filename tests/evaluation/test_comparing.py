"""Two runs beside each other, one thing changed at a time, others' models by the same command, published figures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sets import SETS

from endpoint_on_loopback import Reply, serving
from minigpt4_video.data.endpoint import Endpoint
from minigpt4_video.data.world.files import render
from minigpt4_video.errors import DataError, EndpointError
from minigpt4_video.evaluation import running
from minigpt4_video.evaluation.ablating import AXES, axes
from minigpt4_video.evaluation.answering import Settings
from minigpt4_video.evaluation.benchmarks import BENCHMARKS
from minigpt4_video.evaluation.comparing import compare, report
from minigpt4_video.evaluation.measuring import measure
from minigpt4_video.evaluation.peers import PATIENCE, EndpointAnswerer
from minigpt4_video.evaluation.published import published

Command = Callable[..., tuple[int, str, str]]


class Fixed:
    """Answers as a function of an item says."""

    def __init__(self, name: str, answer: Callable[..., str]) -> None:
        self.name, self.given = name, answer

    def identity(self) -> dict[str, object]:
        return {"model": self.name}

    def answer(self, groups):  # type: ignore[no-untyped-def]
        for group in groups:
            yield [{"id": item.id, "answer": self.given(item)} for item in group]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    render(tmp_path / "world", seed=3, count=4)
    return tmp_path / "world"


def test_where_two_runs_differ(world: Path, tmp_path: Path) -> None:
    def run(name: str, answer: Callable[..., str], limit: int = 28) -> Path:
        output = tmp_path / name
        measure(running.task("world", output, world, None, "auto", limit), output, Fixed(name, answer))
        return output

    right = run("right", lambda item: item.reference)
    half = run("half", lambda item: item.reference if item.tags["kind"] < "m" else "<b>no</b>", limit=21)
    told = compare(half, right)
    assert told["common"] == 21 and told["only"] == [0, 7]
    exact = told["differences"]["exact"]
    wrong = len(told["answers"])
    assert exact["second"] == 1.0 and exact["first"] == pytest.approx(1 - wrong / 21, abs=1e-5)
    assert exact["value"] == pytest.approx(wrong / 21, abs=1e-5) and exact["second_only"] == wrong
    assert told["answers"][0]["first"] == "<b>no</b>" and told["answers"][0]["gain"] == 1.0
    text, page = report(told)
    assert "second less first" in text and "<b>no</b>" not in page and "&lt;b&gt;no" in page
    same = compare(right, right)
    assert same["answers"] == [] and same["differences"]["exact"]["p_value"] == 1.0
    with pytest.raises(DataError, match="no run that has been scored"):
        compare(right, tmp_path)


def test_one_thing_changed_at_a_time(command: Command, random_model: Path, world: Path, tmp_path: Path) -> None:
    options = ("evaluate", "world", "--annotations", world, "--limit", 7, "--model", random_model)
    options = (*options, "--max-new-tokens", 2, "--output", tmp_path / "run", "--json")
    changes = ("frames=2,3", "subtitles=off", "rule=original", "template=demo", "dtype=bfloat16", "shown=no frames")
    status, said, noted = command(*options, *(word for change in changes for word in ("--ablate", change)))
    assert status == 0, noted
    names = [row["variant"] for row in json.loads(said)["variants"]]
    assert names == [
        "as it is", "frames 2", "frames 3", "subtitles off", "rule original", "template demo", "dtype bfloat16",
        "shown no frames",
    ]  # fmt: skip
    prompts = {}
    for folder in ("as-it-is", "frames-2", "subtitles-off", "template-demo", "rule-original", "shown-no-frames"):
        rows = (tmp_path / "run" / folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        prompts[folder] = [json.loads(row) for row in rows]
    assert {row["plan"]["frames"] for row in prompts["frames-2"]} == {2}
    assert not any("<Cap>" in row["prompt"] for row in prompts["subtitles-off"])
    assert all(row["prompt"].startswith("<s>[INST] ") for row in prompts["template-demo"])
    assert prompts["rule-original"][0]["times"][0] == 0.0 < prompts["as-it-is"][0]["times"][0]
    run = json.loads((tmp_path / "run" / "dtype-bfloat16" / "run.json").read_text(encoding="utf-8"))
    assert run["answered_by"]["dtype"] == "bfloat16"
    table = (tmp_path / "run" / "ablation.md").read_text(encoding="utf-8")
    base = json.loads((tmp_path / "run" / "as-it-is" / "run.json").read_text(encoding="utf-8"))["answered_by"]
    assert table.count("\n| ") == 9 and f"fingerprint {base['fingerprint']}, in float32" in table
    status, again, _ = command(*options, *(word for change in changes for word in ("--ablate", change)))
    assert again == said


@pytest.mark.parametrize("text", ["frames", "frames=", "frames=0", "frames=x", "rule=best", "speed=1", "dtype=int8"])
def test_what_cannot_be_changed_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="--ablate"):
        axes([text])
    assert axes(["frames=2,4", "frames=8", "rule=even"]) == {"frames": ["2", "4", "8"], "rule": ["even"]}
    assert set(AXES) >= {"frames", "subtitles", "rule", "template", "dtype"}


def test_variants_of_which_no_video_can_be_read_are_told(
    command: Command, random_model: Path, world: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(world, tmp_path / "broken")
    for video in broken.glob("*.mp4"):
        video.write_bytes(b"no video at all")
    options = ("--annotations", broken, "--limit", 7, "--model", random_model, "--output", tmp_path / "run")
    status, _, said = command("evaluate", "world", *options, "--ablate", "frames=2")
    assert status == 2 and "no question could be answered, so there is nothing to compare" in said


def test_a_judge_of_variants_is_refused_and_not_passed_over(command: Command, tmp_path: Path) -> None:
    judged = ("--judge", "http://localhost:9/v1", "--judge-model", "m", "--output", tmp_path / "run")
    status, _, said = command("evaluate", "world", "--limit", 7, "--ablate", "frames=4", *judged)
    assert status == 2 and "--ablate compares by the rules alone; leave --judge out" in said
    assert not (tmp_path / "run").exists()


def test_another_model_is_asked_the_same_at_its_address(command: Command, tmp_path: Path) -> None:
    made = SETS["video-mme"](tmp_path / "set")

    def reply(text: str, number: int) -> str:
        return "(C)"

    with serving(reply) as server:
        options = ("evaluate", "video-mme", "--annotations", made.annotations, "--media", made.media, "--frames", 3)
        options = (*options, "--output", tmp_path / "run", "--endpoint", server.address, "--endpoint-model", "peer")
        status, said, noted = command(*options, "--json")
        assert status == 0, noted
        assert len(server.requests) == 2
        assert command(*options)[0] == 0 and len(server.requests) == 2
    told = json.loads(said)
    assert told["figures"]["accuracy"]["value"] == 0.5 and "likelihood" not in told["figures"]
    content = server.requests[0]["messages"][0]["content"]
    kinds = [part["type"] for part in content]
    assert kinds.count("image_url") == 3 and kinds[-1] == "text"
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert any("hello from the start" in part.get("text", "") for part in content)
    assert server.requests[0]["model"] == "peer" and server.requests[0]["max_tokens"] == 16
    row = json.loads((tmp_path / "run" / "answers.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["prompt"].count("<image>") == 3 and row["subtitles"] == "fFjv93ACGo8.srt"


def test_an_endpoint_that_is_gone_ends_the_run_and_it_goes_on_later(world: Path, tmp_path: Path) -> None:
    task = running.task("world", tmp_path / "run", world, None, "off", 14)

    def dying(text: str, number: int) -> Reply | str:
        return "red" if number < 7 else Reply(500)

    def answerer(address: str) -> EndpointAnswerer:
        endpoint = Endpoint(address, "peer", tries=1, sleep=lambda seconds: None)
        return EndpointAnswerer(endpoint, Settings(frames=2), parallel=1)

    first = Endpoint("http://127.0.0.1:9/v1", "peer")
    with serving(dying) as server:
        peer = answerer(server.address)
        with pytest.raises(EndpointError, match="in a row"):
            measure(task, tmp_path / "run", peer)
        assert len(server.requests) == 14 and PATIENCE <= 7
    asked = running.read(task)
    assert len(running.unanswered(asked.items, running.answered(tmp_path / "run"))) == 7
    with serving(lambda text, number: "blue") as server:
        rows = running.answer(asked, tmp_path / "run", answerer(server.address))
        assert len(server.requests) == 7 and [row["answer"] for row in rows.values()] == ["red"] * 7 + ["blue"] * 7
    assert first.model == peer.endpoint.model


def test_published_figures_have_sources_and_known_benchmarks() -> None:
    found = {name: published(name) for name in BENCHMARKS}
    assert sum(map(len, found.values())) > 100
    ours = {(one.model, one.subtitles): one.value for one in found["tvqa"] if one.model.startswith("MiniGPT4")}
    assert ours["MiniGPT4-Video Mistral 7B", "with"] == 54.21 and ours["MiniGPT4-Video Llama-2 7B", "without"] == 36.45
    for one in (one for figures in found.values() for one in figures):
        assert one.source and one.subtitles in ("with", "without", "")
        assert 0 < one.value <= (5 if one.metric.startswith("rating") else 100)
    import tomllib

    from minigpt4_video.evaluation.published import FILE

    assert {group["benchmark"] for group in tomllib.loads(FILE.read_text(encoding="utf-8"))["figures"]} <= set(
        BENCHMARKS
    )


def test_a_report_sets_a_run_beside_them(tmp_path: Path) -> None:
    made = SETS["tvqa"](tmp_path / "set")
    output = tmp_path / "run"
    measure(
        running.task("tvqa", output, made.annotations, made.media, "auto", None), output, Fixed("x", lambda item: "B")
    )
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "| this run |  | accuracy | 50.0 (0.0 to 100.0) |" in text
    assert "| MiniGPT4-Video Mistral 7B | with | accuracy | 54.2 | MiniGPT4-Video, arXiv 2404.03413" in text
    assert "version alone has moved accuracy" in text
    assert "54.2" in (output / "report.html").read_text(encoding="utf-8")
