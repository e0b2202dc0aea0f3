"""transformers' Trainer on packed lines, and what a run needs beside it: when to stop, what to keep, what to tell."""

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from minigpt4_video.data.reading import shown
from minigpt4_video.errors import RecipeError, UserError
from minigpt4_video.inference.store import Store
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.messages import text_of
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.processing import IGNORED
from minigpt4_video.training.chart import draw_losses
from minigpt4_video.training.files import Files, FilesCollator
from minigpt4_video.training.kept import Medium, encoded, keep_features, normalised
from minigpt4_video.training.packing import attention
from minigpt4_video.training.pretraining import ANSWER_MULTIPLE
from minigpt4_video.training.recipe import Guard
from minigpt4_video.training.sets import Skipped
from minigpt4_video.training.sharding import is_sharded, load_optimizer, load_trained, save_trained
from minigpt4_video.training.spread import Spread

REMEMBERED = 32
"""Losses of which a spike is told apart."""
TOLERATED = 3
"""Samples that may be unusable whatever the share."""
SKIPPED = "skipped.jsonl"
ANSWERS = "answers.jsonl"
SCHEDULER = "scheduler.pt"
ANSWER_TOKENS = 64


class Watch:
    """Stops a run that goes wrong, with the names of what it was fed."""

    def __init__(self, guard: Guard, output: Path, seen: int = 0) -> None:
        """`seen` samples were read before, by all processes of the run that is gone on with: the list of those that
        were left out is of all of them too."""
        self.guard = guard
        self.place = output / SKIPPED
        self.seen = seen
        self._losses: deque[float] = deque(maxlen=REMEMBERED)
        self._step = 0.0
        self._fed: list[str] = []
        self._skipped: set[str] = set()
        self._broken: set[str] = set()
        """Samples to learn from, of which several records may have been skipped."""
        if seen and self.place.is_file():
            told = self.place.read_text(encoding="utf-8").splitlines()
            self._note([Skipped(**json.loads(line)) for line in told if line.endswith("}")])

    def read(self, ids: Sequence[str], skipped: Sequence[Skipped]) -> None:
        """Samples that are about to be learnt, and those that had to be left out. Raises RecipeError for too many."""
        self.seen += len(ids)
        self._fed += ids
        if (new := self.tell(skipped)) and len(self._broken) > TOLERATED + self.guard.broken * self.seen:
            raise RecipeError(
                f"{len(self._broken)} samples cannot be used, beside {self.seen} that can: more than "
                f"guard.broken = {self.guard.broken:g}; {self.place} lists them, the last: {new[-1].id}: "
                f"{new[-1].reason}"
            )

    def tell(self, skipped: Sequence[Skipped]) -> list[Skipped]:
        """Lists samples that had to be left out; those of them that were not listed before."""
        new = [one for one in skipped if one.id not in self._skipped]
        if new:
            self._note(new)
            with self.place.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(one._asdict()) + "\n" for one in new)
        return new

    def _note(self, skipped: Sequence[Skipped]) -> None:
        self._skipped |= {one.id for one in skipped}
        self._broken |= {one.sample or one.id for one in skipped if not one.held_out}

    def learnt(self, loss: float, step: int, ends: bool) -> None:
        """The loss of a part of a step; `ends` where it is the last part. Raises RecipeError for one that is wrong."""
        if not math.isfinite(loss):
            raise RecipeError(f"step {step}: the loss is {loss}, {self._names()}")
        self._step += loss
        if not ends:
            return
        usual = median(self._losses) if len(self._losses) == REMEMBERED else math.inf
        if self.guard.spike and self._step > self.guard.spike * usual:
            raise RecipeError(
                f"step {step}: the loss is {self._step:.4g} after {usual:.4g}, more than guard.spike = "
                f"{self.guard.spike:g} times as much, {self._names()}"
            )
        self._losses.append(self._step)
        self._step = 0.0

    def gradient(self, norm: float, step: int, scaled: bool = False) -> None:
        """The length of a step's gradient, before weights are changed by it. Raises RecipeError for one that is no
        number, unless losses are `scaled` as with float16: such a step is then left out, and the next scaled less."""
        if not (scaled or math.isfinite(norm)):
            raise RecipeError(f"step {step}: the gradient is {norm}, {self._names()}")
        self._fed.clear()

    def _names(self) -> str:
        return f"on the samples {', '.join(self._fed)}" if self._fed else "on samples without names"


@dataclass
class Sight:
    """How what is shown becomes what the model reads."""

    processor: MiniGPT4VideoProcessor
    store: Store | None = None
    """Where features are kept; None for nowhere."""
    trained: bool = False
    """Whether the tower is, so that it belongs to the pass that is differentiated."""

    def of(self, model: MiniGPT4VideoForConditionalGeneration, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """`image_features` of a batch, or `pixel_values` where the tower is trained."""
        media: list[Medium] = inputs["media"]
        order = inputs["order"].to(model.device)
        if not len(order):
            # The projection takes part in words alone too: of several processes each must have a gradient of it.
            config = model.config
            width = config.merge_size * config.vision_config.hidden_size  # type: ignore[union-attr]
            return {"image_features": torch.zeros(0, config.tokens_per_frame, width, device=model.device)}
        unseen = [medium.frames for medium in media if medium.frames is not None]

        def pixels(frames: Sequence[torch.Tensor]) -> torch.Tensor:
            there = torch.cat(list(frames)).to(model.device)
            return normalised(there, self.processor.image_mean, self.processor.image_std)

        if self.trained and unseen:
            return {"pixel_values": pixels(unseen)[order]}
        if self.store is None:
            counts = [len(frames) for frames in unseen]
            made = encoded(model.model, pixels(unseen)).split(counts) if unseen else ()
        else:  # what is kept must not depend, not even in its last bits, on what else was in the batch
            made = tuple(encoded(model.model, pixels([frames])) for frames in unseen)
        seen = iter(made)
        features = []
        for medium in media:
            if medium.features is not None:
                features.append(medium.features.to(model.device))
                continue
            features.append(next(seen))
            if self.store is not None and medium.key is not None:
                keep_features(self.store, medium, features[-1])
        kind = max((one.dtype for one in features), key=lambda dtype: dtype.itemsize)
        return {"image_features": torch.cat([one.to(kind) for one in features])[order]}


class PackedTrainer(Trainer):  # type: ignore[misc]
    """The loss of packed lines, with logits made for learned positions alone."""

    def __init__(
        self,
        *args: Any,
        watch: Watch,
        sight: Sight | None = None,
        held: Files | None = None,
        collate: FilesCollator | None = None,
        answers: int = 0,
        sharded: bool = False,
        spread: Spread | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Set afterwards, for transformers refuses to write checkpoints of such models; those below are our own.
        self.is_distributed_loading_by_transformers = sharded
        self.sharded = sharded
        self.watch = watch
        self.sight = sight
        self.held = held
        self.collate = collate
        self.answers = answers
        self.spread = spread
        for told in (PrinterCallback, ProgressCallback):
            self.remove_callback(told)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if "words" in inputs or "middle" in inputs:
            outputs = model(**inputs)
        else:
            outputs = packed_loss(model, self._seen(inputs), num_items_in_batch, self.spread)
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                # Gradients are averaged over processes, and the count is that of all of them.
                outputs["loss"] = outputs["loss"] * self.accelerator.num_processes
        self._accuracy = outputs["accuracy"]
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _seen(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.sight is None:
            return inputs
        inner = unwrapped(self.model)
        with self.accelerator.autocast():
            frames = self.sight.of(inner, inputs)
        return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)} | frames

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Tells what trains, and raises RecipeError where processes would train each for itself."""
        made = super()._prepare_for_training(*args, **kwargs)
        runs, count = parallel(self.model_wrapped), self.args.world_size
        if count > 1 and runs == "one process":
            raise RecipeError(f"{count} processes would train without exchanging gradients; start them with torchrun")
        if self.args.process_index == 0:
            told = runs if count == 1 else f"{count} processes, {runs}"
            print(f"training on {self.args.device.type}: {told}", file=sys.stderr, flush=True)
        return made

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.sharded:
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_trained(self.model, _plain(self.optimizer), Path(output_dir), self.args.should_save)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.sharded:
            load_trained(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.model, _plain(self.optimizer), Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))

    def _load_best_model(self) -> None:
        if self.sharded:
            load_trained(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        self.watch.read(inputs.pop("ids", []), inputs.pop("skipped", []))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.watch.learnt(float(loss), self.state.global_step + 1, self.accelerator.sync_gradients)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if hasattr(norm, "full_tensor"):  # of shards
            norm = norm.full_tensor()
        self.watch.gradient(float(norm), self.state.global_step + 1, scaled=self.accelerator.scaler is not None)
        return norm

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss of the held-out samples, and answers to the first of their questions. Raises RecipeError where none of
        them can be read."""
        assert self.held is not None and self.collate is not None
        self.model.eval()
        device = self.args.device
        total, learned = torch.zeros((), device=device), torch.zeros((), device=device)
        size = self.args.per_device_eval_batch_size
        for round_ in range(0, len(self.held), self.args.world_size * size):
            first = round_ + self.args.process_index * size
            mine = range(first, min(first + size, len(self.held)))
            # One without samples takes part all the same: shards are gathered by all processes together.
            batch = self.collate([self.held[number] for number in mine or (0,)])
            skipped = batch.pop("skipped")
            self.watch.tell([skip._replace(held_out=True) for skip in skipped] if mine else [])
            inputs = self._prepare_inputs(batch)
            with self.accelerator.autocast():
                loss = packed_loss(self.model, self._seen(inputs), 1)["loss"]
            if mine:
                total += loss
                learned += (inputs["labels"] != IGNORED).sum()
        total, learned = self.accelerator.reduce(torch.stack([total, learned])).unbind()
        if not learned:  # a loss of 0 would be the best for ever
            raise RecipeError(
                f"none of the {len(self.held)} held-out samples can be used; {self.watch.place} lists them"
            )
        metrics = {"eval_loss": float(total / learned)}
        if self.answers and (self.sharded or self.args.process_index == 0):
            metrics |= self._answered()
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answered(self) -> dict[str, float]:
        """Answers to held-out questions beside what should have been said; the share of those that are the same."""
        assert self.held is not None
        processor, model = self.held.processor, unwrapped(self.model)
        told: list[dict[str, str]] = []
        for number in range(len(self.held)):
            for record in self.held.group(number).records:
                if len(told) == self.answers:
                    break
                try:
                    asked = shown(record.messages[:-1], self.held.frames, processor.image_size)
                    inputs = processor.apply_chat_template(asked, tokenize=True, return_dict=True, return_tensors="pt")
                except UserError:
                    continue
                inputs = inputs.to(self.args.device)
                with self.accelerator.autocast():
                    made = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
                text = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                right = text_of(record.messages[-1])
                told.append({"id": record.id, "question": text_of(asked[-1]), "answer": text.strip(), "right": right})
        if self.args.process_index == 0:
            with (Path(self.args.output_dir) / ANSWERS).open("a", encoding="utf-8") as file:
                for one in told:
                    file.write(json.dumps({"step": self.state.global_step, **one}, ensure_ascii=False) + "\n")
        same = sum(one["answer"].lower() == one["right"].strip().lower() for one in told)
        return {"eval_answers_right": same / len(told)} if told else {}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs["accuracy"] = round(float(self._accuracy), 4)
        super().log(logs, *args, **kwargs)


def packed_loss(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    count: torch.Tensor | int | None = None,
    spread: Spread | None = None,
) -> dict[str, torch.Tensor]:
    """Loss of a `MiniGPT4VideoForConditionalGeneration`, possibly inside peft or DDP, on packed lines: the mean over
    the learned positions, or their sum over `count`.

    The wrapped model itself is called, because DDP and FSDP do their part in its `forward`.
    """
    inner = unwrapped(model)
    labels = inputs["labels"]
    kept = learned_positions(labels, inner.device.type == "cpu")
    frames = {name: inputs[name] for name in ("pixel_values", "image_features") if name in inputs}
    device, kind = inner.device.type, inner.model.language_model.dtype
    if torch.is_autocast_enabled(device):
        # Attention is computed in this type. The lowest float32 would become -inf in it, and padding, which sees
        # nothing at all, no number.
        kind = torch.get_autocast_dtype(device)
    outputs = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        labels=labels,
        logits_to_keep=kept,
        use_cache=False,
        num_items_in_batch=count,
        **attention(inputs, inner.config.text_config, kind),
        **frames,
    )
    target = labels.roll(-1, dims=1)[kept]
    learned = target != IGNORED
    right = (outputs.logits.argmax(-1) == target)[learned]
    loss = outputs.loss
    if spread is not None:
        loss = loss + spread(outputs.logits[learned].float(), target[learned]) / (
            learned.sum() if count is None else count
        )
    return {"loss": loss, "accuracy": right.float().mean().detach()}


def unwrapped(model: torch.nn.Module) -> MiniGPT4VideoForConditionalGeneration:
    """The model inside peft, DDP or both."""
    while not isinstance(model, MiniGPT4VideoForConditionalGeneration):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return model


def parallel(wrapped: torch.nn.Module) -> str:
    """What a trainer's wrapped model runs as, which is not always what was asked for."""
    if isinstance(wrapped, torch.nn.parallel.DistributedDataParallel):
        return "DDP"
    inner = wrapped if not hasattr(wrapped, "get_base_model") else wrapped.get_base_model()
    return "FSDP2" if is_sharded(inner) else "one process"


def _plain(optimizer: Any) -> Any:
    """The optimiser inside accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def learned_positions(labels: torch.Tensor, rounded: bool) -> torch.Tensor:
    """Where logits are needed, (lines, tokens) of bool: before each label. `rounded` adds positions that are not learnt
    up to a multiple of `ANSWER_MULTIPLE`, for each new shape costs the CPU's kernels a compilation.
    """
    learned = labels.roll(-1, dims=1) != IGNORED
    learned[:, -1] = False
    if rounded:
        flat = learned.view(-1)
        spare = -int(flat.sum()) % ANSWER_MULTIPLE
        others = (~flat).view(labels.shape)
        others[:, -1] = False  # the label behind a line's end would be the next line's first
        flat[others.flatten().nonzero()[:spare, 0]] = True
    return learned


class Progress(TrainerCallback):  # type: ignore[misc]
    """A line for each log, with the time that is left, and a drawing of the losses with each checkpoint."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        done = state.global_step - self._first
        each = (time.monotonic() - self._begun) / max(done, 1)
        told = "  ".join(f"{name} {value:.4g}" for name, value in logs.items() if name != "epoch")
        left = f"  {each:.3g} s a step, {spoken(each * (state.max_steps - state.global_step))} left" if done else ""
        print(f"step {state.global_step}/{state.max_steps}  {told}{left}", file=sys.stderr, flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_whole(Path(args.output_dir) / "loss.png", draw_losses(state.log_history))


def spoken(seconds: float) -> str:
    """A length of time for people: "1 h 12 min", "45 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@dataclass
class Patience(TrainerCallback):  # type: ignore[misc]
    """Ends a run after so many evaluations in a row that were not the best.

    It counts in the log, which a checkpoint holds, so that a resumed run ends where the uninterrupted one does.
    """

    evaluations: int

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = [one["eval_loss"] for one in state.log_history if "eval_loss" in one]
        if len(losses) - 1 - losses.index(min(losses)) >= self.evaluations:
            control.should_training_stop = True


@dataclass
class Interruption(TrainerCallback):  # type: ignore[misc]
    """Ends a run after the step that is under way, with a checkpoint, once somebody asked for it."""

    asked: bool = False
    _before: dict[int, Any] = field(default_factory=dict)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        asked = self.asked
        if args.world_size > 1:  # all must stop at the same step, or the others wait for ever
            flag = torch.tensor(int(asked), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            asked = self.asked = bool(flag)
        if asked:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A first Ctrl-C, or SIGTERM, asks; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: Any) -> None:
            self.asked = True
            # Not by print: the signal may come while another line is being printed, which must not be entered again.
            with suppress(OSError):
                os.write(2, b"stopping after this step; again to stop at once\n")
            signal.signal(number, signal.default_int_handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for heard, handler in self._before.items():
                signal.signal(heard, handler)


def last_checkpoint(output: Path) -> str | None:
    """The last checkpoint that was written to its end; those that were not are removed.

    The trainer writes its state last, so a checkpoint without it is a part of one.
    """
    while output.is_dir() and (found := get_last_checkpoint(str(output))) is not None:
        try:
            json.loads((Path(found) / "trainer_state.json").read_text(encoding="utf-8"))
            return str(found)
        except (OSError, ValueError):
            if int(os.environ.get("RANK", "0")) == 0:
                shutil.rmtree(found)
            else:
                time.sleep(0.2)
    return None
