"""What training gains, as ratios against honest reference steps, on a model of middle size.

python benchmarks/training.py --output benchmarks/results/training.json

The model is that of `inference.py`: random weights, a tower of width 384 and 12 layers, a language model of width 512
and 8 layers with 32,000 words, 45 frames. As in the recipes for 7B, LoRA of rank 64 on queries and values and the
projection are trained in float32, the rest is bfloat16, and the language model is checkpointed, on every side. A film
has a minute of 640 x 360, subtitles, and eight questions of some 100 tokens with their answers (VideoInstruct-100K has
7.5 a video).

* The padded step is the original's: one question with its video, the frames encoded again, everything padded to
  1 + 3,600 + 256 tokens, logits of every position.
* The unpadded step is a Trainer's: the same without the padding.
* Ours is the library's own path: all questions behind one prefix in a line of 6,144 tokens as in the recipe, logits
  where there is something to learn.

Sides have the same weights, threads and attention and take turns, each time in a process of its own, whose peak of
memory above the loaded model is read as well. With one thread (`taskset -c 1` gives it) seconds are those of the
processor, all threads of the process together, so that the ratios hold on a core that does other things as well; with
more threads they are of the clock on the wall. That the losses are the same is held by `tests/training/test_files.py`.
Decoding is left out of the steps on every side, and is what the two rows about a second epoch measure, on a film of 4
minutes of 1280 x 720 with one question. `--quick` takes small sizes: to see that it runs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from inference import MID, QUICK, Row, Size, clock, make_model, make_video
from minigpt4_video.data.formats import read
from minigpt4_video.data.reading import shown
from minigpt4_video.inference.store import Store
from minigpt4_video.messages import text_of
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.branches import PACKED
from minigpt4_video.model.presets import Sizes
from minigpt4_video.model.processing import IGNORED
from minigpt4_video.training.costs import Shape, sample_flops, tower_flops
from minigpt4_video.training.files import BUCKET, Files, FilesCollator
from minigpt4_video.training.loop import Sight, packed_loss
from minigpt4_video.training.recipe import Recipe
from minigpt4_video.training.sets import Group, gather

QUESTIONS = 8
PICTURES = 16
PADDED_PICTURE = 512 + 160 + 1


def make_set(folder: Path, size: Size) -> Path:
    """One film with its questions, in the form of VideoInstruct."""
    make_video(folder / "film.mp4", size.seconds)
    words = "the man walks over the bridge and says that it will rain soon so they wait under a tree "
    rows = [
        {"video_id": "film", "q": f"{n} " + words[n : n + 40], "a": f"{n} " + words[n : n + 56]}
        for n in range(QUESTIONS)
    ]
    (folder / "set.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "set.json"


def make_long_film(path: Path, seconds: int, times: int) -> None:
    """1280 x 720 at 24 frames a second, with something moving in every frame; the same seconds so many times over."""
    generator = np.random.default_rng(0)
    noise = generator.integers(16, 235, (360, 640), dtype=np.uint8)
    noise = np.repeat(np.repeat(noise, 4, 0), 4, 1)
    colours = np.full((360, 1280), 128, dtype=np.uint8)
    once = path.with_name(f"once-{path.name}")
    with av.open(once, "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 2_500_000
        stream.options = {"preset": "superfast", "g": "250", "bf": "0"}
        for number in range(24 * seconds):
            top, left = number * 3 % 700, number * 5 % 1200
            picture = np.concatenate([noise[top : top + 720, left : left + 1280], colours])
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path, "w") as container:
        for turn in range(times):
            with av.open(once) as held:
                if not turn:
                    written = container.add_stream_from_template(held.streams.video[0])
                for packet in held.demux(video=0):
                    if packet.dts is None:
                        continue
                    later = round(turn * seconds / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, written
                    container.mux(packet)


class Bench:
    """One model, and the three ways to learn from the same film."""

    def __init__(self, model: Any, processor: Any, folder: Path, size: Size) -> None:
        self.size = size
        self.processor = processor
        torch.manual_seed(0)
        model.requires_grad_(False).to(torch.bfloat16)
        model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        lora = LoraConfig(
            r=64,
            lora_alpha=16,
            target_modules=r".*language_model.*(q|v)_proj",
            modules_to_save=["multi_modal_projector"],
        )
        self.model = get_peft_model(model, lora).train()
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.inner = model
        self.kind = model.device.type
        self.inner.model.language_model.set_attn_implementation(PACKED)
        found, _ = gather(read("videoinstruct-100k", folder / "set.json", media=folder))
        self.group = found[0]
        self.store = Store(folder / "kept")

    @property
    def width(self) -> int:
        """Of a line, half as much again as the window: positions begin anew behind the frames, so it may be more."""
        return self.size.window * 3 // 2

    def files(self, group: Group, store: Store | None, keep: Any) -> Files:
        return Files(
            [[group]], None, self.processor, frames=self.size.frames, width=self.width, count=1,
            store=store, keep=keep, tower="the benchmark's",
        )  # fmt: skip

    def step(self, loss: torch.Tensor) -> float:
        loss.backward()
        self.model.zero_grad(set_to_none=True)
        return float(loss.detach())

    def ours(self, batch: dict[str, Any], sight: Sight) -> float:
        """Loss of packed lines, from frames or features to gradients."""
        device = self.inner.device
        inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with torch.autocast(self.kind, torch.bfloat16):
            loss = packed_loss(self.model, inputs | sight.of(self.inner, batch))["loss"]
        return self.step(loss)

    def alone(self, prompt: str, frames: list[Any], answer: str, padded: int | None) -> float:
        """One prompt with its answer by the model's ordinary forward pass, padded on the right or not."""
        inputs = self.processor(text=prompt, images=[frames], answers=answer, return_tensors="pt")
        if padded is not None:
            spare = padded - inputs["input_ids"].shape[1]
            assert spare >= 0
            for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", IGNORED)):
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, spare), value=fill)
        with torch.autocast(self.kind, torch.bfloat16):
            loss = self.model(**inputs.to(self.inner.device), use_cache=False).loss
        return self.step(loss)


def from_folder(folder: Path, size: Size) -> Bench:
    """With the model that lies there."""
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(folder / "model")
    return Bench(model, MiniGPT4VideoProcessor.from_pretrained(folder / "model"), folder, size)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = clock()
    made = run()
    return clock() - started, made


def profiled(run: Callable[[], Any]) -> dict[str, float]:
    """The kernels that take most of a run, each with its share of the time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    spent = {one.key: one.self_cpu_time_total for one in profile.key_averages()}
    most = sorted(spent, key=lambda name: -spent[name])[:8]
    return {name: round(spent[name] / sum(spent.values()), 3) for name in most}


def matrix_rate() -> float:
    """FLOP/s of a matrix product of a size that occurs, in bfloat16, now."""
    left, right = (torch.randn(*shape).bfloat16() for shape in ((2048, 512), (512, 1408)))
    best = min(timed(lambda: left @ right)[0] for _ in range(8))
    return 2 * 2048 * 512 * 1408 / best


SIDES = ("ours", "padded", "unpadded")


def videos(folder: Path, size: Size, rounds: int) -> list[Row]:
    """Question-answer pairs a second of stage 3, and the memory that a step takes."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
            quick = [] if size is MID else ["--quick"]
            made = subprocess.run(command + quick, check=True, capture_output=True, text=True).stdout
            found[side].append(json.loads(made.splitlines()[-1]))
            print(f"{side}: {found[side][-1]}", file=sys.stderr, flush=True)
    seconds = {side: min(one["seconds a pair"] for one in found[side]) for side in SIDES}
    peaks = {side: min(one["MiB"] for one in found[side]) for side in SIDES}
    best = min(found["ours"], key=lambda one: one["seconds a pair"])
    share = best["FLOP"] / (best["seconds a pair"] * QUESTIONS) / max(one["matrix rate"] for one in found["ours"])
    return [
        Row("stage 3: pairs a second against the padded step", seconds["padded"] / seconds["ours"], 8, detail=found),
        Row("stage 3: pairs a second against the unpadded step", seconds["unpadded"] / seconds["ours"], 5),
        Row("stage 3: share of the rate of matrix products, on real tokens", share, 0),
        Row("peak memory of eight pairs over one of the padded step", peaks["ours"] / peaks["padded"], 0.35, True),
    ]


def pictures(bench: Bench, rounds: int) -> list[Row]:
    """Pictures a second of stage 1."""
    processor = bench.processor
    generator = np.random.default_rng(1)
    side = processor.image_size
    prompts, items = [], []
    from minigpt4_video.data.sample import Sample
    from minigpt4_video.training.packing import lines, pack, row, widened

    for number in range(PICTURES):
        frame = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        asked, said = "See?", f"a man walks {number:02}"  # 105 tokens in all, as a caption of the real sets has
        items.append(Sample(str(number), "made", frame[None], ("",), ((asked, said),), picture=True))
        messages = [{"role": "user", "content": [{"type": "image", "image": frame}, {"type": "text", "text": asked}]}]
        prompts.append((processor.prepare(messages).text, [frame], said))
    packed = lines([row(processor, item) for item in items], 1024)
    widest = widened(max(sum(map(len, line)) for line in packed), BUCKET)
    batch = pack(packed, processor.tokenizer.pad_token_id, widest)
    frames = np.concatenate([item.frames for item in items])

    def ours() -> float:
        device = bench.inner.device
        pixels = processor.pixels(list(frames)).to(device)
        here = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(bench.kind, torch.bfloat16):
            with torch.no_grad():
                features = bench.inner.model.get_merged_features(pixels)
            loss = packed_loss(bench.model, {**here, "image_features": features})["loss"]
        return bench.step(loss)

    padded = PADDED_PICTURE if bench.size is MID else 256
    mine, theirs = [], []
    ours()  # kernels are compiled
    for turn in range(rounds):
        seconds, _ = timed(ours)
        mine.append(seconds / PICTURES)
        some = prompts[2 * turn : 2 * turn + 2]
        seconds, _ = timed(lambda s=some: [bench.alone(*prompt, padded) for prompt in s])
        theirs.append(seconds / 2)
    detail = {"seconds a picture": {"ours": min(mine), "padded": min(theirs)}, "pictures a step": PICTURES}
    return [Row("stage 1: pictures a second against the padded step", min(theirs) / min(mine), 6, detail=detail)]


def epochs(bench: Bench, folder: Path, rounds: int) -> list[Row]:
    """A second pass over one film, with what was kept, against the first; the best of each."""
    make_long_film(folder / "long.mp4", *((60, 4) if bench.size is MID else (5, 2)))
    (folder / "long.json").write_text(
        json.dumps([{"video_id": "long", "q": "What happens in it?", "a": "a picture drifts over the screen"}])
    )
    group = gather(read("videoinstruct-100k", folder / "long.json", media=folder))[0][0]
    collate = FilesCollator(bench.processor, bench.width, BUCKET)
    bench.ours(collate([bench.files(group, None, "nothing")[0]]), Sight(bench.processor))  # kernels are compiled

    def epoch(store: Store, keep: Any) -> dict[str, float]:
        reading, batch = timed(lambda: collate([bench.files(group, store, keep)[0]]))
        learning, _ = timed(lambda: bench.ours(batch, Sight(bench.processor, store if keep == "features" else None)))
        made = {"reading": reading, "learning": learning, "together": reading + learning}
        print(f"{keep}: {made}", file=sys.stderr, flush=True)
        return made

    found: dict[str, list[dict[str, float]]] = {"first": [], "frames": [], "features": []}
    for turn in range(rounds):
        store = Store(folder / f"kept-films-{turn}")
        # The first decodes, encodes, and keeps both frames and features.
        for name, keep in (("first", "features"), ("frames", "frames"), ("features", "features")):
            found[name].append(epoch(store, keep))
    batch = collate([bench.files(group, store, "features")[0]])
    shares = profiled(lambda: bench.ours(batch, Sight(bench.processor, store)))
    best = {name: min(one["together"] for one in runs) for name, runs in found.items()}
    return [
        Row(f"second epoch with kept {keep} over the first", best[keep] / best["first"], target, True,
            {"seconds": {"first": found["first"], "second": found[keep]}, "profile of a step from features": shares})
        for keep, target in (("frames", 0.6), ("features", 0.25))
    ]  # fmt: skip


def one_side(side: str, folder: Path, size: Size) -> None:
    """One step, its seconds and its peak above the loaded model, as a line of JSON."""
    bench = from_folder(folder, size)
    processor, record = bench.processor, bench.group.records[0]
    item = bench.files(bench.group, None, "nothing")[0]
    batch = FilesCollator(processor, bench.width, BUCKET)([item])
    assert len(item.rows) == 1
    prepared = processor.prepare(shown(record.messages[:-1], size.frames, processor.image_size))
    rate = matrix_rate()
    before = _held()
    pairs = 1
    if side == "ours":
        pairs = len(bench.group.records)
        seconds, _ = timed(lambda: bench.ours(batch, Sight(processor)))
    else:
        width = None if side == "unpadded" else 1 + 3600 + 256 if size is MID else size.window
        answer = text_of(record.messages[-1])
        seconds, _ = timed(lambda: bench.alone(prepared.text, list(prepared.frames), answer, width))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    config, row = bench.inner.config, item.rows[0]
    text = {**config.text_config.to_dict(), "head_dim": None}
    sizes = Sizes(config.vision_config.to_dict(), text, config.merge_size)
    learnt = sum(end - start for branch in row.branches for start, end in branch.learned)
    tokens = sum(len(branch.ids) for branch in row.branches)
    shape = Shape(
        size.frames, len(row.prefix), len(row.branches), tokens / len(row.branches), learnt / len(row.branches)
    )
    plan = Recipe("video-qa", width=bench.width, training={"gradient_checkpointing": True})
    flops = sample_flops(plan, sizes, shape) + size.frames * tower_flops(sizes)
    told = {"seconds a pair": seconds / pairs, "MiB": peak / 2**20, "FLOP": flops, "matrix rate": rate}
    print(json.dumps(told))


def _held() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else MID
    if arguments.side:
        one_side(arguments.side, arguments.folder, size)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model", size)
        make_set(folder, size)
        rows = videos(folder, size, arguments.rounds)
        write(rows, arguments.output)
        bench = from_folder(folder, size)
        rows += pictures(bench, arguments.rounds)
        write(rows, arguments.output)
        rows += epochs(bench, folder, arguments.rounds)
        write(rows, arguments.output)
    for row in rows:
        wanted = f"{'at most' if row.at_most else 'at least'} {row.target:g}" if row.target else "reported"
        print(f"{row.name:62} {row.value:8.3g}   {wanted:15} {'' if not row.target or row.met else 'MISSED'}")


def write(rows: list[Row], output: Path | None) -> None:
    """What is there so far: the whole takes long."""
    if output:
        machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
        made = {"machine": machine, "rows": [row._asdict() for row in rows]}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
