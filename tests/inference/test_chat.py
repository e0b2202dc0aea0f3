"""Questions through the Python interface, on a whole model with random weights."""

import math

import numpy as np
import pytest
import torch

import minigpt4_video as mv
from making import write_video
from minigpt4_video.inference import Stream
from minigpt4_video.inference.chat import FRAMES_AT_ONCE
from minigpt4_video.inference.likelihood import likelihoods
from minigpt4_video.media import read_clip
from minigpt4_video.model.branches import Branches


@pytest.fixture(scope="module")
def chat(random_model) -> mv.VideoChat:
    return mv.VideoChat.from_pretrained(random_model, device="cpu")


def test_an_answer_has_words_confidence_plan_and_timings(chat, subtitled):
    answer = chat.open(subtitled).ask("What happens?")

    assert answer.text == answer.text.strip() != ""
    assert answer.confidence < 0 and answer.certainty == pytest.approx(math.exp(answer.confidence))
    assert answer.plan.kept_frames == (0, 1, 2, 3)
    assert answer.timings.total >= answer.timings.first_word > 0
    assert answer.evidence == ()


def test_the_same_question_gets_the_same_answer_and_another_video_another(chat, video, tmp_path):
    asked = chat.open(video)
    other = write_video(tmp_path / "other.mp4", rate=2, seconds=1)

    assert asked.ask("What happens?").text == asked.ask("What happens?").text
    assert asked.ask("What happens?").text != chat.open(other).ask("What happens?").text


def test_subtitles_reach_the_model_unless_they_are_off(chat, subtitled):
    with_words, without = chat.open(subtitled), chat.open(subtitled, subtitles="off")

    assert with_words.plan("What?").kept_subtitles == ("hello from the start", "", "we are nearly done", "")
    assert set(without.plan("What?").kept_subtitles) == {""}
    assert with_words.ask("What happens?").text != without.ask("What happens?").text


def test_it_says_what_a_transformers_user_is_told(chat, random_model, subtitled):
    """Encoding the frames apart, planning and streaming change no word."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = (
        AutoModelForImageTextToText.from_pretrained(random_model),
        AutoProcessor.from_pretrained(random_model),
    )
    texts = ["hello from the start", "", "we are nearly done", ""]
    frames = list(read_clip(subtitled, 4).frames)
    inputs = processor(
        text=f"[INST] {processor.frame_text(texts)}\nWhat happens?[/INST]", images=[frames], return_tensors="pt"
    )
    made = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    expected = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    assert chat.open(subtitled).ask("What happens?").text == expected


def test_the_confidence_is_the_mean_log_probability_of_the_words(chat, video):
    opened = chat.open(video)
    prepared = opened.footage.prepare(chat.processor, opened.footage.conversation("What happens?"))
    inputs = chat.processor(text=prepared.text, images=[list(prepared.frames)], return_tensors="pt")
    ids = chat.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    prompt = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        logits = chat.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"]
        ).logits[0, prompt - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, ids[0, prompt:, None]).mean()

    assert opened.ask("What happens?", max_new_tokens=5).confidence == pytest.approx(float(expected), abs=1e-4)


def test_the_frames_are_encoded_once_for_many_questions(chat, video, monkeypatch):
    opened = chat.open(video)
    seen = []
    whole = chat.model.model.get_merged_features
    monkeypatch.setattr(
        chat.model.model, "get_merged_features", lambda pixels: seen.append(len(pixels)) or whole(pixels)
    )

    answers = opened.ask_many(["What happens?", "Who speaks?", "What happens?"])

    assert seen == [4]
    assert answers[0].text == answers[2].text == chat.open(video).ask("What happens?").text


def test_a_further_question_costs_its_own_words_only(chat, video, monkeypatch):
    opened = chat.open(video)
    read = []
    whole = chat.model.model.language_model.forward

    def counted(**inputs):
        read.append(inputs["inputs_embeds"].shape[1])
        return whole(**inputs)

    monkeypatch.setattr(chat.model.model.language_model, "forward", counted)
    opened.ask("What happens?", max_new_tokens=1)
    first = len(read)
    opened.ask("Who speaks?", max_new_tokens=1)

    assert sum(read[:first]) > 4 * 4 + 10
    assert 0 < sum(read[first:]) < 15


def test_frames_go_through_the_tower_a_few_at_a_time(chat, monkeypatch):
    """So that its memory does not grow with their number; what is seen does not depend on it."""
    frames = list(np.random.default_rng(0).integers(0, 256, (2 * FRAMES_AT_ONCE["cpu"] + 3, 56, 56, 3), dtype=np.uint8))
    seen = []
    whole = chat.model.model.get_merged_features
    monkeypatch.setattr(
        chat.model.model, "get_merged_features", lambda pixels: seen.append(len(pixels)) or whole(pixels)
    )
    tokens = chat.encode(frames)

    assert seen == [FRAMES_AT_ONCE["cpu"], FRAMES_AT_ONCE["cpu"], 3]
    with torch.inference_mode():
        at_once = chat.model.get_image_features(chat.processor.pixels(frames))
    assert torch.allclose(tokens, at_once, atol=1e-4)


def test_logits_are_made_only_where_a_token_is_chosen(chat, video, monkeypatch):
    made = []
    whole = chat.model.lm_head.forward
    monkeypatch.setattr(chat.model.lm_head, "forward", lambda hidden: made.append(hidden.shape[:-1]) or whole(hidden))
    chat.open(video).ask_many(["What happens?", "Who speaks?"], max_new_tokens=3)

    assert made == [(2,)] * 3


def test_what_is_kept_of_earlier_questions_changes_no_answer(chat, subtitled):
    questions = ["What happens?", "Who?", "What happens?", "What happens now, and then?"]
    kept = chat.open(subtitled)

    for question in questions:
        fresh, again = chat.open(subtitled).ask(question), kept.ask(question)
        assert again.text == fresh.text
        assert again.confidence == pytest.approx(fresh.confidence, abs=1e-4)


def test_a_video_that_does_not_fit_whole_is_kept_up_to_its_last_frame(chat, video, monkeypatch):
    monkeypatch.setattr(chat.processor, "window", chat.open(video).plan("Q?").total - 1)
    kept = chat.open(video)
    kept.ask("Q?")
    assert kept.plan("Q?").left_out
    monkeypatch.setattr(Branches, "begin", lambda *_: pytest.fail("the video was read again"))

    assert kept.ask("Z?").text


def test_what_is_kept_of_other_frames_is_not_used(chat, video, monkeypatch):
    """A longer question leaves room for fewer frames, so the placeholders it shares stand for others."""
    monkeypatch.setattr(chat.processor, "window", 60)
    kept = chat.open(video)
    short, long = "What?", "What happens in the video? x y"
    assert kept.ask(short).plan.frames > kept.plan(long).frames >= 1

    assert kept.ask(long).confidence == pytest.approx(chat.open(video).ask(long).confidence, abs=1e-5)


def test_two_answers_can_be_read_at_once(chat, video):
    opened = chat.open(video)
    first, second = opened.stream("What happens?"), opened.stream("Who speaks?")

    assert second.answer.text == chat.open(video).ask("Who speaks?").text
    assert first.answer.text == chat.open(video).ask("What happens?").text


def test_many_questions_at_once_are_answered_as_each_alone(chat, subtitled):
    """More of them than fit the memory at once, of different lengths, one of them twice."""
    questions = ["What?", "What happens in the video?", "Who speaks?", "What?", *(f"And {n}?" for n in range(20))]
    opened = chat.open(subtitled)
    answers = opened.ask_many(questions)

    assert opened._prefix.board.slots <= 2 * chat.processor.window
    for question, answer in zip(questions, answers, strict=True):
        alone = chat.open(subtitled).ask(question)
        assert (answer.text, answer.plan) == (alone.text, alone.plan)
        assert answer.confidence == pytest.approx(alone.confidence, abs=1e-4)


def test_many_draws_at_once_are_those_of_each_alone(chat, video):
    questions = ["What?", "Who speaks?", "What?"]
    drawn = [answer.text for answer in chat.open(video).ask_many(questions, temperature=1.2, seed=3)]

    assert drawn == [chat.open(video).ask(question, temperature=1.2, seed=3).text for question in questions]


def test_questions_that_are_shown_other_frames_are_answered_in_one_call_too(chat, video, monkeypatch):
    monkeypatch.setattr(chat.processor, "window", 60)
    questions = ["What?", "What happens in the video? x y", "Who?"]
    answers = chat.open(video).ask_many(questions)

    assert len({answer.plan.kept_frames for answer in answers}) > 1
    assert [answer.text for answer in answers] == [chat.open(video).ask(question).text for question in questions]


def test_unread_streams_do_not_keep_others_waiting(chat, video):
    opened = chat.open(video)
    waiting = [opened.stream("What happens?", max_new_tokens=150) for _ in range(4)]

    assert opened.ask_many(["Who?"])[0].text == chat.open(video).ask("Who?").text
    texts = {stream.answer.text for stream in waiting}
    assert texts == {chat.open(video).ask("What happens?", max_new_tokens=150).text}


def test_only_so_much_is_kept_of_opened_videos(random_model, tmp_path):
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu")
    videos = [chat.open(write_video(tmp_path / f"{n}.mp4", seconds=1, rate=2 + n)) for n in range(3)]
    first = [video.ask("What happens?").text for video in videos]
    assert all(video.memory for video in videos)
    chat.kept_bytes = 2 * videos[0].memory
    again = [video.ask("What happens?").text for video in (videos[1], videos[2], videos[0])]

    assert [bool(video.memory) for video in videos] == [True, False, True]
    assert again == [first[1], first[2], first[0]]


def test_the_second_turn_is_the_whole_conversation_from_scratch(chat, subtitled):
    talk = chat.open(subtitled).chat()
    for question in ("What happens?", "And then?", "Who?"):
        talk.ask(question, max_new_tokens=6)
        *before, said = talk.messages
        fresh = chat.open(subtitled).continue_(before, max_new_tokens=6).answer
        assert said["content"] == fresh.text or said["content"][0]["text"] == fresh.text


def test_a_further_turn_reads_only_what_is_new(chat, video, monkeypatch):
    read = []
    whole = Branches.extend
    monkeypatch.setattr(
        Branches, "extend", lambda self, ones: read.append(sum(len(ids) for _, ids in ones)) or whole(self, ones)
    )
    talk = chat.open(video).chat()
    talk.ask("What happens in the video?", max_new_tokens=12)
    at = len(read)
    talk.ask("And?", max_new_tokens=12)

    # Besides its own words, the end of the answer before: its last token was never read, and text may join anew.
    assert read[at] < read[0] + 6


def test_the_stream_is_the_answer_in_pieces(chat, video):
    opened = chat.open(video)
    stream = opened.stream("What happens?")
    pieces = list(stream)

    assert isinstance(stream, Stream)
    assert "".join(pieces) == stream.answer.text == opened.ask("What happens?").text


def test_a_stream_that_is_closed_early_or_forgotten_gives_its_memory_back(chat, video):
    opened = chat.open(video)
    expected = opened.ask("What happens?").text
    board = opened._prefix.board
    closed = opened.stream("What happens?", max_new_tokens=60)
    forgotten = opened.stream("What happens?", max_new_tokens=60)
    for stream in (closed, forgotten):
        stream._words._round.step()  # one token, which need not be a whole word yet
    del stream
    assert len(board._taken(0).branches) == 2
    closed.close()
    del forgotten

    assert board._taken(0).branches == {}
    assert list(closed) == []
    assert opened.ask("What happens?").text == expected


def test_a_fault_while_generating_is_raised_where_the_words_are_read(chat, video, monkeypatch):
    opened = chat.open(video)
    with monkeypatch.context() as patched:
        patched.setattr(Branches, "extend", lambda *_: 1 / 0)
        stream = opened.stream("What happens?")
        with pytest.raises(ZeroDivisionError):
            next(stream)
        with pytest.raises(ZeroDivisionError):
            opened.ask_many(["What happens?", "Who?"])

    assert opened._prefix.board._taken(0).branches == {}
    assert opened.ask("What happens?").text == chat.open(video).ask("What happens?").text


def test_a_temperature_draws_and_a_seed_repeats_the_draw(chat, video):
    opened = chat.open(video)
    drawn = [opened.ask("What?", temperature=1.5, seed=seed).text for seed in (1, 2, 1)]

    assert drawn[0] == drawn[2] != drawn[1]


def test_drawing_leaves_the_callers_random_numbers_alone(chat, video):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    chat.open(video).ask("What?", temperature=1.0, seed=1)

    assert torch.equal(torch.rand(3), expected)


def test_max_new_tokens_is_the_longest_answer_and_is_planned_for(chat, video):
    opened = chat.open(video)
    short, whole = opened.ask("What happens?", max_new_tokens=2), opened.ask("What happens?")

    assert short.plan.answer_reserve == 2 and whole.plan.answer_reserve == 16
    assert len(short.text) < len(whole.text)


def test_settings_stored_with_the_weights_apply(chat, video, monkeypatch):
    opened = chat.open(video)
    plain = opened.ask("What happens?").text
    monkeypatch.setattr(chat.model.generation_config, "repetition_penalty", 50.0)

    assert opened.ask("What happens?").text != plain


@pytest.mark.parametrize("name", ["min_new_tokens", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"])
def test_it_says_what_generate_says_under_settings_stored_with_the_weights(chat, video, monkeypatch, name):
    opened = chat.open(video)
    prepared = opened.footage.prepare(chat.processor, opened.footage.conversation("What happens?"))
    inputs = chat.processor(text=prepared.text, images=[list(prepared.frames)], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    plain = chat.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:].tolist()
    settings = {"min_new_tokens": 6, "suppress_tokens": plain[1:3], "begin_suppress_tokens": plain[:1]}
    settings |= {"bad_words_ids": [plain[:2], plain[3:4]]}
    if name == "min_new_tokens":
        monkeypatch.setattr(chat.model.generation_config, "eos_token_id", plain[2])
    before = opened.ask("What happens?", max_new_tokens=8)
    monkeypatch.setattr(chat.model.generation_config, name, settings[name])

    made = chat.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:]

    answer = opened.ask("What happens?", max_new_tokens=8)
    assert answer.text == chat.processor.tokenizer.decode(made, skip_special_tokens=True).strip() != before.text


def test_a_conversation_with_a_file_has_its_subtitles_as_an_opened_video_has(chat, subtitled):
    def asked(**more):
        part = {"type": "video", "path": str(subtitled), **more}
        return [{"role": "user", "content": [part, {"type": "text", "text": "What happens?"}]}]

    assert chat.answer(asked()).text == chat.open(subtitled).ask("What happens?").text
    assert chat.answer(asked(subtitles="off")).text == chat.open(subtitled, subtitles="off").ask("What happens?").text
    with_words, without = (likelihoods(chat, asked(**more), ["yes"]) for more in ({}, {"subtitles": "off"}))
    assert with_words != without and with_words == likelihoods(chat, asked(subtitles="auto"), ["yes"])


def test_beams_stored_with_the_weights_do_not_keep_answers_from_streaming(chat, video, monkeypatch):
    monkeypatch.setattr(chat.model.generation_config, "num_beams", 3)
    assert chat.open(video).ask("What happens?").text


def test_a_conversation_knows_its_earlier_turns(chat, video):
    opened = chat.open(video)
    talk = opened.chat()
    first = talk.ask("What happens?", max_new_tokens=6)
    second = talk.ask("And then?", max_new_tokens=6)

    assert first == opened.ask("What happens?", max_new_tokens=6).text
    assert second != opened.ask("And then?", max_new_tokens=6).text
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2


def test_any_conversation_in_the_schema_is_answered(chat, video):
    frames = list(read_clip(video, 1).frames)
    spoken = [{"role": "user", "content": "Hello?"}]
    picture = [
        {"role": "user", "content": [{"type": "image", "image": frames[0]}, {"type": "text", "text": "What is it?"}]}
    ]
    film = [
        {"role": "user", "content": [{"type": "video", "path": str(video)}, {"type": "text", "text": "What happens?"}]}
    ]

    assert chat.answer(spoken).plan.frames == 0
    assert chat.answer(picture).plan.frame_tokens == 4
    assert chat.answer(film).text == chat.open(video).ask("What happens?").text


@pytest.mark.parametrize("part", [{}, {"start": 0.95}, {"start": 0.5, "end": 1.2}])
def test_an_opened_video_and_a_conversation_with_its_path_are_the_same(chat, subtitled, part):
    """Two ways in, one sampler, one aligner, one prompt."""
    shown = {"type": "video", "path": str(subtitled), "subtitles": "auto", **part}
    asked = chat.open(subtitled, **part).ask("What happens?")
    told = chat.answer([{"role": "user", "content": [shown, {"type": "text", "text": "What happens?"}]}])

    assert (told.plan, told.text) == (asked.plan, asked.text)


def test_a_part_of_a_video_can_be_opened(chat, subtitled):
    part = chat.open(subtitled, start=1.0, end=2.0)

    assert all(1.0 <= time < 2.0 for time in part.footage.clip.times)
    assert part.footage.texts[0] == "we are nearly done"


def test_thumbnails_are_the_sampled_frames_in_their_own_proportions(chat, video):
    footage = chat.open(video).footage
    small = footage.thumbnails(32)

    assert small.frames.shape == (4, 24, 32, 3)
    assert small.times == pytest.approx(footage.clip.times)
    grey = [frames.mean(axis=(1, 2, 3)) for frames in (small.frames, footage.clip.frames)]
    np.testing.assert_allclose(*grey, atol=3)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda video: video.ask(" "), "question"),
        (lambda video: video.ask("What?", temperature=-1.0), "temperature"),
        (lambda video: video.ask("What?", temperature=math.inf), "temperature"),
        (lambda video: video.ask("What?", temperature=math.nan), "temperature"),
        (lambda video: video.ask("What?", temperature=1.0, seed=2**63), "seed"),
        (lambda video: video.ask("What?", max_new_tokens=0), "at least 1"),
        (lambda video: video.caption(style="loud"), "loud"),
        (lambda video: video.caption(language="fr"), "fr"),
        (lambda video: video.model.open(video.footage.path, frames=0), "at least 1"),
        (lambda video: video.model.answer([]), "message"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(chat, video, call, word):
    with pytest.raises(mv.UserError, match=word):
        call(chat.open(video))


def test_the_model_inside_the_package_answers_or_is_said_to_be_missing(video):
    try:
        assert mv.VideoChat.from_pretrained("tiny", device="cpu").open(video).ask("What happens?").text
    except mv.ModelError as error:
        assert "tiny" in str(error)
