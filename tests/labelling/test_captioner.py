"""Labels belong to their clips, whatever comes when, and one bad clip costs itself alone."""

import json
from concurrent.futures import Future
from pathlib import Path
from random import Random

import numpy as np
import pytest

import minigpt4_video as mv
from minigpt4_video.errors import MediaError
from minigpt4_video.inference.batching import BuiltIn
from minigpt4_video.inference.footage import Footage, Said
from minigpt4_video.labelling.captioner import Captioner, Settings
from minigpt4_video.labelling.manifest import Row, Work
from minigpt4_video.labelling.reading import Reading, Seen
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.signals import signals
from minigpt4_video.labelling.sources import Source
from minigpt4_video.media import Clip, VideoInfo

INFO = VideoInfo(4.0, 64, 64, 8.0, 32, 0, False, "h264", "mp4", False, ())


@pytest.fixture(scope="module")
def chat(random_model):
    return mv.VideoChat.from_pretrained(random_model)


def clip(number: int) -> Seen:
    frames = np.random.default_rng(number).integers(0, 255, (4, 56, 56, 3), np.uint8)
    footage = Footage(Path(f"{number}.mp4"), INFO, Clip(frames, np.arange(4.0), 4.0), [""] * 4, Said(), None)
    return Seen(footage, signals(frames))


def reading(number: int, asked: int = 1) -> Reading:
    rows = tuple(Row(number * asked + at, f"id-{number}-{at}", at) for at in range(asked))
    done: Future[Seen] = Future()
    done.set_result(clip(number))
    return Reading(Work(Source(f"{number}.mp4", f"{number}.mp4"), rows), done)


def told(labels) -> dict[str, tuple]:
    """What was said by row; how sure the model was tells clips apart that it says the same of."""
    return {
        label.id: (label.text, pytest.approx(label.confidence, abs=1e-4)) for of_clip in labels for label in of_clip
    }


def test_clips_in_any_order_and_company_have_the_labels_they_have_alone(chat):
    settings = Settings(requests(("brief", "tags")), max_new_tokens=6)
    alone = Captioner(chat, BuiltIn(chat, rows=1), settings)
    together = Captioner(chat, BuiltIn(chat, rows=3), settings)
    expected = told(alone.label(reading(number, 2) for number in range(9)))
    order = list(range(9))
    Random(1).shuffle(order)

    labels = list(together.label(reading(number, 2) for number in order))

    assert {label.id: (label.text, label.confidence) for of_clip in labels for label in of_clip} == expected
    assert len({round(sure.expected, 3) for _, sure in expected.values()}) > 12
    assert [of_clip[0].video for of_clip in labels] == [f"{number}.mp4" for number in order]
    for of_clip in labels:
        assert all(label.id.split("-")[1] == label.video.split(".")[0] for label in of_clip)


def test_a_clip_that_cannot_be_read_is_an_error_in_its_place(chat):
    captioner = Captioner(chat, BuiltIn(chat, rows=2), Settings(requests(), max_new_tokens=3))
    bad = reading(1)
    unread: Future[Seen] = Future()
    unread.set_exception(MediaError("1.mp4 is empty"))

    labels = list(captioner.label([reading(0), Reading(bad.work, unread), reading(2)]))

    assert [of_clip[0].status for of_clip in labels] == ["truncated", "error", "truncated"]
    assert (labels[1][0].stage, labels[1][0].error) == ("read", "1.mp4 is empty")


def test_a_clip_that_stops_the_engine_costs_itself_alone(chat):
    class Fragile(BuiltIn):
        def answer(self, asked):
            def checked():
                for request in asked:
                    if "13" in request.questions[0].text:
                        raise RuntimeError("out of memory")
                    yield request

            yield from super().answer(checked())

    settings = Settings(requests((), questions=["Is it 13?", "Is it 2?"]), max_new_tokens=3)
    works = [reading(number) for number in range(6)]
    works = [
        one._replace(work=one.work._replace(rows=(one.work.rows[0]._replace(request=int(number != 3)),)))
        for number, one in enumerate(works)
    ]

    labels = list(Captioner(chat, Fragile(chat, rows=2), settings).label(works))

    assert [of_clip[0].video for of_clip in labels] == [f"{number}.mp4" for number in range(6)]
    assert [of_clip[0].status for of_clip in labels] == ["truncated"] * 3 + ["error"] + ["truncated"] * 2
    assert "out of memory" in labels[3][0].error


class Scripted:
    """An engine whose answers are known."""

    def __init__(self, chat, text):
        self.inner, self.text = BuiltIn(chat), text

    def answer(self, asked):
        from dataclasses import replace

        for reply in self.inner.answer(asked):
            yield replace(reply, answers=tuple(replace(one, text=self.text, cut_off=False) for one in reply.answers))


SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["subject", "count"],
}


def test_an_object_is_kept_as_json_and_a_bad_one_is_asked_for_again(chat):
    settings = Settings(requests((), schemas={"scene": SCHEMA}), max_new_tokens=3)
    good = next(Captioner(chat, Scripted(chat, "{'subject': 'dog', 'count': 'two'}"), settings).label([reading(0)]))
    poor = next(Captioner(chat, Scripted(chat, '{"count": 1, "subject":'), settings).label([reading(0)]))
    bad = next(Captioner(chat, Scripted(chat, "A dog"), settings).label([reading(0)]))

    assert json.loads(good[0].data) == {"subject": "dog", "count": 2}
    assert good[0].status == "success" and good[0].notes == []
    assert json.loads(poor[0].data)["count"] == 1
    assert "asked again: subject" in poor[0].notes
    assert (bad[0].status, bad[0].stage, bad[0].data) == ("error", "check", "")
    assert "count" in bad[0].error


def test_an_object_of_the_embedded_model_comes_from_questions_for_its_fields(embedded, tmp_path):
    from minigpt4_video.data.world import files
    from minigpt4_video.labelling.label import Order, label

    files.render(tmp_path / "world", count=2, language="en")
    (tmp_path / "world" / "questions.jsonl").unlink()
    schema = {
        "type": "object",
        "properties": {"objects": {"type": "integer", "description": "How many objects are there?"}},
        "required": ["objects"],
    }
    label(Order(str(tmp_path / "world"), tmp_path / "out", requests((), schemas={"scene": schema})))

    rows = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["video"].endswith(".mp4")]
    assert [row["status"] for row in rows] == ["success", "success"]
    assert all(json.loads(row["data"])["objects"] in (1, 2, 3) for row in rows)


@pytest.mark.slow
def test_five_hundred_known_clips_in_shuffled_order_have_their_own_captions(embedded):
    from minigpt4_video.data.world import language
    from minigpt4_video.data.world.render import render
    from minigpt4_video.data.world.scene import GLANCES, make_scene
    from minigpt4_video.evaluation.scoring import normalised

    scenes = {number: make_scene(number, "train", "en") for number in range(500)}

    def seen(number: int) -> Reading:
        frames = render(scenes[number], GLANCES, 64)
        shown = Clip(frames, np.array(GLANCES) * scenes[number].seconds, scenes[number].seconds)
        footage = Footage(Path(f"{number}.mp4"), INFO, shown, [""] * len(GLANCES), Said(), None)
        done: Future[Seen] = Future()
        done.set_result(Seen(footage, signals(frames)))
        return Reading(Work(Source(f"{number}.mp4", ""), (Row(number, str(number), 0),)), done)

    order = list(scenes)
    Random(7).shuffle(order)
    chat = mv.VideoChat.from_pretrained("tiny")
    labels = [
        label
        for of_clip in Captioner(chat, BuiltIn(chat, rows=8), Settings(requests())).label(map(seen, order))
        for label in of_clip
    ]

    assert [label.number for label in labels] == order
    texts = {number: normalised(language.caption(scene, "brief", "en")) for number, scene in scenes.items()}
    right = [label.number for label in labels if normalised(label.text) == texts[label.number]]
    assert len(right) > 450
    # A caption that is wrong is nearly right: no clip has the caption of another.
    shifted = sum(normalised(labels[at].text) == texts[order[at - 1]] for at in range(500))
    assert shifted < 25
