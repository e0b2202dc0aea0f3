"""The clips that a question is about come first, in English and Chinese."""

import numpy as np
import pytest

from minigpt4_video.long_video.index import Index, Indexed
from minigpt4_video.long_video.retrieve import Bm25, Retriever, terms
from minigpt4_video.media import Cue


def index(*texts: str, vectors=None) -> Index:
    clips = tuple(Indexed(5.0 * i, 5.0 * i + 5, (text,), ()) for i, text in enumerate(texts))
    return Index({"prompts": [["detailed", "en"]], "subtitles": ""}, clips, vectors)


EN = [
    "A big red square moves left. A small blue circle appears.",
    "A big red circle moves left. A small blue square appears.",
    "Anna likes tea.",
    "A green star stays still.",
    "A white circle disappears. A small red triangle moves up.",
]
ZH = [
    "大红色方形向左移动。小蓝色圆形出现。",
    "大红色圆形向左移动。小蓝色方形出现。",
    "小明喜欢茶。",
    "绿色星形不动。",
    "白色圆形消失。小红色三角形向上移动。",
]


@pytest.mark.parametrize(
    ("texts", "question", "clip"),
    [
        (EN, "What happens to the red circle?", 1),
        (EN, "Where is the blue circle?", 0),
        (EN, "Who LIKES tea?", 2),
        (EN, "Which star does not move?", 3),
        (ZH, "红色圆形怎么了？", 1),
        (ZH, "蓝色圆形在哪里？", 0),
        (ZH, "谁喜欢茶？", 2),
        (ZH, "绿色星形有多大？", 3),
    ],
)
def test_words_that_stand_together_count(texts, question, clip):
    assert Retriever(index(*texts)).clips(question, 3)[0] == (clip, 1.0)


def test_clips_that_are_hardly_about_the_question_are_left_out():
    assert [number for number, _ in Retriever(index(*EN)).clips("What does the red circle do?", 3)] == [1]


def test_nothing_is_found_for_words_that_nobody_said():
    retriever = Retriever(index(*EN))
    assert retriever.passages("Was the zebra there?", 3) == []
    assert retriever.passages("", 3) == []
    assert Retriever(index()).passages("red", 3) == []


def test_passages_come_in_the_order_of_time_and_neighbours_are_joined():
    texts = ["tea", "a dog", "tea", "tea", "a cat", "tea"]
    found = Retriever(index(*texts)).passages("tea?", 9)
    assert [(one.first, one.last) for one in found] == [(0, 0), (2, 3), (5, 5)]


def test_what_is_said_is_found_beside_what_is_seen():
    clips = (Indexed(0, 5, ("A man.",), ()), Indexed(5, 10, ("A man.",), (Cue(6, 7, "Where is my umbrella?"),)))
    found = Retriever(Index({"prompts": [], "subtitles": "x"}, clips)).clips("umbrella", 3)
    assert [number for number, _ in found] == [1]


def test_terms_do_not_reach_over_sentences_and_lose_their_endings():
    assert "circle blue" not in terms("red circle. blue star")
    assert {"red circle", "star"} <= set(terms("The RED circles; a star"))
    assert "圆形蓝" not in terms("红色圆形。蓝色") and "红色圆形" in terms("红色圆形。蓝色")
    assert terms("ｒｅｄ　ｃｉｒｃｌｅ") == terms("red circle")


def test_rare_words_count_more_and_repetition_less_each_time():
    words = Bm25(["tea tea tea tea cup", "tea pot", "tea cat", "tea dog"])
    assert words.scores("dog")[3] > words.scores("tea")[1]
    once, often = words.scores("tea")[1], words.scores("tea")[0]
    assert once < often < 2 * once


class Near:
    """An encoder that puts a question beside the clip of that number."""

    name = "near"

    def encode(self, texts):
        return np.eye(5, dtype=np.float32)[[int(text[0]) for text in texts]]


def test_vectors_find_what_shares_no_word_and_both_signals_count():
    held = index(*EN, vectors=np.eye(5, dtype=np.float32))
    retriever = Retriever(held, Near())
    assert retriever.clips("3 zebras", 3) == [(3, 0.5)]
    scores = retriever.scores("3 red circles")
    assert scores[3] == 0.5 and scores[1] == 0.5 and scores[2] == 0
    assert Retriever(held).clips("3 zebras", 3) == []
