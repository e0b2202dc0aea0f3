"""Data sets of the shapes that people have, made on the spot: good rows with invented values, and hostile ones.

A hostile row comes with the problem that must be reported for it.
"""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

Values = dict[str, Any]

PANDA_COLUMNS = (
    "videoID",
    "url",
    "timestamp",
    "caption",
    "matching_score",
    "desirable_filtering",
    "shot_boundary_detection",
)


def panda(name: str = "AbCdEfGhIj0", clips: int = 2, **changes: str) -> Values:
    captions = ["A red kite flies over a beach, slowly.", "A man's dog runs along the sand.", "一只狗在沙滩上跑。"]
    return {
        "videoID": name,
        "url": f"https://www.youtube.com/watch?v={name}",
        "timestamp": str([[f"{n // 60}:{n % 60:02}:20.880", f"{n // 60}:{n % 60:02}:23.983"] for n in range(clips)]),
        "caption": str([captions[n % 3] for n in range(clips)]),
        "matching_score": str([0.451416015625] * clips),
        "desirable_filtering": str(["desirable"] * clips),
        "shot_boundary_detection": str([[["0:00:00.000", "0:00:03.069"]]] * clips),
        **changes,
    }


class Bad(NamedTuple):
    """One row, or one line of text as it stands in the file."""

    row: Values | str
    problem: str


def turn(speaker: str, value: Any) -> Values:
    return {"from": speaker, "value": value}


def turns(*values: Any) -> list[Values]:
    return [turn(("human", "gpt")[n % 2], value) for n, value in enumerate(values)]


def talk(*values: Any, **more: Any) -> Values:
    return {"id": "s1", "conversations": turns(*values), **more}


class Shape(NamedTuple):
    """One format: how its files are written, rows that are right, and rows that are not."""

    name: str
    file: str
    good: list[Values]
    bad: list[Bad]


WEBVID = {
    "videoid": "1066674784",
    "contentUrl": "https://example.org/preview/1066674784.mp4",
    "duration": "PT00H00M17S",
    "page_dir": "006001_006050",
    "name": 'Drone view - a lake: morning, with "mist"',
}
VILA = {
    "video_id": "QwErTyUiOp1",
    "url": "https://www.youtube.com/watch?v=QwErTyUiOp1",
    "clip": [
        {"clip_id": "QwErTyUiOp1.0.mp4", "span": ["00:00:00.000", "00:00:00.900"]},
        {"clip_id": "QwErTyUiOp1.1.mp4", "span": ["00:00:01.000", "00:00:01.839"]},
    ],
}
INTERNVID = {
    "YoutubeID": "ZxCvBnMaSd2",
    "Start_timestamp": "00:03:10.567",
    "End_timestamp": "00:03:14.200",
    "Caption": "a woman using a computer mouse",
    "Aesthetic_Score": 4.58984375,
    "UMT_Score": 0.39794921875,
}
SHARED_BAD = [Bad("{broken", "is not JSON"), Bad("[1, 2]", "is not an object"), Bad('"text"', "is not an object")]

SHAPES = [
    Shape(
        "webvid",
        "results.csv",
        [WEBVID, {**WEBVID, "videoid": "2", "name": "two\nlines"}],
        [
            Bad({**WEBVID, "name": ""}, "lacks name"),
            Bad({**WEBVID, "name": "   "}, "name is empty"),
            Bad({**WEBVID, "videoid": ""}, "lacks videoid"),
            Bad({**WEBVID, "videoid": "../../../etc/passwd"}, "names a file outside the media folder"),
            Bad("5,a,b", "has not as many cells as the header"),
            Bad("5,a,b,c,d,e,f", "has not as many cells as the header"),
            Bad('6,a,b,c,"never closed', "quotes do not close"),
        ],
    ),
    Shape(
        "webvid",
        "results.json",
        [{key: WEBVID[key] for key in ("videoid", "page_dir", "name")}],
        [Bad({"videoid": "1"}, "lacks name"), Bad({"videoid": [1], "name": "x"}, "videoid is not a text")],
    ),
    Shape(
        "cmd",
        "cmd.json",
        [{"image_id": "aB1cD2eF3gH", "caption": "A man argues with his boss."}],
        [
            Bad({"image_id": "aB1cD2eF3gH"}, "lacks caption"),
            Bad({"image_id": "a", "caption": 5}, "caption is not a text"),
            Bad({"image_id": "a\0b", "caption": "x"}, "image_id cannot be a name"),
            Bad({"image_id": "a", "caption": "half \ud83d"}, "caption is not whole Unicode"),
        ],
    ),
    Shape(
        "cc-sbu-align",
        "filter_cap.json",
        [{"image_id": "2", "caption": "The image shows a red door."}],
        [Bad({"image_id": "404", "caption": "x"}, "picture is missing"), Bad({"image_id": "2"}, "lacks caption")],
    ),
    Shape(
        "videoinstruct-100k",
        "VideoInstruct100K.json",
        [{"q": "What is happening?", "a": "A boy is kicking a ball.", "video_id": "v_abcdefghijk"}],
        [
            Bad({"q": "What?", "video_id": "v_abcdefghijk"}, "lacks a"),
            Bad({"q": {"x": 1}, "a": "b", "video_id": "v"}, "q is not a text"),
            Bad({"q": "What?", "a": "b", "video_id": None}, "lacks video_id"),
        ],
    ),
    Shape(
        "video-chatgpt",
        "video_chatgpt_training.json",
        [
            {"id": "v_abc", "video": "v_abc.pkl", "conversations": turns("What happens?\n<video>", "A dog runs.")},
            {"id": "v_abc", "video": "v_abc.pkl", "conversations": turns("<video>\nWhere is it?", "On sand.")},
        ],
        [Bad({"id": "v_abc", "video": "v_abc.pkl"}, "lacks conversations")],
    ),
    Shape(
        "llava",
        "llava.jsonl",
        [
            talk("<video>\nWhat is picked up?", "A towel.", "And then?", "They fold it.", video="a/AB12C.mp4"),
            talk("<image>\nWhat is picked up?", "A towel.", video="a/AB12C.mp4"),
            talk("What is picked up?", "A towel.", video=["a/AB12C.mp4"]),
            talk("<image>\nWhat is it?", "A door.", image="door.jpg"),
            talk("Say hello.", "Hello."),
            {"id": 7, "conversations": [turn("system", "Be brief."), *turns("<video>Hm?", "Yes.")], "video": "b.mp4"},
            {
                "id": "r",
                "conversations": [
                    {"role": "user", "content": "<video> 谁？"},
                    {"role": "assistant", "content": "一个人。"},
                ],
                "video": "b.mp4",
            },
            talk("First <image> then <video>: which is red?", "The first.", image="door.jpg", video="b.mp4"),
            {"video": "000001_000050/1066682446.mp4", "QA": [{"i": "Look.", "q": "What?", "a": "A cat."}]},
            talk(
                "<video>\nWhen <s0>?",
                "From <s0> to <e0>.",
                video="b.mp4",
                meta={"split": [1, 2.5], "duration": 9, "token": {"<s0>": 1.5, "<e0>": 2}},
            ),
        ],
        [
            Bad(talk("<video>\nWhat?", video="b.mp4"), "ends without an answer"),
            Bad(
                talk("<video> <video>\nWhat?", "That.", video="b.mp4"), "has more placeholders than videos and pictures"
            ),
            Bad(talk("<image>\nWhat?", "That."), "has more placeholders than videos and pictures"),
            Bad(
                talk("<image>\nWhat?", "That.", image="a.jpg", video="b.mp4"),
                "has fewer placeholders than videos and pictures",
            ),
            Bad(talk("<video>\n", "That.", video="b.mp4"), "a question has no words"),
            Bad(talk("", "That."), "a turn is empty"),
            Bad(talk("What?", None), "a turn is not a text"),
            Bad({"conversations": [turn("gpt", "Hello.")]}, "the assistant speaks where the user should"),
            Bad(
                {"conversations": [turn("human", "a"), turn("human", "b")]},
                "the user speaks where the assistant should",
            ),
            Bad({"conversations": [turn("narrator", "a")]}, "a turn is by nobody known"),
            Bad(
                {"conversations": [turn("human", "a"), turn("gpt", "b"), turn("system", "c")]},
                "a system turn is not the first",
            ),
            Bad({"conversations": "hello"}, "conversations is not a list of turns"),
            Bad({"conversations": []}, "conversations is not a list of turns"),
            Bad({"conversations": ["a", "b"]}, "a turn is not an object"),
            Bad(talk("<video>\nWhat?", "That.", video="../outside.mp4"), "names a file outside the media folder"),
            Bad(talk("<video>\nWhat?", "That.", video="/etc/passwd"), "names a file outside the media folder"),
            Bad(talk("<video>\nWhat?", "That.", video={"a": 1}), "video is not a text"),
            Bad(talk("<video>\nWhat?", "That.", video="b.mp4", meta={"split": [3, 1]}), "ends before it starts"),
            Bad(talk("<video>\nWhat?", "That.", video="b.mp4", meta={"token": {"<s0>": "x"}}), "<s0> is not a number"),
            Bad(talk("<video>\nWhat?", "That.", video="b.mp4", meta={"token": {"<s0>": None}}), "lacks <s0>"),
            Bad(talk("<video>\nWhat?", "That.", video="b.mp4", meta={"split": 5}), "split is not a list"),
            Bad(talk("<video>\nWhat?", "That.", video="b.mp4", meta={"split": {"a": 1}}), "split is not a list"),
            *SHARED_BAD,
        ],
    ),
    Shape(
        "sharegpt4video",
        "sharegpt4video_40k.jsonl",
        [
            {
                "video_id": "vid1",
                "video_path": "panda/vid1.mp4",
                "zip_folder": "panda/panda_videos_1.zip",
                "captions": [{"idx": "-1", "content": "whole"}, {"idx": "0", "content": "part"}],
            }
        ],
        [
            Bad(
                {"video_id": "vid1", "captions": [{"idx": "0", "content": "part"}]},
                "has not one caption of the whole video",
            ),
            Bad({"video_id": "vid1", "captions": "x"}, "captions is not a list"),
            Bad({"video_id": "vid1", "captions": [{"idx": "-1", "content": None}]}, "content is not a text"),
            *SHARED_BAD,
        ],
    ),
    Shape(
        "shot2story",
        "shots.json",
        [
            {
                "video": "a.mp4",
                "image_id": "a",
                "id": 1,
                "whole_caption": "A day.",
                "whole_ASR": "hi",
                "video_names": ["a_0.mp4", "a_1.mp4"],
                "captions": ["Dawn.", "Dusk."],
                "ASR": ["", ""],
                "audio_captions": [],
            }
        ],
        [
            Bad({"video": "a.mp4"}, "lacks whole_caption"),
            Bad(
                {"video": "a.mp4", "whole_caption": "x", "video_names": ["b"], "captions": []},
                "has another number of shots than of captions",
            ),
        ],
    ),
    Shape(
        "panda-70m",
        "panda70m.csv",
        [
            panda(),
            panda("one", clips=1),
            panda("long", clips=3000),
            {**panda("old"), "desirable_filtering": str(["1_still_foreground_image", "desirable"])},
        ],
        [
            Bad(panda(caption="['only one']"), "lists of different lengths"),
            Bad(panda(caption="__import__('os').system('touch /tmp/owned')"), "caption is not a list"),
            Bad(panda(caption="[__import__('os').getcwd(), 'b']"), "caption is not a list"),
            Bad(panda(caption="['a', 5]"), "caption is not a text"),
            Bad(panda(caption="['a', '']"), "caption is empty"),
            Bad(panda(caption=f"['a', 0x{'f' * 4000}]"), "caption is not a text"),
            Bad(panda(timestamp=f"[['0:00:01', 0x{'f' * 4000}], ['0:00:05', '0:00:06']]"), "is not a time"),
            Bad(panda(caption="{'a': 'b'}"), "caption is not a list"),
            Bad(panda(caption="[" * 200_000), "caption is not a list"),
            Bad(panda(timestamp="[['0:00:01', '0:00:02'], ['0:00:05', '0:00:04']]"), "ends before it starts"),
            Bad(panda(timestamp="[['0:00:01', '0:00:02'], ['soon', '0:00:04']]"), "is not a time"),
            Bad(panda(timestamp="[['0:00:01', '0:00:02'], ['0:00:05']]"), "is not a pair of times"),
            Bad(
                panda(
                    timestamp="[]",
                    caption="[]",
                    matching_score="[]",
                    desirable_filtering="[]",
                    shot_boundary_detection="[]",
                ),
                "has no clips",
            ),
            Bad(panda(timestamp=""), "lacks timestamp"),
            Bad(panda(matching_score="[0.1, "), "matching_score is not a list"),
            Bad(panda(videoID="../up"), "names a file outside the media folder"),
            Bad("AbC,https://x,\"[['0:00:01", "quotes do not close"),
            Bad("AbC,https://x", "has not as many cells as the header"),
        ],
    ),
    Shape(
        "hd-vila-100m",
        "hdvila_part0.jsonl",
        [VILA],
        [
            Bad({"video_id": "x", "clip": "none"}, "clip is not a list"),
            Bad({"video_id": "x", "clip": [{"span": ["00:00:01", "00:00:02"]}]}, "a clip has no clip_id"),
            Bad({"video_id": "silent", "clip": VILA["clip"]}, "has neither captions nor subtitles"),
            Bad({"video_id": "n" * 300, "clip": VILA["clip"]}, "has neither captions nor subtitles"),
            Bad({**VILA, "clip": [{**VILA["clip"][0], "clip_id": "\ud800"}]}, "clip_id is not whole Unicode"),
            Bad({**VILA, "clip": [{"clip_id": "a", "span": [0, 10**400]}]}, "is not a time"),
            Bad({**VILA, "clip": [{"clip_id": "a", "span": None}]}, "is not a pair of times"),
            Bad({**VILA, "clip": [{"clip_id": "a", "span": ["00:59:00", "00:59:09"]}]}, "a clip has no text"),
            *SHARED_BAD,
        ],
    ),
    Shape(
        "internvid",
        "InternVid-10M-flt.jsonl",
        [
            INTERNVID,
            {key: value for key, value in {**INTERNVID, "YoutubeID": "noscores"}.items() if not key.endswith("Score")},
        ],
        [
            Bad({**INTERNVID, "UMT_Score": "high"}, "UMT_Score is not a number"),
            Bad({**INTERNVID, "End_timestamp": "00:00:01.000"}, "ends before it starts"),
            Bad({**INTERNVID, "Caption": None}, "lacks Caption"),
            Bad({**INTERNVID, "Start_timestamp": "x"}, "is not a time"),
            Bad({**INTERNVID, "End_timestamp": 10**400}, "is not a time"),
            *SHARED_BAD,
        ],
    ),
    Shape(
        "labels",
        "part-0.jsonl",
        [
            {
                "id": "a1",
                "video": "a.mp4",
                "start": 1.0,
                "end": 2.5,
                "prompt": "What is it?",
                "text": "猫",
                "language": "zh",
                "status": "success",
            },
            {"id": "a2", "video": "a.mp4", "text": "A cat sleeps."},
        ],
        [
            Bad(
                {"id": "a3", "video": "a.mp4", "text": None, "status": "decode_error", "error": "no frame"},
                "was not labelled",
            ),
            Bad({"id": "a4", "video": "a.mp4", "text": ""}, "lacks text"),
            Bad({"id": "a5", "text": "x"}, "lacks video"),
            Bad({"id": "a6", "video": "a.mp4", "text": "x", "start": 5, "end": 2}, "ends before it starts"),
            Bad({"id": "a7", "video": "a.mp4", "text": "x", "start": float("nan")}, "start is not a number"),
            *SHARED_BAD,
        ],
    ),
]


def write(path: Path, rows: list[Values | str]) -> Path:
    """Rows in the form that the file's suffix says; a text is written as it is."""
    suffix = path.suffix
    if suffix == ".csv":
        first = next(row for row in rows if isinstance(row, dict))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(first), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            if isinstance(row, str):
                text.write(row + "\n")
            else:
                writer.writerow(row)
        path.write_text(text.getvalue(), encoding="utf-8")
        return path
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    if suffix == ".jsonl":
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.name.startswith("filter_cap"):
        path.write_text('{"annotations": [' + ",\n".join(lines) + "]}", encoding="utf-8")
    else:
        path.write_text("[" + ", ".join(lines) + "]", encoding="utf-8")
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
