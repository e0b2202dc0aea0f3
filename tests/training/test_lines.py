"""Lines drawn from the world: what fills them, and that they are the same every time."""

from pathlib import Path

import pytest

from minigpt4_video.errors import RecipeError
from minigpt4_video.model.processing import MiniGPT4VideoProcessor
from minigpt4_video.training.lines import Line, WorldLines
from minigpt4_video.training.recipe import Source


@pytest.fixture
def processor(embedded: Path) -> MiniGPT4VideoProcessor:
    return MiniGPT4VideoProcessor.from_pretrained(embedded)


def drawn(processor: MiniGPT4VideoProcessor, *sources: Source, count: int = 30, width: int = 700) -> list[Line]:
    lines = WorldLines(processor, sources, width=width, count=count, seed=5)
    return [lines[index] for index in range(count)]


def test_a_line_is_the_same_every_time_and_no_wider_than_it_may_be(processor: MiniGPT4VideoProcessor) -> None:
    sources = (
        Source("videos", questions=40),
        Source("pictures", questions=3, captions=1),
        Source("dialogues", questions=9),
    )
    first, second = drawn(processor, *sources, width=320), drawn(processor, *sources, width=320)
    assert [line.rows for line in first] == [line.rows for line in second]
    assert all(0 < sum(len(row) for row in line.rows) <= 320 for line in first)
    assert max(len(line.rows) for line in first) > 1


def test_lines_of_some_kinds_of_question_hold_only_those_and_several_videos(processor: MiniGPT4VideoProcessor) -> None:
    lines = drawn(processor, Source("videos", questions=40, kinds=("order",)), width=320)
    asked = {question for line in lines for sample in line.samples for question, _ in sample.turns}
    assert asked and all(" first?" in q or " last?" in q or "先" in q or "最后" in q for q in asked)
    assert max(len(line.samples) for line in lines) > 1


def test_a_source_without_anything_to_ask_is_refused(processor: MiniGPT4VideoProcessor) -> None:
    with pytest.raises(RecipeError, match="none of 200 videos has anything to ask"):
        drawn(processor, Source("videos", questions=9, things=1, kinds=("order",)), count=1)


def test_a_source_is_drawn_from_only_once_its_line_is_reached(processor: MiniGPT4VideoProcessor) -> None:
    lines = drawn(
        processor, Source("videos", questions=9, things=1), Source("pictures", captions=1, weight=1e9, since=20)
    )
    assert all(not line.samples[0].picture for line in lines[:20])
    assert all(line.samples[0].picture for line in lines[20:])
