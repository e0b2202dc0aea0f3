"""What the inference engine gains, as ratios against the original's order of work, on a model of middle size.

python benchmarks/inference.py --output benchmarks/results/inference.json

The model has random weights: a tower of width 384 and 12 layers, a language model of width 512 and 8 layers with 32,000
words, 45 frames. The video has a minute of 640 x 360 and subtitles of about 300 tokens. The reference does for every
question what the original does: decode all frames, encode them all in one go, read the whole prompt with the logits of
every position, generate. Both sides have the same weights and threads and take turns in one run; their answers are
compared. With one thread (`taskset -c 1` gives it) seconds are those of the processor, all threads of the process
together, so that the ratios hold on a core that does other things as well; with more threads they are of the clock on
the wall. Rows that are a share compare with matrix products or copies of the same size measured between the passes.
Memory is the peak above the loaded model, each side in a process of its own. `--quick` takes a tenth of everything: to
see that it runs. `--vllm` measures the mixed requests alone, by the built-in engine and by vLLM, which is in an
environment of its own (`make bench-vllm`).
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import minigpt4_video as mv
from minigpt4_video.inference.batching import BuiltIn, Engine, Question, Request
from minigpt4_video.inference.chat import FRAMES_AT_ONCE
from minigpt4_video.inference.prompts import whole_prompt
from minigpt4_video.inference.shown import Shown
from minigpt4_video.inference.store import Store
from minigpt4_video.model import MiniGPT4VideoConfig, MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.branches import Branches

ROUNDS = 3
QUESTION = "What happens in the video?"
WORDS = ("a", "man", "walks", "over", "the", "bridge", "and", "says", "that", "it", "will", "rain", "soon")


class Size(NamedTuple):
    vision: int
    vision_layers: int
    hidden: int
    layers: int
    vocabulary: int
    frames: int
    window: int
    seconds: int


MID = Size(384, 12, 512, 8, 32_000, 45, 4096, 60)
QUICK = Size(64, 2, 64, 2, 1_000, 8, 1024, 6)


class Row(NamedTuple):
    """A figure: how many times better (or what share), what is wanted, and what it was made from."""

    name: str
    value: float
    target: float
    at_most: bool = False
    detail: dict[str, Any] = {}  # noqa: RUF012  (never written to)

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target


def make_tokenizer(count: int) -> PreTrainedTokenizerFast:
    """A token for each byte, and words that do not occur up to `count`."""
    pieces = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    for number in range(len(vocabulary), count):
        vocabulary[f"word{number}"] = number
    words = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


def make_model(folder: Path, size: Size) -> None:
    """Random weights, saved. No answer ends before its length, as none means anything."""
    tokenizer = make_tokenizer(size.vocabulary)
    config = MiniGPT4VideoConfig(
        vision_config={
            "hidden_size": size.vision,
            "intermediate_size": 4 * size.vision,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision // 64,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.hidden * 11 // 4,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.hidden // 64,
            "max_position_embeddings": 2 * size.window,
            "bos_token_id": 1,
            "eos_token_id": None,
            "pad_token_id": 0,
        },
    )
    torch.manual_seed(0)
    model = MiniGPT4VideoForConditionalGeneration(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    MiniGPT4VideoProcessor(
        tokenizer, image_token_id=config.image_token_id, frames=size.frames, window=size.window, answer_reserve=64
    ).save_pretrained(folder)


def make_video(path: Path, seconds: int, seed: int = 0) -> None:
    """A picture that drifts under noise, and subtitles of about five letters for each second."""
    generator = np.random.default_rng(seed)
    width, height, rate = 640, 360, 30
    scene = np.asarray(
        Image.fromarray(generator.integers(0, 255, (68, 120), dtype=np.uint8)).resize(
            (1920, 1080), Image.Resampling.BICUBIC
        )
    )
    noise = generator.integers(0, 12, (2, height, width), dtype=np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2 * width * height
        stream.options = {"preset": "veryfast", "g": "250", "bf": "3"}
        colours = np.full((height // 2, width), 128, dtype=np.uint8)
        for number in range(seconds * rate):
            top, left = number * 3 % (height * 2), number * 5 % (width * 2)
            bright = scene[top : top + height, left : left + width] // 2 + noise[number % 2] + 40
            frame = av.VideoFrame.from_ndarray(np.concatenate([bright, colours]), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    cues = [f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{WORDS[n % len(WORDS)][:5]}\n" for n in range(seconds - 1)]
    path.with_suffix(".srt").write_text("\n".join(cues), encoding="utf-8")


class Reference:
    """The original's order of work: for each question decode, encode and read everything, then generate."""

    def __init__(self, chat: mv.VideoChat) -> None:
        self.chat = chat

    def ask(self, path: Path, question: str, tokens: int) -> str:
        video = mv.VideoChat(self.chat.model, self.chat.processor, "reference").open(path)
        prompt = whole_prompt(self.chat.with_reserve(tokens), video.footage, video.footage.conversation(question))
        model, processor = self.chat.model, self.chat.processor
        pixels = processor.pixels([video.footage.clip.frames[number] for number in prompt.plan.kept_frames])
        pixels = pixels.to(model.device)
        ids = torch.tensor([prompt.ids], device=model.device)
        with torch.inference_mode():
            features = model.model.get_merged_features(pixels)  # all frames in one go
            first = model(input_ids=ids, attention_mask=torch.ones_like(ids), image_features=features, use_cache=True)
            likeliest = first.logits[:, -1:].argmax(-1)
            made = [likeliest]
            for _ in range(tokens - 1):
                step = model(input_ids=made[-1], past_key_values=first.past_key_values, use_cache=True)
                made.append(step.logits[:, -1:].argmax(-1))
        return str(processor.tokenizer.decode(torch.cat(made, 1)[0], skip_special_tokens=True)).strip()


def clock() -> float:
    """Seconds: of the processor with one thread, which what else runs does not add to, and of the wall with more."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return process_time() if torch.get_num_threads() == 1 else perf_counter()


def times(*ways: Callable[[], Any], rounds: int = ROUNDS) -> tuple[list[float], list[Any]]:
    """Seconds of each way, the best of several rounds in which they take turns, and what they gave last."""
    took: list[list[float]] = [[] for _ in ways]
    gave: list[Any] = [None] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            begun = clock()
            gave[number] = way()
            took[number].append(clock() - begun)
    return [min(one) for one in took], gave


def check(ours: list[str], theirs: list[str], what: str) -> None:
    """Raises SystemExit for answers that differ. On a GPU, in bfloat16, sums depend on what is computed together, and
    of words that are all as likely another may come first: there the share of equal ones is told."""
    if torch.cuda.is_available():
        same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        print(f"    {what}: {same} of {len(ours)} answers are equal", flush=True)
    elif ours != theirs:
        raise SystemExit(f"{what}: the answers differ\n  ours   {ours!r}\n  theirs {theirs!r}")


def second_question(chat: mv.VideoChat, path: Path) -> Row:
    video, number = chat.open(path), iter(range(10**6))
    video.ask("Where?", max_new_tokens=1)
    reference = Reference(chat)
    questions = [f"What happens in part {n}?" for n in range(ROUNDS)]
    turn = iter(questions * 2)
    (ours, theirs), _ = times(
        lambda: video.ask(f"What happens in part {next(number)}?", max_new_tokens=1),
        lambda: reference.ask(path, next(turn), 1),
    )
    check([video.ask(questions[0], max_new_tokens=4).text], [reference.ask(path, questions[0], 4)], "second question")
    return Row("second question, first token", theirs / ours, 100, detail={"ours_s": ours, "reference_s": theirs})


FIRST = """
import sys, time
clock = time.process_time if sys.argv[5] == "1" else time.perf_counter
begun = clock()
import torch, minigpt4_video as mv
from pathlib import Path
from minigpt4_video.inference.store import Store
torch.set_num_threads(int(sys.argv[5]))
chat = mv.VideoChat.from_pretrained(sys.argv[1], device="cpu", store=Store(Path(sys.argv[2])))
chat.model(input_ids=torch.ones(1, 8, dtype=torch.long))
loaded = clock()
answer = chat.open(sys.argv[3]).ask(sys.argv[4], max_new_tokens=1)
print(clock() - loaded, loaded - begun, answer.confidence)
"""


def stored_video(chat: mv.VideoChat, folder: Path, path: Path, place: Path) -> Row:
    mv.VideoChat.from_pretrained(folder, device="cpu", store=Store(place)).open(path).ask("Where?", max_new_tokens=1)
    command = [sys.executable, "-c", FIRST, str(folder), str(place), str(path), QUESTION, str(torch.get_num_threads())]
    reference = Reference(chat)
    runs: list[tuple[float, float, float]] = []

    def warm() -> None:
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        runs.append((float(told[0]), float(told[1]), float(told[2])))

    (_, theirs), _ = times(warm, lambda: reference.ask(path, QUESTION, 1))
    ours, start = min(run[0] for run in runs), min(run[1] for run in runs)
    fresh = chat.open(path).ask(QUESTION, max_new_tokens=1).confidence
    if abs(runs[0][2] - fresh) > 1e-4:
        raise SystemExit(f"stored video: log-probability {runs[0][2]} stored, {fresh} fresh")
    detail = {"ours_s": ours, "reference_s": theirs, "process_start_s": start}
    return Row("first question on a stored video", theirs / ours, 10, detail=detail)


def many_questions(chat: mv.VideoChat, path: Path, count: int) -> Row:
    """The reference answers a few of the questions, and counts for as many as there are: they cost the same."""
    questions = [f"{n}: what is it?"[:10] for n in range(10, 10 + count)]
    asked = questions[:3]
    reference = Reference(chat)
    (ours, theirs), (mine, other) = times(
        lambda: [answer.text for answer in chat.open(path).ask_many(questions, max_new_tokens=10)],
        lambda: [reference.ask(path, question, 10) for question in asked],
        rounds=2,
    )
    check(mine[:3], other, "many questions")
    detail = {"ours_s": ours, "reference_s_each": theirs / 3, "questions": count}
    return Row(f"{count} questions on one video", theirs / 3 * count / ours, 12, detail=detail)


def mixed_requests(chat: mv.VideoChat, engine: Engine, paths: list[Path], count: int, by: str = "") -> Row:
    """Questions spread over several videos, with answers of 8 to 64 tokens; against each alone by `generate`."""
    lengths = [8, 16, 24, 32, 48, 64, 16, 8]
    asked = [(paths[n % len(paths)], f"{n}: what is it?", lengths[n % len(lengths)]) for n in range(count)]
    requests = [Request(path, [Question(text, most) for at, text, most in asked if at == path]) for path in paths]
    model, processor = chat.model, chat.processor

    def together() -> dict[str, str]:
        said = {}
        for reply in engine.answer(requests):
            if reply.error is not None:
                raise reply.error
            said |= {q.text: a.text for q, a in zip(reply.request.questions, reply.answers, strict=True)}
        return said

    def alone() -> dict[str, str]:
        said = {}
        for path, text, most in asked[:: max(1, count // 8)]:
            shown = {"type": "video", "path": str(path), "subtitles": "auto"}
            messages = [{"role": "user", "content": [shown, {"type": "text", "text": text}]}]
            inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
            inputs = inputs.to(model.device)
            made = model.generate(**inputs, max_new_tokens=most, do_sample=False)
            ids = made[0, inputs["input_ids"].shape[1] :]
            said[text] = str(processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        return said

    list(engine.answer([Request(paths[0], ["Where?"], frames=2)]))  # what a first call sets up counts as loading
    (ours, theirs), (mine, other) = times(together, alone, rounds=1)
    check([mine[text] for text in other], list(other.values()), "mixed requests")
    tokens = {text: most for _, text, most in asked}
    here, there = sum(tokens.values()) / ours, sum(tokens[text] for text in other) / theirs
    detail = {"ours_tokens_s": here, "generate_tokens_s": there, "videos": len(paths)}
    return Row(f"{count} mixed requests{by}", here / there, 3, detail=detail)


def served(chat: mv.VideoChat, folder: Path) -> Engine:
    """vLLM in this process, so that its seconds count; without compilation, which takes minutes of its own."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}
    from minigpt4_video.inference.vllm import VLLM

    return VLLM(chat, folder, enforce_eager=True)


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Multiply-adds a second, counted twice as is usual, of one matrix product of that size."""
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    with torch.inference_mode():
        took = min(times(lambda: torch.nn.functional.linear(left, right), rounds=5)[0])
    return 2 * rows * inner * columns / took


def vision_encode(chat: mv.VideoChat, size: Size) -> Row:
    frames = list(np.random.default_rng(0).integers(0, 255, (size.frames, 224, 224, 3), dtype=np.uint8))
    pixels = chat.processor.pixels(frames)
    tower = chat.model.model
    width, patches = size.vision, 257
    layer = patches * (2 * 4 * width * width + 2 * 2 * 4 * width * width) + 2 * 2 * patches * patches * width
    work = size.frames * (size.vision_layers * layer + 2 * 256 * 588 * width)

    def encode() -> None:
        with torch.inference_mode():
            for first in range(0, size.frames, FRAMES_AT_ONCE["cpu"]):
                tower.get_merged_features(pixels[first : first + FRAMES_AT_ONCE["cpu"]])

    shares = []
    for _ in range(ROUNDS):
        rate = product_rate(FRAMES_AT_ONCE["cpu"] * patches, width, 4 * width)
        (took,), _ = times(encode, rounds=1)
        shares.append(work / took / rate)
    return Row("vision encode, share of the product rate", max(shares), 0.70, detail={"shares": shares, "flop": work})


def prefill(chat: mv.VideoChat, size: Size) -> Row:
    """A prompt of a whole window; the attention is counted as what is seen, half of a square."""
    length, width, inner = size.window, size.hidden, size.hidden * 11 // 4
    layer = length * 2 * (4 * width * width + 3 * width * inner) + 2 * 2 * length * length * width // 2
    work = size.layers * layer
    ids = np.random.default_rng(0).integers(3, size.vocabulary, length).tolist()

    def read() -> None:
        Branches(chat.model, 1, length).begin(0, ids)

    shares = []
    for _ in range(ROUNDS):
        rate = product_rate(length, width, inner)
        (took,), _ = times(read, rounds=1)
        shares.append(work / took / rate)
    return Row(f"prefill of {length}, share of the product rate", max(shares), 0.65, detail={"shares": shares})


def decode(chat: mv.VideoChat, path: Path) -> Row:
    """Bytes of weights and of keys and values that a token needs, over the bytes a copy reads and writes."""
    video = chat.open(path)
    video.ask("Where?", max_new_tokens=2)
    text = chat.model.model.language_model
    weights = sum(p.nbytes for p in text.layers.parameters()) + chat.model.lm_head.weight.nbytes
    board = video._prefix.board  # type: ignore[union-attr]
    kept = board.memory // (board.slots + 1) * len(video._prefix.ids)  # type: ignore[union-attr]
    source = torch.randn(32 * 2**20)
    target = torch.empty_like(source)
    shares = []
    for _ in range(ROUNDS):
        (copied,), _ = times(lambda: target.copy_(source), rounds=5)
        stream = video.stream(QUESTION, max_new_tokens=33)
        stream._words._round.step()
        begun = clock()
        for _ in range(32):
            stream._words._round.step()
        took = (clock() - begun) / 32
        stream.close()
        shares.append((weights + kept) / took / (2 * source.nbytes / copied))
    detail = {"shares": shares, "bytes": weights + kept, "token_s": took}
    return Row("decode, share of the copy bandwidth", max(shares), 0.70, detail=detail)


def equal_frames(chat: mv.VideoChat, path: Path, size: Size) -> Row:
    video = chat.open(path)
    distinct = video.footage.clip.frames[: size.frames // 3]
    repeated = np.repeat(distinct, 3, axis=0)

    def ours() -> torch.Tensor:
        return Shown(chat, repeated, None).frame_tokens(range(len(repeated)))

    (mine, theirs), (few, all_) = times(ours, lambda: chat.encode(list(repeated)))
    equal = bool(torch.equal(few, all_))
    detail = {
        "ours_s": mine,
        "all_s": theirs,
        "bit_equal": equal,
        "largest_difference": float((few - all_).abs().max()),
    }
    return Row("a third of the frames distinct, encode", theirs / mine, 2.7, detail=detail)


PEAK = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch, minigpt4_video as mv
from inference import Reference, QUESTION
chat = mv.VideoChat.from_pretrained(sys.argv[2], device="cpu")
for parameter in chat.model.parameters():
    parameter.data = parameter.data.clone()  # in memory, not in a file's pages
def peak(name):
    return int(re.search(name + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
loaded = peak("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
if sys.argv[4] == "ours":
    chat.open(sys.argv[3]).ask(QUESTION, max_new_tokens=1)
else:
    Reference(chat).ask(Path(sys.argv[3]), QUESTION, 1)
print(peak("VmHWM") - loaded)
"""


def peak_memory(folder: Path, path: Path) -> Row:
    def peak(side: str) -> float:
        command = [sys.executable, "-c", PEAK, str(Path(__file__).parent), str(folder), str(path), side]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    # By turns, and the middle of three: how far decoding runs ahead of encoding differs from run to run.
    runs = [(peak("ours"), peak("reference")) for _ in range(3)]
    ours, theirs = (statistics.median(side) for side in zip(*runs, strict=True))
    return Row(
        "peak memory, first question",
        ours / theirs,
        0.5,
        True,
        {"ours_mib": ours, "reference_mib": theirs, "runs": runs},
    )


def processor() -> str:
    """What the machine calls its processor."""
    told = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return told[1] if told else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--quick", action="store_true", help="a small model and a short video, to see that it runs")
    parser.add_argument("--only", help="rows whose name matches this")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--vllm", action="store_true", help="the mixed requests alone, by both engines")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = QUICK if given.quick else MID
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as aside:
        place = Path(aside)
        make_model(place / "model", size)
        videos = [place / f"{number}.mp4" for number in range(4)]
        for number, video in enumerate(videos):
            make_video(video, size.seconds, number)
        chat = mv.VideoChat.from_pretrained(place / "model", device="cpu")
        first = videos[0]
        steps: dict[str, Callable[[], Row]] = {
            "second": lambda: second_question(chat, first),
            "stored": lambda: stored_video(chat, place / "model", first, place / "store"),
            "many": lambda: many_questions(chat, first, 25),
            "mixed": lambda: mixed_requests(chat, BuiltIn(chat, rows=len(videos)), videos, 32),
            "vision": lambda: vision_encode(chat, size),
            "prefill": lambda: prefill(chat, size),
            "decode": lambda: decode(chat, first),
            "equal": lambda: equal_frames(chat, first, size),
            "memory": lambda: peak_memory(place / "model", first),
        }
        if given.vllm:
            engine = served(chat, place / "language-model")
            steps = {"mixed": steps["mixed"], "vllm": lambda: mixed_requests(chat, engine, videos, 32, " by vLLM")}
        for name, step in steps.items():
            if given.only and not re.search(given.only, name):
                continue
            rows.append(row := step())
            sign = "<=" if row.at_most else ">="
            print(
                f"{row.name:45} {row.value:8.2f}  {sign} {row.target:<6} {'met' if row.met else 'MISSED'}", flush=True
            )
            print(f"    {json.dumps(row.detail)}", flush=True)
        plan = chat.open(first).plan(QUESTION)
    told = {
        "machine": f"{processor()}, {given.threads} threads, torch {torch.__version__}",
        "seconds": "of the processor" if given.threads == 1 else "of the clock on the wall",
        "load": statistics.fmean(os.getloadavg()),
        "size": size._asdict(),
        "prompt": {
            "frames": plan.frames,
            "tokens": plan.total - plan.answer_reserve,
            "subtitles": plan.subtitle_tokens,
        },
        "rows": [row._asdict() | {"met": row.met} for row in rows],
    }
    print(f"{sum(row.met for row in rows)} of {len(rows)} met; {told['prompt']}")
    if given.output:
        given.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
