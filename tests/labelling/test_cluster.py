"""Jobs on Ray: the labels of one process, whatever dies on the way."""

import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from stand_in_captioner import ASKED, Slow, Told, killed, unloadable

from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.captioner import Settings
from minigpt4_video.labelling.cluster import (
    AT_ONCE,
    TRIES,
    Cluster,
    _Clips,
    _Flow,
    _Hand,
    _Pool,
    _Underway,
    labels_on_ray,
)
from minigpt4_video.labelling.label import Order, label
from minigpt4_video.labelling.manifest import Row, Work
from minigpt4_video.labelling.reading import Form
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.rows import Label
from minigpt4_video.labelling.sources import Source
from minigpt4_video.media import Limits

pytest.importorskip("ray")
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's name; niced actors starve on a busy machine)
SETTINGS = Settings(ASKED)
ONE = Cluster(captioners=1)


@pytest.fixture(scope="module")
def here() -> Iterator[Cluster]:
    """Ray on this machine, for all tests of this file."""
    import ray
    import stand_in_captioner

    from minigpt4_video.labelling.cluster import started

    ray.cloudpickle.register_pickle_by_value(stand_in_captioner)  # which actors cannot import
    cluster = Cluster(captioners=2)
    with started(cluster, readers=2):
        yield cluster


def rows_of(output: Path) -> list[dict]:
    """But for how long each took. What a row is computed beside changes its certainty by less than is kept here."""
    rows = map(json.loads, (output / "labels.jsonl").read_text(encoding="utf-8").splitlines())
    return [row | {"seconds": None, "confidence": pytest.approx(row["confidence"], abs=1e-5)} for row in rows]


def works(names: Iterable[str], video: Path) -> Iterator[Work]:
    for number, name in enumerate(names):
        yield Work(Source(name, str(video)), (Row(number, f"id-{name}", 0),))


def told(names: Iterable[Work], cluster: Cluster, make=Told, together: int | None = None) -> Iterator[list[Label]]:
    return labels_on_ray(
        names, cluster, make, SETTINGS, Form(4, 56, 256, 16, 4), Limits(seconds=60), readers=1, together=together
    )


def test_a_job_has_the_rows_that_it_has_in_one_process_and_either_goes_on_for_the_other(
    here, mixed, tmp_path, random_model
):
    order = partial(Order, str(mixed), model=str(random_model), max_new_tokens=4)
    label(order(output=tmp_path / "one"))

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(order(output=tmp_path / "ray"), stop)
    done = label(order(output=tmp_path / "ray", cluster=ONE, readers=2))

    assert done.done_before == 3  # two that were skipped, and one clip
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "one")
    with pytest.raises(LabellingError, match="another requests"):
        label(order(output=tmp_path / "ray", requests=requests(("tags",)), cluster=ONE))


@pytest.mark.slow
def test_a_clip_that_kills_its_captioner_is_an_error_and_costs_no_other(here, video):
    names = [f"{number}" for number in range(12)]
    names[3], names[8] = "deadly", "raising"

    labels = [label for of_clip in told(works(names, video), here) for label in of_clip]

    assert sorted(label.number for label in labels) == list(range(12))
    by_name = {label.video: label for label in labels}
    assert {name for name, one in by_name.items() if one.status == "error"} == {"deadly", "raising"}
    assert all(one.text == name for name, one in by_name.items() if one.status == "success")
    assert (by_name["deadly"].stage, by_name["raising"].stage) == ("caption", "caption")
    assert f"{TRIES} processes were lost" in by_name["deadly"].error
    assert "no such thing" in by_name["raising"].error


@pytest.mark.slow
def test_of_clips_that_go_together_only_the_deadly_one_is_lost(here, video):
    names = [f"{number}" for number in range(10)]
    names[5] = "deadly"

    labels = {one.video: one.status for of_clip in told(works(names, video), here, together=2) for one in of_clip}

    assert labels == {name: "error" if name == "deadly" else "success" for name in names}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_clip_is_not_blamed_for_what_died_while_it_waited(video, monkeypatch, order):
    import ray
    from ray.exceptions import RayActorError

    def dead(ref):
        raise RayActorError

    monkeypatch.setattr(ray, "get", dead)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    at, waiting = (_Clips([work]) for work in works(["at", "waiting"], video))
    hand = _Hand(actor=None, has=[at, waiting], is_ready=True)
    captions, reads = (_Pool(stage, None, (), 1) for stage in ("caption", "read"))
    captions.hands = [hand]
    flow = _Flow(iter(()), 1, captions, reads, SETTINGS)
    flow.underway = {number: _Underway(captions, hand, clips) for number, clips in enumerate((at, waiting))}
    assert [labels for number in order for labels in flow._took(number)] == []

    tries = {clips.works[0].source.name: clips.tries for clips in flow.again}
    assert tries == {"at": int(order == (0, 1)), "waiting": 0}
    assert captions.hands == []


@pytest.mark.slow
def test_no_more_is_read_than_captioners_will_soon_take(here, video):
    taken = 0

    def counted() -> Iterator[Work]:
        nonlocal taken
        for work in works(map(str, range(200)), video):
            taken += 1
            yield work

    labels = told(counted(), here, Slow)
    for done in range(1, 9):
        next(labels)
        assert taken <= done + 2 * AT_ONCE * here.captioners + 2
    labels.close()


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_an_error_with_its_reason(here, tmp_path):
    (broken := tmp_path / "broken.mp4").write_bytes(b"no video")

    ((label,),) = told(works(["broken.mp4"], broken), here)

    assert label.status == "error"
    assert "broken.mp4" in label.error


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_stops_the_job_with_its_reason(here, video, monkeypatch):
    with pytest.raises(LabellingError) as raised:
        list(told(works(["a"], video), ONE, unloadable))
    assert (type(raised.value), str(raised.value)) == (LabellingError, "the weights are not here")  # not in Ray's words
    monkeypatch.setattr("minigpt4_video.labelling.cluster.SETBACKS", 1)
    with pytest.raises(LabellingError, match="actors died"):
        list(told(works(["a"], video), ONE, killed))


class Elsewhere:
    """What an actor cannot have, for it would have to import what is not on its machine."""

    def __reduce__(self):
        return import_module, ("no_such_package",)


@pytest.mark.slow
def test_a_machine_that_lacks_what_this_one_has_is_told_of(here, video):
    with pytest.raises(LabellingError, match=r"cannot begin.*no_such_package"):
        list(told(works(["a"], video), ONE, Elsewhere()))


@pytest.mark.slow
def test_another_model_on_another_machine_is_refused(here, mixed, tmp_path, random_model, monkeypatch):
    monkeypatch.setattr("minigpt4_video.labelling.label.revision_of", lambda folder: "0123456789abcdef")

    with pytest.raises(LabellingError, match="has another model"):
        label(Order(str(mixed), tmp_path / "out", model=str(random_model), cluster=ONE))


@pytest.mark.slow
def test_actors_without_a_place_are_told_of(here, video, monkeypatch):
    monkeypatch.setattr("minigpt4_video.labelling.cluster.PATIENCE", 5.0)

    with pytest.raises(LabellingError, match="no place was found"):
        list(told(works(["a"], video), Cluster(captioners=9)))


def test_several_models_without_ray_are_refused_by_the_command(mixed, tmp_path, command):
    status, out, err = command("label", mixed, "--output", tmp_path / "out", "--captioners", 2)

    assert (status, out) == (2, "")
    assert "--ray" in err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody:here", "127.0.0.1:99999"])
def test_an_address_at_which_nobody_listens_is_refused_at_once(mixed, tmp_path, random_model, command, address):
    line = ["label", mixed, "--output", tmp_path / "out", "--model", random_model, "--ray", address]

    status, out, err = command(*line)

    assert (status, out) == (2, "")
    assert f"Ray at {address} cannot be joined" in err
