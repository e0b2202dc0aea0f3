"""Runs that are killed, interrupted, resumed, or go wrong."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import running
import torch
from safetensors.torch import load_file

from minigpt4_video.errors import RecipeError
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration
from minigpt4_video.training import loop
from minigpt4_video.training import train as training
from minigpt4_video.training.kept import Choice
from minigpt4_video.training.loop import Watch, spoken
from minigpt4_video.training.packing import Branch, Row, pack
from minigpt4_video.training.recipe import Guard, read_recipe
from minigpt4_video.training.sets import Skipped
from minigpt4_video.training.train import train

STEPS = 10
OFTEN = ("--set", "training.save_steps=2")
"""How often it is evaluated and a checkpoint is written."""


@pytest.fixture
def whole(recipe: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, float]:
    """A recipe with everything that has a state, what came of it uninterrupted, and how long that took."""
    place = recipe(
        changes='keep = "features"',
        tables="[evaluation]\nshare = 0.4\nanswers = 1\npatience = 6\n[optimizer]\nrate = 3e-3\n",
        training=f"max_steps = {STEPS}\ngradient_accumulation_steps = 2\nwarmup_steps = 2\n",
    )
    running.run(tmp_path / "started.log", "--version")  # the imports are not to be timed
    began = time.monotonic()
    log, output = tmp_path / "whole.log", tmp_path / "whole" / "run"
    assert running.run(log, "train", str(place), "--output", str(output), *OFTEN) == 0, log.read_text()
    return place, output, time.monotonic() - began


def curve(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    log = json.loads((folder / "run.json").read_text())["log"]
    timed = ("runtime", "per_second", "flos")
    return [{name: value for name, value in one.items() if not any(t in name for t in timed)} for one in log]


def assert_same_run(one: Path, other: Path) -> None:
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert curve(one)[:-1] == curve(other)[:-1]  # the last entry sums up what the last process did


def killed_again_and_again(whole: tuple[Path, Path, float], folder: Path, kills: int, seed: int) -> None:
    place, result, seconds = whole
    rng = random.Random(seed)
    done = 0
    runs = 0
    log = folder / "killed.log"
    while done < kills:
        output = folder / f"killed{runs}" / "run"
        while True:
            process = running.start(log, "train", str(place), "--output", str(output), "--resume", *OFTEN)
            process.join(rng.uniform(0, seconds) if done < kills else None)
            if process.exitcode is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
        assert process.exitcode == 0, log.read_text()
        assert_same_run(result, output)
        runs += 1


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_weights(whole: Any, tmp_path: Path) -> None:
    killed_again_and_again(whole, tmp_path, kills=3, seed=1)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(whole: Any, tmp_path: Path) -> None:
    killed_again_and_again(whole, tmp_path, kills=20, seed=2)


def test_ctrl_c_saves_after_the_step_and_resuming_goes_on(whole: Any, tmp_path: Path) -> None:
    place, result, _ = whole
    output, log = tmp_path / "stopped" / "run", tmp_path / "stopped.log"
    process = running.start(log, "train", str(place), "--output", str(output), *OFTEN)
    while "step 2/" not in (log.read_text() if log.exists() else ""):
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join()

    assert process.exitcode == 130, log.read_text()
    assert "stopping after this step" in log.read_text() and not (output / "recipe.toml").exists()
    last = loop.last_checkpoint(output)
    assert last is not None and 2 <= int(last.rpartition("-")[2]) < STEPS
    assert running.run(log, "train", str(place), "--output", str(output), "--resume", *OFTEN) == 0
    assert_same_run(result, output)


def test_a_checkpoint_that_was_written_in_part_is_not_gone_on_with(tmp_path: Path) -> None:
    for step, state in ((1, "{}"), (2, '{"half'), (3, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert loop.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_what_is_kept_is_decided_once_for_a_run(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided by measured times, which are others when a run is gone on with."""
    output = tmp_path / "runs" / "a"
    monkeypatch.setattr(training, "choose", lambda *given: Choice("features", "measured"))
    train(recipe(changes='keep = "auto"', training="max_steps = 4"), output)
    for name in ("recipe.toml", "model.safetensors"):
        (output / name).unlink()
    monkeypatch.setattr(training, "choose", lambda *given: pytest.fail("was measured again"))
    train(recipe(changes='keep = "auto"', training="max_steps = 4"), output, resume=True)
    assert json.loads((output / "run.json").read_text())["kept"] == "features: measured"


def test_a_run_that_would_go_on_with_other_samples_is_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "runs" / "a"
    train(recipe(training="max_steps = 2"), output)
    begun = read_recipe(output / "begun.toml")
    (output / "recipe.toml").unlink()
    other = {"training.per_device_train_batch_size": "4"}
    with pytest.raises(RecipeError, match="begun with another number of samples in a step, 2 and not 4; go on with it"):
        train(recipe(training="max_steps = 2"), output, resume=True, overrides=other)
    with pytest.raises(RecipeError, match=r"another \[\[data\]\]; go on"):
        train(recipe(training="max_steps = 2", tables="rows = 12"), output, resume=True)
    for name, value in (("frames", "2"), ("width", "200"), ("optimizer.rate", "0.5"), ("training.max_grad_norm", "9")):
        with pytest.raises(RecipeError, match=rf"begun with another {name}, .* and not {value}.*; go on with it as it"):
            train(recipe(training="max_steps = 2"), output, resume=True, overrides={name: value})
    same = {"training.per_device_train_batch_size": "1", "training.gradient_accumulation_steps": "2"}
    same |= {"training.save_steps": "3", "training.logging_steps": "2", "training.dataloader_num_workers": "0"}
    train(recipe(training="max_steps = 3"), output, resume=True, overrides=same)
    assert begun == read_recipe(recipe(training="max_steps = 2"))


def test_a_run_goes_on_whatever_notes_of_its_beginning_are_there(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Another process may have written only one of them by then, and a run of an older version has neither."""
    output, place = tmp_path / "runs" / "a", recipe(training="max_steps = 2")
    made = load_file(train(place, output) / "model.safetensors")
    for gone in (("begun.toml",), ("drawn.json",), ("begun.toml", "drawn.json")):
        for name in ("recipe.toml", "model.safetensors", *gone):
            (output / name).unlink()
        for name, value in load_file(train(place, output, resume=True) / "model.safetensors").items():
            assert torch.equal(value, made[name]), (gone, name)
        assert read_recipe(output / "begun.toml") == read_recipe(place) and (output / "drawn.json").exists()
    (output / "recipe.toml").unlink()
    with pytest.raises(RecipeError, match="begun with another frames"):
        train(place, output, resume=True, overrides={"frames": "2"})


def test_losses_go_to_tensorboard(recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = recipe(training='max_steps = 2\nreport_to = ["tensorboard"]')
    made = train(place, tmp_path / "runs" / "a")
    (written,) = made.rglob("events.out.tfevents.*")
    assert b"train/loss" in written.read_bytes()
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install tensorboard"):
        train(place, tmp_path / "runs" / "b")


def test_padding_is_computed_to_numbers_in_16_bits(random_model: Path) -> None:
    """The lowest float32 is -inf there, and attention to nothing at all would be no number on some devices."""
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(random_model)
    masks = []
    for layer in model.model.language_model.layers:
        layer.register_forward_pre_hook(lambda m, a, k: masks.append(k["attention_mask"]), with_kwargs=True)
    batch = pack([[Row([5, 6], [Branch([7, 8], ((1, 2),))])]], 0, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loop.packed_loss(model, batch)["loss"]
    assert torch.isfinite(loss) and masks and all(torch.isfinite(mask.bfloat16()).all() for mask in masks)


def test_progress_tells_the_losses_and_the_time_that_is_left(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe(), tmp_path / "runs" / "a")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert re.fullmatch(r"step 2/3  loss \S+  grad_norm \S+  learning_rate \S+  accuracy \S+  \S+ s a step, \d+ s left",
                        told[1]), told  # fmt: skip
    assert told[2].endswith("0 s left")
    assert [spoken(seconds) for seconds in (7.4, 59.7, 3599, 7260)] == ["7 s", "1 min", "1 h 0 min", "2 h 1 min"]


def test_a_loss_that_is_no_number_ends_the_run_with_the_samples(recipe: Callable[..., Path], tmp_path: Path) -> None:
    wild = recipe(tables="[optimizer]\nrate = 1e30\n", training="max_steps = 5\nmax_grad_norm = 0.0")
    with pytest.raises(RecipeError, match=r"step \d: the (loss|gradient) is (nan|inf), on the samples .*clip\d#\d"):
        train(wild, tmp_path / "runs" / "a")
    assert not (tmp_path / "runs" / "a" / "recipe.toml").exists()


def test_a_spike_ends_the_run_with_the_samples(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REMEMBERED", 2)
    wild = recipe(tables="[guard]\nspike = 0.8\n", training="max_steps = 9")  # any third step is one
    with pytest.raises(RecipeError, match=r"step 3: the loss is 5.* after 5.*guard\.spike = 0\.8.*clip\d"):
        train(wild, tmp_path / "runs" / "a")


def test_the_watch_names_the_samples_of_the_step_alone(tmp_path: Path) -> None:
    watch = Watch(Guard(spike=2.0), tmp_path)
    for step in range(1, loop.REMEMBERED + 1):
        watch.read([f"calm {step}"], [])
        watch.learnt(1.0, step, True)
        watch.gradient(1.0, step)
    watch.read(["first half"], [])
    watch.learnt(1.0, 33, False)
    watch.read(["second half"], [])
    with pytest.raises(
        RecipeError, match=r"step 33: the loss is 2\.5 after 1, .* on the samples first half, second half$"
    ):
        watch.learnt(1.5, 33, True)
    watch.read(["large"], [])
    watch.gradient(float("inf"), 33, scaled=True)  # float16: that step is left out, and the next scaled less
    watch = Watch(Guard(), tmp_path)
    watch.read(["odd"], [])
    watch.learnt(1.0, 1, True)
    with pytest.raises(RecipeError, match="step 1: the gradient is nan, on the samples odd"):
        watch.gradient(float("nan"), 1)


def test_a_resumed_watch_remembers_what_was_skipped(tmp_path: Path) -> None:
    watch = Watch(Guard(broken=0.1), tmp_path)
    watch.read(["good"] * 10, [Skipped("bad 1", "torn"), Skipped("bad 2", "torn")])
    again = Watch(Guard(broken=0.1), tmp_path, seen=10)
    again.read(["good"], [Skipped("bad 1", "torn"), Skipped("bad 3", "torn")])
    again.read(["good"], [Skipped("bad 4", "torn")])
    again.read([], [Skipped(f"question {n}", "torn", "bad 4") for n in range(9)])  # of the same video
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 13
    with pytest.raises(RecipeError, match="5 samples cannot be used, beside 13 that can"):
        again.read(["good"], [Skipped("bad 5", "torn")])


def test_held_out_samples_that_are_skipped_say_nothing_of_those_learnt_from(tmp_path: Path) -> None:
    watch = Watch(Guard(broken=0.0), tmp_path)
    watch.read(["good"], [])
    watch.tell([Skipped(f"held {n}", "torn", held_out=True) for n in range(9)])
    watch.read(["good"], [Skipped("bad", "torn")])
    again = Watch(Guard(broken=0.0), tmp_path, seen=2)
    again.read(["good"], [Skipped(f"worse {n}", "torn") for n in range(2)])
    with pytest.raises(RecipeError, match="4 samples cannot be used, beside 4 that can"):
        again.read(["good"], [Skipped("worst", "torn")])


def test_a_resumed_run_counts_what_all_its_processes_read_as_the_list_of_skipped_ones_does(tmp_path: Path) -> None:
    both = SimpleNamespace(per_device_train_batch_size=3, gradient_accumulation_steps=2, world_size=2)
    assert training._seen(str(tmp_path / "checkpoint-10"), both) == 120
    assert training._seen(None, both) == 0
