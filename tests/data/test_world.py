"""The world: answers follow from the scene, held-out pairs stay out of training, the same number is the same file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt4_video.data.world import language
from minigpt4_video.data.world.files import QUESTIONS, render, statistics
from minigpt4_video.data.world.pictures import dense_picture
from minigpt4_video.data.world.render import RGB
from minigpt4_video.data.world.render import render as render_frames
from minigpt4_video.data.world.samples import GRID, PLACES, dense_words, dialogue_sample, picture_sample, video_sample
from minigpt4_video.data.world.scene import (
    COLOURS,
    GLANCES,
    HELD_OUT,
    RADIUS,
    SHAPES,
    SIZES,
    Language,
    Line,
    Scene,
    Thing,
    make_scene,
)
from minigpt4_video.errors import UserError
from minigpt4_video.media import probe, read_clip, read_subtitles

LANGUAGES: tuple[Language, ...] = ("en", "zh")
STYLES: tuple[language.Style, ...] = ("brief", "detailed", "tags")
SEEDS = st.integers(0, 100_000)


def a_scene(*things: Thing, lines: tuple[Line, ...] = (), spoken: str = "en") -> Scene:
    return Scene(0, "train", spoken, 4.0, (20, 20, 20), things, lines)  # type: ignore[arg-type]


def asked(scene: Scene, spoken: str, kind: str) -> dict[str, str]:
    offered = [q for seed in range(12) for q in language.questions(scene, spoken, seed)]  # type: ignore[arg-type]
    return {q.text: q.answer for q in offered if q.kind == kind}


RISING = Thing("red", "circle", "big", "up", x=0.3, y=0.8, distance=0.5)
TURNING = Thing("blue", "star", "small", "turn", x=0.8, y=0.2, when=0.25, later_colour="green")
LEAVING = Thing("white", "square", "small", "disappear", x=0.2, y=0.2, when=0.75)


def test_answers_about_things_follow_from_the_scene() -> None:
    scene = a_scene(RISING, TURNING)
    assert asked(scene, "en", "motion")["Which way does the red circle move?"] == "up"
    assert asked(scene, "en", "size")["How big is the blue star?"] == "small"
    assert asked(scene, "en", "shape")["What shape is the red object?"] == "circle"
    assert asked(scene, "en", "count")["How many objects are there?"] == "two"
    assert asked(scene, "en", "event")["What happens to the blue star?"] == "it turns green"
    assert asked(scene, "zh", "event")["蓝色星形怎么了？"] == "变成绿色"
    assert asked(scene, "zh", "motion")["红色圆形往哪个方向移动？"] == "向上"
    where = asked(scene, "en", "position")
    assert where["Where is the red circle at the start?"] == "bottom left"
    assert where["Where is the red circle at the end?"] == "top left"
    assert where["Where is the blue star?"] == "top right"


def test_a_thing_that_changes_colour_is_not_asked_for_its_colour() -> None:
    assert not asked(a_scene(TURNING), "en", "colour")


def test_the_order_of_events_is_the_order_of_their_moments() -> None:
    earlier = Thing("red", "circle", "big", "disappear", x=0.7, y=0.7, when=0.25)
    order = asked(a_scene(LEAVING, earlier, TURNING), "en", "order")
    assert order == {
        "Which object disappears first?": "the red circle",
        "Which object disappears last?": "the white square",
    }
    assert asked(a_scene(LEAVING, earlier), "zh", "order")["哪个物体先消失？"] == "红色圆形"
    assert not asked(a_scene(LEAVING, TURNING), "en", "order")


def test_who_is_meant_follows_from_what_was_said_and_what_is_seen() -> None:
    lines = (Line(0, 0.1, 0.4, thing=0), Line(1, 0.5, 0.9, thing=1))
    who = asked(a_scene(LEAVING, TURNING, lines=lines), "en", "who-is")
    assert who == {"Who is at the top left?": "Anna", "Who is at the top right?": "Ben"}
    moving = asked(a_scene(RISING, TURNING, lines=lines), "en", "who-is")
    assert moving["Who is at the bottom left at the start?"] == "Anna"
    assert moving["Who is at the top right?"] == moving["Who is small?"] == "Ben"


def test_speech_is_asked_for_in_its_own_language_only() -> None:
    lines = (Line(0, 0.1, 0.4, likes=3), Line(2, 0.5, 0.9, likes=5))
    scene = a_scene(RISING, lines=lines)
    assert asked(scene, "en", "who")["Who likes music?"] == "Anna"
    assert asked(scene, "en", "likes")["What does Carl like?"] == "tea"
    assert asked(scene, "en", "first-speaker")["Who speaks first?"] == "Anna"
    assert not asked(scene, "zh", "who")
    assert [cue.text for cue in language.cues(scene)] == ["Anna: I like music.", "Carl: I like tea."]
    assert [(cue.start, cue.end) for cue in language.cues(scene)] == [(0.4, 1.6), (2.0, 3.6)]


def test_questions_that_need_both_have_different_answers_for_the_two_people() -> None:
    lines = (Line(0, 0.1, 0.4, thing=0), Line(1, 0.5, 0.9, thing=1))
    found = 0
    for seed in range(300):
        scene = make_scene(seed)
        named = [line for line in scene.lines if line.thing is not None]
        if len(named) != 2:
            continue
        answers: dict[str, set[str]] = {}
        for spoken in (scene.language,):
            for question in language.questions(scene, spoken):
                if question.needs != "both":
                    continue
                names = [language.NAMES[spoken][line.speaker] for line in named]
                common = question.text
                for name in names:
                    common = common.replace(name, "*")
                answers.setdefault(common, set())
                assert question.answer not in answers[common], question
                answers[common].add(question.answer)
                found += 1
    assert found > 300
    same = Thing("green", "circle", "big", "up", x=0.3, y=0.8, distance=0.5)
    alike = a_scene(RISING, same, lines=lines)
    assert not asked(alike, "en", "named") and not asked(alike, "en", "who-is")


@given(SEEDS)
@settings(max_examples=150, deadline=None)
def test_training_never_shows_says_or_asks_a_held_out_pair(seed: int) -> None:
    scene = make_scene(seed)
    for thing in scene.things:
        assert (thing.colour, thing.shape) not in HELD_OUT
        assert thing.later_colour is None or (thing.later_colour, thing.shape) not in HELD_OUT
    offered = [question for spoken in LANGUAGES for question in language.questions(scene, spoken)]
    told = [language.caption(scene, style, spoken) for style in STYLES for spoken in LANGUAGES]
    heard = [cue.text for cue in language.cues(scene)]
    words = " ".join([question.text + question.answer for question in offered] + told + heard)
    for colour, shape in HELD_OUT:
        assert f"{colour} {shape}" not in words
        assert language.ZH_COLOUR[colour] + language.ZH_SHAPE[shape] not in words


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_held_out_scene_shows_a_held_out_pair(seed: int) -> None:
    scene = make_scene(seed, "held-out")
    assert any((thing.colour, thing.shape) in HELD_OUT for thing in scene.things)
    assert len({thing.colour for thing in scene.things}) == len(scene.things)


@given(SEEDS, st.sampled_from(["train", "held-out"]))
@settings(max_examples=100, deadline=None)
def test_things_stay_in_the_picture_and_apart(seed: int, split: str) -> None:
    scene = make_scene(seed, split)  # type: ignore[arg-type]
    for time in GLANCES:
        states = [(thing, thing.at(time)) for thing in scene.things]
        for thing, state in states:
            radius = RADIUS[thing.size]
            assert radius <= state.x <= 1 - radius and radius <= state.y <= 1 - radius
        for i, (a, p) in enumerate(states):
            for b, q in states[:i]:
                assert np.hypot(p.x - q.x, p.y - q.y) >= RADIUS[a.size] + RADIUS[b.size]


def test_every_question_has_one_answer_and_both_languages_ask_the_same_kinds() -> None:
    for seed in range(200):
        scene = make_scene(seed)
        for spoken in LANGUAGES:
            seen: dict[str, str] = {}
            for question in language.questions(scene, spoken):
                assert seen.setdefault(question.text, question.answer) == question.answer
    for spoken in LANGUAGES:
        scenes = [make_scene(seed, "train", spoken) for seed in range(200)]
        assert {q.kind for scene in scenes for q in language.questions(scene, spoken)} == set(language.NEEDS)


def test_a_thing_is_drawn_where_and_as_it_is() -> None:
    frames = render_frames(a_scene(RISING, LEAVING), [0.0, 0.9], 100)
    assert tuple(frames[0, 80, 30]) == RGB["red"] and tuple(frames[0, 20, 20]) == RGB["white"]
    assert tuple(frames[1, 35, 30]) == RGB["red"] and tuple(frames[1, 20, 20]) == (20, 20, 20)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_fills_a_different_part_of_its_square(shape: str) -> None:
    def area(name: str) -> int:
        scene = a_scene(Thing("white", name, "big", "still", 0.5, 0.5))  # type: ignore[arg-type]
        return int((render_frames(scene, [0.0], 100)[..., 0] > 130).sum())

    others = [area(other) for other in SHAPES if other != shape]
    assert min(abs(area(shape) - other) for other in others) > 30


def test_dense_truth_names_the_patch_that_holds_the_middle() -> None:
    words = dense_words(a_scene(RISING), 0.0)
    assert words.shape == (GRID * GRID, 5)
    patch = int(0.8 * GRID) * GRID + int(0.3 * GRID)
    first = 1 + len(COLOURS)
    assert list(words[patch]) == [
        1 + COLOURS.index("red"),
        first + SHAPES.index("circle"),
        first + len(SHAPES) + SIZES.index("big"),
        first + len(SHAPES) + len(SIZES) + int(0.8 * PLACES),
        first + len(SHAPES) + len(SIZES) + PLACES + int(0.3 * PLACES),
    ]
    assert (words.sum(1) > 0).sum() == 1


def test_dense_pictures_hold_no_held_out_pair() -> None:
    colours, shapes = set(), set()
    for seed in range(300):
        picture = dense_picture(seed, 32)
        for colour, shape, *_ in picture.middle[picture.middle[:, 2] > 0]:
            colours.add(int(colour))
            shapes.add(int(shape))
            if colour > 0 and shape > 0:
                assert (COLOURS[colour - 1], SHAPES[shape - 1]) not in HELD_OUT
        named = picture.middle[picture.middle[:, 2] > 0]
        assert len(named) >= 1 and (named[:, 2:] >= 1).all() and (named[:, 3:] <= PLACES).all()
    assert colours == {-1, *range(1, len(COLOURS) + 1)} and shapes == {-1, *range(1, len(SHAPES) + 1)}


def test_samples_repeat_and_without_speech_nothing_is_asked_about_it() -> None:
    one, two = (video_sample(7, "train", 32, questions=20, captions=2) for _ in range(2))
    assert one.turns == two.turns and (one.frames == two.frames).all()
    assert one.frames.shape == (8, 32, 32, 3) and len(one.subtitles) == 8
    for seed in range(40):
        silent = video_sample(seed, "train", 16, questions=40, speech=False)
        assert silent.subtitles == ("",) * 8
        names = {name for spoken in language.NAMES.values() for name in spoken}
        assert not any(name in question for question, _ in silent.turns for name in names)
    picture = picture_sample(7, "train", 32)
    assert picture.picture and picture.frames.shape == (1, 32, 32, 3) and len(picture.turns) == 2


def test_a_picture_is_asked_about_as_it_is_at_its_moment() -> None:
    scene = a_scene(TURNING, LEAVING)
    early = dict(language.picture_questions(scene, 0.1, "en"))
    late = [dict(language.picture_questions(scene, 0.9, "en", seed)) for seed in range(8)]
    assert "blue star" in " ".join(early) and "green star" not in " ".join(early)
    assert any("How big is the green star?" in asked for asked in late)
    assert all(answer == "one" for asked in late for text, answer in asked.items() if text.startswith("How many"))
    assert not any("move" in text or "happens" in text for asked in late for text in asked)
    assert language.picture_questions(a_scene(LEAVING), 0.9, "zh") == []


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_dialogue_is_answered_by_what_is_said_in_it(seed: int) -> None:
    sample = dialogue_sample(seed, "train", 16, questions=40)
    said = sample.subtitles[0]
    assert sample.frames.shape == (1, 16, 16, 3) and sample.turns
    everyone = {name for names in language.NAMES.values() for name in names}
    for question, answer in sample.turns:
        if answer in everyone or answer in language.LIKED["en"] + language.LIKED["zh"]:
            assert answer in said, (question, answer, said)
    first = next(
        answer for question, answer in sample.turns if "first" in question or "先" in question or "第一" in question
    )
    assert said.startswith(first)


def test_rendered_files_repeat_and_say_what_is_in_them(tmp_path: Path) -> None:
    first = render(tmp_path / "a", seed=3, count=3)
    second = render(tmp_path / "b", seed=3, count=3)
    assert [path.name for path in first] == ["held-out-000003.mp4", "held-out-000004.mp4", "held-out-000005.mp4"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    rows = [json.loads(line) for line in (tmp_path / "a" / QUESTIONS).read_text(encoding="utf-8").splitlines()]
    for path, row in zip(first, rows, strict=True):
        scene = make_scene(row["seed"], "held-out")
        assert abs(probe(path).duration - scene.seconds) < 0.05
        clip = read_clip(path, 8)
        close = render_frames(scene, [time / scene.seconds for time in clip.times], 128).astype(int)
        assert np.abs(close - clip.frames).mean() < 3
        cues = read_subtitles(path.with_suffix(".srt")) if path.with_suffix(".srt").exists() else []
        assert [cue.text for cue in cues] == [cue.text for cue in language.cues(scene)]
        assert row["questions"] and row["captions"]["brief"]
    assert not list((tmp_path / "a").glob("*.part"))


def test_rendering_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one"):
        render(tmp_path, count=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        render(tmp_path / "file")


def test_the_prior_leaves_room_to_learn() -> None:
    counted = statistics(150)
    assert counted["prior"] < 0.4  # type: ignore[operator]
    assert set(counted["kinds"]) == set(language.NEEDS)  # type: ignore[call-overload]
