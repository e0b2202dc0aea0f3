"""From files to a trained folder: every format, and the recipes of a big model in miniature, stage after stage."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from data_sets import SHAPES, write, write_tar
from making import SUBTITLES, write_video
from minigpt4_video.cli import main
from minigpt4_video.data.formats import FORMATS, read
from minigpt4_video.data.sample import Record
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.messages import media_parts
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration
from minigpt4_video.model.exporting import export
from original import eva

ROWS = {shape.name: shape for shape in SHAPES}
TARS = ("laion", "cc3m", "sbu", "img2dataset", "video2dataset")
ALWAYS = ("laion", "webvid", "llava")


def make_set(folder: Path, name: str) -> Path:
    """A set of the format with the media that its rows name."""
    folder.mkdir(parents=True)
    if name in TARS:
        suffix = "mp4" if name == "video2dataset" else "jpg"
        Image.new("RGB", (40, 30), "red").save(folder / "some.jpg")
        shown = write_video(folder / "some.mp4") if suffix == "mp4" else folder / "some.jpg"
        members = {}
        for number in range(4):
            members[f"{number}.{suffix}"] = shown.read_bytes()
            members[f"{number}.json"] = json.dumps({"caption": f"a red thing, number {number}"}).encode()
        shown.unlink()
        write_tar(folder / "00000.tar", members)
        return folder
    if name == "cc-sbu-align":
        (folder / "image").mkdir()
        Image.new("RGB", (40, 30), "red").save(folder / "image" / "2.jpg")
    if name == "hd-vila-100m":
        for video in ("QwErTyUiOp1", "x"):
            (folder / f"{video}.srt").write_text(SUBTITLES)
    rows = ROWS[name].good[:1] if name == "panda-70m" else ROWS[name].good  # others of it are hours long
    place = write(folder / ROWS[name].file, rows)
    for record in read(name, place):
        assert isinstance(record, Record)
        for part in media_parts(record.messages):
            path = Path(part["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            if part["type"] == "image" and not path.exists():
                Image.new("RGB", (40, 30), "blue").save(path)
            elif part["type"] == "video":
                needed = float(part.get("end") or 1.0) + 0.5
                if not path.exists() or path.stat().st_size < 100 * needed:
                    write_video(path, seconds=needed)
    return place


def documented(name: str, place: Path, media: Path, video: Path, made: Path) -> list[list[str]]:
    """The commands of "On your data" in docs/training.md, for another set."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    section = text.partition("### On your data")[2]
    (block,) = [one for one in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if "data preview" in one]
    looked_for = "" if FORMATS[name].beside else f"--media {media}"
    mine = {
        "--media data/mine/videos": looked_for, "data/mine/conversations.json": str(place), " llava ": f" {name} ",
        "film.mp4": str(video), "mine.toml": str(made.parents[1] / "mine.toml"), "runs/qwen2.5-7b/mine": str(made),
        "samples.html": str(made.parents[1] / "samples.html"),
    }  # fmt: skip
    for theirs, ours in mine.items():
        assert theirs in block
        block = block.replace(theirs, ours)
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]
)
def test_a_set_of_each_format_trains_by_the_commands_of_the_guide(
    name: str, random_model: Path, tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_set(tmp_path / "set", name)
    stage = "image-text" if name in (*TARS[:-1], "cc-sbu-align") else "video-text"
    recipe = tmp_path / "mine.toml"
    media = "" if FORMATS[name].beside else f'media = "{tmp_path / "set"}"\n'
    recipe.write_text(
        f'stage = "{stage}"\nwidth = 256\nframes = 4\n[parts]\nmodel = "{random_model}"\n[learn]\nlora_rank = 4\n'
        f'[[data]]\nformat = "{name}"\npath = "{place}"\n{media}'
        "[training]\nmax_steps = 2\nper_device_train_batch_size = 2\nlogging_steps = 1\n"
    )
    made = tmp_path / "runs" / "made"
    commands = documented(name, place, tmp_path / "set", video, made)
    assert [" ".join(command[:2]) for command in commands][:2] == ["data check", "data preview"] and len(commands) == 5
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    assert "broken:    0" in (said := capsys.readouterr().out) and "DOES NOT FIT" not in said
    page = (tmp_path / "samples.html").read_text()
    assert "<mark>" in page and "cannot be used" not in page
    told = json.loads((made / "run.json").read_text())
    assert told["samples"] >= 1 and told["turns"] >= told["samples"]
    assert all(one["loss"] > 0 for one in told["log"] if "loss" in one)
    assert not (made / "skipped.jsonl").exists(), (made / "skipped.jsonl").read_text()
    before, after = (load_file(folder / "model.safetensors") for folder in (random_model, made))
    assert any(not torch.equal(before[key], after[key]) for key in before if "multi_modal_projector" in key)


@pytest.fixture
def parts(random_model: Path, tmp_path: Path) -> Path:
    """`eva_vit_g.pth` and a language model as they are downloaded, where the recipes look for them."""
    runs = tmp_path / "runs"
    runs.mkdir()
    torch.save(eva(), runs / "eva_vit_g.pth")
    whole = MiniGPT4VideoForConditionalGeneration.from_pretrained(random_model)
    from transformers import LlamaForCausalLM

    language = LlamaForCausalLM(whole.config.text_config)
    language.model.load_state_dict(whole.model.language_model.state_dict())
    language.save_pretrained(runs / "Llama-2-7b-chat-hf")
    AutoTokenizer.from_pretrained(random_model).save_pretrained(runs / "Llama-2-7b-chat-hf")
    return runs


def test_the_recipes_of_a_big_model_train_in_miniature_stage_after_stage(
    parts: Path, tmp_path: Path, video: Path
) -> None:
    sets = {"stage1": "laion", "align": "cc-sbu-align", "stage2": "webvid", "stage3": "videoinstruct-100k"}
    for stage, name in sets.items():
        folder = tmp_path / "sets" / name
        place = make_set(folder, name)
        media = "" if FORMATS[name].beside else f'media = "{folder}"\n'
        recipe = tmp_path / f"{stage}.toml"
        recipe.write_text(
            f'base = "llama2-7b/{stage}"\nwidth = 400\nframes = 3\n[learn]\nlora_rank = 4\n[evaluation]\nshare = 0.0\n'
            f'[[data]]\nformat = "{name}"\npath = "{place}"\n{media}'
            "[optimizer]\nstart = 1e-3\n"
            "[training]\nmax_steps = 2\nwarmup_steps = 2\nper_device_train_batch_size = 2\ndataloader_num_workers = 0\n"
            "logging_steps = 1\n"
        )
        assert main(["train", str(recipe), "--output", str(parts / stage)]) == 0
    made = parts / "stage3"
    told = [json.loads((parts / stage / "run.json").read_text()) for stage in sets]
    assert len({one["trained"] for one in told}) == 1
    lora = [load_file(parts / stage / "adapter" / "adapter_model.safetensors") for stage in sets]
    for earlier, later in pairwise(lora):
        assert earlier.keys() == later.keys() and any(not torch.equal(earlier[key], later[key]) for key in earlier)
    base = load_file(parts / "Llama-2-7b-chat-hf" / "model.safetensors")
    found = load_file(made / "model.safetensors")
    key = "layers.0.self_attn.q_proj.weight"
    assert torch.equal(found[f"model.language_model.{key}"], base[f"model.{key}"].bfloat16())
    assert VideoChat.from_pretrained(made).open(video).ask("What happens?", max_new_tokens=3).plan.frames == 3
    assert export(made, tmp_path / "back.pth").rank == 4
