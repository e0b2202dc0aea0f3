"""Files to training: a data set as people have it, videos decoded, questions packed, a folder that answers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from making import write_video
from minigpt4_video.data.formats import read
from minigpt4_video.data.mixture import Mixture, Part
from minigpt4_video.data.reading import shown
from minigpt4_video.data.sample import Record
from minigpt4_video.errors import DataError, RecipeError
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.store import Store
from minigpt4_video.messages import media_parts, text_of
from minigpt4_video.model import MiniGPT4VideoForConditionalGeneration, MiniGPT4VideoProcessor
from minigpt4_video.model.branches import PACKED
from minigpt4_video.model.processing import IGNORED
from minigpt4_video.training import files as module
from minigpt4_video.training import kept
from minigpt4_video.training import train as training
from minigpt4_video.training.files import Files, FilesCollator
from minigpt4_video.training.kept import Keep
from minigpt4_video.training.loop import Sight, packed_loss
from minigpt4_video.training.recipe import read_recipe
from minigpt4_video.training.sets import Group, gather, held_out, list_sets, open_sets
from minigpt4_video.training.train import train

WIDTH = 256


@pytest.fixture
def processor(random_model: Path) -> MiniGPT4VideoProcessor:
    return MiniGPT4VideoProcessor.from_pretrained(random_model)


@pytest.fixture(params=["sdpa", PACKED])
def model(random_model: Path, request: pytest.FixtureRequest) -> MiniGPT4VideoForConditionalGeneration:
    model = MiniGPT4VideoForConditionalGeneration.from_pretrained(random_model).eval()
    model.model.language_model.set_attn_implementation(request.param)
    return model


def groups(instruct: Path) -> list[Group]:
    found, flaws = gather(read("videoinstruct-100k", instruct, media=instruct.parent / "videos"))
    assert not flaws
    return found


def files(
    held: Sequence[Group], processor: Any, store: Store | None = None, keep: Keep = "nothing", width: int = WIDTH
) -> Files:
    return Files([held], None, processor, frames=4, width=width, count=len(held), store=store, keep=keep, tower="tower")


def one_by_one(model: Any, processor: Any, records: Sequence[Record]) -> tuple[torch.Tensor, int]:
    """Summed loss of every answer of every record, each turn as a prompt of its own, by the ordinary way; and of how
    many tokens."""
    total, learned = torch.zeros(()), 0
    for record in records:
        messages = shown(record.messages, 4, processor.image_size)
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prepared = processor.prepare(messages[:turn])
            inputs = processor(
                text=prepared.text, images=[list(prepared.frames)], answers=text_of(message), return_tensors="pt"
            )
            tokens = int((inputs["labels"] != IGNORED).sum())
            total, learned = total + model(**inputs).loss * tokens, learned + tokens
    return total, learned


def assert_same_training(model: Any, processor: Any, batch: dict[str, Any], records: Sequence[Record]) -> None:
    model.zero_grad()
    inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    together = packed_loss(model, inputs | Sight(processor).of(model, batch))["loss"]
    together.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total, learned = one_by_one(model, processor, records)
    assert learned == int((batch["labels"] != IGNORED).sum())
    (total / learned).backward()
    torch.testing.assert_close(together, total / learned, rtol=1e-5, atol=0)
    compared = [name for name in gradients if "vision_tower" not in name]
    assert any("multi_modal_projector" in name for name in compared)
    for name in compared:
        other = dict(model.named_parameters())[name].grad
        difference, size = (gradients[name] - other).norm(), other.norm()
        assert difference <= 1e-5 * size + 1e-12, (name, float(difference / size))


def test_videos_with_all_their_questions_train_as_each_question_alone(instruct: Path, processor: Any, model: Any):
    held = groups(instruct)
    batch = FilesCollator(processor, WIDTH)([files(held, processor)[number] for number in range(len(held))])

    assert [len(group.records) for group in held] == [3, 3, 3, 3, 3, 1]
    assert batch["input_ids"].shape[1] == (batch["film"] * 0 + (batch["branch"] >= 0)).sum(1).max()  # no padding
    model.model.vision_tower.requires_grad_(False)
    assert_same_training(model, processor, batch, [record for group in held for record in group.records])


def conversation(path: Path, *turns: str) -> Record:
    first = [{"type": "video", "path": str(path), "subtitles": "auto"}, {"type": "text", "text": turns[0]}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
    for number, text in enumerate(turns[1:]):
        messages.append({"role": "user" if number % 2 else "assistant", "content": text})
    return Record(f"talk {len(turns)}", "made", messages, "en")


def test_conversations_learn_every_answer_and_see_what_was_said_before(instruct: Path, processor: Any, model: Any):
    video = instruct.parent / "videos" / "clip1.mp4"
    records = [conversation(video, "what?", "a clip", "more?", "it ends"), conversation(video, "who?", "nobody")]
    held, _ = gather(records)
    batch = FilesCollator(processor, WIDTH)([files(held, processor)[0]])

    assert len(held) == 1
    model.model.vision_tower.requires_grad_(False)
    assert_same_training(model, processor, batch, records)


def test_several_answers_to_the_same_question_train_as_each_alone(instruct: Path, processor: Any, model: Any):
    """Then the prefix could end where the answers begin, and the first word of an answer would have to be foretold by
    the end of the answer before it."""
    video = instruct.parent / "videos" / "clip1.mp4"
    held, _ = gather([conversation(video, "what is it?", f"{answer} thing") for answer in ("a red", "one", "some")])
    batch = FilesCollator(processor, WIDTH)([files(held, processor)[0]])
    assert int(batch["branch"].max()) == 3
    model.model.vision_tower.requires_grad_(False)
    assert_same_training(model, processor, batch, held[0].records)


def test_words_alone_give_the_projection_a_gradient_of_nothing(processor: Any, model: Any):
    """Processes that train together exchange the gradients of all that is trained, or wait for each other for ever."""
    talk = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "hello"}]
    held, _ = gather([Record("talk", "made", talk, "en")])
    batch = FilesCollator(processor, WIDTH)([files(held, processor)[0]])
    inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    packed_loss(model, inputs | Sight(processor).of(model, batch))["loss"].backward()
    assert all((p.grad == 0).all() for p in model.model.multi_modal_projector.parameters())


def test_what_a_line_does_not_hold_goes_on_behind_the_same_frames(instruct: Path, processor: Any):
    video = instruct.parent / "videos" / "clip1.mp4"
    records = [conversation(video, f"what is number {number}?", "a number " * 5) for number in range(12)]
    held, _ = gather(records)
    made = files(held, processor, width=160)[0]

    assert len(made.rows) > 1 and sum(len(row.branches) for row in made.rows) == 12
    assert all(len(row) <= 160 for row in made.rows)
    assert all(row.prefix == made.rows[0].prefix for row in made.rows)
    assert all(numbers == made.shows[0] for numbers in made.shows)


def test_long_questions_and_answers_take_room_from_frames_and_are_never_cut(instruct: Path, processor: Any):
    video = instruct.parent / "videos" / "clip1.mp4"
    long = " ".join(f"word{number}" for number in range(18))
    turns = ((long, long), ("short?", "yes"), (long * 9, "no"))
    held, _ = gather([conversation(video, *turn) for turn in turns])
    made = files(held, processor)[0]
    token = processor.image_token_id

    assert [skip.id for skip in made.skipped] == ["talk 2"] and "window" in made.skipped[0].reason
    shown_frames = made.rows[0].prefix.count(token) // processor.tokens_per_frame
    assert 1 <= shown_frames < 4 and len(made.shows[0]) == shown_frames
    texts = [
        processor.tokenizer.decode(branch.ids[start:end]) for row in made.rows for branch in row.branches
        for start, end in branch.learned
    ]  # fmt: skip
    assert [text.removesuffix("</s>").strip() for text in texts] == [long, "yes"]
    assert all(len(row) <= WIDTH for row in made.rows)


def test_frames_and_subtitles_leave_room_for_the_conversation_that_is_longest_by_tokens(instruct: Path, processor: Any):
    """Which has few turns: of many short ones most of a count by turns is the chat template."""
    video = instruct.parent / "videos" / "clip1.mp4"
    video.with_suffix(".srt").write_text(f"1\n00:00:00,000 --> 00:00:01,200\n{'nearly done, it is said here ' * 20}\n")
    question = "what is seen in this video and said there? " * 4
    records = [conversation(video, *["?", "no"] * 8), conversation(video, question, "it gets brighter " * 3)]
    held, _ = gather(records)
    data = files(held, processor)
    made = data[0]
    lengths = [len(row.prefix) + len(branch.ids) for row in made.rows for branch in row.branches]
    assert not made.skipped and len(lengths) == 2 and WIDTH - 20 < max(lengths) <= WIDTH
    FilesCollator(processor, WIDTH)([made])


def test_a_conversation_that_came_out_longer_than_the_window_is_skipped_by_name(
    instruct: Path, processor: Any, monkeypatch: pytest.MonkeyPatch
):
    video = instruct.parent / "videos" / "clip1.mp4"
    held, _ = gather([conversation(video, "what?", "a clip"), conversation(video, "who?", "I", "why?", "so")])
    whole = module._branch

    def longer(messages: Any, *rest: Any) -> Any:
        made, frames = whole(messages, *rest)
        return (made._replace(ids=made.ids + [5] * 999) if len(messages) == 4 else made), frames

    monkeypatch.setattr(module, "_branch", longer)
    made = files(held, processor, width=4 * processor.window)[0]  # a line may hold more than the model's window
    assert [skip.id for skip in made.skipped] == ["talk 4"] and f"{processor.window} fit" in made.skipped[0].reason
    assert [len(row.branches) for row in made.rows] == [1]


def test_an_epoch_over_kept_features_decodes_and_encodes_nothing(
    instruct: Path, processor: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    held = groups(instruct)
    store = Store(tmp_path / "kept")
    data = files(held, processor, store, "features")
    collate = FilesCollator(processor, WIDTH)
    sight = Sight(processor, store)
    batch = collate([data[number] for number in range(len(held))])
    first = sight.of(model, batch)["image_features"]

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("was decoded or encoded again")

    monkeypatch.setattr(kept, "read_clip", forbidden)
    monkeypatch.setattr(model.model, "get_merged_features", forbidden)
    again = collate([data[number] for number in range(len(held))])

    assert torch.equal(sight.of(model, again)["image_features"], first)
    assert torch.equal(again["input_ids"], batch["input_ids"])
    write_video(instruct.parent / "videos" / "clip0.mp4", seconds=3)  # another video under the same name is another
    with pytest.raises(AssertionError, match="again"):
        data[0]


def test_frames_that_were_kept_are_those_that_were_decoded(
    instruct: Path, processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    held = groups(instruct)
    data = files(held, processor, Store(tmp_path / "kept"), "frames")
    first = data[2].media[0].frames
    monkeypatch.setattr(kept, "read_clip", None)
    assert first is not None and torch.equal(data[2].media[0].frames, first)


def test_a_broken_video_is_left_out_told_and_replaced(
    recipe: Callable[..., Path], instruct: Path, processor: Any, tmp_path: Path
):
    (instruct.parent / "videos" / "clip2.mp4").write_bytes(b"no video at all")
    held = groups(instruct)
    data = Files([held], Mixture([Part(len(held))]), processor, frames=4, width=WIDTH, count=6)
    items = [data[number] for number in range(6)]
    skips = [skip for item in items for skip in item.skipped]

    assert all(item.rows for item in items) and not any("clip2" in item.id for item in items)
    assert {skip.id.split("#")[0] for skip in skips} == {"clip2"} and "clip2.mp4" in skips[0].reason
    run = tmp_path / "runs" / "a"
    train(recipe(), run)
    told = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert {one["id"].split("#")[0] for one in told} == {"clip2"} and len(told) == 3
    for number in (0, 1, 3, 4):
        (instruct.parent / "videos" / f"clip{number}.mp4").write_bytes(b"no video at all")
    with pytest.raises(RecipeError, match=r"more than guard\.broken"):
        train(recipe(), tmp_path / "runs" / "b")


def test_without_speech_no_subtitles_are_learnt_from_or_shown_with_held_out_questions(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    whole = training.Files

    def listening(*args: Any, **options: Any) -> Files:
        made = whole(*args, **options)
        items = [made[number] for number in range(len(made))]
        assert all(item.rows for item in items)
        ids = [one for item in items for row in item.rows for one in row.prefix if one != made.processor.image_token_id]
        told.append(made.processor.tokenizer.decode(ids))
        return made

    monkeypatch.setattr(training, "Files", listening)
    place = recipe(tables="[evaluation]\nshare = 0.4\nanswers = 0\n", training="max_steps = 2")
    for speech in ("true", "false"):
        train(place, tmp_path / "runs" / speech, overrides={"speech": speech})
    assert ["number" in text for text in told] == [True, True, False, False]  # learnt from, held out, and again


def test_a_broken_held_out_video_is_left_out_and_told_and_the_rest_is_evaluated(
    recipe: Callable[..., Path], instruct: Path, tmp_path: Path
):
    place = recipe(tables="[evaluation]\nshare = 0.4\nanswers = 9\n")
    kept_back = held_out_videos(place, tmp_path / "listed")
    kept_back[0].write_bytes(b"no video at all")
    run = train(place, tmp_path / "runs" / "a")
    told = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert {one["id"].split("#")[0] for one in told} == {kept_back[0].stem}
    losses = [one["eval_loss"] for one in json.loads((run / "run.json").read_text())["log"] if "eval_loss" in one]
    assert len(losses) == 3 and all(loss > 1 for loss in losses)
    answered = {json.loads(line)["id"].split("#")[0] for line in (run / "answers.jsonl").read_text().splitlines()}
    assert answered == {kept_back[1].stem}
    kept_back[1].write_bytes(b"no video at all")
    with pytest.raises(RecipeError, match=r"none of the 2 held-out samples can be used; .*skipped\.jsonl lists them"):
        train(place, tmp_path / "runs" / "b")


def held_out_videos(recipe: Path, folder: Path) -> list[Path]:
    plan = read_recipe(recipe)
    list_sets(plan.data, folder)
    (found,) = held_out(open_sets(plan.data, folder).groups, plan.evaluation)[1]
    return [Path(part["path"]) for group in found for part in media_parts(group.records[0].messages)]


@pytest.mark.parametrize("keep", ["features", "frames", "nothing"])
def test_a_video_that_is_gone_is_replaced_whatever_is_kept(
    instruct: Path, processor: Any, tmp_path: Path, keep: Keep
) -> None:
    held = groups(instruct)
    (instruct.parent / "videos" / "clip2.mp4").unlink()
    store = Store(tmp_path / "kept")
    data = Files([held], Mixture([Part(len(held))]), processor, frames=4, width=WIDTH, count=6, store=store, keep=keep)
    items = [data[number] for number in range(6)]
    skips = [skip for item in items for skip in item.skipped]
    assert all(item.rows for item in items) and {skip.sample.split("#")[0] for skip in skips} == {"clip2"}


@pytest.mark.parametrize("keep", ["features", "frames", "nothing"])
def test_a_picture_that_is_gone_is_replaced_whatever_is_kept(
    pictures: Path, processor: Any, tmp_path: Path, keep: Keep
) -> None:
    held, _ = gather(read("cc-sbu-align", pictures))
    (pictures.parent / "image" / "3.jpg").unlink()
    store = Store(tmp_path / "kept")
    data = Files([held], Mixture([Part(len(held))]), processor, frames=4, width=WIDTH, count=8, store=store, keep=keep)
    assert all(data[number].rows for number in range(8))


def test_a_set_in_which_nothing_can_be_read_ends_the_run_at_once(
    recipe: Callable[..., Path], instruct: Path, tmp_path: Path
):
    for video in instruct.parent.glob("videos/*.mp4"):
        video.write_bytes(b"nothing")
    with pytest.raises((DataError, RecipeError), match="cannot be used"):
        train(recipe(), tmp_path / "runs" / "a")


def test_a_data_set_on_disk_becomes_a_model_that_answers(recipe: Callable[..., Path], tmp_path: Path) -> None:
    tables = "[evaluation]\nshare = 0.4\nanswers = 2\n"
    made = train(recipe(tables=tables), tmp_path / "runs" / "stage3")

    video = tmp_path / "set" / "videos" / "clip1.mp4"
    assert VideoChat.from_pretrained(made).open(video).ask("What is seen?", max_new_tokens=3).plan.frames == 4
    told = json.loads((made / "run.json").read_text())
    assert [one["step"] for one in told["log"] if "eval_loss" in one] == [1, 2, 3]
    assert told["held_out"] and told["samples"] + told["held_out"] == 6 and told["parallel"] == "one process"
    answers = [json.loads(line) for line in (made / "answers.jsonl").read_text().splitlines()]
    assert {one["step"] for one in answers} == {1, 2, 3} and all(one["question"] and one["right"] for one in answers)
    card = (made / "README.md").read_text()
    assert "Held-out loss" in card.title() or "held-out loss" in card
    assert (made / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_checkpoint_with_the_lowest_held_out_loss_is_the_result(recipe: Callable[..., Path], tmp_path: Path):
    tables = "[evaluation]\nshare = 0.4\nanswers = 0\npatience = 2\n[optimizer]\nrate = 0.5\n"
    made = train(recipe(tables=tables, training="max_steps = 8"), tmp_path / "runs" / "wild")

    log = json.loads((made / "run.json").read_text())["log"]
    losses = {one["step"]: one["eval_loss"] for one in log if "eval_loss" in one}
    best = min(losses, key=losses.__getitem__)
    assert max(losses) == min(8, best + 2), losses  # patience
    checkpoint = load_file(made / f"checkpoint-{best}" / "adapter_model.safetensors")
    projection = next(value for name, value in checkpoint.items() if name.endswith("projector.linear.weight"))
    saved = load_file(made / "model.safetensors")["model.multi_modal_projector.linear.weight"]
    assert torch.equal(saved, projection)


def test_pictures_train_without_padding(pictures: Path, processor: Any, model: Any):
    held, flaws = gather(read("cc-sbu-align", pictures))
    batch = FilesCollator(processor, WIDTH)([files(held, processor)[number] for number in range(8)])

    assert not flaws and len(held) == 8 and len(batch["order"]) == 8
    used = int((batch["branch"] >= 0).sum())
    assert batch["input_ids"].numel() < 1.3 * used
    model.model.vision_tower.requires_grad_(False)
    assert_same_training(model, processor, batch, [group.records[0] for group in held])


def test_frames_are_normalised_as_the_processor_does(processor: Any):
    frames = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)
    mine = kept.normalised(torch.from_numpy(frames), processor.image_mean, processor.image_std)
    assert torch.equal(mine, processor.pixels(list(frames)))
