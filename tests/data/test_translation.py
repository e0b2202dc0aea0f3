"""Translating annotation files through an endpoint."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_sets import panda, talk, write
from endpoint_on_loopback import Reply, serving
from minigpt4_video.data.endpoint import Endpoint
from minigpt4_video.data.formats import read
from minigpt4_video.data.sample import Flaw
from minigpt4_video.data.translation import lost, must_stay, names, translate
from minigpt4_video.errors import DataError, EndpointError
from minigpt4_video.messages import media_parts, text_of

LABEL = {"id": "1", "video": "a.mp4", "language": "en"}


def chinese(text: str, number: int = 0) -> str:
    """A translation of a kind: what must stay, in Chinese."""
    return "译文" + "，".join(must_stay(text)) + "。"


def endpoint(server, **options) -> Endpoint:
    waits: list[float] = []
    made = Endpoint(server.address, "some-model", sleep=waits.append, **options)
    object.__setattr__(made, "waits", waits)
    return made


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def set_of(folder: Path, count: int) -> Path:
    rows = [
        {"video_id": f"v_{n}", "q": f"What does he do {n} times?", "a": f"He meets Anna {n} times."}
        for n in range(count)
    ]
    return write(folder / "set.json", rows)


def test_rows_keep_their_names_and_shape_and_are_read_as_before(tmp_path):
    output = tmp_path / "zh.jsonl"
    with serving(chinese) as server:
        done = translate("videoinstruct-100k", set_of(tmp_path, 9), output, endpoint(server))

    assert (done.written, done.failed) == (9, 0)
    assert [row["video_id"] for row in lines(output)] == [f"v_{n}" for n in range(9)]
    for number, record in enumerate(read("videoinstruct-100k", output)):
        assert record.language == "zh"
        assert [text_of(message) for message in record.messages] == [f"译文{number}。", f"译文{number}，Anna。"]
        assert next(media_parts(record.messages))["path"].endswith(f"v_{number}.mp4")
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {request["model"] for request in server.requests} == {"some-model"}


def test_an_answer_goes_to_the_row_that_asked_however_late_it_comes(tmp_path):
    def slow_at_first(text: str, number: int) -> str:
        time.sleep(0.05 * (4 - number % 5))
        return chinese(text)

    output = tmp_path / "zh.jsonl"
    with serving(slow_at_first) as server:
        translate("videoinstruct-100k", set_of(tmp_path, 20), output, endpoint(server), parallel=8)

    assert [(row["video_id"], row["source_row"], row["q"]) for row in lines(output)] == [
        (f"v_{n}", n, f"译文{n}。") for n in range(20)
    ]


@pytest.mark.parametrize(
    ("name", "file", "row", "read_back"),
    [
        ("llava", "a.json", talk("<video>\nWho is it?", "It is Tom.", video="a.mp4"), ["译文\n。", "译文Tom。"]),
        ("webvid", "a.csv", {"videoid": "1", "name": "A lake at 5 o'clock", "page_dir": "x"}, ["译文5。"]),
        ("panda-70m", "a.csv", panda(clips=2), ["译文。", "译文。"]),
        ("cmd", "a.json", {"image_id": "x", "caption": "A man."}, ["译文。"]),
        ("labels", "a.jsonl", {**LABEL, "prompt": "What?", "text": "A 3."}, ["译文。", "译文3。"]),
        ("sharegpt4video", "a.jsonl", {"video_id": "v", "captions": [{"idx": "-1", "content": "A day."}]}, ["译文。"]),
    ],
)  # fmt: skip
def test_formats_are_translated_where_their_texts_are(name, file, row, read_back, tmp_path):
    output = tmp_path / "out.jsonl"
    with serving(chinese) as server:
        translate(name, write(tmp_path / file, [row]), output, endpoint(server))

    rows = list(read(name, output))
    texts = [text_of(message) for record in rows for message in record.messages]
    assert not any(isinstance(row, Flaw) for row in rows)
    assert [text.replace("<video>", "") for text in texts if text.startswith("译文")] == read_back
    assert all(record.language == "zh" for record in rows)


def test_a_translation_that_loses_a_number_is_asked_for_again_and_told_what_it_lost(tmp_path):
    with serving(lambda text, number: "译文。" if number == 0 else chinese(text)) as server:
        set_ = write(tmp_path / "c.json", [{"image_id": "a", "caption": "It rains for 17 days."}])
        done = translate("cmd", set_, tmp_path / "o.jsonl", endpoint(server))

    assert done.written == 1 and len(server.requests) == 2
    assert "17 got lost" in server.requests[1]["messages"][0]["content"]


def test_what_stays_wrong_is_told_and_left_out(tmp_path):
    rows = [{"image_id": str(n), "caption": f"He has {n + 20} dogs."} for n in range(4)]
    with serving(lambda text, number: "译文。" if "22" in text else chinese(text)) as server:
        done = translate(
            "cmd", write(tmp_path / "c.json", [*rows, {"image_id": "x"}, "[1]"]), tmp_path / "o.jsonl", endpoint(server)
        )

    assert (done.written, done.failed) == (3, 3)
    assert [row["image_id"] for row in lines(tmp_path / "o.jsonl")] == ["0", "1", "3"]
    failed = lines(tmp_path / "o.failed.jsonl")
    assert [(row["source_row"], row["problem"]) for row in failed] == [
        (2, "translation is not usable"),
        (4, "has no text to translate"),
        (5, "is not an object"),
    ]


@pytest.mark.parametrize(
    ("text", "translation", "problem"),
    [
        ("He waits 12 days.", "他等了12天。", ""),
        ("Two of 3 dogs run.", "三只狗中有两只在跑。", ""),
        ("He waits 12 days.", "他等了21天。", "the number 12 got lost"),
        ("At 5:30 and 5:30.", "5:30。", "the number 5:30 got lost"),
        ("Then Anna sees Bob.", "然后Anna看到了Bob。", ""),
        ("Then Anna sees Bob.", "然后Anna看到了他。", "the name Bob got lost"),
        ("<video>\nWhat?", "<video>\n什么？", ""),
        ("<video>\nWhat?", "什么？", "the placeholders <video> are not the same"),
        ("What?", "<image>什么？", "the placeholders (none) are not the same"),
        ("A dog.", "", "it is empty"),
        ("A dog.", "A dog.", "it is not Chinese"),
        ("A dog.", "狗" * 200, "it is much longer than the text"),
        ("12 + 5", "12 + 5", ""),
    ],
)
def test_what_got_lost_is_named(text, translation, problem):
    assert lost(text, translation, "zh") == problem


def test_names_are_words_with_a_capital_within_a_sentence():
    assert names("The man met John O'Neil in New-York. He said: \"Yes\". I saw TV with Mary's dog.") == [
        "John", "O'Neil", "New-York", "Mary",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He met Anna\nBob left", ["Anna"]),
        ("He met Anna, 5 times. Bob left", ["Anna"]),
        ("He, (Anna) and_Bob", ["Anna", "Bob"]),
        ("Anna", []),
        ("5 Annas", ["Annas"]),
        ("It was… \t Anna who saw Bob", ["Bob"]),
    ],
)
def test_a_sentence_begins_behind_a_mark_or_a_line(text, found):
    assert names(text) == found


def test_a_long_text_is_compared_in_the_time_of_reading_it():
    """Of 600 words, in half a minute where each word has all before it looked through for each other word."""
    text = "They saw Anna and Bob there. " * 100 + "\n" * 50_000 + "Carl"
    began = time.process_time()

    assert lost(text, "Anna和Bob。" + "狗" * 9000, "zh") == ""
    assert time.process_time() - began < 2


def test_a_row_that_cannot_be_written_as_utf_8_is_translated_or_told(tmp_path):
    rows = [
        {"image_id": "0", "caption": "A dog.", "note": "half \ud83d"},
        {"image_id": "1", "caption": "Half \ud83d a dog."},
        {"image_id": "2", "caption": "A cat."},
    ]
    set_ = write(tmp_path / "c.jsonl", rows)
    with serving(lambda text, number: "猫\ud83d。" if "cat" in text else chinese(text)) as server:
        done = translate("cmd", set_, tmp_path / "o.jsonl", endpoint(server))

    assert (done.written, done.failed) == (1, 2)
    assert lines(tmp_path / "o.jsonl") == [{**rows[0], "caption": "译文。", "source_row": 0}]
    failed = lines(tmp_path / "o.failed.jsonl")
    assert [(row["source_row"], row["problem"]) for row in failed] == [
        (1, "a text is not whole Unicode"),
        (2, "translation is not usable"),
    ]
    assert not any("Half" in text for text in server.texts())


def test_a_row_of_lists_in_lists_is_told_and_its_neighbours_are_translated(tmp_path):
    deep = '{"image_id": "a", "caption": "x", "more": ' + "[" * 700 + "]" * 700 + "}"
    set_ = write(tmp_path / "c.jsonl", [deep, {"image_id": "b", "caption": "A dog."}])
    with serving(chinese) as server:
        done = translate("cmd", set_, tmp_path / "o.jsonl", endpoint(server))

    assert (done.written, done.failed) == (1, 1)


def test_an_interrupted_run_goes_on_behind_its_last_whole_row(tmp_path):
    output, set_ = tmp_path / "o.jsonl", set_of(tmp_path, 6)
    with serving(chinese) as server:
        translate("videoinstruct-100k", set_, output, endpoint(server))
        whole = output.read_bytes()
        kept = whole.splitlines(keepends=True)
        output.write_bytes(b"".join(kept[:3]) + kept[3][:20])  # killed in the middle of a line
        before = len(server.requests)
        done = translate("videoinstruct-100k", set_, output, endpoint(server))

    assert output.read_bytes() == whole
    assert done.resumed_at == 3 and len(server.requests) - before == 6


def test_a_killed_process_loses_and_repeats_nothing(tmp_path):
    set_, output = set_of(tmp_path, 30), tmp_path / "o.jsonl"

    def slowly(text: str, number: int) -> str:
        time.sleep(0.02)
        return chinese(text)

    with serving(slowly) as server:
        command = [
            sys.executable, "-m", "minigpt4_video", "data", "translate", "videoinstruct-100k", str(set_), "--output",
            str(output), "--endpoint", server.address, "--model", "m", "--parallel", "2",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 5):
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [row["source_row"] for row in lines(output)] == list(range(30))
    assert int(re.findall(r"(\d+) done before", done.stdout)[0]) >= 5


def test_other_settings_do_not_go_on_in_the_same_file(tmp_path):
    with serving(chinese) as server:
        set_, output = set_of(tmp_path, 2), tmp_path / "o.jsonl"
        translate("videoinstruct-100k", set_, output, endpoint(server))
        with pytest.raises(DataError, match="model"):
            translate("videoinstruct-100k", set_, output, Endpoint(server.address, "another"))
        (tmp_path / "mine.jsonl").write_text("{}\n")
        with pytest.raises(DataError, match="name another file"):
            translate("videoinstruct-100k", set_, tmp_path / "mine.jsonl", endpoint(server))


@pytest.mark.parametrize("output_is", ["deleted", "empty"])
@pytest.mark.parametrize("model", ["some-model", "another"])
def test_where_nothing_is_written_what_failed_earlier_is_tried_again(output_is, model, tmp_path):
    set_, output = set_of(tmp_path, 4), tmp_path / "o.jsonl"
    with serving(lambda text, number: "" if "2" in text else chinese(text)) as server:
        translate("videoinstruct-100k", set_, output, endpoint(server))
    assert (tmp_path / "o.failed.jsonl").exists()
    if output_is == "deleted":
        output.unlink()
    else:
        output.write_bytes(b"")

    with serving(chinese) as server:
        done = translate("videoinstruct-100k", set_, output, Endpoint(server.address, model))

    assert (done.written, done.failed, done.resumed_at) == (4, 0, 0)
    assert [row["source_row"] for row in lines(output)] == [0, 1, 2, 3]
    assert not (tmp_path / "o.failed.jsonl").exists()


def test_a_model_that_failed_everywhere_hides_nothing_from_the_next(tmp_path):
    set_, output = set_of(tmp_path, 3), tmp_path / "o.jsonl"
    with serving(lambda text, number: "") as server:
        assert translate("videoinstruct-100k", set_, output, endpoint(server)).failed == 3
    with serving(chinese) as server:
        assert translate("videoinstruct-100k", set_, output, Endpoint(server.address, "another")).written == 3


def test_rows_that_failed_before_stay_left_out_and_are_counted(command, tmp_path):
    set_, output = set_of(tmp_path, 5), tmp_path / "o.jsonl"
    arguments = ["data", "translate", "videoinstruct-100k", set_, "--output", output, "--model", "m", "--endpoint"]
    with serving(lambda text, number: "" if "2" in text else chinese(text)) as server:
        command(*arguments, server.address)
        before = len(server.requests)
        status, out, err = command(*arguments, server.address, "--json")

    assert status == 0 and len(server.requests) == before
    assert json.loads(out) == {"output": str(output), "written": 0, "failed": 0, "before": 5, "failed_before": 1}
    assert "1 of the rows before failed" in err
    assert [row["source_row"] for row in lines(tmp_path / "o.failed.jsonl")] == [2]


def test_failures_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "o.failed.jsonl").write_text("mine\n")
    with serving(chinese) as server, pytest.raises(DataError, match="is there already"):
        translate("videoinstruct-100k", set_of(tmp_path, 1), tmp_path / "o.jsonl", endpoint(server))

    assert (tmp_path / "o.failed.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_later_and_later(status):
    with serving(lambda text, number: Reply(status) if number < 4 else "好") as server:
        made = endpoint(server)
        assert made.ask([{"role": "user", "content": "x"}]) == "好"

    waits = made.waits
    assert len(waits) == 4 and all(0 < wait <= 60 for wait in waits)
    assert waits[3] > waits[0]


def test_the_wait_an_endpoint_asks_for_is_kept_within_reason():
    replies = [Reply(429, headers=(("Retry-After", "7"),)), Reply(429, headers=(("Retry-After", "99999"),))]
    with serving(lambda text, number: replies[number] if number < 2 else "好") as server:
        made = endpoint(server)
        made.ask([{"role": "user", "content": "x"}])

    assert made.waits == [7.0, 60.0]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(401, b'{"error": {"message": "no such key"}}'), "no such key; check the key"),
        (Reply(404, b"<html>"), "refused with 404"),
        (Reply(400, b'{"error": "bad\\nmodel"}'), "bad model"),
        (Reply(200, b"<html>hello"), "does not answer as an OpenAI-compatible one"),
        (Reply(200, b'{"choices": []}'), "does not answer as an OpenAI-compatible one"),
        (Reply(302, headers=(("Location", "http://elsewhere.example/"),)), "leads on to http://elsewhere.example/"),
    ],
)
def test_an_endpoint_that_refuses_is_one_line_and_asked_once(command, tmp_path, reply, said):
    with serving(lambda text, number: reply) as server:
        status, _, err = command(
            "data", "translate", "cmd", write(tmp_path / "c.json", [{"image_id": "a", "caption": "A dog."}]),
            "--output", tmp_path / "o.jsonl", "--endpoint", server.address, "--model", "m",
        )  # fmt: skip

    assert status == 2
    assert said in err and len(err.strip().splitlines()) == 1
    assert len(server.requests) == 1


def test_what_was_done_before_a_refusal_is_kept(tmp_path):
    set_, output = set_of(tmp_path, 10), tmp_path / "o.jsonl"
    with (
        serving(lambda text, number: Reply(403) if number >= 8 else chinese(text)) as server,
        pytest.raises(EndpointError),
    ):
        translate("videoinstruct-100k", set_, output, endpoint(server), parallel=1)

    assert [row["source_row"] for row in lines(output)] == [0, 1, 2, 3]


def test_nobody_there_is_one_line(tmp_path):
    with serving(chinese) as server:
        gone = endpoint(server, tries=2)
    with pytest.raises(EndpointError, match="cannot be reached"):
        gone.ask([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "address", ["", "localhost:8000", "ftp://x/v1", "http://", "http://a b/", "http://u:p@h/v1", "http://h/v1?x=1"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(EndpointError):
        Endpoint(address, "m")


def test_the_key_goes_to_the_endpoint_and_into_no_file(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4_VIDEO_API_KEY", "secret-7")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")  # nothing listens there: it must not be asked
    with serving(chinese) as server:
        status, out, err = command(
            "data", "translate", "cmd", write(tmp_path / "c.json", [{"image_id": "a", "caption": "A dog."}]),
            "--output", tmp_path / "o.jsonl", "--endpoint", server.address, "--model", "m", "--json",
        )  # fmt: skip

    assert status == 0 and json.loads(out)["written"] == 1
    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret-7"
    assert "secret-7" not in out + err
    for folder, _, files in os.walk(tmp_path):
        assert not any(b"secret-7" in Path(folder, file).read_bytes() for file in files)
