"""What is streamed, put together, is what the tokens say when they are decoded at once."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from minigpt4_video.inference.words import _Pieces

LLAMA = Path(__file__).parents[1] / "model" / "parity" / "llama2" / "base_llm"
TEXTS = st.text(st.sampled_from("ab  \n.,’-é视频里，。🎬👩‍🚀안\t1"), max_size=40)
"""Spaces and line ends, several bytes a character, and scripts that set no spaces."""


@pytest.fixture(scope="module", params=["Llama", "bytes"])
def tokenizer(request, random_model):
    return AutoTokenizer.from_pretrained(LLAMA if request.param == "Llama" else random_model)


def pieces(tokenizer, ids: list[int]) -> list[str]:
    made = _Pieces(tokenizer)
    for at, token in enumerate(ids, start=1):
        made.put(token, last=at == len(ids))
    assert "".join(made.ready) == made.text
    return made.ready


@given(text=TEXTS)
def test_pieces_together_are_the_whole(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    made = pieces(tokenizer, ids)

    assert "".join(made) == tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert "" not in made


def test_any_tokens_of_the_embedded_model_come_out_as_they_are_decoded_at_once(embedded):
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    chance = random.Random(0)
    for _ in range(200):
        ids = chance.choices(range(len(tokenizer)), k=chance.randrange(1, 25))
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_piece_is_whole_words_and_of_chinese_whole_characters(tokenizer):
    said = pieces(tokenizer, tokenizer("the rain in spain", add_special_tokens=False)["input_ids"])
    assert [piece.strip() for piece in said] == ["the", "rain", "in", "spain"]

    said = pieces(tokenizer, tokenizer("视频里下雨。", add_special_tokens=False)["input_ids"])
    assert len(said) > 1 and not any("\ufffd" in piece for piece in said)
