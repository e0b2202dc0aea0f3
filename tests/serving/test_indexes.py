"""Indexes of long videos are made one at a time, for each key its own, and nothing of them is left behind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from making import write_video
from minigpt4_video.inference import VideoChat
from minigpt4_video.serving import films
from minigpt4_video.serving.films import Indexing, Making
from minigpt4_video.serving.scheduler import Closing
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.watching import Wanted

WANTED = Wanted("off", 2)


@pytest.fixture
def service(random_model: Path) -> Iterator[Service]:
    service = Service(VideoChat.from_pretrained(random_model, device="cpu"))  # without a store
    yield service
    service.close()


def begun(service: Service, tenant: str, video: Path, digest: str) -> Making:
    """The making of an index that is not there."""
    with pytest.raises(Indexing) as told:
        service.films.open(tenant, video, digest, WANTED, service.see(tenant, video, WANTED, digest))
    return told.value.making


def test_without_a_store_an_index_is_not_told_to_another_key(service: Service, tmp_path: Path, monkeypatch):
    video = write_video(tmp_path / "video.mp4")
    made: list[Path] = []

    def make(chat: Any, path: Path, info: Any, said: Any, place: Path, **options: Any) -> None:
        (place / films.ABOUT).touch()
        made.append(place)

    monkeypatch.setattr(films, "make_index", make)
    begun(service, "one", video, "digest").done.result(60)
    begun(service, "another", video, "digest").done.result(60)

    assert len(set(made)) == 2


def test_videos_that_wait_to_be_indexed_leave_nothing_when_the_server_stops(
    service: Service, tmp_path: Path, monkeypatch
):
    video, going, go = write_video(tmp_path / "video.mp4"), Event(), Event()

    def make(*arguments: Any, **options: Any) -> None:
        going.set()
        assert go.wait(60)

    monkeypatch.setattr(films, "make_index", make)
    begun(service, "one", video, "warm")  # so that what is needed once is there
    assert going.wait(60)
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    waiting = [begun(service, "one", video, f"digest {number}") for number in range(3)]
    assert len(list(copies.rglob("video"))) == 3

    service.films.close()

    assert not list(copies.rglob("video"))
    for making in waiting:
        with pytest.raises(Closing):
            making.done.result(0)
    go.set()
