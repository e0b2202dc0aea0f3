"""What inference and training take on one GPU with models of 7B, whose weights are random.

python benchmarks/gpu.py --output benchmarks/results/gpu.json

The sizes are those of Llama-2-7B with 45 frames and Mistral-7B with 90, behind EVA-CLIP ViT-g, in bfloat16; speed and
memory do not depend on what weights mean. The rows, the films and the reference sides are those of `inference.py` and
`training.py`, here on the GPU. Each part has a process of its own, so that what one took is free for the next; one that
fails is told and the others go on. `--quick` takes small sizes, on the CPU where there is no GPU: to see that it runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, Blip2VisionConfig

import minigpt4_video as mv
from inference import (
    MID,
    QUICK,
    Reference,
    Row,
    Size,
    equal_frames,
    make_model,
    make_tokenizer,
    make_video,
    many_questions,
    mixed_requests,
    second_question,
    times,
)
from minigpt4_video.data.formats import read
from minigpt4_video.inference.batching import BuiltIn
from minigpt4_video.inference.chat import FRAMES_AT_ONCE
from minigpt4_video.inference.store import Store
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.branches import PACKED, Branches
from minigpt4_video.model.presets import PRESETS, Sizes
from minigpt4_video.training.costs import Shape, sample_flops, tower_flops
from minigpt4_video.training.files import Files, FilesCollator
from minigpt4_video.training.loop import Sight, packed_loss
from minigpt4_video.training.recipe import Recipe
from minigpt4_video.training.sets import gather
from training import QUESTIONS, Bench, from_folder, make_set, pictures

GIB = 2**30
PEAK = 990e12
"""FLOP/s of an H100 or H200 in bfloat16, as its maker gives them."""
FILMS = 8
EPOCH = 3
"""How many times an epoch sees each film."""


def model_of(name: str, device: str) -> tuple[Any, MiniGPT4VideoProcessor, Size]:
    """A known model with random weights, made where it is used."""
    preset = PRESETS[name]
    sizes, settings = preset.sizes(), preset.asked()
    text = AutoConfig.for_model(**sizes.text_config)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        config = MiniGPT4VideoConfig(vision_config=Blip2VisionConfig(**sizes.vision_config), text_config=text)
        model = MiniGPT4VideoForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02)
    model.generation_config.eos_token_id = None
    processor = MiniGPT4VideoProcessor(
        make_tokenizer(text.vocab_size), image_token_id=config.image_token_id, frames=settings.frames,
        window=settings.window, answer_reserve=64,
    )  # fmt: skip
    vision, words = sizes.vision_config, sizes.text_config
    size = Size(
        vision["hidden_size"], vision["num_hidden_layers"], words["hidden_size"], words["num_hidden_layers"],
        words["vocab_size"], settings.frames, 4096, 60,
    )  # fmt: skip
    return model, processor, size


def small(folder: Path, device: str) -> tuple[Any, MiniGPT4VideoProcessor, Size]:
    make_model(folder / "model", QUICK)
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(folder / "model").to(device).eval()
    return model, MiniGPT4VideoProcessor.from_pretrained(folder / "model"), QUICK


def peak(run: Callable[[], Any]) -> float:
    """GiB of the GPU at the most, weights included."""
    if not torch.cuda.is_available():
        run()
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / GIB


def inference(folder: Path, name: str, device: str, quick: bool) -> Iterator[Callable[[], Row | list[Row]]]:
    """The rows of `inference.py`, one after the other."""
    model, processor, size = small(folder, device) if quick else model_of(name, device)
    chat = mv.VideoChat(model, processor, name)
    paths = [folder / f"film{number}.mp4" for number in range(4)]
    grouped = processor.frames > 45
    chat.open(paths[0]).ask("Where?", max_new_tokens=2)  # what a first call sets up

    def vision() -> list[Row]:
        frames = list(np.random.default_rng(0).integers(0, 255, (45, 224, 224, 3), dtype=np.uint8))
        pixels = processor.pixels(frames).to(device)

        def encode(step: int) -> None:
            with torch.inference_mode():
                for first in range(0, 45, step):
                    model.model.get_merged_features(pixels[first : first + step])

        took, _ = times(lambda: encode(FRAMES_AT_ONCE["cpu"]), lambda: encode(FRAMES_AT_ONCE["cuda"]))
        flop = 45 * tower_flops(PRESETS[name].sizes())
        told = {"ms, 8 frames at a time": took[0] * 1e3, "ms, all at once": took[1] * 1e3, "FLOP": flop}
        return [Row("45 frames through the tower, ms", took[1] * 1e3, 50, True, told)]

    def prefill() -> Row:
        ids = np.random.default_rng(0).integers(3, 1000, size.window).tolist()
        board = Branches(model, 1, size.window)

        def run() -> None:
            board.begin(0, ids)
            board.end(0)

        (took,), _ = times(run, rounds=4)
        return Row(f"prefill of {size.window} tokens, ms", took * 1e3, 115, True)

    def decode() -> Row:
        video = chat.open(paths[0])
        video.ask("Where?", max_new_tokens=2)
        source = torch.randn(256 * 2**20, device=device)
        target = torch.empty_like(source)
        (copied,), _ = times(lambda: target.copy_(source), rounds=5)
        stream = video.stream("What happens?", max_new_tokens=40)
        for _ in range(3):
            stream._words._round.step()

        def run() -> None:
            for _ in range(32):
                stream._words._round.step()

        (took,), _ = times(run, rounds=1)
        held = len(video._prefix.ids)  # type: ignore[union-attr]
        told = {"copy GB/s": 2 * source.nbytes / copied / 1e9, "tokens before": held}
        return Row("decode at batch 1, ms a token", took / 32 * 1e3, 4.8, True, told)

    def memory() -> Row:
        path = paths[1]
        ours = peak(lambda: chat.open(path).ask("Where is it?", max_new_tokens=4))
        theirs = peak(lambda: Reference(chat).ask(path, "Where is it?", 4))
        told = {"ours GiB": ours, "reference GiB": theirs}
        return Row(
            "memory of a first question over the reference's, weights included", ours / max(theirs, 1e-9), 0, True, told
        )

    yield vision
    yield prefill
    yield decode
    yield lambda: second_question(chat, paths[0])._replace(target=40)
    yield lambda: many_questions(chat, paths[0], 25)
    yield lambda: mixed_requests(chat, BuiltIn(chat, rows=4, memory=32 * GIB), paths, 32)._replace(
        target=10 if grouped else 5
    )
    yield lambda: equal_frames(chat, paths[0], size)
    yield memory


def exactness(folder: Path, device: str) -> Iterator[Callable[[], Row | list[Row]]]:
    """Float32 on the GPU: the branch is the question alone, and lines in pieces are lines with whole masks."""
    make_model(folder / "model", MID)
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(folder / "model").to(device).eval()

    def branches() -> Row:
        generator = np.random.default_rng(0)
        prefix = generator.integers(3, 300, 700).tolist()
        asked = [generator.integers(3, 300, length).tolist() for length in (5, 17, 40, 9)]
        board = Branches(model, 1, 1000)
        board.begin(0, prefix)
        together = board.extend([(board.branch(0, len(ids)), ids) for ids in asked])
        with torch.inference_mode():
            alone = [model(input_ids=torch.tensor([[*prefix, *ids]], device=device)).logits[0, -1] for ids in asked]
        return Row(
            "branches against each alone, largest difference", _relative(together, torch.stack(alone)), 1e-5, True
        )

    def packed() -> Row:
        make_set(folder, MID)
        bench = from_folder(folder, MID)
        inner = bench.inner.float().to(device)
        batch = FilesCollator(bench.processor, bench.width)([bench.files(bench.group, None, "nothing")[0]])
        inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        frames = Sight(bench.processor).of(inner, batch)

        def gradients(way: str) -> torch.Tensor:
            inner.model.language_model.set_attn_implementation(way)
            loss = packed_loss(bench.model, inputs | frames)["loss"]
            loss.backward()
            made = torch.cat([p.grad.flatten() for p in bench.model.parameters() if p.grad is not None])
            bench.model.zero_grad(set_to_none=True)
            return torch.cat([loss.detach()[None], made])

        first, second = gradients(PACKED), gradients("sdpa")
        return Row("packed in pieces against whole masks, largest difference", _relative(first, second), 1e-4, True)

    yield branches
    yield packed


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def learning(folder: Path, device: str, quick: bool) -> Iterator[Callable[[], Row | list[Row]]]:
    """The rows of `training.py`: a step from frames on the CPU to gradients, on every side."""
    model, processor, size = small(folder, device) if quick else model_of("llama2-7b", device)
    make_set(folder, size)
    bench = Bench(model, processor, folder, size)
    item = bench.files(bench.group, None, "nothing")[0]
    batch = FilesCollator(processor, bench.width, 8)([item])
    record = bench.group.records[0]
    from minigpt4_video.data.reading import shown
    from minigpt4_video.messages import text_of

    prepared = processor.prepare(shown(record.messages[:-1], size.frames, processor.image_size))
    answer, padded = text_of(record.messages[-1]), size.window if quick else 1 + 3600 + 256

    def ours() -> float:
        return bench.ours(batch, Sight(processor))

    def alone(width: int | None) -> float:
        return bench.alone(prepared.text, list(prepared.frames), answer, width)

    def best(run: Callable[[], Any], rounds: int = 3) -> tuple[float, float]:
        run()
        most = peak(run)
        (took,), _ = times(run, rounds=rounds)
        return took, most

    def flops(checkpointed: bool) -> float:
        row = item.rows[0]
        learnt = sum(end - start for branch in row.branches for start, end in branch.learned) / len(row.branches)
        tokens = sum(len(branch.ids) for branch in row.branches) / len(row.branches)
        shape = Shape(size.frames, len(row.prefix), len(row.branches), tokens, learnt)
        config = model.config
        sizes = Sizes(config.vision_config.to_dict(), {**config.text_config.to_dict(), "head_dim": None}, 4)
        plan = Recipe("video-qa", width=bench.width, training={"gradient_checkpointing": checkpointed})
        return sample_flops(plan, sizes, shape) + size.frames * tower_flops(sizes)

    def four() -> list[Row]:
        """A step as in the recipe, of four videos with all their questions."""
        several = FilesCollator(processor, bench.width, 8)([item] * 4)
        found = []
        for checkpointed in (True, False):
            if not checkpointed:
                model.model.language_model.gradient_checkpointing_disable()
            took, most = best(lambda: bench.ours(several, Sight(processor)))
            told = {"seconds": took, "GiB": most, "pairs a second": 4 * QUESTIONS / took}
            name = "stage 3, four videos a step" + (", checkpointed" if checkpointed else "")
            found.append(
                Row(f"{name}: model FLOP of the datasheet's", 4 * flops(False) / took / PEAK, 0.45, detail=told)
            )
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        return found

    def stage3() -> list[Row]:
        took, most = best(ours)
        theirs, their_most = best(lambda: alone(padded), 2)
        bare, bare_most = best(lambda: alone(None), 2)
        told = {
            "tokens": int((batch["branch"] >= 0).sum()), "seconds": {"ours": took, "padded": theirs, "unpadded": bare},
            "GiB": {"ours": most, "padded": their_most, "unpadded": bare_most},
        }  # fmt: skip
        return [
            Row("stage 3: pairs a second against the padded step", theirs * QUESTIONS / took, 8, detail=told),
            Row("stage 3: pairs a second against the unpadded step", bare * QUESTIONS / took, 5),
            Row("stage 3, checkpointed: model FLOP of the datasheet's", flops(False) / took / PEAK, 0.45),
            Row("stage 3, checkpointed: GiB at the most", most, 24, True),
        ]

    def loose() -> list[Row]:
        model.model.language_model.gradient_checkpointing_disable()
        took, most = best(ours)
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        told = {"seconds": took, "GiB": most}
        return [Row("stage 3: model FLOP of the datasheet's", flops(False) / took / PEAK, 0.45, detail=told)]

    def stage1() -> list[Row]:
        return [row._replace(target=5) for row in pictures(bench, 3)]

    def second_epoch() -> Row:
        rows = []
        for number in range(FILMS):
            rows += [{"video_id": f"film{number}", "q": f"{n} what is it?", "a": "a man walks " * 4} for n in range(8)]
        (folder / "films.json").write_text(json.dumps(rows), encoding="utf-8")
        groups, _ = gather(read("videoinstruct-100k", folder / "films.json", media=folder))
        files = Files(
            [groups * EPOCH], None, processor, frames=size.frames, width=bench.width, count=len(groups) * EPOCH,
            store=Store(folder / "kept"), keep="frames", tower="the benchmark's",
        )  # fmt: skip
        collate = FilesCollator(processor, bench.width, 8)
        loader = DataLoader(files, 1, num_workers=8, collate_fn=collate, persistent_workers=True)
        took = []
        for _ in range(2):
            batches = iter(loader)
            first = next(batches)
            (one,), _ = times(lambda: [bench.ours(b, Sight(processor)) for b in batches], rounds=1)  # noqa: B023
            took.append(one)
        (step,), _ = times(lambda: bench.ours(first, Sight(processor)), rounds=3)
        busy = step * (len(files) - 1) / took[1]
        told = {"seconds": {"first epoch": took[0], "second": took[1], "step": step}, "videos": len(files)}
        return Row("second epoch with kept frames: share of the time that steps alone take", busy, 0.9, detail=told)

    yield stage3
    yield four
    yield loose
    yield stage1
    yield second_epoch


PARTS = ("exactness", "llama2-7b", "training", "mistral-7b")


def run_part(part: str, device: str, quick: bool, films: Path) -> None:
    """Each row as a line of JSON."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for film in films.iterdir():
            (folder / film.name).symlink_to(film)
        if part == "exactness":
            steps = exactness(folder, device)
        elif part == "training":
            steps = learning(folder, device, quick)
        else:
            steps = inference(folder, part, device, quick)
        begun = perf_counter()
        for step in steps:
            try:
                print(f"    {perf_counter() - begun:.0f} s", flush=True)
                made = step()
            except Exception:
                traceback.print_exc()
                continue
            for row in made if isinstance(made, list) else [made]:
                print("ROW " + json.dumps({"part": part, **row._asdict(), "met": row.met}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--films", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.quick:
        raise SystemExit("there is no GPU here; --quick shows that this runs")
    if given.part:
        run_part(given.part, device, given.quick, given.films)
        return
    told: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if device == "cuda" else "no GPU",
        "torch": torch.__version__,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as films:
        with ProcessPoolExecutor() as pool:
            numbers = range(FILMS)
            paths = [Path(films) / f"film{number}.mp4" for number in numbers]
            list(pool.map(make_video, paths, [(QUICK if given.quick else MID).seconds] * FILMS, numbers))
        for part in given.parts:
            command = [sys.executable, __file__, "--part", part, "--films", films]
            told["rows"] += rows_of([*command, *(["--quick"] if given.quick else [])])
            if given.output:
                given.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def rows_of(command: list[str]) -> list[dict[str, Any]]:
    """What a part tells, shown as it comes."""
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if not line.startswith("ROW "):
                print(line, end="", flush=True)
                continue
            rows.append(row := json.loads(line[4:]))
            sign = "<=" if row["at_most"] else ">="
            wanted = f"{sign} {row['target']:g}" if row["target"] else "reported"
            missed = "MISSED" if row["target"] and not row["met"] else ""
            print(f"{row['part']}: {row['name']:66} {row['value']:9.3g}  {wanted:10} {missed}", flush=True)
            print(f"    {json.dumps(row['detail'])}", flush=True)
    return rows


if __name__ == "__main__":
    main()
