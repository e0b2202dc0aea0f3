"""Small data sets of real files, and a recipe that trains a tiny random model on them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from making import write_video

QUESTIONS = (("What is seen?", "it gets brighter"), ("Is it dark?", "no"), ("What is said at the end?", "nearly done"))


@pytest.fixture
def instruct(tmp_path: Path) -> Path:
    """Six videos of 1 to 2.2 s in the form of VideoInstruct: three questions a video but one for the last, subtitles
    beside half of them."""
    folder = tmp_path / "set" / "videos"
    folder.mkdir(parents=True)
    rows = []
    for number in range(6):
        video = write_video(folder / f"clip{number}.mp4", seconds=1 + 0.24 * number)
        if number % 2:
            video.with_suffix(".srt").write_text(f"1\n00:00:00,000 --> 00:00:00,900\nnumber {number}\n")
        for question, answer in QUESTIONS if number < 5 else QUESTIONS[:1]:
            rows.append({"video_id": f"clip{number}", "q": question, "a": f"{answer} {number}"})
    place = tmp_path / "set" / "instruct.json"
    place.write_text(json.dumps(rows))
    return place


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures in the form of MiniGPT-4's aligned captions."""
    folder = tmp_path / "align"
    (folder / "image").mkdir(parents=True)
    notes = []
    for number in range(8):
        grey = np.full((40, 48, 3), number * 30, np.uint8)
        Image.fromarray(grey).save(folder / "image" / f"{number}.jpg")
        notes.append({"image_id": str(number), "caption": f"a picture of grey number {number}"})
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": notes}))
    return folder / "filter_cap.json"


@pytest.fixture
def recipe(tmp_path: Path, random_model: Path, instruct: Path) -> Callable[..., Path]:
    """A recipe file; `changes` are lines that are put in front, `tables` ones that are put at the end."""

    def write(
        changes: str = 'keep = "nothing"', tables: str = "", training: str = "max_steps = 3", learn: str = ""
    ) -> Path:
        place = tmp_path / "stage3.toml"
        place.write_text(
            f'stage = "video-qa"\nwidth = 256\nframes = 4\n{changes}\n'
            f'[parts]\nmodel = "{random_model}"\n[learn]\nlora_rank = 4\n{learn}\n'
            f'[[data]]\nformat = "videoinstruct-100k"\npath = "{instruct}"\nmedia = "{instruct.parent / "videos"}"\n'
            f"{tables}\n[training]\nper_device_train_batch_size = 2\nlogging_steps = 1\nsave_steps = 1\n"
            f"{training}\n"
        )
        return place

    return write
