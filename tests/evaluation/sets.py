"""Benchmarks in the layout in which they are published, small, with invented contents and some rows that are broken."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from making import SUBTITLES, write_video


class Made(NamedTuple):
    annotations: Path
    media: Path
    right: dict[str, str]
    """References by the ids of the items."""
    flaws: dict[str, int]


def _json(file: Path, value: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return file


def _lines(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _video(file: Path, seconds: float = 1.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_video(file, seconds=seconds)


def _pictures(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (32, 24), (40 * number, 0, 0)).save(folder / f"{number + 1:05d}.jpg")
    return folder


def msrvtt(folder: Path) -> Made:
    _video(folder / "TestVideo" / "video7010.mp4")
    rows = [
        {"answer": "couch", "category_id": 14, "id": 158581, "question": "what sits?", "video_id": 7010},
        {"answer": "two", "category_id": 14, "id": 158582, "question": "how many cats?", "video_id": 7010},
        {"answer": "boy", "category_id": 14, "id": 158583, "question": "who?", "video_id": 7011},
        {"answer": None, "category_id": 14, "id": 158584, "question": "who?", "video_id": 7010},
    ]
    right = {"video7010#158581": "couch", "video7010#158582": "two"}
    flaws = {"video is missing": 1, "lacks answer": 1}
    return Made(_json(folder / "test_qa.json", rows), folder / "TestVideo", right, flaws)


def tgif(folder: Path) -> Made:
    folder.mkdir()
    frames = [Image.new("RGB", (32, 24), (40 * number, 0, 0)) for number in range(4)]
    frames[0].save(folder / "tumblr_abc_250.gif", save_all=True, append_images=frames[1:], duration=100)
    file = folder / "Test_frameqa_question.csv"
    lines = [
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey",
        'tumblr_abc_250\twhat does the man, "old", wear ?\that\t0\tFRAMEQA1\t1',
        "tumblr_abc_250\thow many dogs run ?\tthree\t1\tFRAMEQA2\t2",
        "tumblr_none_250\twhat color is it ?\tred\t2\tFRAMEQA3\t3",
        "tumblr_abc_250\ttoo short",
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    right = {"tumblr_abc_250#1": "hat", "tumblr_abc_250#2": "three"}
    return Made(file, folder, right, {"video is missing": 1, "has not as many cells as the header": 1})


def activitynet(folder: Path) -> Made:
    _video(folder / "videos" / "v_1QIUV7WYKXg.mp4")
    asked = [
        {"video_name": "1QIUV7WYKXg", "question": "is the athlete indoors", "question_id": "1QIUV7WYKXg_3"},
        {"video_name": "1QIUV7WYKXg", "question": "what happens", "question_id": "1QIUV7WYKXg_4"},
        {"video_name": "gone", "question": "why", "question_id": "gone_1"},
    ]
    answers = [
        {"answer": "yes", "type": 3, "question_id": "1QIUV7WYKXg_3"},
        {"answer": "rain", "type": 0, "question_id": "gone_1"},
    ]
    _json(folder / "test_a.json", answers)
    right = {"v_1QIUV7WYKXg#1QIUV7WYKXg_3": "yes"}
    flaws = {"has no answer in test_a.json": 1, "video is missing": 1}
    return Made(_json(folder / "test_q.json", asked), folder / "videos", right, flaws)


def _tvqa_row(number: int, clip: str, show: str = "House M.D.", **changed: Any) -> dict[str, Any]:
    options = {f"a{at}": f"option {at}" for at in range(5)}
    row = {"qid": number, "q": "What does House hold?", "answer_idx": number % 5, "show_name": show, "vid_name": clip}
    return row | options | {"ts": "1.0-2.0"} | changed


def tvqa(folder: Path) -> Made:
    _pictures(folder / "frames_hq" / "house_frames" / "house_s02e10_seg02_clip_15")
    _video(folder / "frames_hq" / "s01e01_seg01_clip_00.mp4")
    said = [
        {"vid_name": "house_s02e10_seg02_clip_15", "sub": [{"text": "House: No  cane.", "start": 0.2, "end": 1.0}]},
        {"vid_name": "s01e01_seg01_clip_00", "sub": [{"text": "Hi.", "start": "x", "end": 1.0}]},
        {"vid_name": 3, "sub": []},
    ]
    _lines(folder / "tvqa_preprocessed_subtitles.jsonl", said)
    rows = [
        _tvqa_row(1, "house_s02e10_seg02_clip_15"),
        _tvqa_row(2, "s01e01_seg01_clip_00", "The Big Bang Theory"),
        _tvqa_row(3, "castle_s01e01_seg01_clip_00", "Castle"),
        _tvqa_row(4, "house_s02e10_seg02_clip_15", answer_idx=5),
        _tvqa_row(5, "house_s02e10_seg02_clip_15", a4=""),
        _tvqa_row(1, "house_s02e10_seg02_clip_15"),
    ]
    flaws = {
        "has subtitles without times or words": 1,
        "has no subtitles of a clip": 1,
        "video is missing": 1,
        "has an answer that is none of its options": 1,
        "lacks a4": 1,
        "has an id that another row has": 1,
    }
    return Made(_lines(folder / "tvqa_val.jsonl", rows), folder / "frames_hq", {"1": "B", "2": "C"}, flaws)


def tvqa_long(folder: Path) -> Made:
    _video(folder / "mp4_videos" / "castle" / "season_4" / "episode_17.mp4", seconds=3)
    shows = {
        "Castle": {
            "season_4": {
                "episode_17": {
                    "clips": ["castle_s04e17_seg02_clip_10"],
                    "questions": [_tvqa_row(7, "castle_s04e17_seg02_clip_10", "Castle"), "no row"],
                },
                "episode_18": {"questions": [_tvqa_row(8, "castle_s04e18_seg02_clip_10", "Castle")]},
                "episode_19": [],
            }
        },
        "Friends": 3,
    }
    flaws = {"is not an object": 1, "video is missing": 1, "has no list of questions": 2}
    return Made(_json(folder / "tvqa_val_edited.json", shows), folder, {"7": "C"}, flaws)


def generic(folder: Path) -> Made:
    _video(folder / "Test_Videos" / "v_p1QGn0IzfW0.mp4")
    rows = [
        {"Q": "What is happening?", "A": "A man plays the guitar on a street.", "video_name": "v_p1QGn0IzfW0"},
        {"Q": "Where?", "A": "Outside.", "video_name": "v_p1QGn0IzfW0"},
        {"Q": "Where?", "A": "Outside.", "video_name": "v_gone"},
        {"Q": " ", "A": "Outside.", "video_name": "v_p1QGn0IzfW0"},
    ]
    right = {"v_p1QGn0IzfW0#1": rows[0]["A"], "v_p1QGn0IzfW0#2": "Outside."}
    flaws = {"video is missing": 1, "Q is empty": 1}
    return Made(_json(folder / "generic_qa.json", rows), folder / "Test_Videos", right, flaws)


def consistency(folder: Path) -> Made:
    _video(folder / "Test_Videos" / "v_a.mp4")
    rows = [
        {"Q1": "Who plays?", "Q2": "Which person plays?", "A": "A man.", "video_name": "v_a"},
        {"Q1": "Who plays?", "A": "A man.", "video_name": "v_a"},
        {"Q1": "Who?", "Q2": "Who?", "A": "A man.", "video_name": "v_a"},
    ]
    right = {"v_a#1/1": "A man.", "v_a#1/2": "A man."}
    flaws = {"lacks Q2": 1, "asks the same question twice": 1}
    return Made(_json(folder / "consistency_qa.json", rows), folder / "Test_Videos", right, flaws)


def _mme_row(number: int, video: str = "fFjv93ACGo8", **changed: Any) -> dict[str, Any]:
    return {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History",
        "url": "https://www.youtube.com/watch?v=fFjv93ACGo8", "videoID": video, "question_id": f"001-{number}",
        "task_type": "Counting Problem", "question": "How many?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. All the same."], "answer": "C",
    } | changed  # fmt: skip


def video_mme(folder: Path) -> Made:
    import pyarrow
    import pyarrow.parquet

    _video(folder / "data" / "fFjv93ACGo8.mp4")
    (folder / "subtitle").mkdir()
    (folder / "subtitle" / "fFjv93ACGo8.srt").write_text(SUBTITLES, encoding="utf-8")
    rows = [
        _mme_row(1),
        _mme_row(2, answer="A"),
        _mme_row(3, video="gone"),
        _mme_row(4, answer="E"),
        _mme_row(5, options=["A. One."]),
        _mme_row(6, answer="AB"),
    ]
    file = folder / "videomme" / "test-00000-of-00001.parquet"
    file.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    flaws = {
        "video is missing": 1,
        "has an answer that is none of its options": 2,
        "has no two to ten options": 1,
    }
    return Made(file, folder / "data", {"001-1": "C", "001-2": "A"}, flaws)


def mvbench(folder: Path) -> Made:
    _video(folder / "video" / "star" / "Charades_v1_480" / "ZS9XR.mp4", seconds=3)
    _pictures(folder / "video" / "tvqa" / "frames_fps3_hq" / "friends_s03e09_seg02_clip_07")
    base = {"question": "What happened after?", "candidates": ["Sat.", "Ran.", "Ate."], "answer": "Ran."}
    spans = [
        base | {"video": "ZS9XR.mp4", "start": 0.5, "end": 2.5},
        base | {"video": "ZS9XR.mp4", "start": 2.5, "end": 0.5},
        base | {"video": "ZS9XR.mp4", "start": 0, "end": 1, "answer": "Slept."},
        base | {"video": "GONE.mp4", "start": 0, "end": 1},
    ]
    pictures = [base | {"video": "friends_s03e09_seg02_clip_07", "fps": 3, "start": 0.0, "end": 1.5, "answer": "Ate."}]
    _json(folder / "json" / "action_sequence.json", spans)
    _json(folder / "json" / "episodic_reasoning.json", pictures)
    right = {"action_sequence#0": "B", "episodic_reasoning#0": "C"}
    flaws = {
        "has no span of time": 1,
        "has an answer that is not one of its options": 1,
        "video is missing": 1,
        "task is missing": 18,
    }
    return Made(folder / "json", folder / "video", right, flaws)


def next_qa(folder: Path) -> Made:
    _video(folder / "NExTVideo" / "1164" / "4010069381.mp4")
    _json(folder / "map_vid_vidorID.json", {"4010069381": "1164/4010069381", "1": "../../../etc/passwd"})
    header = [
        "video",
        "frame_count",
        "width",
        "height",
        "question",
        "answer",
        "qid",
        "type",
        "a0",
        "a1",
        "a2",
        "a3",
        "a4",
    ]
    rows = [
        [4010069381, 369, 640, 480, "how do they play", 2, 6, "CH", "roll", "tap, tap", "strum", "hit", 4],
        [4010069381, 369, 640, 480, "why do they play", 0, 7, "CW", "fun", "work", "rest", "rain", "sun"],
        [1, 369, 640, 480, "why", 0, 7, "CW", "fun", "work", "rest", "rain", "sun"],
        [2, 369, 640, 480, "why", 0, 7, "CW", "fun", "work", "rest", "rain", "sun"],
        [4010069381, 369, 640, 480, "why", "x", 8, "CW", "fun", "work", "rest", "rain", "sun"],
    ]
    file = folder / "val.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([header, *rows])
    right = {"4010069381#6": "C", "4010069381#7": "A"}
    flaws = {"names a file outside the media folder": 1, "video is missing": 1, "answer is not a number": 1}
    return Made(file, folder / "NExTVideo", right, flaws)


SETS: dict[str, Callable[[Path], Made]] = {
    "msrvtt-qa": msrvtt,
    "tgif-qa": tgif,
    "activitynet-qa": activitynet,
    "tvqa": tvqa,
    "tvqa-long": tvqa_long,
    "videochatgpt-generic": generic,
    "videochatgpt-temporal": generic,
    "videochatgpt-consistency": consistency,
    "video-mme": video_mme,
    "mvbench": mvbench,
    "next-qa": next_qa,
}
