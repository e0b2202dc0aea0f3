"""Which subtitles a video gets when it is left to the program, and speech where there are none."""

import json
import logging
import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from making import SUBTITLES, write_video
from minigpt4_video.errors import MediaError, ModelError
from minigpt4_video.inference import speech
from minigpt4_video.inference.footage import Footage, take_footage
from minigpt4_video.inference.speech import find_recogniser
from minigpt4_video.inference.store import Store
from minigpt4_video.inference.transcripts import stored_words
from minigpt4_video.media import Cue, lines, transcribe
from numbered import write_video as write_numbered
from speaking import RATE, conversation, tone, write_talking

PROCESSOR = SimpleNamespace(window=256, answer_reserve=16, tokens_per_frame=4, frames=8, image_size=56)


class Beeps:
    name = "beeps"

    def __init__(self, key: str = "beeps 1") -> None:
        self.key = key
        self.asked = 0

    def words(self, samples):
        self.asked += 1
        loud = np.flatnonzero(np.abs(samples) > 0.1) / RATE
        yield Cue(float(loud[0]), float(loud[-1]), " beep")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "kept")


@pytest.fixture
def beeping(tmp_path) -> Path:
    return write_talking(tmp_path / "clip.mkv", [(1.0, tone(1))], seconds=4, codec="pcm_s16le")


@pytest.fixture
def beeps(monkeypatch) -> Beeps:
    """A recogniser that is at hand without being named."""
    found = Beeps()
    monkeypatch.setattr(speech, "_at_hand", lambda: found)
    return found


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    from stand_in_whisper import save_stand_in

    return save_stand_in(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def faster_whisper(whisper, tmp_path_factory) -> Path:
    if find_spec("faster_whisper") is None:
        pytest.skip('faster-whisper is not installed (pip install "minigpt4-video[speech]")')
    from stand_in_whisper import convert_stand_in

    return convert_stand_in(whisper, tmp_path_factory.mktemp("faster") / "whisper")


def take(path: Path, **options) -> Footage:
    return take_footage(path, PROCESSOR, **options)


# ---- the order


def test_a_file_beside_the_video_is_taken_before_speech(beeping, beeps):
    beeping.with_suffix(".srt").write_text(SUBTITLES, encoding="utf-8")
    footage = take(beeping)

    assert footage.said_in == "clip.srt" and "hello from the start" in footage.texts
    assert beeps.asked == 0


def test_a_track_in_the_video_is_taken_before_speech(tmp_path, beeps):
    talking = write_talking(tmp_path / "talking.mkv", [(0.0, tone(1))], seconds=2, codec="pcm_s16le")
    tracks = write_numbered(tmp_path / "tracks.mkv", range(50), subtitles=[("eng", 0.5, 0.9, "from the track")])
    path = tmp_path / "clip.mkv"
    with av.open(str(talking)) as sound, av.open(str(tracks)) as texts, av.open(str(path), "w") as container:
        streams = [*sound.streams, *texts.streams.subtitles]
        copies = [container.add_stream_from_template(stream) for stream in streams]
        copies[-1].metadata["language"] = "eng"
        for stream, copy in zip(streams, copies, strict=True):
            for packet in (texts if stream is streams[-1] else sound).demux(stream):
                if packet.size:
                    packet.stream = copy
                    container.mux(packet)
            sound.seek(0)
    footage = take(path)

    assert footage.said_in == "track 0 (eng)" and footage.cues == [Cue(0.5, 0.9, "from the track")]
    assert footage.info.has_audio and beeps.asked == 0


def test_speech_is_heard_where_there_is_neither(beeping, beeps):
    footage = take(beeping)

    assert footage.said_in == "speech (beeps)" and footage.unsaid == ""
    (cue,) = footage.cues
    assert cue == (pytest.approx(1.0, abs=0.01), pytest.approx(2.0, abs=0.01), "beep")
    assert [index for index, text in enumerate(footage.texts) if text] == [
        next(index for index, time in enumerate(footage.clip.times) if time >= cue.start)
    ]


def test_without_anything_to_take_it_says_why(tmp_path, beeping, monkeypatch):
    monkeypatch.setattr(speech, "_at_hand", lambda: None)
    assert "no speech model" in take(beeping).unsaid
    assert "no sound" in take(write_video(tmp_path / "mute.mp4")).unsaid
    assert take(beeping, speech="off").unsaid == "no file beside the video and no track in it"
    assert take(beeping, subtitles="off").unsaid == "none wanted"


def test_a_silent_video_is_no_error(tmp_path, beeps):
    silent = write_talking(tmp_path / "silent.mp4", [(0.0, np.zeros(2 * RATE, np.float32))], seconds=2)
    footage = take(silent)

    assert (list(footage.cues), footage.said_in, footage.unsaid) == ([], "", "no words heard (beeps)")
    assert beeps.asked == 0


def test_a_file_beside_the_video_that_cannot_be_read_is_told_and_passed_over(beeping, beeps, caplog):
    beeping.with_suffix(".srt").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert take(beeping).said_in == "speech (beeps)"
    assert "clip.srt is empty" in caplog.text


def test_what_cannot_be_read_gives_way_to_the_next_file_and_to_the_track_in_the_video(tmp_path, beeps, caplog):
    video = write_numbered(tmp_path / "clip.mkv", range(20), subtitles=[("eng", 0.0, 1.0, "inside")])
    video.with_suffix(".sub").write_bytes(b"\0\0\1\xba" + bytes(2048))
    assert take(video).texts[0] == "inside" and take(video).said_in == "track 0 (eng)"
    assert "clip.sub holds pictures of text" in caplog.text
    video.with_suffix(".fr.srt").write_text(SUBTITLES, encoding="utf-8")
    assert take(video).said_in == "clip.fr.srt"


def test_an_encoding_that_is_named_wrongly_is_an_error_all_the_same(beeping, beeps):
    beeping.with_suffix(".srt").write_text(SUBTITLES.replace("hello", "ça"), encoding="utf-8")
    with pytest.raises(MediaError, match="is not written in ascii"):
        take(beeping, encoding="ascii")


def test_the_language_that_is_asked_for_is_taken(beeping):
    for language in ("en", "zh", "de"):
        beeping.with_suffix(f".{language}.srt").write_text(SUBTITLES.replace("hello", language), encoding="utf-8")
    assert take(beeping).said_in == "clip.en.srt"
    assert take(beeping, subtitle_language="ger").said_in == "clip.de.srt"
    assert take(beeping, subtitle_language="zh").texts[0] == "zh from the start"


def test_subtitles_that_count_frames_count_those_of_the_video(tmp_path, random_model, caplog):
    from minigpt4_video.inference.loading import load_processor

    video = write_video(tmp_path / "clip.mp4", seconds=2, rate=8)
    beside = tmp_path / "clip.sub"
    beside.write_text("{8}{12}one second\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert take(video).cues == take(video, subtitles=beside).cues == [Cue(1.0, 1.5, "one second")]
        asked = [{"type": "video", "path": str(video), "subtitles": way} for way in ("auto", str(beside))]
        processor = load_processor(random_model)
        for part in asked:
            content = [part, {"type": "text", "text": "What?"}]
            (frames,) = processor.prepare([{"role": "user", "content": content}]).plans
            assert frames.kept_subtitles == ("", "", "one second", "")  # frames at 0.25, 0.75, 1.25 and 1.75 s
    assert "are assumed" not in caplog.text


# ---- what was heard is kept


def test_what_was_heard_is_not_heard_again(beeping, store):
    beeps = Beeps()
    first = stored_words(store, beeping, beeps)
    assert stored_words(store, beeping, beeps) == first == transcribe(beeping, Beeps())
    assert beeps.asked == 1 and store.held()["words"].entries == 1


def test_another_recogniser_another_track_or_another_content_is_heard_anew(beeping, store, tmp_path):
    stored_words(store, beeping, Beeps())
    for other, language in ((Beeps("beeps 2"), None), (Beeps(), "de")):
        stored_words(store, beeping, other, language)
        assert other.asked == 1
    moved = beeping.rename(tmp_path / "moved.mkv")
    again = Beeps()
    stored_words(store, moved, again)
    assert again.asked == 0  # the name is no part of the content
    moved.write_bytes(moved.read_bytes() + b"\0")
    stored_words(store, moved, again)
    assert again.asked == 1


def test_a_file_that_changes_while_it_is_heard_is_not_kept(beeping, store):
    class Meddler(Beeps):
        def words(self, samples):
            beeping.write_bytes(beeping.read_bytes() + b"\0")
            return super().words(samples)

    stored_words(store, beeping, Meddler())
    assert store.held()["words"].entries == 0


def test_a_damaged_transcript_is_heard_anew_and_mended(beeping, store):
    words = stored_words(store, beeping, Beeps())
    (file,) = store.folder.rglob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (b"", whole[:-3], whole.replace(b"beep", b"boop"), whole + b"1"):
        file.write_bytes(damaged)
        again = Beeps()
        assert stored_words(store, beeping, again) == words and again.asked == 1
        assert stored_words(store, beeping, again) == words and again.asked == 1


def test_silence_is_kept_too(tmp_path, store):
    class Deaf(Beeps):
        def words(self, samples):
            self.asked += 1
            return iter(())

    path, deaf = write_talking(tmp_path / "clip.mkv", [(0.0, tone(1))], seconds=2, codec="pcm_s16le"), Deaf()
    assert stored_words(store, path, deaf) == [] == stored_words(store, path, deaf)
    assert deaf.asked == 1


def test_a_transcript_that_cannot_be_kept_is_used_this_time(beeping, store, caplog):
    store.folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert len(stored_words(store, beeping, Beeps())) == 1
    assert "could not keep" in caplog.text


def test_without_a_store_it_is_heard_each_time(beeping):
    beeps = Beeps()
    assert stored_words(None, beeping, beeps) == stored_words(None, beeping, beeps) and beeps.asked == 2


# ---- recognisers


def test_a_folder_of_transformers_is_heard_with_and_tells_its_times(tmp_path, whisper):
    path = write_talking(tmp_path / "clip.mkv", [(0.5, tone(4)), (40.0, tone(1))], seconds=42, codec="pcm_s16le")
    words = transcribe(path, find_recogniser(whisper))

    assert [word.text for word in words] == [" hello world", " hello world"]
    assert [(word.start, word.end) for word in words] == [(0.5, 2.5), (40.0, pytest.approx(41.0))]


def test_long_sound_is_heard_by_transformers_to_its_end(tmp_path, whisper):
    path = write_talking(tmp_path / "clip.mkv", [(0.0, tone(65))], seconds=66, codec="pcm_s16le")
    starts = [word.start for word in transcribe(path, find_recogniser(whisper))]
    assert len(starts) >= 3 and starts == sorted(starts) and 60 <= starts[-1] < 65


def test_a_folder_of_faster_whisper_is_heard_with_where_there_is_a_voice(tmp_path, faster_whisper):
    said = conversation(["We will meet at the station tomorrow morning."])
    path = write_talking(tmp_path / "talk.mkv", [(10.0, said.samples)], seconds=15, codec="pcm_s16le")
    words = transcribe(path, find_recogniser(faster_whisper))

    assert [word.text for word in words] == [" hello", " world"]
    assert 11.0 - 0.5 <= words[0].start <= words[1].end <= 10.0 + len(said.samples) / RATE
    assert lines(words)[0].text == "hello world"
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    hissing = write_talking(tmp_path / "noise.mkv", [(0.0, noise)], seconds=5, codec="pcm_s16le")
    assert transcribe(hissing, find_recogniser(faster_whisper)) == []


def test_a_key_changes_with_the_weights(whisper, faster_whisper):
    for folder in (whisper, faster_whisper):
        before = find_recogniser(folder).key
        assert find_recogniser(folder).key == before
        os.utime(folder / "tokenizer.json", (1, 1))
        assert find_recogniser(folder).key != before


def test_what_is_no_speech_model_is_refused_in_one_line(tmp_path, whisper, faster_whisper, monkeypatch):
    samples = tone(1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty holds no speech model"):
        find_recogniser(tmp_path / "empty")
    for folder in (whisper, faster_whisper):
        broken = tmp_path / folder.name
        broken.mkdir()
        for file in folder.iterdir():
            content = file.read_bytes()
            (broken / file.name).write_bytes(content[:1000] if file.suffix in (".bin", ".safetensors") else content)
        with pytest.raises(ModelError, match="cannot be loaded") as error:
            list(find_recogniser(broken).words(samples))
        assert "\n" not in str(error.value)


def test_nothing_is_downloaded_for_a_folder_that_lacks_a_file(tmp_path, faster_whisper):
    """faster-whisper would fetch a tokenizer by itself."""
    folder = tmp_path / "half"
    folder.mkdir()
    for file in faster_whisper.iterdir():
        if file.name != "tokenizer.json":
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json"):
        list(find_recogniser(folder).words(tone(1)))


def test_what_is_not_installed_is_named_with_what_installs_it(faster_whisper, monkeypatch):
    monkeypatch.setattr(speech, "find_spec", lambda name: None)
    for name in (faster_whisper, "small"):
        with pytest.raises(ModelError, match=r'pip install "minigpt4-video\[speech\]"'):
            find_recogniser(name)
    with pytest.raises(ModelError, match="pip install pocketsphinx"):
        find_recogniser("pocketsphinx")
    assert find_recogniser() is None


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no network: a name that is looked up fails the test."""

    def refuse(host, *rest, **more):
        raise AssertionError(f"{host} was looked up")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "hub"


def downloaded(hub: Path, model: Path, name: str) -> Path:
    """The folder in which the hub's client keeps a model, filled from another folder."""
    held = hub / f"models--{name.replace('/', '--')}"
    snapshot = held / "snapshots" / ("0" * 40)
    (held / "refs").mkdir(parents=True)
    (held / "refs" / "main").write_text("0" * 40)
    shutil.copytree(model, snapshot)
    return snapshot


def test_without_a_name_nothing_is_looked_up_and_a_model_from_an_earlier_download_is_taken(hub, faster_whisper):
    assert find_recogniser() is None
    snapshot = downloaded(hub, faster_whisper, "Systran/faster-whisper-small")
    found = find_recogniser()
    assert found is not None and found.name == "faster-whisper, small"
    (snapshot / "model.bin").unlink()  # a download that broke off
    assert find_recogniser() is None


def test_models_on_the_hub_are_taken_by_name(hub, whisper, faster_whisper, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    downloaded(hub, whisper, "somebody/whisper-tiny")
    downloaded(hub, faster_whisper, "Systran/faster-whisper-tiny")
    assert find_recogniser("somebody/whisper-tiny").name == "Whisper, somebody/whisper-tiny"
    for name in ("tiny", "Systran/faster-whisper-tiny"):
        assert find_recogniser(name).name == f"faster-whisper, {name}"


@pytest.mark.parametrize("name", ["nobody/whisper", "no such size", "/no/such/folder", "../whisper"])
def test_a_name_that_the_hub_cannot_give_is_one_line(hub, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "/" not in name:  # a size, which is one of faster-whisper's
        pytest.importorskip("faster_whisper")
    with pytest.raises(ModelError, match=f'there is no folder "{name}"') as error:
        find_recogniser(name)
    assert "\n" not in str(error.value)


# ---- the command line


@pytest.fixture
def sphinx() -> str:
    if find_spec("pocketsphinx") is None:
        pytest.skip("pocketsphinx is not installed (pip install pocketsphinx)")
    return "pocketsphinx"


def test_ask_hears_speech_says_so_and_writes_it(command, tmp_path, random_model, sphinx):
    said = conversation(["We will meet at the station tomorrow morning."])
    path = write_talking(tmp_path / "talk.mp4", [(0.0, said.samples)], seconds=5)
    written = tmp_path / "talk-heard.vtt"
    arguments = ["ask", path, "What?", "-m", random_model, "--max-new-tokens", 2, "--speech", sphinx]
    status, _, err = command(*arguments, "--save-subtitles", written)

    assert status == 0 and "listening to talk.mp4" in err
    assert "subtitles: speech (pocketsphinx, English)" in err and str(written) in err
    assert written.read_text(encoding="utf-8").startswith("WEBVTT\n\n00:00:01.")
    assert "station tomorrow morning" in written.read_text(encoding="utf-8")
    status, _, err = command(*arguments, "--subtitles", written)
    assert status == 0 and "subtitles: talk-heard.vtt" in err
    assert "listening" not in command(*arguments)[2]  # the transcript was kept


def test_ask_hears_once_says_so_and_writes_what_it_heard(command, tmp_path, random_model, beeping, beeps):
    """The same with a stand-in for the recogniser, so that it runs where nothing speaks."""
    written = tmp_path / "heard.vtt"
    arguments = ["ask", beeping, "What?", "-m", random_model, "--max-new-tokens", 2]
    status, _, err = command(*arguments, "--save-subtitles", written)

    assert status == 0 and "listening to clip.mkv (beeps)" in err and "subtitles: speech (beeps)" in err
    assert written.read_text(encoding="utf-8") == "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nbeep\n"
    status, _, err = command(*arguments, "--subtitles", written)
    assert status == 0 and "subtitles: heard.vtt" in err
    status, _, err = command(*arguments)
    assert status == 0 and "subtitles: speech (beeps)" in err and "listening" not in err
    assert beeps.asked == 1
    frames = json.loads(command("inspect", beeping, "-m", random_model, "--json")[1])["frames"]
    assert [frame["time"] for frame in frames if frame["subtitle"] == "beep"] == [
        min(frame["time"] for frame in frames if frame["time"] >= 1)
    ]


def test_the_speech_model_can_be_named_in_the_environment(command, beeping, random_model, monkeypatch):
    monkeypatch.setenv("MINIGPT4_VIDEO_SPEECH", "off")
    _, _, err = command("ask", beeping, "What?", "-m", random_model, "--max-new-tokens", 2)
    assert "subtitles: none (no file beside the video and no track in it)" in err


def test_a_speech_model_that_cannot_be_used_is_one_line_and_status_2(command, beeping, random_model, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err = command("ask", beeping, "What?", "-m", random_model, "--speech", tmp_path / "empty")
    assert (status, out) == (2, "") and err.count("error:") == 1 and "holds no speech model" in err


def test_subtitles_are_saved_only_where_there_are_some_and_where_they_can_be(command, beeping, random_model, tmp_path):
    arguments = ["inspect", beeping, "-m", random_model, "--speech", "off", "--save-subtitles"]
    status, _, err = command(*arguments, tmp_path / "none.vtt")
    assert status == 0 and "there are no subtitles" in err and not (tmp_path / "none.vtt").exists()
    for wrong, says in ((tmp_path / "said.txt", "end it with .vtt"), (tmp_path / "no" / "said.vtt", "does not exist")):
        status, _, err = command(*arguments, wrong)
        assert status == 2 and says in err


def test_inspect_lists_every_file_and_track(command, tmp_path, random_model):
    video = write_numbered(
        tmp_path / "clip.mkv", range(50), subtitles=[("eng", 0.5, 1.0, "hello"), ("ger", 0.5, 1.0, "hallo")]
    )
    beside = video.with_suffix(".zh.srt")
    beside.write_text(SUBTITLES, encoding="utf-8")
    shutil.copy(beside, tmp_path / "other.srt")
    arguments = ["inspect", video, "-m", random_model, "--subtitle-language", "de"]

    status, out, _ = command(*arguments)
    assert status == 0 and "subtitles from track 1 (ger)" in out
    assert "subtitles to choose from: clip.zh.srt (zh), track 0 (eng, srt), track 1 (ger, srt)" in out
    told = json.loads(command(*arguments, "--json")[1])
    assert told["subtitle_files"] == [{"file": str(beside), "language": "zh"}]
    assert [track["language"] for track in told["streams"]["subtitle_tracks"]] == ["eng", "ger"]
    assert told["subtitles"] == "track 1 (ger)"
