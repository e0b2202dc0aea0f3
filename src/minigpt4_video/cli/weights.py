"""The verbs about models themselves: models, convert, export."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say, say_json

GIB = 2**30


def models(json: options.Json = False) -> None:
    """List the known models and what each needs.

    \b
    minigpt4-video models
    """
    quiet()
    from minigpt4_video.errors import ModelError
    from minigpt4_video.model.presets import BYTES, PRESETS

    described: list[dict[str, Any]] = []
    for preset in PRESETS.values():
        described.append({"name": preset.name, "description": preset.description, "licence": preset.licence})
        try:
            asked = preset.asked()
            memory = {dtype: round(preset.memory(dtype) / GIB, 2) for dtype in BYTES}
            few = preset.memory("bfloat16", 8) / GIB
        except ModelError:  # an embedded model that this installation lacks
            described[-1] |= {"ready": False, "needs": preset.parts, "memory_gib": None}
            continue
        described[-1] |= {
            "ready": not preset.parts,
            "needs": preset.parts,
            "download_gb": round(preset.download() / 1e9, 1),
            "parameters": preset.parameters(),
            "memory_gib": memory["bfloat16"],
            "memory_gib_by_dtype": memory,
            "memory_gib_8_frames": round(few, 2),
            "frames": asked.frames,
            "window": asked.window,
            "subtitle_tokens": preset.subtitle_budget(),
            "repetition_penalty": asked.repetition_penalty,
        }
    if json:
        say_json({"models": described})
        return
    for one, preset in zip(described, PRESETS.values(), strict=True):
        say(f"{one['name']}: {one['description']}")
        if one["memory_gib"] is None:
            say("    missing from this installation")
            continue
        say(f"    {preset.way() if preset.parts else 'ready'}")
        say(
            f"    {one['memory_gib']:.2f} GiB in 16 bit with {one['frames']} frames ({one['memory_gib_8_frames']:.2f} "
            f"with 8), {one['memory_gib_by_dtype']['float32']:.2f} in float32: weights and a full context"
        )
        penalty = one["repetition_penalty"]
        said = "" if penalty == 1.0 else f"; repetition penalty {penalty}, as the original's"
        say(f"    {one['window']} tokens of context, {one['subtitle_tokens']} of them beside frames and answer{said}")
        say(f"    {one['licence']}")


def convert(
    official_checkpoint: Annotated[
        Path, Option(metavar="FILE.pth", help="What the original saved.", show_default=False)
    ],
    language_model: Annotated[
        Path, Option(metavar="FOLDER", help="The base model it was trained on, as downloaded.", show_default=False)
    ],
    vision: Annotated[Path, Option(metavar="FILE.pth", help="eva_vit_g.pth.", show_default=False)],
    output: Annotated[Path, Option(metavar="FOLDER", help="New folder for the model.", show_default=False)],
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option(help="Number format to store; auto is the base model's."),
    ] = "auto",
    adapter: Annotated[
        Literal["merge", "keep"], Option(help="Put the LoRA matrices into the weights, or keep them apart.")
    ] = "merge",
    vision_heads: Annotated[
        int | None,
        Option(min=1, help="Attention heads of a tower that is not EVA-CLIP ViT-g.", show_default=False),
    ] = None,
    verify: Annotated[
        bool,
        Option("--verify", help="Then load it and show memory, and the loss on a small clip with and without LoRA."),
    ] = False,
    device: options.Device = "cpu",
) -> None:
    """Turn a checkpoint of the original project into a model folder.

    \b
    minigpt4-video convert --official-checkpoint video_llama_checkpoint_last.pth \\
        --language-model Llama-2-7b-chat-hf --vision eva_vit_g.pth --output llama2
    minigpt4-video ask clip.mp4 "What happens?" --model llama2
    """
    quiet()
    from minigpt4_video.model import conversion

    report = conversion.convert(
        official_checkpoint, language_model, vision, output, dtype=dtype, adapter=adapter, vision_heads=vision_heads
    )
    for line in report.lines():
        say(line)
    if verify:
        for line in _verify(output, official_checkpoint, device):
            say(line)
    note(f"model folder: {output}")


def export(
    model: Annotated[
        Path, Argument(metavar="FOLDER", help="A model folder whose LoRA lies apart.", show_default=False)
    ],
    output: Annotated[Path, Option(metavar="FILE.pth", help="New file.", show_default=False)],
) -> None:
    """Turn a model folder into a checkpoint for the original project's code: LoRA and projection under its names.

    \b
    minigpt4-video export runs/llama2-7b/stage3 --output video_llama_checkpoint.pth
    """
    quiet()
    from minigpt4_video.model.exporting import export as write

    for line in write(model, output).lines():
        say(line)
    note(f"checkpoint: {output}")


def _verify(folder: Path, official_checkpoint: Path, device: str) -> list[str]:
    """Whether the LoRA matrices arrived, from a clip of the procedural world and its description."""
    from minigpt4_video.data.world import files
    from minigpt4_video.data.world.language import caption
    from minigpt4_video.data.world.scene import make_scene
    from minigpt4_video.inference.loading import find_device
    from minigpt4_video.model import conversion

    place = str(find_device(device))
    with tempfile.TemporaryDirectory() as aside:
        clip = files.render(Path(aside), count=1, split="train", language="en")[0]
        description = caption(make_scene(0, "train", "en"), "detailed", "en")
        return conversion.verify(folder, official_checkpoint, clip, answer=description, device=place).lines()
