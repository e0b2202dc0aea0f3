"""A job that vLLM answers. Run by `make test-vllm`, in an environment of its own."""

import os
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own; `make test-vllm` makes it")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"

from making import write_video
from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.browse import rows_where
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.requests import requests
from vllm_models import write_model


def test_labels_are_those_of_the_engine_that_is_built_in(random_model: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama", random_model)
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", seconds=1, rate=number + 2)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    asked = requests(("brief", "tags"), ("en", "zh"))
    common = {"requests": asked, "model": str(tmp_path / "model"), "device": "cpu", "max_alike": 1.0}
    for name, folder in (("own", None), ("vllm", tmp_path / "language-model")):
        label(Order(str(tmp_path / "videos"), tmp_path / name, vllm=folder, **common))

    own, other = ([*rows_where(tmp_path / name, "")] for name in ("own", "vllm"))
    told = ("id", "video", "prompt", "status", "stage", "text", "frames")
    assert [[row[name] for name in told] for row in other] == [[row[name] for name in told] for row in own]
    assert {row["status"] for row in other} >= {"error", "truncated"} and len(other) == 16
    assert [row["confidence"] for row in other] == pytest.approx([row["confidence"] for row in own], abs=1e-3)
    with pytest.raises(LabellingError, match="engine"):
        label(Order(str(tmp_path / "videos"), tmp_path / "vllm", again="errors", **common))
