"""What evaluating on an MSVD-shaped set gains over one question at a time in the original's order of work.

python benchmarks/evaluation.py --output benchmarks/results/evaluation.json

Clips of 10 seconds without subtitles, 25 questions each, in MSVD-QA's own layout; the model of middle size with random
weights of `inference.py`, 45 frames, 10 tokens an answer. Ours is `evaluate` from reading the annotations to the report
(the model loaded); the reference decodes, encodes and reads everything for each question. It is asked a few of the
questions of every clip, which cost the same, and counts for all of them; those answers must be ours. Both take turns in
one run; with one thread (`taskset -c 1`) seconds are those of the processor.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

import minigpt4_video as mv
from inference import MID, QUICK, Reference, check, clock, make_model, make_video, processor
from minigpt4_video.evaluation import running
from minigpt4_video.evaluation.answering import ModelAnswerer, Settings
from minigpt4_video.evaluation.measuring import measure

EACH = 25
TOKENS = 10
SECONDS = 10
TARGET = 10
KINDS = ("what", "who", "how", "when", "where")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--asked", type=int, default=3, help="questions of every video that the reference answers")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = QUICK if given.quick else MID
    with tempfile.TemporaryDirectory() as aside:
        place = Path(aside)
        make_model(place / "model", size)
        annotations = make_set(place / "msvd", given.videos)
        chat = mv.VideoChat.from_pretrained(place / "model", device="cpu")
        reference = Reference(chat)
        ours_s, theirs_s = [], []
        for round_ in range(given.rounds):
            output = place / f"run-{round_}"
            task = running.task("msvd-qa", output, annotations, None, "off", None)
            begun = clock()
            summary = measure(task, output, ModelAnswerer(chat, Settings(max_new_tokens=TOKENS))).summary
            ours_s.append(clock() - begun)
            rows = running.answered(output)
            items = running.read(task).items
            asked = [item for at, item in enumerate(items) if at % EACH < given.asked]
            begun = clock()
            theirs = [reference.ask(Path(item.video["path"]), item.question, TOKENS) for item in asked]
            theirs_s.append(clock() - begun)
            check([rows[item.id]["answer"] for item in asked], theirs, "evaluation")
    assert summary["answered"] == len(items) == given.videos * EACH
    each = min(theirs_s) / len(asked)
    factor = each * len(items) / min(ours_s)
    told = {
        "machine": f"{processor()}, {given.threads} threads, torch {torch.__version__}",
        "seconds": "of the processor" if given.threads == 1 else "of the clock on the wall",
        "size": size._asdict() | {"seconds": SECONDS},
        "videos": given.videos,
        "questions": len(items),
        "ours_s": min(ours_s),
        "reference_s_each": each,
        "reference_asked": len(asked),
        "equal_answers": len(asked),
        "value": factor,
        "target": TARGET,
        "met": factor >= TARGET,
    }
    print(json.dumps(told, indent=2))
    if given.output:
        given.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def make_set(folder: Path, videos: int) -> Path:
    """MSVD-QA as its authors publish it, with clips of ours."""
    folder.mkdir()
    rows = []
    for video in range(videos):
        made = folder / f"{video}.mp4"
        make_video(made, SECONDS, video)
        made.with_suffix(".srt").unlink()
        shutil.move(made, folder / f"vid{1301 + video}.mp4")
        for number in range(EACH):
            question = f"{KINDS[number % len(KINDS)]} {number:02}?"
            rows.append({"answer": "man", "id": len(rows), "question": question, "video_id": 1301 + video})
    file = folder / "test_qa.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
