"""The plan: one row for every clip and request, the same on every machine, and nothing twice."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.errors import LabellingError, UserError
from minigpt4_video.labelling.cuts import joined, windows
from minigpt4_video.labelling.manifest import plan_rows, row_id, works, write_plan
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.sources import Source, collection

BRIEF = requests()


def planned(tmp_path: Path, sources, asked=BRIEF) -> list[dict]:
    folder = tmp_path / "plan"
    folder.mkdir()
    write_plan(folder, sources, asked)
    return [row for batch in plan_rows(folder) for row in batch]


def test_every_file_of_a_folder_has_a_row_for_every_request(mixed, tmp_path):
    rows = planned(tmp_path, collection(str(mixed)), requests(("brief", "tags"), ("en", "zh"), ["Who speaks?"]))

    files = sorted(file.relative_to(mixed).as_posix() for file in mixed.rglob("*") if file.is_file())
    assert len(files) == 8
    assert len(rows) == 5 * 8 == len({row["id"] for row in rows})
    assert {row["name"] for row in rows} == set(files)
    assert {row["name"] for row in rows if row["unfit"]} == {"good.srt", "notes.md"}
    assert [row["number"] for row in rows] == list(range(40))


def test_ids_and_order_do_not_depend_on_where_the_folder_lies(mixed, tmp_path):
    first = planned(tmp_path / "mixed", collection(str(mixed)))
    elsewhere = tmp_path / "elsewhere" / "deeper"
    elsewhere.parent.mkdir()
    (mixed / "plan").rename(tmp_path / "gone")
    mixed.rename(elsewhere)

    again = planned(tmp_path, collection(str(elsewhere)))

    assert [(row["id"], row["name"]) for row in again] == [(row["id"], row["name"]) for row in first]


def test_an_id_is_of_the_name_the_span_and_the_request():
    base = row_id(Source("a.mp4", "/x/a.mp4", 1.0, 2.0), BRIEF[0])

    assert base == row_id(Source("a.mp4", "/y/a.mp4", 1.0, 2.0), BRIEF[0])
    assert len(base) == 32
    others = [
        row_id(Source("b.mp4", "/x/a.mp4", 1.0, 2.0), BRIEF[0]),
        row_id(Source("a.mp4", "/x/a.mp4", 1.0, 2.001), BRIEF[0]),
        row_id(Source("a.mp4", "/x/a.mp4"), BRIEF[0]),
        row_id(Source("a.mp4", "/x/a.mp4", 1.0, 2.0), requests(("tags",))[0]),
        row_id(Source("a.mp4", "/x/a.mp4", 1.0, 2.0), BRIEF[0], again=1),
    ]
    assert len({base, *others}) == 6


def test_a_clip_that_is_named_twice_is_labelled_once_and_has_two_rows(tmp_path):
    same = Source("a.mp4", "/x/a.mp4")
    other_file = Source("a.mp4", "/x/other/a.mp4")

    rows = planned(tmp_path, [same, same, other_file])

    assert [bool(row["unfit"]) for row in rows] == [False, True, False]
    assert len({row["id"] for row in rows}) == 3


def test_a_table_gives_its_rows_and_its_faults(tmp_path):
    table = tmp_path / "videos.jsonl"
    lines = [
        {"id": "one", "video": "a.mp4", "start": 1, "end": "2.5", "subtitles": "off"},
        {"path": "b.mp4"},
        {"video": "c.mp4", "start": 3, "end": 2},
        {"caption": "no video"},
    ]
    table.write_text("\n".join(json.dumps(line) for line in lines) + "\nno json\n", encoding="utf-8")

    found = list(collection(str(table)))

    assert found[0] == Source("one", str(tmp_path / "a.mp4"), 1.0, 2.5, "off", file="a.mp4")
    assert found[1] == Source("b.mp4", str(tmp_path / "b.mp4"), file="b.mp4")
    assert [source.faulty for source in found] == [False, False, True, True, True]
    assert "ends before it starts" in found[2].unfit
    assert all(source.name.startswith("videos.jsonl line") for source in found[2:])


def test_a_table_may_have_its_videos_alone(tmp_path):
    for column in ("video", "path", "file_name"):
        (tmp_path / "videos.csv").write_text(f"{column}\na.mp4\nb.mp4\n")
        assert [source.name for source in collection(str(tmp_path / "videos.csv"))] == ["a.mp4", "b.mp4"]
    (tmp_path / "videos.csv").write_text("a.mp4\nb.mp4\n")
    with pytest.raises(UserError, match="names of its columns"):
        list(collection(str(tmp_path / "videos.csv")))


def test_subtitles_in_a_folder_that_no_encoding_can_say_are_found_again(tmp_path):
    source = Source("a.mp4", "/x/a.mp4", subtitles="/x\udcff/a.srt")
    planned(tmp_path, [source])

    assert next(works(tmp_path / "plan", [False])).source.subtitles == source.subtitles
    (tmp_path / "videos.jsonl").write_text('{"video": "a.mp4", "subtitles": "\\ud800"}')
    assert [found.faulty for found in collection(str(tmp_path / "videos.jsonl"))] == [True]


def test_a_folder_that_cannot_be_read_has_a_row(tmp_path, monkeypatch):
    for name in ("a", "shut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mp4").write_bytes(b"")
    listed = os.scandir

    def scandir(place):
        if Path(place).name == "shut":
            raise PermissionError(13, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)

    found = {source.name: source for source in collection(str(tmp_path))}

    assert list(found) == ["a/x.mp4", "shut"]
    assert (found["shut"].unfit, found["shut"].faulty) == ("cannot be read: Permission denied", True)
    (tmp_path / "a").rename(tmp_path / "shut" / "shut")
    with pytest.raises(LabellingError, match="cannot be read"):
        list(collection(str(tmp_path / "shut")))


def test_a_place_that_is_no_collection_is_refused(tmp_path, video):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "none", tmp_path / "empty", video):
        with pytest.raises(LabellingError):
            list(collection(str(place)))


def test_what_is_asked_twice_or_not_known_is_refused():
    for wrong in (
        {"styles": ("brief", "brief")},
        {"styles": ()},
        {"styles": ("epic",)},
        {"languages": ("fr",)},
        {"questions": ["Who?", "Who?"]},
        {"questions": [" "]},
    ):
        with pytest.raises(UserError):
            requests(**wrong)


def test_works_are_the_rows_that_are_left_by_clip(tmp_path):
    sources = [Source(f"{n}.mp4", f"/{n}.mp4") for n in range(3)]
    planned(tmp_path, sources, requests(("brief", "tags")))
    done = np.array([True, True, True, False, False, False])

    left = list(works(tmp_path / "plan", done))

    assert [work.source.name for work in left] == ["1.mp4", "2.mp4"]
    assert [[row.number for row in work.rows] for work in left] == [[3], [4, 5]]
    assert [row.request for row in left[1].rows] == [0, 1]


def test_names_that_no_encoding_can_say_are_planned_and_found_again(tmp_path):
    strange = Source("a\udcff.mp4", "/x/a\udcff.mp4")
    rows = planned(tmp_path, [strange])

    assert rows[0]["name"] == "a\\udcff.mp4"
    assert next(works(tmp_path / "plan", [False])).source.path == strange.path


@given(
    length=st.floats(0.1, 1000), window=st.floats(0.5, 100), least=st.floats(0, 50), begin=st.floats(0, 500),
)  # fmt: skip
def test_windows_cover_a_clip_without_gap_or_overlap(length, window, least, begin):
    whole = (begin, begin + length)
    found = list(windows(whole, window, least))

    assert (found[0][0], found[-1][1]) == whole
    assert all(one[1] == after[0] for one, after in pairwise(found))
    assert all(0 < end - start <= window + least + 1e-6 for start, end in found)


@given(begins=st.lists(st.floats(0, 100)), least=st.floats(0.1, 20))
def test_scenes_are_joined_until_none_is_too_short(begins, least):
    found = joined((0.0, 100.0), begins, least)

    assert (found[0][0], found[-1][1]) == (0.0, 100.0)
    assert all(one[1] == after[0] for one, after in pairwise(found))
    assert len(found) == 1 or all(end - start >= least - 1e-6 for start, end in found)
