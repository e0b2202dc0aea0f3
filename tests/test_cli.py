"""What a person at a terminal sees: words on stdout, everything else on stderr, and an exit status that tells."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import av
import pytest

from making import SUBTITLES, write_sound, write_video

PROGRAM = [sys.executable, "-m", "minigpt4_video"]


def test_ask_prints_the_answer_alone_on_stdout(command, subtitled, random_model):
    status, out, err = command("ask", subtitled, "What happens?", "--model", random_model)

    assert status == 0
    assert out.count("\n") >= 1 and out.strip()
    assert "clip.srt" in err and "cpu" in err
    assert "clip.srt" not in out


def test_ask_as_json_is_one_object_that_tells_the_plan(command, subtitled, random_model):
    status, out, _ = command("ask", subtitled, "What happens?", "--model", random_model, "--json", "--frames", 3)

    told = json.loads(out)
    assert status == 0
    assert told["question"] == "What happens?" and told["subtitles"] == "clip.srt"
    assert told["plan"]["frames"] == 3
    assert told["plan"]["kept_subtitles"] == ["hello from the start", "we are nearly done", ""]
    assert told["confidence"] <= 0


def test_the_answer_is_the_same_words_streamed_and_as_json(command, video, random_model):
    arguments = ["ask", video, "What happens?", "--model", random_model, "--max-new-tokens", 12]
    _, streamed, _ = command(*arguments)
    _, told, _ = command(*arguments, "--json")

    # Random weights may say control characters, which a terminal is never given.
    said = "".join(c for c in json.loads(told)["answer"] if c.isprintable())
    assert "".join(c for c in streamed if c.isprintable()) == said


def test_the_model_can_be_named_in_the_environment(command, video, random_model, monkeypatch):
    monkeypatch.setenv("MINIGPT4_VIDEO_MODEL", str(random_model))
    assert command("ask", video, "What happens?", "--max-new-tokens", 2)[0] == 0


def test_a_report_is_written_beside_the_answer(command, subtitled, random_model, tmp_path):
    report = tmp_path / "answer.html"
    status, out, err = command("ask", subtitled, "What <happens>?", "--model", random_model, "--report", report)

    page = report.read_text(encoding="utf-8")
    assert status == 0 and out.strip() and str(report) in err
    assert "What &lt;happens&gt;?" in page and page.count("data:image/jpeg;base64,") == 4
    assert "hello from the start" in page


def test_caption_asks_in_the_style_and_language(command, video, random_model):
    status, out, _ = command("caption", video, "--style", "tags", "--language", "zh", "-m", random_model, "--json")

    assert status == 0
    assert "关键词" in json.loads(out)["question"]


def test_chat_answers_line_by_line_and_an_empty_line_begins_again(command, video, random_model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("What happens?\nAnd then?\n\nWhat happens?\n"))
    status, out, err = command("chat", video, "-m", random_model, "--max-new-tokens", 6)

    answers = out.rstrip("\n").split("\n")
    assert status == 0 and "new conversation" in err
    assert answers[0] == answers[-1]


def test_chat_goes_on_after_a_question_that_it_cannot_answer(command, video, random_model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("why? " * 400 + "\nWhat happens?\n"))
    status, out, err = command("chat", video, "-m", random_model, "--max-new-tokens", 6)

    assert status == 0 and out.strip()
    assert "error: The question" in err and "answer; an empty line begins a new conversation" in err


@pytest.mark.parametrize("words", ["", "\n\n"])
def test_chat_ends_with_its_input(command, video, random_model, monkeypatch, words):
    monkeypatch.setattr(sys, "stdin", io.StringIO(words))
    assert command("chat", video, "-m", random_model)[:2] == (0, "")


def test_questions_in_no_encoding_are_answered(video, random_model):
    more = ["-m", str(random_model), "--max-new-tokens", "4"]
    for words, typed in ((["ask", video, b"caf\xe9?", *more], None), (["chat", video, *more], b"caf\xe9?\n")):
        done = subprocess.run([*PROGRAM, *words], input=typed, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_inspect_tells_streams_frames_and_plan_without_weights(command, subtitled, random_model, tmp_path):
    bare = shutil.copytree(random_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    status, out, _ = command("inspect", subtitled, "-m", bare)

    assert status == 0
    assert "64 x 48" in out and "h264" in out and "clip.srt" in out
    assert "hello from the start" in out and "of the 256 tokens" in out


def test_inspect_as_json_and_its_contact_sheet(command, subtitled, random_model, tmp_path):
    sheet = tmp_path / "frames.png"
    status, out, err = command("inspect", subtitled, "-m", random_model, "--frames", 2, "--json", "--sheet", sheet)

    told = json.loads(out)
    assert status == 0 and str(sheet) in err
    assert told["streams"]["width"] == 64 and told["streams"]["codec"] == "h264"
    assert [frame["subtitle"] for frame in told["frames"]] == ["hello from the start", "we are nearly done"]
    assert [frame["time"] for frame in told["frames"]] == pytest.approx([0.5, 1.5], abs=0.126)
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_inspect_says_which_frames_do_not_fit(command, tmp_path, random_model):
    folder = shutil.copytree(random_model, tmp_path / "narrow")
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(settings | {"frames": 8, "window": 60}))

    status, out, _ = command("inspect", write_video(tmp_path / "clip.mp4"), "-m", folder, "--question", "What?")

    assert status == 0
    assert "left out" in out


def test_a_terminal_is_not_given_what_it_would_obey(command, video, random_model):
    video.with_suffix(".srt").write_text(
        "1\n00:00:00,000 --> 00:00:01,000\nred \x1b[31m alarm \x07\n", encoding="utf-8"
    )
    status, out, err = command("inspect", video, "-m", random_model)

    assert status == 0 and "alarm" in out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err)


def test_nor_is_it_when_the_model_repeats_them(command, video, random_model, monkeypatch):
    from transformers import PreTrainedTokenizerBase

    monkeypatch.setattr(PreTrainedTokenizerBase, "decode", lambda *_, **__: "a \x1b[31m red\x07 \u202e alarm")
    status, out, _ = command("ask", video, "What happens?", "-m", random_model, "--max-new-tokens", 2)

    assert (status, out) == (0, "a [31m red  alarm\n")


def test_models_tells_what_each_needs(command):
    status, out, _ = command("models", "--json")

    known = {model["name"]: model for model in json.loads(out)["models"]}
    assert status == 0
    assert known["llama2-7b"]["memory_gib"] > 12 and known["llama2-7b"]["needs"]
    assert known["llama2-7b"]["repetition_penalty"] == 1.5 and known["qwen3-8b"]["repetition_penalty"] == 1.0
    told = command("models")[1].split("\n\n")[0]
    by_model = {part.partition(":")[0]: part for part in re.split(r"\n(?=\S)", told)}
    assert "repetition penalty 1.5, as the original's" in by_model["mistral-7b"]
    assert "penalty" not in by_model["qwen2.5-7b"]


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_device_that_is_used_is_said(command, video, random_model, device):
    status, _, told = command("ask", video, "What?", "-m", random_model, "--device", device)
    assert status == 0
    assert re.search(rf"model: {re.escape(str(random_model))} on (cpu|cuda:\d+);", told)


def test_doctor_tells_versions_and_tries_the_model(command, random_model):
    status, out, _ = command("doctor", "--model", random_model)

    assert status == 0
    assert f"av               {av.__version__}" in out and "ready" in out


def test_the_world_is_rendered_to_files_that_can_be_asked_about(command, random_model, tmp_path):
    world = tmp_path / "world"
    status, out, err = command("world", "render", "--output", world, "--count", 1, "--seed", 2, "--language", "zh")

    assert status == 0 and out == "" and str(world) in err
    (video,) = world.glob("*.mp4")
    known = json.loads((world / "questions.jsonl").read_text(encoding="utf-8"))
    assert known["video"] == video.name and known["language"] == "zh"
    assert command("ask", video, known["questions"][0]["text"], "-m", random_model)[0] == 0


def test_the_world_is_counted(command):
    status, out, _ = command("world", "stats", "--count", 20, "--json")

    assert status == 0 and json.loads(out)["scenes"] == 20
    assert "questions:" in command("world", "stats", "--count", 20)[1]


def test_an_original_checkpoint_is_converted_verified_and_asked(command, shared, tmp_path, video):
    recorded = shared / "golden" / "llama2_A"
    heads = json.loads((recorded / "MANIFEST.json").read_text())["config"]["vit"]["heads"]
    output = tmp_path / "converted"
    parts = ["--official-checkpoint", recorded / "official.pth", "--language-model", recorded / "base_llm"]
    parts += ["--vision", recorded / "eva_vit_g.pth", "--vision-heads", heads, "--dtype", "float32"]
    status, out, err = command("convert", *parts, "--output", output, "--verify")

    assert status == 0, err
    assert "LoRA norm" in out and "loss without LoRA" in out and str(output) in err
    assert command("ask", video, "What happens?", "-m", output, "--frames", 2, "--max-new-tokens", 3)[0] == 0
    refused(command("convert", *parts, "--output", output), "not empty")


def test_train_lists_the_recipes_that_come_with_the_package(command):
    status, out, _ = command("train", "--list")

    assert status == 0
    assert "tiny/stage3" in out.split("\n")


def test_train_takes_a_recipe_with_changes_and_tells_where_the_result_is(command, monkeypatch, tmp_path):
    given = {}

    def train(recipe, output, *, resume, overrides, variant):
        given.update(recipe=recipe, output=str(output), resume=resume, overrides=overrides, variant=variant)
        print("what a trainer prints")
        return output

    monkeypatch.setattr("minigpt4_video.training.train.train", train)
    status, out, err = command(
        "train", "tiny/stage3", "--resume", "--variant", "full", "--set", "seed=7", "--set", "training.max_steps=2"
    )

    assert (status, out) == (0, "runs/tiny/stage3\n")
    assert "what a trainer prints" in err
    assert given == {
        "recipe": "tiny/stage3",
        "output": "runs/tiny/stage3",
        "resume": True,
        "variant": "full",
        "overrides": {"seed": "7", "training.max_steps": "2"},
    }


# ---- what is refused: one line on stderr, status 2, nothing on stdout


def refused(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert status == 2, err
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.mark.parametrize("verb", ["ask", "caption", "chat", "inspect"])
def test_a_missing_video_is_refused(command, verb, tmp_path):
    question = ["What happens?"] if verb == "ask" else []
    refused(command(verb, tmp_path / "nowhere.mp4", *question), "nowhere.mp4")


def test_a_folder_an_empty_and_a_non_video_file_are_refused(command, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "letter.mp4").write_text("Dear video, how are you?", encoding="utf-8")
    for name in ["", "empty.mp4", "letter.mp4"]:
        refused(command("ask", tmp_path / name, "What happens?"), name)


def test_a_file_with_sound_only_is_refused(command, tmp_path):
    refused(command("ask", write_sound(tmp_path / "song.m4a"), "What happens?"), "song.m4a")


def test_a_file_cut_before_its_index_is_refused(command, video, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:700])
    refused(command("ask", cut, "What happens?"), "cut.mp4")


@pytest.mark.parametrize("question", ["", "   "])
def test_an_empty_question_is_refused(command, video, question):
    refused(command("ask", video, question), "question")


@pytest.mark.parametrize("verb", ["ask", "inspect"])
@pytest.mark.parametrize("frames", [100, 40])
def test_more_frames_than_the_context_holds_are_refused(command, tmp_path, random_model, verb, frames):
    """Whether the frames alone are too many, or only together with their tags and the question."""
    video = write_video(tmp_path / "long.mp4", seconds=16)
    question = ["What happens?"] if verb == "ask" else []
    result = command(verb, video, *question, "-m", random_model, "--frames", frames)
    refused(result, f"{frames} frames", "256")
    most = re.search(r"at most (\d+)", result[2])
    assert most is not None and int(most[1]) < frames


@pytest.mark.parametrize("verb", ["ask", "inspect"])
def test_so_they_are_of_a_video_that_does_not_have_as_many(command, video, random_model, verb):
    question = ["What happens?"] if verb == "ask" else []
    refused(command(verb, video, *question, "-m", random_model, "--frames", 100000), "100000 frames", "256", "at most")


def test_a_question_that_the_context_cannot_hold_is_refused(command, video, random_model):
    refused(command("ask", video, "why? " * 400, "-m", random_model), "256")


def test_missing_unreadable_and_wrongly_named_subtitles_are_refused(command, video, random_model, tmp_path):
    noise = tmp_path / "noise.srt"
    noise.write_bytes(bytes(range(256)) * 8)
    latin = tmp_path / "latin.srt"
    latin.write_bytes(SUBTITLES.replace("hello", "café").encode("cp1252"))
    ask = ["ask", video, "What happens?", "-m", random_model, "--subtitles"]

    refused(command(*ask, tmp_path / "none.srt"), "none.srt")
    refused(command(*ask, noise), "noise.srt")
    refused(command(*ask, latin, "--encoding", "utf-8"), "latin.srt", "utf-8")
    refused(command(*ask, latin, "--encoding", "klingon"), "klingon")
    assert command(*ask, latin, "--encoding", "cp1252")[0] == 0


def test_subtitles_longer_than_the_video_are_all_shown_to_the_model(command, video, random_model):
    late = SUBTITLES + "\n3\n00:10:00,000 --> 00:10:02,000\nlong after the end\n"
    video.with_suffix(".srt").write_text(late, encoding="utf-8")
    status, out, _ = command("ask", video, "What happens?", "-m", random_model, "--json")

    assert status == 0
    assert json.loads(out)["plan"]["kept_subtitles"][-1] == "long after the end"


def test_what_is_no_model_is_refused(command, video, tmp_path):
    (tmp_path / "folder").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    ask = ["ask", video, "What happens?", "-m"]

    refused(command(*ask, tmp_path / "folder"), "config.json")
    refused(command(*ask, "no-such-model"), "no-such-model")
    refused(command(*ask, other), "llama")
    refused(command(*ask, "llama2-7b"), "convert")


def test_a_model_folder_without_its_weights_or_with_damaged_ones_is_refused(command, video, random_model, tmp_path):
    ask = ["ask", video, "What happens?", "-m"]
    bare = shutil.copytree(random_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    refused(command(*ask, bare), "weights")
    damaged = shutil.copytree(random_model, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    refused(command(*ask, damaged), "weights")


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused(command, video, random_model, device):
    refused(command("ask", video, "What happens?", "-m", random_model, "--device", device), f'"{device}"')


@pytest.mark.parametrize("value", [-1, 2**70])
def test_a_seed_that_no_generator_takes_is_refused(command, video, random_model, value):
    refused(command("ask", video, "What?", "-m", random_model, "--temperature", 1, "--seed", value), "seed")


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "hot"])
def test_a_temperature_that_means_nothing_is_refused(command, video, random_model, value):
    refused(command("ask", video, "What?", "-m", random_model, "--temperature", value), "temperature")


def test_a_temperature_next_to_nothing_takes_the_likeliest_word(command, video, random_model):
    ask = ["ask", video, "What?", "-m", random_model, "--max-new-tokens", 8]
    assert command(*ask, "--temperature", "1e-300")[:2] == command(*ask)[:2]


def test_a_place_where_no_report_can_be_written_is_refused_before_the_work(command, video, tmp_path):
    refused(command("ask", video, "What?", "-m", "no-model", "--report", tmp_path / "no" / "r.html"), "r.html")
    refused(command("inspect", video, "-m", "no-model", "--sheet", tmp_path), str(tmp_path))


def test_nothing_is_half_written_when_the_answer_fails(command, video, random_model, tmp_path):
    report = tmp_path / "out" / "r.html"
    report.parent.mkdir()
    refused(command("ask", video, "why? " * 400, "-m", random_model, "--report", report))
    assert list(report.parent.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["fly"],
        ["ask", "clip.mp4", "Q?", "--frames", "0"],
        ["ask", "c.mp4", "Q?", "--dtype", "int3"],
        ["train"],
    ],
)
def test_wrong_usage_is_refused(command, arguments):
    refused(command(*arguments))


def test_training_without_its_packages_names_them(command, monkeypatch):
    monkeypatch.setattr("minigpt4_video.cli.training.find_spec", lambda name: None)
    refused(command("train", "tiny/stage3"), "accelerate", "minigpt4-video[train]")


def test_an_unknown_recipe_and_an_unknown_key_are_refused(command, tmp_path):
    refused(command("train", "tiny/stage9", "--output", tmp_path / "run"), "tiny/stage9")
    refused(command("train", "tiny/stage3", "--output", tmp_path / "run", "--set", "trainning.steps=2"), "trainning")
    assert not (tmp_path / "run").exists()


def test_an_override_without_a_value_is_refused(command):
    refused(command("train", "tiny/stage3", "--set", "frames"), "KEY=VALUE")


# ---- names and streams


def test_a_chinese_name_and_one_that_begins_with_a_dash_are_files(command, random_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["厨房 里.mp4", "-clip.mp4", "100%-[x].mp4"]:
        write_video(tmp_path / name)
        status, out, err = command("ask", name, "What happens?", "-m", random_model, "--max-new-tokens", 4)
        assert status == 0 and out.strip(), err


def test_a_file_that_the_system_refuses_is_named(command, tmp_path):
    (tmp_path / "file").touch()
    refused(command("world", "render", "--output", tmp_path / "file" / "world", "--count", 1), str(tmp_path))


def test_the_debug_variable_shows_where(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4_VIDEO_DEBUG", "1")
    status, _, err = command("ask", tmp_path / "none.mp4", "What?")
    assert status == 2 and "Traceback" in err and "none.mp4" in err.splitlines()[-1]


def test_names_that_the_terminal_cannot_show_are_no_fault(tmp_path):
    for name in ["厨房.mp4", os.fsdecode(b"caf\xe9.mp4")]:
        done = subprocess.run(
            [*PROGRAM, "ask", str(tmp_path / name), "What?"],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2 and b"\\u" in done.stderr and done.stderr.count(b"\n") == 1, done.stderr


def test_a_fault_of_ours_is_one_line_and_status_one(command, video, random_model, monkeypatch):
    monkeypatch.setattr("minigpt4_video.inference.chat.VideoChat.open", lambda *_, **__: 1 / 0)
    status, out, err = command("ask", video, "What happens?", "-m", random_model)

    assert status == 1 and out == ""
    assert err.startswith("internal fault: ZeroDivisionError") and err.count("\n") == 1


def test_no_arguments_show_the_help(command):
    status, out, _ = command()
    assert status == 0 and "ask" in out and "Exit status" in out


def test_the_module_runs_as_the_command(video, random_model):
    done = subprocess.run(
        [*PROGRAM, "ask", str(video), "What happens?", "-m", str(random_model), "--max-new-tokens", "4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr.count("\n") == 1, "only the line about model and subtitles, none of the libraries' noise"


def test_output_that_has_no_room_or_no_place_is_no_fault_of_ours() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no room" in done.stderr
    closed = "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
    line = [sys.executable, "-c", closed, *PROGRAM, "--version"]
    done = subprocess.run(line, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_early_is_no_fault(random_model):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "models"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


INTERRUPTIBLE = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
    "runpy.run_module('minigpt4_video', run_name='__main__')"
)


def test_an_interruption_ends_with_status_130(video, random_model):
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "chat", str(video), "-m", str(random_model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stderr is not None
            assert "model:" in program.stderr.readline()
            time.sleep(0.3)
            program.send_signal(signal.SIGINT)
            assert program.wait(timeout=60) == 130
            assert "Traceback" not in program.stderr.read()
        finally:
            program.kill()
