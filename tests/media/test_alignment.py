import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.media import Cue, align, probe, read_subtitles, sample_times

SECONDS = st.floats(0, 1000)
TIMES = st.lists(SECONDS, min_size=1, max_size=20, unique=True).map(sorted)
CUES = st.lists(st.tuples(SECONDS, st.floats(0, 20)), max_size=30).map(
    lambda spans: [Cue(start, start + length, f"cue{index}") for index, (start, length) in enumerate(spans)]
)


def test_a_cue_goes_to_the_frame_that_closes_its_interval() -> None:
    cues = [Cue(0, 1, "a"), Cue(1, 2, "b"), Cue(1.5, 5, "c"), Cue(4, 5, "d"), Cue(9, 10, "e"), Cue(20, 30, "f")]
    assert align(cues, [1.0, 3.0, 4.0, 8.0]) == ["a b", "c", "d", "e f"]


def test_without_cues_every_frame_is_silent() -> None:
    assert align([], [0.0, 1.0]) == ["", ""]
    assert align([Cue(0, 1, "a")], []) == []


@given(CUES, TIMES)
def test_each_cue_comes_once_and_in_order_and_none_is_invented(cues: list[Cue], times: list[float]) -> None:
    texts = align(cues, times)
    assert len(texts) == len(times)
    said = " ".join(text for text in texts if text).split()
    assert said == [cue.text for cue in sorted(cues, key=lambda cue: cue.start)]


@given(CUES, TIMES)
def test_no_cue_comes_before_it_begins_unless_the_video_is_over(cues: list[Cue], times: list[float]) -> None:
    starts = {cue.text: cue.start for cue in cues}
    for time, text in zip(times[:-1], align(cues, times)[:-1], strict=True):
        assert all(starts[word] <= time for word in text.split())


@given(CUES, TIMES, st.one_of(st.none(), st.integers(0, 30)))
def test_the_original_rule_says_nothing_twice(cues: list[Cue], times: list[float], words: int | None) -> None:
    texts = align(cues, times, "original", words)
    said = " ".join(text for text in texts if text).split()
    assert len(said) == len(set(said)) and set(said) <= {cue.text for cue in cues}
    if words == 0:
        assert not said


def test_the_original_rule_forgets_repetitions_and_the_tail() -> None:
    cues = [Cue(0, 1, "a"), Cue(2, 3, "b"), Cue(4, 5, "a"), Cue(9, 10, "c")]
    assert align(cues, [0.0, 3.0, 6.0], "original") == ["a", "b", ""]


def test_the_original_rule_sees_only_what_is_shown_at_a_decoded_frame() -> None:
    cues = [Cue(0.0, 0.4, "a"), Cue(1.1, 1.2, "between"), Cue(2.0, 2.5, "b")]
    assert align(cues, [0.0, 4.0], "original", fps=1) == ["a", "b"]
    assert align(cues, [0.0, 4.0], "original", fps=10) == ["a", "between b"]


def test_the_originals_options_belong_to_its_rule() -> None:
    with pytest.raises(ValueError, match="original"):
        align([], [0.0], words=5)


@pytest.mark.parametrize("name", ["llama2_A", "mistral_A"])
def test_the_original_rule_writes_the_prompts_that_were_recorded(shared: Path, name: str) -> None:
    folder = shared / "golden" / name
    recorded = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    sampling = recorded["video_sampling"]
    cues = read_subtitles(folder / sampling["subtitles"])
    assert [[cue.start * 1000, cue.end * 1000, cue.text] for cue in cues] == sampling["parsed_subtitles_ms"]
    info = probe(folder / sampling["video"])
    for case in [sampling, *recorded["prompt_variants"]]:
        times = sample_times(info, case["max_frames"], "original")
        texts = align(cues, times, "original", case["max_sub_len"], fps=info.fps)
        prompt = "".join("<Img><ImageHere>" + (f"<Cap>{text} " if text else "") for text in texts)
        assert prompt == case["placeholder"]


def test_the_original_counts_one_word_more_for_each_frame_with_text() -> None:
    cues = [Cue(0, 1, "one two"), Cue(2, 3, "three four"), Cue(4, 5, "five")]
    assert align(cues, [0.0, 2.0, 4.0], "original", 6) == ["one two", "three four", ""]
    assert align(cues, [0.0, 2.0, 4.0], "original", 7) == ["one two", "three four", "five"]
