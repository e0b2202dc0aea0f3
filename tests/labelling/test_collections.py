"""What can be labelled, and in which forms labels come out."""

import csv
import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path

import pytest

from making import write_video
from minigpt4_video.errors import LabellingError
from minigpt4_video.labelling.browse import rows_where
from minigpt4_video.labelling.cuts import Cutting, cut
from minigpt4_video.labelling.export import cut_out
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.label import Order, export, foresee, label
from minigpt4_video.labelling.reading import Form, Reader
from minigpt4_video.labelling.requests import requests
from minigpt4_video.labelling.sources import Source, collection
from minigpt4_video.media import Limits, probe, read_clip


@pytest.fixture
def reader():
    made = Reader(Form(4, 56, 256, 16, 4), Limits(seconds=60))
    yield made
    made.close()


@pytest.fixture
def shard(tmp_path: Path, video: Path) -> Path:
    place = tmp_path / "shards" / "00000.tar"
    place.parent.mkdir()
    meta = tmp_path / "meta.json"
    meta.write_text('{"key": "000000", "status": "success"}')
    with tarfile.open(place, "w") as archive:
        archive.add(video, "000000.mp4")
        archive.add(meta, "000000.json")
        archive.add(video, "000001.mp4")
    return place


def test_shards_need_no_captions_and_their_videos_can_be_read(shard, reader):
    found = list(collection(str(shard.parent)))

    assert [(source.name, source.unfit) for source in found] == [("000000", ""), ("000001", "")]
    with at_hand(found[1]) as (source, path):
        assert reader.read(source, path).footage.clip.frames.shape == (4, 56, 56, 3)
    assert list(collection(str(shard))) == found


def test_a_folder_with_a_card_is_read_by_its_card(tmp_path, video):
    (tmp_path / "metadata.csv").write_text("file_name,text\nclip.mp4,old words\nmissing.mp4,\n")

    found = list(collection(str(tmp_path)))

    assert [source.name for source in found] == ["clip.mp4", "missing.mp4"]
    assert found[0].path == str(video)


def test_published_sets_of_clips_need_no_texts(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    write_video(media / "vid.mp4")
    vila = tmp_path / "part.jsonl"
    clips = [{"clip_id": "vid.0.mp4", "span": ["00:00:00.000", "00:00:01.000"]}]
    vila.write_text(json.dumps({"video_id": "vid", "url": "x", "clip": clips}))
    panda = tmp_path / "panda.csv"
    header = "videoID,url,timestamp,caption,matching_score"
    cells = ["[['0:00:00.500', '0:00:01.500']]", "['A man''s dog']", "[0.5]"]
    panda.write_text(header + "\nvid,x," + ",".join(f'"{cell}"' for cell in cells) + "\n")
    intern = tmp_path / "intern.jsonl"
    row = {"YoutubeID": "vid", "Start_timestamp": "00:00:00.000", "End_timestamp": "00:00:01.500", "Caption": "a"}
    intern.write_text(json.dumps(row) + "\n" + json.dumps(row | {"YoutubeID": "gone"}))

    spans = {}
    for form, place in (("hd-vila-100m", vila), ("panda-70m", panda), ("internvid", intern)):
        spans[form] = [(s.path, s.start, s.end, bool(s.faulty)) for s in collection(str(place), form, media)]

    path = str(media / "vid.mp4")
    assert spans["hd-vila-100m"] == [(path, 0.0, 1.0, False)]
    assert spans["panda-70m"] == [(path, 0.5, 1.5, False)]
    assert spans["internvid"] == [(path, 0.0, 1.5, False), ("", None, None, True)]


def test_an_object_store_is_a_folder_with_its_subtitles(subtitled, reader):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in (subtitled, subtitled.with_suffix(".srt")):
        store.pipe(f"/bucket/inner/{name.name}", name.read_bytes())

    found = list(collection("memory://bucket"))

    assert [source.name for source in found] == ["inner/clip.mp4", "inner/clip.srt"]
    with at_hand(found[0]) as (source, path):
        seen = reader.read(source, path)
    assert seen.footage.clip.frames.shape == (4, 56, 56, 3)
    assert any("hello" in text for text in seen.footage.texts)
    assert not path.exists()


@pytest.mark.parametrize("address", ["https://example.org/videos", "http://example.org/a.mp4", "nonsense://x"])
def test_links_and_unknown_stores_are_refused(address):
    with pytest.raises(LabellingError):
        list(collection(address))


def test_videos_are_cut_into_windows(video, reader):
    sources = [Source("clip.mp4", str(video)), Source("broken", "/no/such/file"), Source("x", "", unfit="a text")]

    found = list(cut(sources, Cutting(window=0.8, least=0.3), reader))

    assert [(source.start, source.end) for source in found if source.name == "clip.mp4"] == [
        (0.0, 0.8), (0.8, 1.6), (1.6, 2.0),
    ]  # fmt: skip
    assert [source.name for source in found][3:] == ["broken", "x"]


def test_videos_are_cut_where_their_scenes_change(tmp_path, reader):
    pytest.importorskip("scenedetect")
    import av
    import numpy as np

    place = tmp_path / "scenes.mp4"
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(80):
            picture = np.full((64, 64, 3), (200, 30, 30) if index < 40 else (20, 40, 220), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())

    found = list(cut([Source("scenes.mp4", str(place))], Cutting(scenes=True), reader))

    assert [(source.start, source.end) for source in found] == [(0.0, 4.0), (4.0, 8.0)]


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory, embedded_model) -> Path:
    output = tmp_path_factory.mktemp("labels") / "out"
    label(Order(str(world), output, requests(("brief", "tags"))))
    return output


@pytest.fixture(scope="module")
def embedded_model() -> None:
    from minigpt4_video.model.presets import EMBEDDED

    if not (EMBEDDED / "tiny" / "model.safetensors").is_file():
        pytest.skip("the embedded model is missing")


def test_the_summary_tells_what_came_out_and_cannot_be_led_astray(finished, world):
    told = json.loads((finished / "summary.json").read_text())
    page = (finished / "summary.html").read_text()

    assert told["rows"] == sum(told["statuses"].values()) == sum(1 for _ in rows_where(finished))
    assert told["statuses"]["success"] == sum(told["words"].values()) == 16
    assert page.count("data:image/jpeg") == 16
    assert "default-src 'none'" in page


def test_rows_are_found_by_a_query_that_sees_nothing_else(finished):
    sure = list(rows_where(finished, "status = 'success' AND confidence > -1 ORDER BY confidence DESC LIMIT 3"))

    assert len(sure) == 3
    assert sure[0]["confidence"] >= sure[1]["confidence"] >= sure[2]["confidence"]
    for wrong in (
        "no_such_column = 1",
        "1=1; DROP TABLE labels",
        "id IN (SELECT content FROM read_text('/etc/passwd'))",
    ):
        with pytest.raises(LabellingError):
            list(rows_where(finished, wrong))


def test_the_table_of_open_sora_names_files_and_texts(finished):
    assert export(finished, "open-sora") == 8

    rows = list(csv.DictReader((finished / "open-sora.csv").open(encoding="utf-8")))
    assert len(rows) == 8
    assert all(Path(row["path"]).is_file() and row["text"] for row in rows)
    assert all(int(row["num_frames"]) == probe(row["path"]).frames for row in rows)


def test_a_video_folder_has_its_card_and_can_be_labelled_again(finished):
    folder = finished / "videofolder"
    (folder / "videos").mkdir(parents=True)
    for name in (f"{'0' * 32}.mp4", "mine.mp4"):
        (folder / "videos" / name).write_bytes(b"of an earlier export")

    export(finished, "videofolder", "confidence > -100")

    assert (folder / "videos" / "mine.mp4").is_file()
    assert sum(1 for _ in (folder / "videos").iterdir()) == 8 + 1
    assert "not corrected" in (folder / "README.md").read_text()
    found = list(collection(str(folder)))
    assert len(found) == 8
    assert all(Path(source.path).is_file() for source in found)


def test_a_webdataset_is_read_with_its_captions(finished):
    from minigpt4_video.data.formats import read
    from minigpt4_video.data.sample import Record

    export(finished, "webdataset")

    records = [row for row in read("video2dataset", finished / "webdataset") if isinstance(row, Record)]
    texts = {row["id"]: row["text"] for row in rows_where(finished, "style = 'brief' AND status = 'success'")}
    assert {record.id: record.messages[1]["content"] for record in records} == texts


def test_a_smaller_webdataset_takes_the_place_of_a_larger_one(finished, monkeypatch):
    folder = finished / "webdataset"
    monkeypatch.setattr("minigpt4_video.labelling.export.CLIPS_A_SHARD", 3)
    export(finished, "webdataset")
    assert sorted(file.name for file in folder.iterdir()) == ["00000.tar", "00001.tar", "00002.tar"]
    (folder / "mine.tar").write_bytes(b"")

    one = next(row["id"] for row in rows_where(finished, "status = 'success'"))
    assert export(finished, "webdataset", f"id = '{one}'") == 1

    assert sorted(file.name for file in folder.iterdir()) == ["00000.tar", "mine.tar"]
    with tarfile.open(folder / "00000.tar") as archive:
        assert {Path(name).stem for name in archive.getnames()} == {one}
    (folder / "mine.tar").unlink()


def test_labels_can_be_trained_on(finished, world):
    from minigpt4_video.data.formats import read
    from minigpt4_video.data.sample import Record

    export(finished, "messages")
    conversations = [row for row in read("llava", finished / "messages.jsonl", media=world) if isinstance(row, Record)]
    rows = [row for row in read("labels", finished / "labels.parquet", media=world) if isinstance(row, Record)]

    assert len(conversations) == 8
    assert [message["role"] for message in conversations[0].messages] == ["user", "assistant"] * 2
    assert len(rows) == 16
    said = {row["id"]: (row["prompt"], row["text"]) for row in rows_where(finished, "status = 'success'")}
    for record in rows:
        prompt, text = said[record.id]
        assert record.messages[0]["content"][1]["text"] == prompt
        assert record.messages[1]["content"] == text


def test_labels_of_a_table_with_ids_can_be_trained_on(world, tmp_path, embedded_model):
    from minigpt4_video.data.formats import read

    first, second = sorted(world.glob("*.mp4"))[:2]
    table = tmp_path / "videos.csv"
    table.write_text(f"id,video\none,{first.name}\ntwo,{second.name}\n")
    output = tmp_path / "out"
    label(Order(str(table), output, media=world))
    export(output, "messages")

    rows = [(row["video"], row["file"]) for row in rows_where(output)]
    assert rows == [("one", first.name), ("two", second.name)]
    for form, place in (("labels", "labels.parquet"), ("llava", "messages.jsonl")):
        records = list(read(form, output / place, media=world))
        assert [record.messages[0]["content"][0]["path"] for record in records] == [str(first), str(second)]


def test_sources_name_their_files_from_the_folder_of_the_videos(tmp_path, video, shard):
    (tmp_path / "inner").mkdir()
    shutil.copy(video, tmp_path / "inner" / "vid.mp4")
    part = tmp_path / "part.jsonl"
    clips = [{"clip_id": "vid.0.mp4", "span": ["00:00:00.000", "00:00:01.000"]}]
    part.write_text(json.dumps({"video_id": "vid", "url": "x", "clip": clips}))

    assert [source.file for source in collection(str(tmp_path / "inner"))] == ["vid.mp4"]
    assert [source.file for source in collection(str(part), "hd-vila-100m", tmp_path / "inner")] == ["vid.mp4"]
    assert all(source.file.startswith("00000.tar:") for source in collection(str(shard.parent)))


def test_a_job_that_an_older_version_began_without_files_goes_on(world, tmp_path, embedded_model):
    import pyarrow.parquet as pq

    output = tmp_path / "out"
    order = Order(str(world), output, keep_every=0)
    label(order)
    before = [row["text"] for row in rows_where(output)]
    for place in (*(output / "plan").iterdir(), *(output / "rows").iterdir()):
        table = pq.read_table(place)
        pq.write_table(table.drop_columns([name for name in ("file", "size") if name in table.column_names]), place)
    sorted((output / "rows").iterdir())[0].unlink()

    label(order)

    assert [row["text"] for row in rows_where(output)] == before
    export(output, "messages")
    assert "file" not in pq.read_schema(next((output / "plan").iterdir())).names


def test_videos_of_one_name_are_exported_as_clips_of_their_own(world, tmp_path, embedded_model):
    first, second = sorted(world.glob("*.mp4"))[:2]
    table = tmp_path / "videos.csv"
    table.write_text(f"id,video\nx,{first}\nx,{second}\n")
    label(Order(str(table), tmp_path / "out", requests(("brief", "tags"))))

    assert export(tmp_path / "out", "videofolder") == 2

    folder = tmp_path / "out" / "videofolder"
    written = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [(folder / one["file_name"]).read_bytes() for one in written] == [first.read_bytes(), second.read_bytes()]
    assert [len(one["labels"]) for one in written] == [2, 2]


def test_a_part_of_a_video_is_exported_as_that_part(tmp_path, video, random_model):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(video, folder / "clip.mp4")
    output = tmp_path / "out"
    order = Order(str(folder), output, cutting=Cutting(window=1.0, least=0.2), model=str(random_model), max_alike=1)
    label(order)
    rows = list(rows_where(output))
    assert [(row["start"], row["end"]) for row in rows] == [(0.0, 1.0), (1.0, 2.0)]
    if any(row["status"] != "success" for row in rows):
        pytest.skip("the random model did not come to an end")

    export(output, "open-sora")

    paths = [row["path"] for row in csv.DictReader((output / "open-sora.csv").open())]
    assert [probe(path).frames for path in paths] == [8, 8]
    with pytest.raises(LabellingError, match="whole videos"):
        export(output, "messages")


def test_a_part_of_a_turned_video_is_upright_with_its_times_and_its_pixels(tmp_path):
    import av

    from numbered import write_video as write_numbered

    ticks = [0, 1, 2, 5, 9, 10, 11, 20, 21, 30]
    turned = write_numbered(tmp_path / "turned.mp4", ticks, rotation=90, **{"x264-params": "sar=4/3"})
    place = tmp_path / "part.mp4"

    cut_out(turned, 5 / 25, 21 / 25, place)

    whole, part = probe(turned), probe(place)
    assert (part.width, part.height, part.rotation) == (whole.width, whole.height, 0)
    with av.open(str(place)) as container:
        stream = container.streams.video[0]
        assert [round(25 * frame.time) for frame in container.decode(stream)] == [0, 4, 5, 6, 15]
        assert stream.sample_aspect_ratio == Fraction(3, 4)
    shown, cut = (read_clip(path, 1, start=start, end=end).frames for path, start, end in (
        (turned, 9 / 25, 10 / 25), (place, 4 / 25, 5 / 25),
    ))  # fmt: skip
    assert abs(shown.astype(int) - cut).mean() < 8


def test_a_dry_run_counts_and_measures_and_keeps_nothing(world, tmp_path, embedded_model):
    told = foresee(Order(str(world), tmp_path / "out", requests(("brief", "tags"))))

    assert told.clips * 2 == told.rows
    assert told.clips - told.unfit == 8
    assert told.hours == pytest.approx(sum(probe(path).duration for path in world.glob("*.mp4")) / 3600, rel=0.3)
    assert told.seconds_a_clip > 0
    assert not (tmp_path / "out").exists()
