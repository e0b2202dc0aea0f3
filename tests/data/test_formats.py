"""Every format of data set to messages; every hostile row to one flaw."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sets import INTERNVID, SHAPES, VILA, Shape, panda, talk, write, write_tar
from making import SUBTITLES
from minigpt4_video.data.formats import FORMATS, read
from minigpt4_video.data.formats.rows import Row, each
from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import DataError
from minigpt4_video.messages import check_messages, media_parts, text_of

SHAPE_NAMES = [f"{shape.name} {shape.file}" for shape in SHAPES]


def named(shape_name: str) -> Shape:
    return SHAPES[SHAPE_NAMES.index(shape_name)]


def prepare(folder: Path, shape: Shape) -> None:
    """What must lie beside some sets."""
    if shape.name == "cc-sbu-align":
        (folder / "image").mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(folder / "image" / "2.jpg")
    if shape.name == "hd-vila-100m":
        for name in ("QwErTyUiOp1", "x"):
            (folder / f"{name}.srt").write_text(SUBTITLES)


def records(rows) -> list[Record]:
    return [row for row in rows if isinstance(row, Record)]


def flaws(rows) -> list[Flaw]:
    return [row for row in rows if isinstance(row, Flaw)]


def said(record: Record) -> list[str]:
    return [text_of(message) for message in record.messages]


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
def test_good_rows_become_valid_messages_and_no_flaw(shape, tmp_path):
    prepare(tmp_path, shape)
    rows = list(read(shape.name, write(tmp_path / shape.file, shape.good)))

    assert flaws(rows) == []
    assert len(records(rows)) >= len(shape.good)
    assert len({record.id for record in records(rows)}) == len(rows)
    for record in records(rows):
        assert record.source == shape.name
        assert record.messages[-1]["role"] == "assistant"
        check_messages(record.messages)
        assert json.loads(json.dumps(record)) == json.loads(json.dumps(tuple(record)))


@pytest.mark.parametrize(
    ("shape", "bad"),
    [(shape, bad) for shape in SHAPES for bad in shape.bad],
    ids=[f"{shape.name} {bad.problem} {number}" for shape in SHAPES for number, bad in enumerate(shape.bad)],
)
def test_a_hostile_row_is_one_flaw_and_its_neighbours_are_read(shape, bad, tmp_path):
    prepare(tmp_path, shape)
    alone = records(read(shape.name, write(tmp_path / shape.file, shape.good)))

    rows = list(read(shape.name, write(tmp_path / shape.file, [*shape.good, bad.row, *shape.good])))

    assert [flaw.problem for flaw in flaws(rows)] == [bad.problem]
    ids = [record.id for record in records(rows)]
    assert ids[: len(alone)] == [record.id for record in alone]
    assert ids[-len(alone) :] == [record.id for record in alone]
    flaw = flaws(rows)[0]
    assert flaw.where.startswith(shape.file) and flaw.detail.isprintable()


def test_many_hostile_rows_are_as_many_flaws(tmp_path):
    for shape in SHAPES:
        prepare(tmp_path, shape)
        mixed = [row for bad in shape.bad for row in (bad.row, shape.good[0])]
        rows = list(read(shape.name, write(tmp_path / shape.file, [shape.good[0], *mixed])))

        assert [flaw.problem for flaw in flaws(rows)] == [bad.problem for bad in shape.bad]


def test_webvid_captions_are_whole(tmp_path):
    name = 'Drone view - a lake: morning, with "mist"'
    rows = list(read("webvid", write(tmp_path / "r.csv", named("webvid results.csv").good)))

    assert said(rows[0])[1] == name
    assert said(rows[1])[1] == "two\nlines"


def test_a_quote_within_words_is_no_quotation(tmp_path):
    file = tmp_path / "w.csv"
    file.write_text('videoid,name\n1,a 5" screen\n2,plain\n')

    assert [said(row)[1] for row in read("webvid", file)] == ['a 5" screen', "plain"]


def test_panda_gives_a_record_for_each_clip_with_its_span(tmp_path):
    rows = list(read("panda-70m", write(tmp_path / "p.csv", [panda(clips=3)])))

    assert [row.id for row in rows] == [f"AbCdEfGhIj0.{n}" for n in range(3)]
    part = next(media_parts(rows[1].messages))
    assert (part["start"], part["end"]) == (80.88, 83.983)
    assert part["path"].endswith("AbCdEfGhIj0.mp4")
    assert said(rows[1])[1] == "A man's dog runs along the sand."
    assert [row.language for row in rows] == ["en", "en", "zh"]
    assert "视频" in said(rows[2])[0] or "片段" in said(rows[2])[0]


def test_panda_files_of_five_columns_are_read(tmp_path):
    old = {
        key: value for key, value in panda().items() if key not in ("desirable_filtering", "shot_boundary_detection")
    }

    assert len(records(read("panda-70m", write(tmp_path / "p.csv", [old])))) == 2


def test_a_clip_that_cannot_be_used_leaves_its_neighbours(tmp_path):
    rows = list(read("panda-70m", write(tmp_path / "p.csv", [panda(caption="['', 'A dog.']")])))

    assert [type(row) for row in rows] == [Record, Flaw]
    assert rows[1].detail == "1 of 2 clips, the first: "


def test_a_cell_longer_than_csv_allows_is_read(tmp_path):
    row = panda(clips=20_000)
    assert len(row["caption"]) > 131_072 * 4

    assert len(records(read("panda-70m", write(tmp_path / "p.csv", [row])))) == 20_000


def test_malicious_cells_are_not_run(tmp_path):
    owned = tmp_path / "owned"
    row = panda(caption=f"[__import__('pathlib').Path({str(owned)!r}).touch(), 'b']")

    assert flaws(read("panda-70m", write(tmp_path / "p.csv", [row])))
    assert not owned.exists()


def test_a_cut_clip_is_shown_whole_and_a_whole_video_by_its_span(tmp_path):
    set_ = write(tmp_path / "i.jsonl", [INTERNVID])
    media = tmp_path / "media"
    media.mkdir()
    (media / "ZxCvBnMaSd2.webm").touch()
    whole = next(media_parts(next(read("internvid", set_, media=media)).messages))
    (media / "ZxCvBnMaSd2_00:03:10.567_00:03:14.200.mp4").touch()
    cut = next(media_parts(next(read("internvid", set_, media=media)).messages))

    assert whole["path"].endswith("ZxCvBnMaSd2.webm") and (whole["start"], whole["end"]) == (190.567, 194.2)
    assert cut["path"].endswith("14.200.mp4") and "start" not in cut


@pytest.mark.parametrize("layout", ["QwErTyUiOp1.1.mp4", "QwErTyUiOp1/QwErTyUiOp1.1.mp4"])
def test_hd_vila_clips_are_found_where_its_script_cuts_them(layout, tmp_path):
    prepare(tmp_path, named("hd-vila-100m hdvila_part0.jsonl"))
    (tmp_path / layout).parent.mkdir(exist_ok=True)
    (tmp_path / layout).touch()
    (tmp_path / "QwErTyUiOp1.mp4").touch()

    rows = records(read("hd-vila-100m", write(tmp_path / "h.jsonl", [VILA]), media=tmp_path))

    assert [next(media_parts(row.messages)).get("start") for row in rows] == [0.0, None]


def test_hd_vila_is_told_by_its_subtitles_and_then_not_shown_them(tmp_path):
    prepare(tmp_path, named("hd-vila-100m hdvila_part0.jsonl"))
    rows = list(read("hd-vila-100m", write(tmp_path / "h.jsonl", [VILA])))

    assert [said(row)[1] for row in rows] == ["hello from the start", "we are nearly done"]
    assert all(next(media_parts(row.messages))["subtitles"] == "off" for row in rows)


def test_hd_vila_is_joined_with_captions(tmp_path):
    texts = write(
        tmp_path / "captions.jsonl",
        [
            {"clip_id": "QwErTyUiOp1.1.mp4", "caption": "A door closes."},
            {"clip_id": "QwErTyUiOp1.1.mp4", "caption": "Again."},
            {"clip_id": "other", "caption": 3},
        ],
    )
    rows = list(read("hd-vila-100m", write(tmp_path / "h.jsonl", [VILA]), texts=texts))

    assert [said(row)[1] for row in records(rows)] == ["A door closes."]
    assert [flaw.problem for flaw in flaws(rows)] == [
        "clip_id has a caption already",
        "caption is not a text",
        "a clip has no text",
    ]


@pytest.mark.parametrize("name", ["\ud800", "a\0b", 10**400, "n" * 300])
def test_captions_of_odd_names_are_flaws_of_their_rows(name, tmp_path):
    odd = {**VILA, "clip": [{**VILA["clip"][0], "clip_id": name}]}
    texts = write(
        tmp_path / "captions.jsonl",
        [{"clip_id": name, "caption": "x"}, {"clip_id": "QwErTyUiOp1.1.mp4", "caption": "A door closes."}],
    )
    good = {**VILA, "clip": VILA["clip"][1:]}
    rows = list(read("hd-vila-100m", write(tmp_path / "h.jsonl", [good, odd, good]), texts=texts))

    assert [said(row)[1] for row in records(rows) if row.id != name] == ["A door closes."] * 2


@pytest.mark.parametrize("error", [ValueError, TypeError, OverflowError, OSError, UnicodeEncodeError])
def test_a_value_that_nobody_thought_of_is_a_flaw_of_its_row(error):
    def convert(row: Row):
        yield "first"
        if row.where == "2":
            raise error(*(("utf-8", "\x1b", 0, 1, "no\n") if error is UnicodeEncodeError else ("no\n",)))

    made = list(each([Row("1", {}), Row("2", {}), Row("3", {})], convert))

    assert made == ["first", "first", Flaw("2", "has a value that cannot be used", made[2].detail), "first"]
    assert made[2].detail.startswith(error.__name__) and made[2].detail.isprintable()


def test_what_is_wrong_with_a_set_is_no_flaw_of_a_row():
    def convert(row: Row):
        raise DataError("gone")

    with pytest.raises(DataError):
        list(each([Row("1", {})], convert))


@pytest.mark.parametrize("deep", [200, 900, 5000])
def test_lists_in_lists_are_a_flaw_however_deep(deep, tmp_path):
    set_ = tmp_path / "c.jsonl"
    set_.write_text(f'{{"image_id": "a", "caption": {"[" * deep + "]" * deep}}}\n{{"image_id": "b", "caption": "x"}}\n')

    assert [type(row) for row in read("cmd", set_)] == [Flaw, Record]


def test_llava_variants_say_what_they_mean(tmp_path):
    shape = named("llava llava.jsonl")
    rows = list(read("llava", write(tmp_path / shape.file, shape.good)))
    kinds = [[part["type"] for message in row.messages for part in _parts(message)] for row in rows]

    assert kinds[0] == ["video", "text", "text", "text", "text"]
    assert kinds[1] == kinds[2] == ["video", "text", "text"]
    assert kinds[3] == ["image", "text", "text"]
    assert kinds[4] == ["text", "text"]
    assert [message["role"] for message in rows[5].messages] == ["system", "user", "assistant"]
    assert rows[6].language == "zh" and said(rows[6])[0] == "谁？"
    assert kinds[7] == ["text", "image", "text", "video", "text", "text"]
    assert said(rows[8]) == ["Look.\nWhat?", "A cat."]
    assert said(rows[9]) == ["When 1.5 s?", "From 1.5 s to 2 s."]
    assert (next(media_parts(rows[9].messages))["start"], next(media_parts(rows[9].messages))["end"]) == (1, 2.5)


def _parts(message):
    content = message["content"]
    return [{"type": "text"}] if isinstance(content, str) else content


def test_the_video_comes_before_the_question_on_whichever_side_it_was_written(tmp_path):
    shape = named("video-chatgpt video_chatgpt_training.json")
    rows = list(read("video-chatgpt", write(tmp_path / shape.file, shape.good)))

    for row, question in zip(rows, ["What happens?", "Where is it?"], strict=True):
        video, text = row.messages[0]["content"]
        assert video["path"].endswith("v_abc.mp4")
        assert text["text"] == question


@pytest.mark.parametrize(
    ("question", "kinds", "texts"),
    [
        ("A <image>\n <video> B", ["text", "image", "video", "text"], ["A", "B"]),
        (" A <image> B\t<video>\nC ", ["text", "image", "text", "video", "text"], [" A", "B", "C "]),
        ("<video><image>\u2003C", ["video", "image", "text"], ["C"]),
    ],
)
def test_media_stay_where_they_are_written_without_the_spaces_around_them(question, kinds, texts, tmp_path):
    row = talk(question, "Yes.", "And <s0>?", "No.", image="a.jpg", video="b.mp4", meta={"token": {"<s0>": 3}})
    record = next(read("llava", write(tmp_path / "a.json", [row])))
    parts = record.messages[0]["content"]

    assert [part["type"] for part in parts] == kinds
    assert [part["text"] for part in parts if part["type"] == "text"] == texts
    assert said(record)[2] == "And 3 s?"


@pytest.mark.parametrize("more", [{}, {"image": "a.jpg"}, {"meta": {"token": {f"<s{n}>": n for n in range(1000)}}}])
def test_a_question_of_many_spaces_and_times_is_read_as_fast_as_another(more, tmp_path):
    """Half a megabyte, in less than a second; where each space has all behind it looked through, it takes hours."""
    times = "".join(f"<s{n % 1000}>" for n in range(20_000))
    question = "<image> x" * ("image" in more) + "a" + " " * 500_000 + "b <video>" + times
    set_ = write(tmp_path / "a.jsonl", [talk(question, "Yes.", video="b.mp4", **more)])
    began = time.process_time()

    assert [type(row) for row in read("llava", set_)] == [Record]
    assert time.process_time() - began < 5


def test_a_folder_of_files_is_one_set(tmp_path):
    write(tmp_path / "0_cap.json", [talk("Hello?", "Yes.")])
    write(tmp_path / "1_oe.jsonl", [talk("Who?", "Nobody.")])

    assert [said(row)[1] for row in read("llava", tmp_path)] == ["Yes.", "Nobody."]


@pytest.mark.parametrize(
    ("strategy", "wanted"), [("all", 10), ("first:3", 3), ("end:20%", 2), ("random:50%", 5), ("first:99", 10)]
)
def test_a_list_in_yaml_samples_its_files(strategy, wanted, tmp_path):
    write(tmp_path / "a.json", [talk("Which?", f"Number {n}.") for n in range(10)])
    (tmp_path / "mix.yaml").write_text(
        f"datasets:\n  - json_path: a.json\n    sampling_strategy: {json.dumps(strategy)}\n"
    )
    answers = [said(row)[1] for row in read("llava", tmp_path / "mix.yaml")]

    assert len(answers) == wanted
    assert answers == [said(row)[1] for row in read("llava", tmp_path / "mix.yaml")]
    if strategy.startswith("end"):
        assert answers == ["Number 8.", "Number 9."]


@pytest.mark.parametrize(
    "text", ["", "[1]", "datasets: 5", "datasets: [{x: 1}]", "datasets: [{json_path: gone.json}]", "a: [", "\0"]
)
def test_a_list_in_yaml_that_says_nothing_is_refused(text, tmp_path):
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(DataError):
        list(read("llava", tmp_path / "mix.yaml"))


def test_original_captions_of_a_whole_list_are_read_across_chunks(tmp_path):
    """A json list of several megabytes, in one line, with characters of every width."""
    rows = [{"image_id": f"v{n}", "caption": f"{'äß漢字😀' * 40} {n}"} for n in range(4000)]
    file = tmp_path / "cmd.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    read_back = list(read("cmd", file))

    assert [said(row)[1] for row in read_back] == [row["caption"] for row in rows]


def test_bytes_that_are_no_text_are_a_flaw_of_their_row(tmp_path):
    good, bad = b'{"image_id": "a", "caption": "ok"}', b'{"image_id": "b", "caption": "bad \xff byte"}'
    (tmp_path / "l.jsonl").write_bytes(good + b"\n" + bad + b"\n" + good + b"\n")
    (tmp_path / "l.json").write_bytes(b"[" + good + b"," + bad + b"," + good + b"]")

    for name, problem in (("l.jsonl", "is not UTF-8"), ("l.json", "caption is not whole Unicode")):
        rows = list(read("cmd", tmp_path / name))
        assert [type(row) for row in rows] == [Record, Flaw, Record]
        assert rows[1].problem == problem


def test_a_list_that_breaks_off_says_so(tmp_path):
    whole = json.dumps([{"image_id": str(n), "caption": "x"} for n in range(5)])
    (tmp_path / "cmd.json").write_text(whole[:-20])

    rows = list(read("cmd", tmp_path / "cmd.json"))

    assert len(records(rows)) == 4
    assert [flaw.problem for flaw in flaws(rows)] == ["is not JSON"]


CAPTIONS = [{"image_id": str(n), "caption": "x"} for n in range(3)]


@pytest.mark.parametrize(
    "before",
    [{"info": {"a": [1]}}, {"images": [{"id": 1}, {"id": "]"}]}, {"version": 1.5, "images": [], "none": None}],
    ids=["object", "list", "several"],
)
@pytest.mark.parametrize("after", [{}, {"images of": [{"id": 1}], "more": 5}], ids=["last", "not last"])
def test_annotations_are_read_wherever_in_their_object_they_stand(before, after, tmp_path):
    (tmp_path / "cmd.json").write_text(json.dumps({**before, "annotations": CAPTIONS, **after}, indent=1))

    assert [row.id for row in read("cmd", tmp_path / "cmd.json")] == ["0", "1", "2"]


def test_a_list_under_another_key_is_read_where_it_is_the_only_one(tmp_path):
    file = tmp_path / "cmd.json"
    file.write_text(json.dumps({"version": 1, "data": CAPTIONS}))
    assert [row.id for row in read("cmd", file)] == ["0", "1", "2"]

    file.write_text(json.dumps({"data": CAPTIONS, "images": []}))
    with pytest.raises(DataError, match="data, images"):
        list(read("cmd", file))


@pytest.mark.parametrize("wrap", [False, True])
def test_a_second_list_behind_the_first_is_told(wrap, tmp_path):
    text = json.dumps({"annotations": CAPTIONS} if wrap else CAPTIONS, indent=1)
    (tmp_path / "cmd.json").write_text(f"{text}\n{text}\n")

    rows = list(read("cmd", tmp_path / "cmd.json"))

    assert [type(row) for row in rows] == [Record] * 3 + [Flaw]
    assert rows[3].problem == "is not read: something follows the end of the list"


@pytest.mark.parametrize("length", [10, 5000, 100_000])
def test_json_lines_are_known_whatever_their_suffix_and_length(length, tmp_path):
    rows = [json.dumps({**row, "caption": "x" * length}) for row in CAPTIONS]
    (tmp_path / "cmd.json").write_text("\n".join(rows))

    assert [row.id for row in read("cmd", tmp_path / "cmd.json")] == ["0", "1", "2"]


@pytest.mark.parametrize("content", [b"", b"   ", b"hello", b"{}", b'{"a": 5}', b"\0\0\0", b"%PDF-1.4"])
def test_a_file_that_is_no_list_is_refused_in_a_sentence(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError):
        list(read("cmd", tmp_path / "x.json"))


@pytest.mark.parametrize("content", [b"", b"\n", b"one column\n", b"\xff\xfe\n"])
def test_a_csv_file_without_a_header_is_refused(content, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError):
        list(read("webvid", tmp_path / "x.csv"))


# ---- tars


def jpeg(colour: str) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.new("RGB", (16, 12), colour).save(file, "JPEG")
    return file.getvalue()


SIDE = {"url": "https://example.org/1.jpg", "caption": "a red door", "key": "000000000", "status": "success"}


@pytest.mark.parametrize("name", ["laion", "cc3m", "sbu", "img2dataset"])
def test_pictures_are_read_out_of_tars_by_their_place(name, tmp_path):
    from minigpt4_video.data.reading import shown

    write_tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": jpeg("red"), "000000000.txt": b"other words", "000000000.json": json.dumps(SIDE).encode(),
            "000000001.jpg": jpeg("blue"), "000000001.txt": "一扇蓝色的门".encode(),
        },
    )  # fmt: skip
    rows = list(read(name, tmp_path))

    assert [said(row)[1] for row in rows] == ["a red door", "一扇蓝色的门"]
    for row, channel in zip(rows, (0, 2), strict=True):
        pixels = shown(row.messages, 1, 8)[0]["content"][0]["image"]
        assert pixels.shape == (8, 8, 3)
        assert pixels.reshape(-1, 3).mean(0).argmax() == channel


TAR_FLAWS = {
    "picture is missing": {"a.json": json.dumps(SIDE).encode()},
    "was not downloaded": {"a.json": json.dumps({"status": "failed_to_download", "error_message": "404"}).encode()},
    "lacks caption": {"a.jpg": jpeg("red"), "a.json": b"{}"},
    "json cannot be read": {"a.jpg": jpeg("red"), "a.json": b"{"},
    "json is not an object": {"a.jpg": jpeg("red"), "a.json": b"[1]"},
    "caption is not a text": {"a.jpg": jpeg("red"), "a.json": b'{"caption": 7}'},
    "caption is empty": {"a.jpg": jpeg("red"), "a.txt": b"  "},
    "txt is not UTF-8": {"a.jpg": jpeg("red"), "a.txt": b"\xff"},
    "picture is empty": {"a.jpg": b"", "a.txt": b"words"},
}


@pytest.mark.parametrize("problem", TAR_FLAWS)
def test_a_hostile_sample_of_a_tar_is_one_flaw(problem, tmp_path):
    good = {"0.jpg": jpeg("red"), "0.txt": b"words"}
    last = {"z.jpg": jpeg("red"), "z.txt": b"words"}
    write_tar(tmp_path / "0.tar", {**good, **TAR_FLAWS[problem], **last})

    rows = list(read("laion", tmp_path / "0.tar"))

    assert [type(row) for row in rows] == [Record, Flaw, Record]
    assert rows[1].problem == problem


@pytest.mark.parametrize("damage", ["cut", "header", "garbage", "empty"])
def test_a_damaged_tar_is_told_and_what_comes_before_is_read(damage, tmp_path):
    members = {f"{n}.{kind}": jpeg("red") if kind == "jpg" else b"words" for n in range(4) for kind in ("jpg", "txt")}
    content = bytearray(write_tar(tmp_path / "0.tar", members).read_bytes())
    if damage == "cut":
        content = content[: len(content) // 3]
    elif damage == "header":
        at = content.index(b"2.jpg")
        content[at + 148 : at + 156] = b"99999999"
    elif damage == "garbage":
        content = bytearray(b"no tar at all" * 100)
    else:
        content = bytearray()
    (tmp_path / "0.tar").write_bytes(content)

    rows = list(read("laion", tmp_path))

    assert flaws(rows)
    if damage == "header":
        assert len(records(rows)) == 2
        assert [flaw.problem for flaw in flaws(rows)] == ["tar is damaged"]


@pytest.mark.parametrize("name", ["00000.TAR", "shard", "a:b.data"])
def test_a_tar_is_opened_whatever_it_is_called(name, tmp_path):
    from minigpt4_video.data.reading import shown

    write_tar(tmp_path / name, {"0.jpg": jpeg("red"), "0.txt": b"words"})

    (row,) = read("laion", tmp_path / name)
    assert shown(row.messages, 1, 8)[0]["content"][0]["image"].shape == (8, 8, 3)
    if name.endswith("TAR"):
        assert list(read("laion", tmp_path)) == [row]


def test_a_dot_in_a_sample_of_a_tar_is_told(tmp_path):
    members = {"my.door.jpg": jpeg("red"), "my.door.txt": b"words", "._0.jpg": b"x", "0.jpg": jpeg("red")}
    members |= {"0.seg.png": b"another field", "0.txt": b"words", "readme": b"x"}
    rows = list(read("laion", write_tar(tmp_path / "0.tar", members)))

    assert [row.id for row in records(rows)] == ["0"]
    assert [(flaw.problem, flaw.detail) for flaw in flaws(rows)] == [
        ("is no sample: a name in a tar ends at its first dot", "my.door.jpg")
    ]


def test_a_dot_in_a_sample_of_a_folder_is_part_of_its_name(tmp_path):
    for name in ("my.door", "my", "your"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg("red"))
        (tmp_path / f"{name}.txt").write_text(name)
    for name in ("._my.jpg", "my.npy"):
        (tmp_path / name).touch()

    assert sorted((row.id, said(row)[1]) for row in read("laion", tmp_path)) == [
        (name, name) for name in ("my", "my.door", "your")
    ]


def test_a_link_in_a_tar_leads_nowhere(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("a.txt"))

    assert [flaw.problem for flaw in read("laion", tmp_path)] == ["is not an ordinary file in its tar"]


def test_img2dataset_folders_are_read_as_tars_are(tmp_path):
    inner = tmp_path / "00000"
    inner.mkdir()
    (inner / "000000000.jpg").write_bytes(jpeg("red"))
    (inner / "000000000.json").write_text(json.dumps(SIDE))

    row = next(read("img2dataset", tmp_path))

    assert said(row)[1] == "a red door"
    assert next(media_parts(row.messages))["path"] == str(inner / "000000000.jpg")


CUE = {"start": "00:01:20.880", "end": "00:01:22.000", "lines": ["hello", "there"]}
CLIP = {"caption": "A kite flies.", "status": "success", "clips": [[80.88, 83.983]]}


@pytest.mark.parametrize("cues", [[CUE], {"en": [CUE]}, {"fr": [CUE]}])
def test_video2dataset_subtitles_are_counted_from_the_clip(cues, tmp_path):
    write_tar(
        tmp_path / "00000.tar",
        {"k_0.mp4": b"video", "k_0.txt": b"x", "k_0.json": json.dumps({**CLIP, "clip_subtitles": cues}).encode()},
    )
    part = next(media_parts(next(read("video2dataset", tmp_path)).messages))

    assert part["subtitles"] == [{"start": 0.0, "end": 1.12, "text": "hello there"}]
    assert part["path"].endswith(":5")


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        ({"clip_subtitles": [CUE]}, "subtitles of a clip without its span"),
        ({**CLIP, "clip_subtitles": ["x"]}, "a subtitle is not an object with start, end and lines"),
        ({**CLIP, "clip_subtitles": [{**CUE, "start": None}]}, "is not a time"),
        ({**CLIP, "clip_subtitles": 5}, "subtitles are not a list"),
        ({**CLIP, "clips": [[5]], "clip_subtitles": [CUE]}, "is not a pair of times"),
    ],
)
def test_hostile_subtitles_of_a_sidecar_are_one_flaw(meta, problem, tmp_path):
    write_tar(tmp_path / "0.tar", {"k.mp4": b"video", "k.json": json.dumps({"caption": "x", **meta}).encode()})

    assert [row.problem for row in read("video2dataset", tmp_path)] == [problem]


def test_panda_as_its_downloader_leaves_it_is_read_from_folders(tmp_path):
    inner = tmp_path / "00000"
    inner.mkdir()
    (inner / "0000000_00000.mp4").touch()
    (inner / "0000000_00000.mp4").write_bytes(b"video")
    (inner / "0000000_00000.json").write_text(json.dumps({**CLIP, "clip_subtitles": [CUE]}))
    (inner / "0000000_00001.json").write_text(json.dumps({"status": "failed_to_download", "error_message": "gone"}))

    rows = list(read("video2dataset", tmp_path))

    assert [type(row) for row in rows] == [Record, Flaw]
    assert rows[1].problem == "was not downloaded" and "gone" in rows[1].detail


# ---- the whole


def test_parquet_and_jsonl_say_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    good = named("labels part-0.jsonl").good
    parquet.write_table(pyarrow.Table.from_pylist(good), tmp_path / "l.parquet")

    assert list(read("labels", tmp_path / "l.parquet")) == list(read("labels", write(tmp_path / "l.jsonl", good)))


def test_a_damaged_parquet_file_is_refused_in_a_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "l.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="parquet"):
        list(read("labels", tmp_path / "l.parquet"))


def test_subtitles_in_a_folder_of_their_own_are_named(tmp_path):
    folder = tmp_path / "subs"
    folder.mkdir()
    (folder / "a.en.vtt").write_text("WEBVTT\n")
    rows = list(
        read("cmd", write(tmp_path / "c.json", [{"image_id": n, "caption": "x"} for n in "ab"]), subtitles=folder)
    )

    assert [next(media_parts(row.messages))["subtitles"] for row in rows] == [str(folder / "a.en.vtt"), "off"]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mp4.mkv"])
def test_a_video_is_found_whatever_its_suffix(suffix, tmp_path):
    (tmp_path / f"v{suffix}").touch()
    rows = list(
        read("cmd", write(tmp_path / "c.json", [{"image_id": n, "caption": "x"} for n in "vw"]), media=tmp_path)
    )

    assert next(media_parts(rows[0].messages))["path"] == str(tmp_path / f"v{suffix}")
    assert rows[1].problem == "video is missing" and rows[1].detail == "w"


@pytest.mark.parametrize("media", [None, ".", "../pics", "./"])
def test_a_set_is_read_from_within_its_own_folder(media, tmp_path, monkeypatch):
    pics = tmp_path / "pics"
    (pics / "image").mkdir(parents=True)
    (pics / "image" / "1.jpg").touch()
    (pics / "a.mp4").touch()
    rows = [{"image_id": name, "caption": "x"} for name in ("1", "../1", "../../../secret")]
    write(pics / "filter_cap.json", rows)
    write(pics / "cmd.json", [{"image_id": name, "caption": "x"} for name in ("a", "./a", "../pics/a", "image/../a")])
    (tmp_path / "secret.jpg").touch()
    monkeypatch.chdir(pics)
    folder = None if media is None else Path(media)

    shown = list(read("cc-sbu-align", Path("filter_cap.json"), media=folder))
    videos = list(read("cmd", Path("cmd.json"), media=folder))

    assert Path(next(media_parts(shown[0].messages))["path"]).is_file()
    assert [row.problem for row in shown[1:]] == ["picture is missing", "names a file outside the media folder"]
    assert len(records(videos)) == 4


def test_a_folder_above_is_left_by_no_name(tmp_path, monkeypatch):
    (tmp_path / "media" / "here").mkdir(parents=True)
    (tmp_path / "secret.mp4").touch()
    monkeypatch.chdir(tmp_path / "media" / "here")
    set_ = write(tmp_path / "cmd.json", [{"image_id": "../secret", "caption": "x"}])

    rows = list(read("cmd", set_, media=Path("..")))

    assert [row.problem for row in rows] == ["names a file outside the media folder"]


@pytest.mark.parametrize(
    ("name", "path", "media"),
    [("nothing", ".", None), ("cmd", "gone.json", None), ("cmd", "empty", None), ("cmd", "x.json", "gone")],
)
def test_what_is_not_there_is_refused(name, path, media, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError):
        list(read(name, tmp_path / path, media=tmp_path / media if media else None))


ODD = st.sampled_from(
    [
        10**400,
        -(10**400),
        10**18,
        "\ud800",
        "half \udc00",
        "n" * 300,
        "a\0b",
        "a\nb",
        "..",
        "/",
        "<video>",
        "1:2:3",
        [[]],
        {},
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.file.endswith(".csv")], ids=lambda s: s.name)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_is_a_record_or_one_flaw(shape, data, tmp_path):
    prepare(tmp_path, shape)
    row = json.loads(json.dumps(data.draw(st.sampled_from(shape.good))))
    target = row
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(target[key], (dict, list)) and target[key] and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(JSON)
        break

    rows = list(read(shape.name, write(tmp_path / shape.file, [row])))

    assert len(flaws(rows)) <= 1 and rows
    assert "has a value that cannot be used" not in [flaw.problem for flaw in flaws(rows)]
    for record in records(rows):
        check_messages(record.messages)
        json.dumps(record, ensure_ascii=False).encode()


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_flaws_or_a_refusal(tmp_path, content):
    for suffix, beginning in ((".csv", b"videoid,name\n"), (".jsonl", b""), (".json", b"["), (".tar", b"")):
        file = tmp_path / f"x{suffix}"
        file.write_bytes(beginning + content)
        try:
            list(read("laion" if suffix == ".tar" else "webvid", file))
        except DataError as refused:
            assert "\n" not in str(refused)


def test_rows_are_read_without_torch():
    code = "import sys, minigpt4_video.data.formats, minigpt4_video.data.mixture; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_every_format_is_tried_here():
    tried = {shape.name for shape in SHAPES} | {"laion", "cc3m", "sbu", "img2dataset", "video2dataset"}

    assert tried == set(FORMATS)
