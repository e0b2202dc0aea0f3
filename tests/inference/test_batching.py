"""Many videos with many questions: no answer depends on the company it keeps."""

import random
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

import minigpt4_video as mv
from making import SUBTITLES, write_video
from minigpt4_video.errors import PlanError, UserError
from minigpt4_video.inference.batching import BuiltIn, Question, Request
from minigpt4_video.inference.words import Round
from minigpt4_video.model.branches import Branches

ROW = 2 * 2 * 2 * 12 * 4
"""Bytes of one token of the random model: keys and values, 2 layers, 2 heads of 12, 4 bytes."""


@pytest.fixture(scope="module")
def chat(random_model) -> mv.VideoChat:
    return mv.VideoChat.from_pretrained(random_model, device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Five videos of one to four frames, one with subtitles."""
    folder = tmp_path_factory.mktemp("videos")
    made = [write_video(folder / f"{n}.mp4", seconds=1, rate=rate) for n, rate in enumerate((1, 2, 3, 4, 8))]
    made[3].with_suffix(".srt").write_text(SUBTITLES, encoding="utf-8")
    return made


def options_of(question: Question) -> dict[str, object]:
    return {name: value for name, value in question._asdict().items() if name not in ("text", "openings")}


@pytest.fixture(scope="module")
def alone(chat, videos):
    """The answer of a video opened for one question only."""
    known: dict[tuple[Path, Question], tuple[str, float]] = {}

    def ask(video: Path, question: Question) -> tuple[str, float]:
        if (video, question) not in known:
            said = chat.open(video).ask(question.text, **options_of(question))
            known[video, question] = said.text, said.confidence
        return known[video, question]

    return ask


QUESTIONS = [
    Question("What happens?"),
    Question("Who speaks?", max_new_tokens=3),
    Question("What happens in the video, and then?", max_new_tokens=9),
    Question("What?", temperature=1.3, seed=5),
    Question("What?", temperature=1.3, seed=6),
    Question("\n\nWhy?", max_new_tokens=1),
]


def test_answers_are_those_of_each_question_alone(chat, videos, alone):
    requests = [Request(video, QUESTIONS[number:] + QUESTIONS[:number]) for number, video in enumerate(videos)] * 2
    replies = list(BuiltIn(chat, rows=3).answer(requests))

    assert [reply.request for reply in replies] == requests
    for reply in replies:
        for question, answer in zip(reply.request.questions, reply.answers, strict=True):
            text, confidence = alone(reply.request.video, question)
            assert answer.text == text
            assert answer.confidence == pytest.approx(confidence, abs=1e-4)
            assert answer.plan == chat.open(reply.request.video).plan(
                question.text, max_new_tokens=question.max_new_tokens
            )


def test_more_questions_than_a_row_holds_wait_for_others_to_leave(chat, videos, alone):
    questions = [Question(f"What {number}?", max_new_tokens=100) for number in range(8)]
    (reply,) = BuiltIn(chat, rows=1).answer([Request(videos[2], questions)])

    assert [answer.text for answer in reply.answers] == [alone(videos[2], question)[0] for question in questions]


def test_questions_of_near_rows_are_read_in_one_pass_unless_padding_would_take_longer(chat, monkeypatch):
    board = Branches(chat.model, 6, 64)
    together = Round(board)
    for row, length in {0: 2, 1: 2, 2: 40, 3: 3, 5: 40}.items():
        board.begin(row, [5] * (row + 1))
        together.waiting.append((row, chat.utterance([6] * length, Question("", 8).settings(chat), None, 0.0)))
    passes = []
    extend = board.extend

    def watched(additions):
        passes.append([(branch.row, len(ids)) for branch, ids in additions])
        return extend(additions)

    monkeypatch.setattr(board, "extend", watched)
    together.step()

    assert passes == [[(0, 2), (1, 2)], [(2, 40), (3, 3), (5, 40)]]
    assert len(together.speaking) == 5 and not together.waiting


def test_videos_that_get_rows_at_once_are_read_in_one_pass(chat, videos, alone, monkeypatch):
    passes = []
    read = chat.model.model.language_model.forward

    def watched(*given, **named):
        if named["attention_mask"] is None and named["inputs_embeds"].shape[1] > 1:
            passes.append(named["inputs_embeds"].shape[0])
        return read(*given, **named)

    opened = [chat.open(video) for video in videos[:3]]
    expected = [alone(video, QUESTIONS[0])[0] for video in videos[:3]]
    monkeypatch.setattr(chat.model.model.language_model, "forward", watched)
    replies = list(BuiltIn(chat, rows=3).answer([Request(video, QUESTIONS[:1]) for video in opened]))

    assert passes == [3]
    assert [reply.answers[0].text for reply in replies] == expected


def test_memory_is_known_before_it_starts_and_is_all_that_is_taken(chat, videos, monkeypatch):
    made = []
    whole = Branches.__init__
    monkeypatch.setattr(Branches, "__init__", lambda self, *given: made.append(self) or whole(self, *given))
    engine = BuiltIn(chat, rows=4, memory=3 * 400 * ROW)
    list(engine.answer([Request(video, ["What?"] * 9) for video in videos]))
    (board,) = made

    assert engine.rows == 3
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in board._cache.layers) == engine.memory
    assert engine.memory <= 3 * 400 * ROW
    with pytest.raises(UserError, match="do not hold the keys and values of one video"):
        BuiltIn(chat, memory=100 * ROW)


def test_what_is_wrong_with_one_video_is_in_its_reply(chat, videos, alone, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    question = QUESTIONS[0]
    requests = [
        Request(videos[0], [question]),
        Request(broken, [question]),
        Request(tmp_path / "none.mp4", [question]),
        Request(videos[1], []),
        Request(videos[1], [question, " "]),
        Request(videos[1], [Question("What?", max_new_tokens=10**6)]),
        Request(videos[1], [Question("What?", temperature=1.0, seed=2**64)]),
        Request(videos[2], [question], frames=2),
    ]
    replies = list(BuiltIn(chat, rows=2).answer(requests))

    assert [type(reply.error) for reply in replies] == [
        type(None),
        mv.MediaError,
        mv.MediaError,
        type(None),
        UserError,
        PlanError,
        UserError,
        type(None),
    ]
    assert replies[3].answers == ()
    assert replies[0].answers[0].text == alone(videos[0], question)[0]
    assert replies[7].answers[0].plan.frames == 2


def test_requests_are_taken_as_they_are_needed(chat, videos):
    """A source without end is fine, and what is not wanted any more is not computed."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield Request(videos[len(taken) % 5], ["What?"])

    replies = BuiltIn(chat, rows=2, ahead=1).answer(endless())
    for _ in range(6):
        assert next(replies).answers[0].text
    assert len(taken) <= 6 + 2 + 2
    replies.close()


def test_a_video_that_is_slow_to_decode_keeps_no_answer_waiting(chat, videos, monkeypatch):
    answered = threading.Event()
    whole = chat.open

    def slow(path, **options):
        if path == videos[1]:
            assert answered.wait(60)
        return whole(path, **options)

    monkeypatch.setattr(chat, "open", slow)
    replies = BuiltIn(chat, rows=2).answer([Request(videos[0], ["What?"]), Request(videos[1], ["What?"])])
    assert next(replies).answers[0].text
    answered.set()
    assert next(replies).answers[0].text


def test_videos_that_are_not_wanted_any_more_are_not_decoded(chat, videos, monkeypatch):
    begun, closing = [], threading.Event()
    whole = chat.open

    def slow(path, **options):
        begun.append(path)
        assert len(begun) == 1 or closing.wait(60)
        return whole(path, **options)

    monkeypatch.setattr(chat, "open", slow)
    replies = BuiltIn(chat, rows=1, ahead=3).answer([Request(video, ["What?"]) for video in videos])
    next(replies)
    threading.Timer(0.5, closing.set).start()  # the one being decoded is waited for
    replies.close()
    assert begun == videos[:2]


def test_replies_go_out_though_there_is_no_end_of_requests_without_questions(chat, videos):
    replies = BuiltIn(chat).answer(Request(videos[0], []) for _ in iter(int, 1))
    assert [next(replies).answers for _ in range(3)] == [(), (), ()]


def test_a_request_may_bring_an_opened_video(chat, videos, alone):
    opened = chat.open(videos[4])
    replies = BuiltIn(chat).answer([Request(opened, [QUESTIONS[0]]), Request(opened, [QUESTIONS[2]])])

    assert [reply.answers[0].text for reply in replies] == [alone(videos[4], QUESTIONS[number])[0] for number in (0, 2)]


class Reading(NamedTuple):
    """A stream that is read a piece at a time, between other things."""

    stream: object
    expected: str


@pytest.mark.parametrize("wanted", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_interleavings_give_no_crosstalk(random_model, videos, alone, tmp_path, wanted):
    """Videos, questions, draws, streams read bit by bit, conversations, batches, evictions and a small store."""
    from minigpt4_video.inference.store import Store

    chat = mv.VideoChat.from_pretrained(random_model, device="cpu", store=Store(tmp_path / "small", limit=60_000))
    chance = random.Random(0)
    opened = [chat.open(video) for video in videos]
    chat.kept_bytes = 2 * 260 * ROW
    reading: list[Reading] = []
    asked = evicted = 0

    def check(video: int, question: Question, text: str) -> None:
        nonlocal asked
        asked += 1
        assert text == alone(videos[video], question)[0]

    while asked < wanted:
        number, question = chance.randrange(5), chance.choice(QUESTIONS)
        options = options_of(question)
        match chance.randrange(8):
            case 0 | 1:
                check(number, question, opened[number].ask(question.text, **options).text)
            case 2:
                alike = [one for one in QUESTIONS if one[1:] == question[1:]] * 2
                answers = opened[number].ask_many([one.text for one in alike], **options)
                for one, answer in zip(alike, answers, strict=True):
                    check(number, one, answer.text)
            case 3:
                requests = [
                    Request(chance.choice([videos[n], opened[n]]), chance.sample(QUESTIONS, 2)) for n in range(3)
                ]
                for n, reply in enumerate(BuiltIn(chat, rows=2).answer(requests)):
                    for one, answer in zip(reply.request.questions, reply.answers, strict=True):
                        check(n, one, answer.text)
            case 4:
                stream = opened[number].stream(question.text, **options)
                reading.append(Reading(stream, alone(videos[number], question)[0]))
            case 5 if reading:
                one = reading.pop(chance.randrange(len(reading)))
                for _ in range(chance.randrange(3)):
                    next(one.stream, "")
                if chance.random() < 0.6:
                    asked += 1
                    assert one.stream.answer.text == one.expected
                elif chance.random() < 0.5:
                    one.stream.close()
                else:
                    reading.append(one)
            case 6:
                evicted += 1
                opened[number].forget()
                if chance.random() < 0.3:
                    opened[number] = chat.open(videos[number])
            case 7:
                talk = opened[number].chat()
                check(number, QUESTIONS[0], talk.ask(QUESTIONS[0].text))
                talk.ask("And?", max_new_tokens=2)
    assert evicted >= wanted // 50


def test_threads_may_share_a_model(chat, videos, alone):
    wrong = []

    def work(number: int) -> None:
        video = chat.open(videos[number])
        for question in QUESTIONS[:3] * 2:
            said = video.ask(question.text, max_new_tokens=question.max_new_tokens).text
            if said != alone(videos[number], question)[0]:
                wrong.append((number, question))

    for video in videos:
        for question in QUESTIONS[:3]:
            alone(video, question)
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
