"""A film is indexed once, by whatever number of runs, and questions find their moments in it."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from minigpt4_video.data.world.films import write_films
from minigpt4_video.errors import UserError
from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.batching import Question
from minigpt4_video.inference.footage import Said, find_said
from minigpt4_video.long_video import index as indexing
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.long_video.choosing import index_video, is_long, open_video, takes_clips
from minigpt4_video.long_video.index import Index, Indexed, Settings, load_index, make_index
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.media import Cue, probe


@pytest.fixture(scope="module")
def chat() -> VideoChat:
    from minigpt4_video.model.presets import EMBEDDED

    if not (EMBEDDED / "tiny" / "model.safetensors").is_file():
        pytest.skip("the embedded model is missing; `make train-tiny` makes it")
    return VideoChat.from_pretrained("tiny", device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (video,) = write_films(tmp_path_factory.mktemp("film"), minutes=4, size=64)
    return video


@pytest.fixture(scope="module")
def opened(chat: VideoChat, film: Path, tmp_path_factory: pytest.TempPathFactory) -> LongVideo:
    video = open_video(chat, film, index=tmp_path_factory.mktemp("index"))
    assert isinstance(video, LongVideo)
    return video


def questions(film: Path, scope: str) -> list[dict]:
    (row,) = map(json.loads, (film.parent / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [one for one in row["questions"] if one["scope"] == scope]


def test_the_moment_is_among_the_three_best_clips(opened, film):
    asked = questions(film, "moment")
    found = 0
    for one in asked:
        spans = opened.evidence(opened.find(one["text"]), one["text"])
        found += any(span.start <= one["moments"][0] <= span.end for span in spans)
    assert len(asked) > 20 and found >= 0.95 * len(asked)


def test_who_was_first_follows_from_the_order_and_the_evidence_is_in_it(opened, film):
    asked = questions(film, "order")
    answers = [opened.ask(one["text"]) for one in asked]
    assert sum(a.text == one["answer"] for a, one in zip(answers, asked, strict=True)) >= len(asked) - 1
    for answer in answers:
        starts = [one.start for one in answer.evidence]
        assert starts == sorted(starts) and len(starts) > 1
    turned = [
        opened.show(answer.evidence[::-1]).ask(one["text"]).text for answer, one in zip(answers, asked, strict=True)
    ]
    assert all(text != one["answer"] for text, one in zip(turned, asked, strict=True))


def test_moments_are_counted_over_the_whole_film(opened, film):
    asked = questions(film, "count")
    answers = [opened.ask(one["text"]) for one in asked]
    assert sum(a.text == one["answer"] for a, one in zip(answers, asked, strict=True)) >= len(asked) - 1
    for answer in answers:
        assert len(answer.evidence) == int(answer.text)


def test_every_way_answers_with_evidence(opened, film):
    one = next(q for q in questions(film, "moment") if q["kind"] == "who")
    for way in ("frames", "map"):
        answer = opened.ask(one["text"], way)
        assert answer.text == one["answer"]
        assert any(part.start <= one["moments"][0] <= part.end for part in answer.evidence)
    assert opened.ask(one["text"], "texts", max_new_tokens=4).evidence


@pytest.mark.parametrize(
    ("question", "apart"),
    [
        ("Where is the tea?", True),
        ("How big is the tea?", True),
        ("How do they make tea?", False),
        ("茶在哪里？", True),
        ("How many times is there tea?", True),
        ("Where is the cup?", False),  # in one clip
        ("Who likes tea first?", False),
        ("What happens after the tea?", False),
        ("谁先喝茶？", False),
        ("Is there a zebra?", False),
    ],
)
def test_clips_are_asked_one_by_one_where_one_of_several_is_meant(opened, question, apart):
    texts = ["Anna likes tea. 茶", "a cup", "a dog", "Ben likes tea. 茶"]
    clips = tuple(Indexed(5.0 * at, 5.0 * at + 5, (text,), ()) for at, text in enumerate(texts))
    about = {"prompts": [["detailed", "en"]], "subtitles": ""}
    video = LongVideo(opened.model, opened.path, opened.info, Index(about, clips))
    assert video.asks_apart(question) is apart


def test_of_several_clips_the_one_that_has_the_thing_answers(opened, film):
    """The others were described with it wrongly."""
    asked = [one for one in questions(film, "moment") if one["kind"] in ("event", "motion")]
    right = together = 0
    for one in asked:
        at = next(n for n, clip in enumerate(opened.index.clips) if clip.start <= one["moments"][0] <= clip.end)
        clips = list(opened.index.clips)
        wrong = (at + 7) % len(clips)
        twice = tuple(f"{text} {text}" for text in clips[at].descriptions)
        clips[wrong] = replace(clips[wrong], descriptions=twice)
        video = LongVideo(opened.model, opened.path, opened.info, Index(opened.index.about, tuple(clips)))
        if len(video.find(one["text"])) < 2:
            continue
        answer = video.ask(one["text"])
        if answer.text == one["answer"]:
            right += 1
            assert [part.start for part in answer.evidence if part.start <= one["moments"][0] <= part.end]
        shown = video.meant(one["text"])[1].ask(one["text"])
        assert shown.text == answer.text
        together += video.ask(one["text"], "frames").text == one["answer"]
    assert len(asked) > 5 and right >= 0.8 * len(asked) and right > together


@pytest.mark.parametrize("words", [450, 2000])
def test_texts_that_do_not_fit_are_left_out_or_shortened_and_told(opened, words):
    texts = ["tea " * words, "a cat", "tea " * words, "a cat", "tea " * words]
    clips = tuple(Indexed(5.0 * at, 5.0 * at + 5, (text,), ()) for at, text in enumerate(texts))
    about = {"prompts": [["detailed", "en"]], "subtitles": ""}
    video = LongVideo(opened.model, opened.path, opened.info, Index(about, clips))

    answer = video.ask("Who likes tea?", "texts", max_new_tokens=4)

    assert answer.plan.total <= answer.plan.window
    assert answer.plan.total > answer.plan.window // 2
    assert answer.plan.left_out and all("left out" in sentence for sentence in answer.plan.left_out)
    assert len(answer.evidence) == (1 if words == 2000 else 2)


def test_many_questions_are_answered_as_each_is_by_itself(opened, film):
    asked = [questions(film, scope)[0]["text"] for scope in ("order", "count", "moment")]
    together = opened.answer_all([Question(text) for text in asked])
    for text, answer in zip(asked, together, strict=True):
        alone = opened.ask(text)
        assert (answer.text, answer.evidence) == (alone.text, alone.evidence) and answer.evidence


def test_of_a_part_only_what_is_in_it_is_found(opened, film):
    one = next(q for q in questions(film, "moment") if q["kind"] == "who")
    (moment,) = one["moments"]
    for start, end in ((moment - 1, moment + 1), (0.0, moment - 20)):
        part = LongVideo(opened.model, opened.path, opened.info, opened.index, start=start, end=end)
        evidence = part.ask(one["text"]).evidence
        assert any(two.start <= moment <= two.end for two in evidence) == (start < moment < end)
        assert evidence and all(start <= two.start < two.end <= end for two in evidence)
        assert all(start <= time < end for time in part.show([]).footage.clip.times)


def test_texts_can_go_to_another_model(opened, film):
    one = questions(film, "moment")[0]
    sent = []

    def complete(messages):
        sent.extend(messages)
        return "so it is"

    elsewhere = LongVideo(opened.model, opened.path, opened.info, opened.index, complete=complete)
    assert elsewhere.ask(one["text"], "texts").text == "so it is"
    assert sent[0]["content"].endswith(one["text"]) and "[" in sent[0]["content"]


def test_a_question_that_names_nothing_is_asked_of_the_clips_before(opened, film):
    one = next(q for q in questions(film, "moment") if q["kind"] == "who")
    talk = opened.chat()
    assert talk.ask(one["text"]) == one["answer"]
    before = [part.start for part in talk.evidence]
    talk.ask("And then?")
    assert [part.start for part in talk.evidence] == before and before


class Killed(Exception):
    pass


def test_a_killed_index_goes_on_behind_the_last_clip_and_ends_the_same(chat, opened, film, tmp_path):
    info, said = probe(film), find_said(film, probe(film))

    def stop(seconds: float, whole: float) -> None:
        if seconds > 60:
            raise Killed

    with pytest.raises(Killed):
        make_index(chat, film, info, said, tmp_path, progress=stop)
    lines = tmp_path / "clips.jsonl"
    begun = lines.read_bytes()
    done = len(begun.splitlines()) - 1
    assert 5 < done < 30
    with pytest.raises(UserError, match="unfinished"):
        load_index(tmp_path)
    lines.write_bytes(begun + b'{"start": 61.0, "en')  # killed in the middle of a line
    again = []
    whole = make_index(chat, film, info, said, tmp_path, progress=lambda seconds, _: again.append(seconds))
    assert len(again) == len(whole.clips) - done
    assert whole.clips == opened.index.clips == load_index(tmp_path).clips
    assert not lines.exists()
    make_index(chat, film, info, said, tmp_path, progress=stop)  # nothing is left to do


def test_an_index_of_something_else_is_refused(chat, film, opened, video, tmp_path):
    info, said = probe(film), find_said(film, probe(film))
    folder = tmp_path / "other"
    make_index(chat, video, probe(video), find_said(video, probe(video)), folder)
    with pytest.raises(UserError, match="another video"):
        make_index(chat, film, info, said, folder)
    with pytest.raises(UserError, match="another way"):
        make_index(chat, video, probe(video), said, folder, settings=Settings((("brief", "en"),)))
    with pytest.raises(UserError, match="another video"):
        open_video(chat, film, index=folder)
    (folder / indexing.CLIPS).write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        load_index(folder)


def test_a_text_with_any_character_can_be_gone_on_with(chat, video, tmp_path):
    """Some of which end a line to `str.splitlines`, but not in the file."""
    said = Said([Cue(0.2, 1.0, "one\u2028two\u0085three")], "given")
    again = partial(make_index, chat, video, probe(video), said, tmp_path)

    def stop(seconds: float, whole: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        again(progress=stop)

    assert again().clips[0].cues == tuple(said.cues)


def encoder(chat: VideoChat, folder: Path, width: int) -> Encoder:
    """A sentence encoder with random weights."""
    tokenizer = chat.processor.tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>").save_pretrained(folder)
    return Encoder(folder)


def test_vectors_are_only_compared_with_those_of_the_same_encoder(chat, subtitled, tmp_path):
    one, other, wide = (
        encoder(chat, tmp_path / name, width) for name, width in (("one", 16), ("other", 16), ("wide", 32))
    )
    ask = partial(open_video, chat, subtitled, long="on", index=tmp_path / "index")
    ask(encoder=one)
    for wrong in (other, wide):
        with pytest.raises(UserError, match="no sentence vectors by"):
            ask(encoder=wrong)
    assert ask(encoder=Encoder(shutil.copytree(tmp_path / "one", tmp_path / "moved"))).find("hello")

    index_video(chat, subtitled, tmp_path / "index", encoder=wide)  # which makes vectors alone
    assert ask(encoder=wide).index.vectors.shape[1] == 32
    index_video(chat, subtitled, tmp_path / "without")
    with pytest.raises(UserError, match="no sentence vectors by"):
        ask(index=tmp_path / "without", encoder=one)


def test_an_encoder_is_pooled_as_its_files_say_by_its_name_too(chat, tmp_path, monkeypatch):
    encoder(chat, tmp_path / "cls", 16)
    pooling = tmp_path / "cls" / "1_Pooling"
    assert not Encoder(tmp_path / "cls")._takes_first
    pooling.mkdir()
    (pooling / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert Encoder(tmp_path / "cls")._takes_first

    cached = tmp_path / "hub" / "models--some--cls"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tmp_path / "cls", cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert Encoder("some/cls")._takes_first


def test_an_index_answers_with_the_subtitles_it_was_made_with_or_not_at_all(chat, subtitled, tmp_path):
    ask = partial(open_video, chat, subtitled, long="on", index=tmp_path / "index")
    other = tmp_path / "other.srt"
    other.write_text("1\n00:00:00,000 --> 00:00:01,000\nsomething else\n")
    assert ask(subtitles=subtitled.with_suffix(".srt")).find("hello")
    assert ask(subtitles=subtitled.with_suffix(".srt"), encoding="utf-8").find("hello")
    for wrong in ("off", other):
        with pytest.raises(UserError, match="other subtitles"):
            ask(subtitles=wrong)
    with pytest.raises(UserError, match="nowhere"):
        ask(subtitles=tmp_path / "nowhere.srt")


def test_who_comes_second_waits_for_who_indexes_the_same(chat, video, tmp_path):
    said = find_said(video, probe(video))
    order = []

    def make(name: str) -> None:
        index = make_index(chat, video, probe(video), said, tmp_path, progress=lambda *_: order.append(name))
        order.append(len(index.clips))

    threads = [Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order in (["a", 1, 1], ["b", 1, 1])


def test_a_video_is_long_where_frames_lie_far_apart(chat, film, video):
    assert is_long(probe(film), 8) and not is_long(probe(film), 45)
    assert is_long(probe(film), 8, 100.0, 200.0) and not is_long(probe(film), 8, 100.0, 160.0)
    assert takes_clips(chat, probe(film), "auto", frames=2) and not takes_clips(chat, probe(film), "auto", frames=45)
    assert not takes_clips(chat, probe(film), "auto", 2, 100.0, 130.0)  # few frames were asked for, so few are taken
    assert not isinstance(open_video(chat, video), LongVideo)
    assert not isinstance(open_video(chat, film, long="off"), LongVideo)


def test_the_command_line_says_that_a_film_is_long_and_where_the_answer_is(command, film, opened, tmp_path, embedded):
    one = next(q for q in questions(film, "moment") if q["kind"] == "who")
    folder, report = tmp_path / "film.index", tmp_path / "answer.html"
    status, _, err = command("index", film, "--output", folder, "--languages", "en")
    assert status == 0 and "clips of 4.0 minutes" in err
    status, out, err = command("ask", film, one["text"], "--index", folder, "--report", report)
    assert (status, out.strip()) == (0, one["answer"]) and "from " in err and "score 1.00" in err
    assert 'class="evidence"' in report.read_text(encoding="utf-8")
    status, out, _ = command("ask", film, one["text"], "--index", folder, "--json")
    (evidence,) = json.loads(out)["evidence"]
    assert evidence["start"] <= one["moments"][0] <= evidence["end"]
    status, out, err = command("ask", film, one["text"], "--long", "off")
    assert status == 0 and "from " not in err
