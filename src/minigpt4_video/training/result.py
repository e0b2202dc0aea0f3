"""What a run leaves: a folder for `from_pretrained`, with a card that says how it was made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from minigpt4_video.inference.loading import ADAPTER
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.training.parts import write_aside
from minigpt4_video.training.recipe import Recipe, as_toml

FINISHED = "recipe.toml"
"""The effective recipe is written last, so its presence says that the run is complete."""
RUN = "run.json"
"""The numbers of a run."""


@dataclass(frozen=True)
class Told:
    """What is said of a run in its card and in `run.json`."""

    trained: int
    """Numbers that were trained, of `parameters`."""
    parameters: int
    samples: int
    """Videos or pictures that there were to learn from."""
    turns: int
    unusable: int
    """Rows that could not be used."""
    held_out: int
    processes: int
    parallel: str
    """What really ran: "one process", "DDP" or "FSDP2"."""
    device: str
    kept: str
    history: Sequence[Mapping[str, Any]] = ()

    def last(self, name: str) -> float | None:
        return next((float(one[name]) for one in reversed(self.history) if name in one), None)

    def best(self, name: str) -> float | None:
        return min((float(one[name]) for one in self.history if name in one), default=None)


def save(plan: Recipe, model: torch.nn.Module, processor: MiniGPT4VideoProcessor, output: Path, told: Told) -> None:
    """Weights, configuration, processor and card into `output`; the effective recipe last."""

    def write(folder: Path) -> None:
        plain: Any = model
        if plan.learn.language == "lora":
            if plan.learn.adapter == "separate":
                _save_adapter(plain, folder / ADAPTER)
                plain = plain.unload()
            else:
                plain = plain.merge_and_unload()
        assert isinstance(plain, MiniGPT4VideoForConditionalGeneration)
        kind = getattr(torch, plan.learn.frozen)
        plain.to(kind)
        plain.config.dtype = kind
        if not (plan.data and plan.parts.model):  # else it goes on being asked as it was
            tokenizer = processor.tokenizer
            plain.generation_config = GenerationConfig(
                max_new_tokens=processor.answer_reserve, do_sample=False, pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        plain.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(card(plan, told), encoding="utf-8")
        numbers = {name: value for name, value in vars(told).items() if name != "history"}
        (folder / RUN).write_text(json.dumps({**numbers, "log": list(told.history)}, indent=1) + "\n", encoding="utf-8")
        (folder / FINISHED).write_text(as_toml(plan), encoding="utf-8")

    write_aside(output, write, FINISHED)


def _save_adapter(model: Any, folder: Path) -> None:
    """LoRA alone, for `peft.PeftModel.from_pretrained(model, folder)`; what else was trained is in the weights."""
    from peft import LoraConfig, get_peft_model_state_dict

    folder.mkdir()
    held = model.peft_config["default"]
    LoraConfig(
        r=held.r, lora_alpha=held.lora_alpha, lora_dropout=held.lora_dropout, target_modules=held.target_modules
    ).save_pretrained(folder)
    state = get_peft_model_state_dict(model)
    lora = {name: tensor.float().cpu().contiguous() for name, tensor in state.items() if ".lora_" in name}
    save_file(lora, folder / "adapter_model.safetensors")


STAGES = {
    "image-text": "Stage 1: pictures and their captions",
    "video-text": "Stage 2: videos, subtitles and their captions",
    "video-qa": "Stage 3: questions about videos",
}


def card(plan: Recipe, told: Told) -> str:
    """The model card, filled from the run."""
    formats = sorted({one.format for one in plan.data}) or ["the procedural world"]
    rows = [
        ("Stage", STAGES.get(plan.stage, plan.stage)),
        ("Started from", plan.parts.model or f"{plan.parts.vision} and {plan.parts.language}"),
        ("Data", f"{', '.join(formats)}: {told.samples} videos or pictures, {told.turns} answers"),
        ("Rows that could not be used", f"{told.unusable}"),
        ("Held out", f"{told.held_out} videos or pictures"),
        ("Trained", f"{told.trained:,} of {told.parameters:,} numbers ({_trained(plan)})"),
        ("Steps", f"{int(told.last('step') or 0)}"),
        ("Ran on", f"{told.device}, {told.processes} process(es), {told.parallel}"),
    ]
    for name, what in (("loss", "Last loss"), ("eval_loss", "Last held-out loss")):
        if (value := told.last(name)) is not None:
            rows.append((what, f"{value:.4f}"))
    if (best := told.best("eval_loss")) is not None:
        rows.append(("Best held-out loss", f"{best:.4f}"))
    if (right := told.last("eval_answers_right")) is not None:
        rows.append(("Held-out answers the same to the letter", f"{right:.1%}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    separate = plan.learn.language == "lora" and plan.learn.adapter == "separate"
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [minigpt4-video, video]
---

# {plan.model or "A MiniGPT4-Video model"}: {STAGES.get(plan.stage, plan.stage).split(":")[0].lower()}

Trained with minigpt4-video. The recipe that was in force is `recipe.toml`, the log `run.json`, the losses `loss.png`.

| | |
|---|---|
{table}

It is as reliable as the data that it was trained on, which nobody has looked through for this card; weights that it
started from keep their licences.

```python
import minigpt4_video as mv

print(mv.VideoChat.from_pretrained("FOLDER").open("video.mp4").ask("What happens?").text)
```
{SEPARATE if separate else ""}"""


SEPARATE = """
LoRA is not part of the weights but lies in `adapter`, which `VideoChat` adds by itself. In transformers:
`peft.PeftModel.from_pretrained(model, "FOLDER/adapter")`.
"""


def _trained(plan: Recipe) -> str:
    what = {"frozen": [], "lora": ["LoRA"], "full": ["language model"]}[plan.learn.language]
    return ", ".join(["projection", *what, *(["vision tower"] if plan.learn.vision else [])])
