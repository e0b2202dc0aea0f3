"""Video-ChatGPT's benchmark: long answers that a judge rates from 0 to 5, in five dimensions."""

from collections.abc import Iterator

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import Row, Unusable, each, table
from minigpt4_video.evaluation.items import Item, Items


def questions(place: Place) -> Items:
    """`generic_qa.json` and `temporal_qa.json`; the same question may be asked twice of a video."""
    counts: dict[str, int] = {}

    def convert(row: Row) -> Iterator[Item]:
        video, name = _video(place, row, counts)
        yield Item(name, place.shown_video(video), row.text("Q", "question"), row.text("A", "answer"))

    yield from each(table(place.path), convert)


def consistency(place: Place) -> Items:
    """`consistency_qa.json`: one thing asked in two ways, which gives two items, paired."""
    counts: dict[str, int] = {}

    def convert(row: Row) -> Iterator[Item]:
        first, second, answer = row.text("Q1"), row.text("Q2"), row.text("A")
        if first == second:
            raise Unusable("asks the same question twice", first)
        video, name = _video(place, row, counts)
        part = place.shown_video(video)
        yield Item(f"{name}/1", part, first, answer, pair=f"{name}/2")
        yield Item(f"{name}/2", part, second, answer, pair=f"{name}/1")

    yield from each(table(place.path), convert)


def _video(place: Place, row: Row, counts: dict[str, int]) -> tuple[str, str]:
    """The file and a name for the row: rows have none, so those about a video are counted."""
    name = row.name("video_name", "video_id")
    path = place.video(name)
    counts[name] = counts.get(name, 0) + 1
    return path, f"{name}#{counts[name]}"
