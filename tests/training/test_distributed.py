"""Two processes train as one does: with DDP, and with the weights spread over both."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import running
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from minigpt4_video.errors import RecipeError
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration
from minigpt4_video.training import train as training
from minigpt4_video.training.loop import PackedTrainer
from minigpt4_video.training.recipe import read_recipe
from minigpt4_video.training.train import train

TABLES = "[evaluation]\nshare = 0.4\nanswers = 1\n[optimizer]\nrate = 3e-3\n"
EACH = ("--set", "training.per_device_train_batch_size=1")
"""Two processes with one sample each are a step of two."""
SHARDED = ("--set", "sharded=true")


@pytest.fixture
def place(recipe: Callable[..., Path]) -> Path:
    return recipe(tables=TABLES, training="max_steps = 4\nwarmup_steps = 1\n", learn="lora_dropout = 0.0")


@pytest.fixture
def alone(place: Path, tmp_path: Path) -> Path:
    output, log = tmp_path / "alone" / "run", tmp_path / "log"
    assert running.run(log, "train", str(place), "--output", str(output)) == 0, log.read_text()
    return output


def losses(folder: Path) -> list[tuple[int, str, float]]:
    log = json.loads((folder / "run.json").read_text())["log"]
    return [(one["step"], name, one[name]) for one in log for name in ("loss", "eval_loss", "grad_norm") if name in one]


def assert_trained_alike(one: Path, other: Path) -> None:
    for (step, name, mine), theirs in zip(losses(one), losses(other), strict=True):
        assert (step, name) == theirs[:2]
        assert mine == pytest.approx(theirs[2], rel=1e-3 if name == "grad_norm" else 1e-4), (step, name)
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def together(tmp_path: Path, place: Path, *more: str, output: Path | None = None) -> Path:
    output, log = output or tmp_path / "together" / "run", tmp_path / "log"
    statuses = running.run_together(log, 2, "train", str(place), "--output", str(output), *EACH, *more)
    assert statuses == [0, 0], log.read_text()
    return output


def test_two_processes_have_the_losses_and_weights_of_one(place: Path, alone: Path, tmp_path: Path) -> None:
    made = together(tmp_path, place)
    assert "training on cpu: 2 processes, DDP" in (tmp_path / "log").read_text()
    assert (told(made)["parallel"], told(made)["processes"]) == ("DDP", 2)
    assert told(alone)["parallel"] == "one process" and "training on cpu: one process" in (tmp_path / "log").read_text()
    assert_trained_alike(alone, made)
    answers = [json.loads(line)["step"] for line in (made / "answers.jsonl").read_text().splitlines()]
    assert answers == [1, 2, 3, 4]  # by one of them


def test_shards_train_alike_and_any_number_of_processes_goes_on(place: Path, alone: Path, tmp_path: Path) -> None:
    made = together(tmp_path, place, *SHARDED)
    assert (told(made)["parallel"], told(made)["processes"]) == ("FSDP2", 2)
    assert_trained_alike(alone, made)
    held = load_file(made / "checkpoint-4" / "trained.safetensors")
    assert any("lora_A" in name for name in held) and any("multi_modal_projector" in name for name in held)
    assert not any("vision_tower" in name or "embed_tokens" in name for name in held)

    for processes in (1, 2):
        again = tmp_path / f"again{processes}" / "run"
        again.mkdir(parents=True)
        shutil.copytree(made / "checkpoint-3", again / "checkpoint-3")
        if processes == 2:
            together(tmp_path, place, *SHARDED, "--resume", output=again)
        else:
            log = tmp_path / "log"
            status = running.run(log, "train", str(place), "--output", str(again), *SHARDED, "--resume")
            assert status == 0, log.read_text()
        assert told(again)["parallel"] == ("FSDP2" if processes == 2 else "one process")
        assert_trained_alike(alone, again)


def test_a_whole_language_model_is_trained_in_shards(place: Path, tmp_path: Path) -> None:
    full = ("--set", "learn.language=full", "--set", "learn.frozen=bfloat16", "--set", "training.bf16=true",
            "--set", "training.gradient_checkpointing=true", "--set", "training.max_steps=2")  # fmt: skip
    made = together(tmp_path, place, *SHARDED, *full)
    log = tmp_path / "log"
    other = tmp_path / "other" / "run"
    assert running.run(log, "train", str(place), "--output", str(other), *full) == 0, log.read_text()
    assert told(made)["parallel"] == "FSDP2"
    for (step, name, mine), theirs in zip(losses(made), losses(other), strict=True):
        assert mine == pytest.approx(theirs[2], rel=0.05), (step, name)
    assert told(made)["trained"] == told(other)["trained"]


def test_tied_embeddings_are_saved_once_and_gone_on_with(
    recipe: Callable[..., Path], random_model: Path, tmp_path: Path
) -> None:
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(random_model)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    tied = shutil.copytree(random_model, tmp_path / "tied")
    MiniGPT4VideoForConditionalGeneration(model.config).save_pretrained(tied)
    place = recipe(tables=TABLES, training="max_steps = 2\n", learn='language = "full"')
    place.write_text(place.read_text().replace(str(random_model), str(tied)))
    made = together(tmp_path, place, *SHARDED)
    assert "lm_head.weight" not in load_file(made / "checkpoint-1" / "trained.safetensors")
    log = tmp_path / "log"
    for processes in (1, 2):
        again = tmp_path / f"again{processes}" / "run"
        shutil.copytree(made / "checkpoint-1", again / "checkpoint-1")
        if processes == 2:
            together(tmp_path, place, *SHARDED, "--resume", output=again)
        else:
            status = running.run(log, "train", str(place), "--output", str(again), *SHARDED, "--resume")
            assert status == 0, log.read_text()
        assert_trained_alike(made, again)


@pytest.mark.slow
def test_torchrun_starts_them_and_one_of_them_tells_the_result(place: Path, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "launched" / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "minigpt4_video", "train", str(place), "--output", str(output), *EACH]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(output)]
    assert told(output)["parallel"] == "DDP"
    assert_trained_alike(alone, output)


def test_a_step_in_parts_is_the_step_as_a_whole(place: Path, alone: Path, tmp_path: Path) -> None:
    """Parts hold unlike numbers of answers, so the mean of their losses would be another one."""
    output, log = tmp_path / "parts" / "run", tmp_path / "log"
    parts = (*EACH, "--set", "training.gradient_accumulation_steps=2")
    assert running.run(log, "train", str(place), "--output", str(output), *parts) == 0, log.read_text()
    assert_trained_alike(alone, output)


def test_several_gpus_without_torchrun_are_not_given_pieces_of_a_batch(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", 4)
    arguments = training._arguments(read_recipe(recipe()), tmp_path / "run")
    assert arguments._n_gpu == 1 and "one of 4 GPUs is used" in caplog.text


def test_processes_that_would_not_exchange_gradients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_prepare_for_training", lambda self: None)
    trainer = PackedTrainer.__new__(PackedTrainer)
    trainer.model_wrapped, trainer.args = torch.nn.Linear(1, 1), SimpleNamespace(world_size=2, process_index=0)
    with pytest.raises(RecipeError, match="2 processes would train without exchanging gradients"):
        trainer._prepare_for_training()


def test_what_would_train_in_another_way_than_it_says_is_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="say `sharded = true` above"):
        train(recipe(training='max_steps = 1\nfsdp = "full_shard"'), tmp_path / "runs" / "a")
    with pytest.raises(RecipeError, match="Muon needs whole matrices"):
        train(recipe(changes="sharded = true", tables='[optimizer]\nkind = "muon"\n'), tmp_path / "runs" / "a")
