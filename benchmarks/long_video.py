"""Long films of the world: retrieval, answers by way and kind of question, evidence, memory and time.

python benchmarks/long_video.py --film 10 --output benchmarks/results/long_video.json
python benchmarks/long_video.py --film 60 --count 11 --only index answers --output benchmarks/results/long_video.json
python benchmarks/long_video.py --film 360 --languages en --only index --output benchmarks/results/long_video.json

Films are made in `--folder`, indexed there and asked about, each by a process of its own whose memory is measured; what
is there already is used again, so a run that was killed goes on. Times are of one thread, in seconds of the processor.
"""

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import av
import numpy as np
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from minigpt4_video import long_video
from minigpt4_video.data.world.films import SCOPES, write_films
from minigpt4_video.evaluation.scoring import normalised
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import find_said
from minigpt4_video.inference.store import source_digest
from minigpt4_video.instructions import CAPTION_STYLE
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.long_video.choosing import open_video
from minigpt4_video.long_video.index import Settings, load_index, make_index
from minigpt4_video.long_video.retrieve import Retriever, terms
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.media import Clip, Cue, probe, read_clip
from minigpt4_video.media.decoding import video_stream

SEED = 10
"""Of the first film; the threshold of retrieval was chosen on films 0 and 1."""
ANSWERS = "answers.jsonl"
SAMPLED = 45
SIZES = 128, 480
"""Of films that the original's order of work is measured on, in pixels along a side."""
TURNS = 5
KEPT_MINUTES = 4.0
"""Of film that the original's order of work is measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=float, nargs="*", default=[10, 60], metavar="MINUTES")
    parser.add_argument("--count", type=int, default=1, help="films of each length in each language")
    parser.add_argument("--languages", nargs="+", default=["en", "zh"], choices=["en", "zh"])
    parser.add_argument("--only", nargs="+", default=["index", "answers", "order-of-work", "visual"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "minigpt4-video-films")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("index|answers", "FILM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        what, film = options.child[0], Path(options.child[1])
        if what == "index":
            print(json.dumps(indexed(film, film.parent / "index")))
        else:
            write_answers(film)
        return
    report: dict[str, Any] = {"films": {}}
    if options.output and options.output.is_file():
        report = json.loads(options.output.read_text(encoding="utf-8"))
    report |= {"machine": f"{platform.machine()}, one thread of two shared cores", "commit": commit()}

    def keep() -> None:
        text = json.dumps(report, ensure_ascii=False, indent=1)
        if options.output:
            options.output.write_text(text + "\n", encoding="utf-8")

    if "order-of-work" in options.only:
        report["order_of_work"] = order_of_work()
        keep()
    for minutes in options.film:
        held = report["films"].setdefault(f"{minutes:g}", {})
        answered: list[dict[str, Any]] = []
        seeds = [(seed, ("en", "zh")[seed % 2]) for seed in range(SEED, SEED + 2 * options.count)]
        for seed, language in seeds:
            if language not in options.languages:
                continue
            folder = options.folder / f"{minutes:g}-{language}-{seed}"
            if not (folder / "questions.jsonl").is_file():
                write_films(folder, minutes=minutes, seed=seed, language=language)
            (film,) = folder.glob("*.mp4")
            if "index" in options.only:
                told = json.loads(child("index", film))
                if told["newly_described"] or film.stem not in held.get("index", {}):
                    held.setdefault("index", {})[film.stem] = told
                keep()
            if "visual" in options.only:
                held.setdefault("visual", {})[film.stem] = visual(film)
                keep()
            if "answers" in options.only:
                child("answers", film)
                answered += list(map(json.loads, (folder / ANSWERS).read_text(encoding="utf-8").splitlines()[1:]))
        if answered:
            held["answers"] = table(answered)
            held["wrong"] = [
                [one["question"]["text"], one["question"]["answer"], one["answers"]["auto"]]
                for one in answered
                if "auto" not in one["right"]
            ]
            keep()
    print(json.dumps(report, ensure_ascii=False, indent=1))


def child(what: str, film: Path) -> str:
    """Do a part of the work in a process of its own."""
    command = [sys.executable, __file__, "--child", what, str(film)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_answers(film: Path) -> None:
    """All answers about a film beside it, with what they were made by; those that are there by the same are kept."""
    file = film.parent / ANSWERS
    code = source_digest(Path(str(long_video.__file__)).parent)
    head = json.dumps({"code": code, "index": load_index(film.parent / "index").about["key"]})
    if file.is_file() and file.read_text(encoding="utf-8").splitlines()[0] == head:
        return
    rows = [json.dumps(one, ensure_ascii=False) for one in answers(film, film.parent / "index")]
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def indexed(film: Path, folder: Path) -> dict[str, Any]:
    """Index a film, or the rest of it, in this process; memory in MiB, `besides_model` what was added after loading."""
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    chat.processor.pixels([read_clip(film, 1, size=(64, 64)).frames[0]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = folder / "clips.jsonl"
    had = len(lines.read_bytes().splitlines()) - 1 if lines.is_file() else 0
    had = len(load_index(folder).clips) if (folder / "index.json").is_file() else had
    began, wall = process_time(), perf_counter()
    info = probe(film)
    index = make_index(chat, film, info, find_said(film, info), folder)
    took = process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    new = len(index.clips) - had
    return {
        "minutes": round(info.duration / 60, 2),
        "clips": len(index.clips),
        "newly_described": new,
        "seconds": round(took, 1),
        "wall_seconds": round(perf_counter() - wall, 1),
        "seconds_a_new_clip": round(took / new, 4) if new else None,
        "memory_before": round(before),
        "memory_besides_model": round(after - before),
        "folder_bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }


def answers(film: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Every question of a film, asked in every way."""
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    begun, wall = process_time(), perf_counter()
    video = open_video(chat, film, long="on", index=folder)
    assert isinstance(video, LongVideo)
    opened = process_time() - begun, perf_counter() - wall
    sampled = chat.open(film, frames=SAMPLED)
    retriever = Retriever(video.index)
    (row,) = map(json.loads, (film.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    rng = random.Random(0)
    for question in row["questions"]:
        text, moments = question["text"], question["moments"]
        ranked = [number for number, _ in retriever.clips(text, 10, 0.0)]
        begun, wall = process_time(), perf_counter()
        stream = video.stream(text)
        next(stream)
        first = process_time() - begun, perf_counter() - wall
        auto = stream.answer
        given = {
            "auto": auto.text,
            "frames": video.ask(text, "frames").text,
            "texts": video.ask(text, "texts", max_new_tokens=16).text,
            "map": video.ask(text, "map").text,
            "sampled": sampled.ask(text).text,
        }
        if question["scope"] == "moment":
            ((start, end),) = question["spans"]
            given["direct"] = chat.open(film, start=start, end=end).ask(text).text
        if question["scope"] == "order":
            mixed = list(auto.evidence)
            rng.shuffle(mixed)
            given["shuffled"] = video.show(mixed).ask(text).text
        evidence = [(one.start, one.end) for one in auto.evidence]
        yield {
            "question": question,
            "answers": given,
            "right": [way for way, said in given.items() if normalised(said) == normalised(question["answer"])],
            "found": {str(k): all(any(inside(video, n, m) for n in ranked[:k]) for m in moments) for k in (1, 3, 10)},
            "evident": all(any(start <= m <= end for start, end in evidence) for m in moments),
            "first_word": first,
            "opened": opened,
        }


def visual(film: Path) -> dict[str, Any]:
    """Whether the tower's features of clips find what questions about the picture ask for, by themselves and beside
    words: each word of a question, as the language model reads it, looks for the nearest frame token of a clip.
    """
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    index = load_index(film.parent / "index")
    size = (chat.processor.image_size, chat.processor.image_size)
    seen = []
    for clip in index.clips:
        shown = read_clip(film, chat.processor.frames, start=clip.start, end=clip.end, size=size)
        seen.append(chat.encode(list(shown.frames)).flatten(0, 1).float())
    middle = torch.cat(seen).mean(0)
    tokens = [torch.nn.functional.normalize(one - middle, dim=-1) for one in seen]
    table = chat.model.get_input_embeddings().weight.detach().float()
    table = torch.nn.functional.normalize(table - table.mean(0), dim=-1)
    retriever = Retriever(index)
    (row,) = map(json.loads, (film.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    asked = [one for one in row["questions"] if one["scope"] == "moment" and one["needs"] == "picture"]
    ranks: dict[str, list[int]] = {"words": [], "pictures": [], "both": []}
    for question in asked:
        kept = [term for term in terms(question["text"]) if " " not in term]
        ids = chat.processor.tokenizer(" ".join(kept), add_special_tokens=False)["input_ids"]
        near = np.array([float((table[ids] @ one.T).max(1).values.sum()) for one in tokens])
        pictures = (near - near.min()) / (near.max() - near.min())
        words = retriever.scores(question["text"])
        (moment,) = question["moments"]
        right = next(n for n, clip in enumerate(index.clips) if clip.start <= moment <= clip.end)
        for name, scores in {"words": words, "pictures": pictures, "both": (words + pictures) / 2}.items():
            ranks[name].append(int((scores > scores[right]).sum()))
    recall = {
        name: {str(k): round(sum(rank < k for rank in found) / len(found), 4) for k in (1, 3, 10)}
        for name, found in ranks.items()
    }
    return {"questions": len(asked), "clips": len(index.clips), "recall": recall}


def inside(video: LongVideo, number: int, moment: float) -> bool:
    return video.index.clips[number].start <= moment <= video.index.clips[number].end


def table(answered: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy by scope and way, by language, recall, evidence, and the time to the first word."""

    def share(some: list[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> float | None:
        return round(sum(holds(one) for one in some) / len(some), 4) if some else None

    by_scope: dict[str, Any] = {}
    for scope in SCOPES:
        some = [one for one in answered if one["question"]["scope"] == scope]
        ways = {
            way: share(some, lambda one, way=way: way in one["right"])  # type: ignore[misc]
            for way in ("auto", "frames", "texts", "map", "sampled", "direct", "shuffled")
            if some and way in some[0]["answers"]
        }
        by_scope[scope] = {"questions": len(some), "accuracy": ways}
        if scope != "count":
            by_scope[scope]["recall"] = {str(k): share(some, lambda one, k=k: one["found"][str(k)]) for k in (1, 3, 10)}  # type: ignore[misc]
    right = [one for one in answered if "auto" in one["right"]]
    words = sorted(one["first_word"][1] for one in answered if one["question"]["scope"] != "count")
    return {
        "by_scope": by_scope,
        "by_language": {
            language: {
                scope: share(
                    [one for one in asked_in(answered, language) if one["question"]["scope"] == scope], is_right
                )
                for scope in SCOPES
            }
            | {"questions": len(asked_in(answered, language)), "all": share(asked_in(answered, language), is_right)}
            for language in ("en", "zh")
        },
        "evidence_contains_the_moment_in_right_answers": share(right, lambda one: one["evident"]),
        "seconds_to_the_first_word": {
            "processor_mean": round(sum(one["first_word"][0] for one in answered) / len(answered), 3),
            "wall_median": round(words[len(words) // 2], 3),
            "opening_the_index": round(max(one["opened"][0] for one in answered), 3),
        },
    }


def asked_in(answered: list[dict[str, Any]], language: str) -> list[dict[str, Any]]:
    return [one for one in answered if one["question"]["language"] == language]


def is_right(one: dict[str, Any]) -> bool:
    return "auto" in one["right"]


def order_of_work() -> dict[str, Any]:
    """Ours and the original's on the same film, by turns: the same model, the same clips, one description each. The
    original finds clips by sentence vectors and must make them; ours, by words, is shown without and with them. Of
    the size that the world's films have, and of one that films have elsewhere."""
    chat = VideoChat.from_pretrained("tiny", device="cpu")
    settings = Settings(prompts=(("detailed", "en"),))
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = Encoder(random_encoder(chat, folder / "encoder"))
        for size in SIZES:
            took: dict[str, list[float]] = {"ours": [], "ours_with_vectors": [], "original": []}
            (film,) = write_films(folder / f"film-{size}", minutes=KEPT_MINUTES, seed=SEED, size=size)
            info, said = probe(film), find_said(film, probe(film))
            for turn in range(TURNS):
                for way, vectors in (("ours", None), ("ours_with_vectors", encoder)):
                    begun = process_time()
                    place = folder / f"{way}-{size}-{turn}"
                    index = make_index(chat, film, info, said, place, settings=settings, encoder=vectors)
                    took[way].append(process_time() - begun)
                begun = process_time()
                equal = 0
                for number, clip in enumerate(index.clips):
                    cut_out(film, clip.start, clip.end, part := folder / f"{number}.mp4")
                    shown = read_clip(part, chat.processor.frames, size=(64, 64))
                    told = described_alone(chat, shown, clip.cues, clip.start)
                    encoder.encode([f"{told}\n{clip.said}"])
                    equal += told.strip() == clip.descriptions[0]
                took["original"].append(process_time() - begun)
            middle = {way: sorted(seconds)[TURNS // 2] for way, seconds in took.items()}
            found[f"{size} x {size}"] = {
                "minutes": KEPT_MINUTES,
                "seconds": {way: round(seconds, 2) for way, seconds in middle.items()},
                "times_faster": round(middle["original"] / middle["ours"], 2),
                "times_faster_with_vectors": round(middle["original"] / middle["ours_with_vectors"], 2),
                "equal_descriptions": f"{equal} of {len(index.clips)}",
                "all": {way: [round(one, 2) for one in seconds] for way, seconds in took.items()},
            }
    return found


def random_encoder(chat: VideoChat, folder: Path) -> Path:
    """A sentence encoder of the size of all-MiniLM-L6 with random weights: vectors that mean nothing, in its time."""
    tokenizer = chat.processor.tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>").save_pretrained(folder)
    return folder


def cut_out(film: Path, start: float, end: float, part: Path) -> None:
    """A part of a film as a file of its own, encoded anew, as the original cuts."""
    with av.open(str(film)) as source, av.open(str(part), "w") as made:
        stream = video_stream(source, film)
        out = made.add_stream("libx264", rate=stream.average_rate, options={"threads": "1"})
        out.width, out.height, out.pix_fmt = stream.width, stream.height, "yuv420p"
        source.seek(int(start / stream.time_base), stream=stream)
        out.codec_context.time_base = stream.time_base
        for frame in source.decode(stream):
            if frame.time >= end:
                break
            if frame.time >= start:
                frame.pts -= int(start / stream.time_base)
                made.mux(out.encode(frame))
        made.mux(out.encode())


def described_alone(chat: VideoChat, shown: Clip, cues: Sequence[Cue], start: float) -> str:
    """One clip with its subtitles described by transformers' `generate`, by itself."""
    said = [{"start": cue.start - start, "end": cue.end - start, "text": cue.text} for cue in cues]
    parts = [{"type": "video", "frames": list(shown.frames), "times": shown.times.tolist(), "subtitles": said}]
    parts.append({"type": "text", "text": CAPTION_STYLE["en"]["detailed"]})
    inputs = chat.processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=True, return_dict=True, return_tensors="pt",
        add_generation_prompt=True,
    )  # fmt: skip
    with torch.inference_mode():
        made = chat.model.generate(**inputs, max_new_tokens=chat.processor.answer_reserve)
    return str(chat.processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])


def commit() -> str:
    """The commit that is checked out, or "unknown" outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


if __name__ == "__main__":
    main()
