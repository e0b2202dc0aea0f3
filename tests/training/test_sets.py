"""Sets as a run lists them: on disk, gathered as in memory, drawn by language, and held out by what they show."""

import json
import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from minigpt4_video.data.formats import read
from minigpt4_video.data.mixture import Mixture
from minigpt4_video.data.sample import Record
from minigpt4_video.errors import DataError, RecipeError
from minigpt4_video.messages import media_parts
from minigpt4_video.training import sets as listing
from minigpt4_video.training.recipe import DataSet, Evaluation
from minigpt4_video.training.sets import Groups, Listed, Sets, gather, held_out, list_sets, open_sets, parts_of
from minigpt4_video.training.train import train

ROW = {"en": ("what happens?", "a red kite"), "zh": ("发生了什么？", "一只风筝")}


def instruct(folder: Path, said: Sequence[tuple[str, str]], name: str = "set.json") -> DataSet:
    """A set in the form of VideoInstruct, of videos and the languages in which each is asked about."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"video_id": video, "q": ROW[language][0], "a": ROW[language][1]} for video, language in said]
    (folder / name).write_text(json.dumps(rows))
    return DataSet("videoinstruct-100k", str(folder / name))


def listed(folder: Path, *sets: DataSet) -> Sets:
    list_sets(sets, folder)
    return open_sets(sets, folder)


def names(groups: Groups) -> list[str]:
    """The file that each group shows."""
    parts = [next(media_parts(groups[number].records[0].messages)) for number in range(len(groups))]
    return [Path(part["path"]).name for part in parts]


def records(groups: Groups) -> list[tuple[Record, ...]]:
    return [groups[number].records for number in range(len(groups))]


def test_groups_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    said = [("b", "en"), ("a", "zh"), ("b", "zh"), ("ç\udce9", "en"), ("a", "zh"), ("b", "en")]
    one = instruct(tmp_path / "set", said)
    (tmp_path / "talks.jsonl").write_text(
        "".join(json.dumps({"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "yes"}]})
                + "\n" for n in range(3)) + "no json\n")  # fmt: skip
    other = DataSet("llava", str(tmp_path / "talks.jsonl"))
    found = listed(tmp_path / "records", one, other)

    expected, flaws = gather(read(one.format, Path(one.path)))
    assert records(found.groups[0]) == [group.records for group in expected]
    assert [len(group) for group in records(found.groups[0])] == [3, 2]
    assert found.groups[0].records == 5 and len(found.groups[1]) == 3  # words alone are nothing to share
    assert found.flawed == 1 + len(flaws) and found.rows == 10
    assert found.first is not None and "Unicode" in found.first.reason
    told = [json.loads(line) for line in (tmp_path / "records" / "unusable.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in told][-1].startswith("is not JSON") and len(told) == 2


def test_what_was_listed_stays_until_another_set_is_asked_for(tmp_path: Path) -> None:
    one = instruct(tmp_path / "set", [("a", "en"), ("b", "en")])
    before = records(listed(tmp_path / "records", one).groups[0])
    instruct(tmp_path / "set", [("c", "en"), ("a", "en"), ("b", "en")])
    assert records(listed(tmp_path / "records", one).groups[0]) == before
    other = DataSet(one.format, one.path, rows=2)
    assert names(listed(tmp_path / "records", other).groups[0]) == ["c.mp4", "a.mp4"]


def test_a_listing_that_was_interrupted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = instruct(tmp_path / "set", [("a", "en"), ("b", "en")])

    def interrupted(*given: object, **more: object) -> Iterator[Record]:
        yield next(iter(gather(read("videoinstruct-100k", Path(one.path)))[0])).records[0]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(listing, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list_sets([one], tmp_path / "records")
    assert list(tmp_path.glob("records*")) == []
    (tmp_path / "records.part").mkdir()  # as a kill leaves it
    assert len(listed(tmp_path / "records", one).groups[0]) == 2
    empty = instruct(tmp_path / "set", [], "empty.json")
    with pytest.raises(DataError, match="has nothing to train on"):
        list_sets([empty], tmp_path / "others")
    assert not (tmp_path / "others").exists()


def test_a_large_set_is_not_held_in_memory(tmp_path: Path) -> None:
    rows = 20_000
    lines = (
        json.dumps({"video": f"v{n % 7000:05}.mp4", "conversations": [
            {"from": "human", "value": "<video>\nWhat is it that happens in this video?"},
            {"from": "gpt", "value": f"Somebody walks over a bridge for the {n}th time, and it begins to rain."}]})
        for n in range(rows)
    )  # fmt: skip
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    one = DataSet("llava", str(tmp_path / "set.jsonl"))
    list_sets([DataSet("llava", one.path, rows=100)], tmp_path / "few")  # what is loaded once does not count
    tracemalloc.start()
    found = listed(tmp_path / "records", one)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / rows < 800  # a record itself takes some 1,500 bytes
    assert len(found.groups[0]) == 7000 and found.groups[0].records == rows
    assert [len(group.records) for group in (found.groups[0][0], found.groups[0][6999])] == [3, 2]


def test_languages_of_a_set_are_drawn_by_weight(tmp_path: Path) -> None:
    said = [(f"v{n}", "en") for n in range(9)] + [("v0", "zh"), ("v1", "zh"), ("v1", "zh")]
    one = instruct(tmp_path / "set", said)
    weighted = DataSet(one.format, one.path, languages={"en": 1, "zh": 3}, weight=2)
    found = listed(tmp_path / "records", weighted)
    parts = parts_of(weighted, found.groups[0])

    assert [(len(groups), part.weight) for groups, part in parts] == [(9, 0.5), (2, 1.5)]
    mixture = Mixture([part for _, part in parts])
    drawn = [mixture[n] for n in range(40)]
    spoken = [parts[draw.part][0][draw.item].records for draw in drawn]
    assert sum(group[0].language == "zh" for group in spoken) == 30
    assert all(len({record.language for record in group}) == 1 for group in spoken)
    only = DataSet(one.format, one.path, languages={"zh": 1})
    assert names(listed(tmp_path / "chinese", only).groups[0]) == ["v0.mp4", "v1.mp4"]
    wrong = DataSet(one.format, one.path, languages={"zh": 1, "fr": 1})
    with pytest.raises(RecipeError, match="nothing in the language fr; it has zh"):
        parts_of(wrong, listed(tmp_path / "french", wrong).groups[0])


def test_held_out_videos_are_on_one_side_only_in_all_sets(tmp_path: Path) -> None:
    english = instruct(tmp_path / "set", [(f"v{n}", "en") for n in range(30)])
    chinese = instruct(tmp_path / "elsewhere", [(f"v{n}", "zh") for n in (29, 3, 4, 5, 28, 7, 8, 9, 10)], "zh.json")
    found = listed(tmp_path / "records", english, chinese)
    trained, kept = held_out(found.groups, Evaluation(share=0.25))

    sides = [{name for groups in side for name in names(groups)} for side in (trained, kept)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert sum(map(len, trained)) + sum(map(len, kept)) == 39 and 8 <= sum(map(len, kept)) <= 12
    again = listed(
        tmp_path / "again", chinese, instruct(tmp_path / "moved", [(f"v{n}", "en") for n in range(30)][::-1])
    )
    assert {name for groups in held_out(again.groups, Evaluation(share=0.25))[1] for name in names(groups)} == sides[1]
    assert sum(map(len, held_out(found.groups, Evaluation(share=0.25, most=3))[1])) <= 4
    assert held_out(found.groups, Evaluation())[1] == []


def test_spans_of_a_video_are_held_out_together(tmp_path: Path) -> None:
    lines = [
        {
            "YoutubeID": f"v{n % 5}",
            "Start_timestamp": f"0:{n:02}",
            "End_timestamp": f"0:{n + 1:02}",
            "Caption": "a kite",
        }
        for n in range(40)
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    one = DataSet("internvid", str(tmp_path / "set.jsonl"))
    (trained,), (kept,) = held_out(listed(tmp_path / "records", one).groups, Evaluation(share=0.05))
    assert len(kept) == 8 and len(set(names(kept))) == 1 and not set(names(kept)) & set(names(trained))
    alone = DataSet("internvid", str(tmp_path / "set.jsonl"), rows=1)
    with pytest.raises(RecipeError, match=r"keeps back all of data\[0\]"):
        held_out(listed(tmp_path / "one", alone).groups, Evaluation(share=0.05))


def test_digests_that_share_a_half_are_two_things() -> None:
    high, low = (np.array(half, np.uint64) for half in ([7, 5, 7, 5, 7], [1, 1, 2, 1, 1]))
    order, first = listing._grouped(high, low)
    assert [sorted(order[a:b]) for a, b in pairwise(first)] == [[0, 4], [1, 3], [2]]


def test_rows_that_cannot_be_used_are_listed_beside_the_run(
    recipe: Callable[..., Path], instruct: Path, tmp_path: Path
) -> None:
    rows = json.loads(instruct.read_text())
    instruct.write_text(
        json.dumps([*rows, {"video_id": "clip1", "q": "no answer"}, {"video_id": "gone", "q": "?", "a": "!"}])
    )
    made = train(recipe(training="max_steps = 1"), tmp_path / "runs" / "a")
    told = [json.loads(line) for line in (made / "unusable.jsonl").read_text().splitlines()]
    assert [one["reason"].split(" ")[0] for one in told] == ["lacks", "video"] and "row 17" in told[0]["id"]
    assert json.loads((made / "run.json").read_text())["unusable"] == 2
    assert "| Rows that could not be used | 2 |" in (made / "README.md").read_text()
    assert not (made / "records").exists()  # 300 bytes a record, of no use once the run is over
    instruct.write_text(json.dumps([*rows, *({"video_id": "gone", "q": "?", "a": str(n)} for n in range(5))]))
    with pytest.raises(RecipeError, match=r"5 of 21 rows cannot be used, .* the first: instruct.json row 17"):
        train(recipe(), tmp_path / "runs" / "b")


def test_listed_groups_can_be_opened_in_another_process(tmp_path: Path) -> None:
    one = instruct(tmp_path / "set", [("a", "en"), ("b", "en")])
    groups = listed(tmp_path / "records", one).groups[0]
    again: Listed = pickle.loads(pickle.dumps(groups))
    assert records(again) == records(groups)
