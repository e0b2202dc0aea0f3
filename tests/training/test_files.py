"""Files to training: a data set as people have it, videos decoded, questions packed, a folder that answers."""

from collections.abc import Callable
from pathlib import Path

from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.training.train import train


def test_a_data_set_on_disk_becomes_a_model_that_answers(recipe: Callable[..., Path], tmp_path: Path) -> None:
    made = train(recipe(), tmp_path / "runs" / "stage3")

    video = tmp_path / "set" / "videos" / "clip1.mp4"
    assert VideoChat.from_pretrained(made).open(video).ask("What is seen?", max_new_tokens=3).plan.frames == 4
