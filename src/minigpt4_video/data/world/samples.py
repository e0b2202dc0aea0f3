"""Training samples from the world, drawn without files: frame sizes are those of the model, nothing is decoded."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from minigpt4_video.data.sample import Sample
from minigpt4_video.data.world import language
from minigpt4_video.data.world.render import Pixels, render
from minigpt4_video.data.world.scene import (
    COLOURS,
    GLANCES,
    LIKES,
    PEOPLE,
    SHAPES,
    SIZES,
    STRIPS,
    Language,
    Line,
    Scene,
    Split,
    Thing,
    make_scene,
)
from minigpt4_video.instructions import CAPTION_STYLE, IMAGE_CAPTION, VIDEO_CAPTION
from minigpt4_video.media.alignment import align

GRID = STRIPS
"""Patches along one side of the picture in the dense description of a moment."""
PLACES = 8
"""Rows, and columns, that the dense description tells apart."""
DENSE_WORDS = 1 + len(COLOURS) + len(SHAPES) + len(SIZES) + 2 * PLACES


def video_sample(
    seed: int,
    split: Split,
    size: int,
    *,
    questions: int,
    captions: int = 0,
    speech: bool = True,
    things: int | None = None,
    kinds: Sequence[language.Kind] = (),
) -> Sample:
    """Scene number `seed` as eight frames of `size` pixels with up to `questions` questions, of some `kinds` only or of
    all, and `captions` captions."""
    scene = make_scene(seed, split, things=things)
    rng = random.Random(f"sample/{split}/{seed}")
    times = [glance * scene.seconds for glance in GLANCES]
    subtitles = tuple(align(language.cues(scene), times)) if speech else ("",) * len(GLANCES)
    asked: list[tuple[str, str]] = []
    if captions:
        asked += rng.sample(_captions(scene, rng), captions)
    if questions:
        offered = language.questions(scene, scene.language)
        offered = [q for q in offered if (speech or q.needs == "picture") and (not kinds or q.kind in kinds)]
        asked += [(q.text, q.answer) for q in offered[:questions]]
    frames = _worn(render(scene, GLANCES, size), rng)
    truth = {"dense": np.stack([dense_words(scene, time) for time in GLANCES])}
    return Sample(f"world/{split}/{seed}", "world", frames, subtitles, tuple(asked), truth=truth)


def picture_sample(seed: int, split: Split, size: int, *, questions: int = 0, captions: int = 2) -> Sample:
    """One moment of a scene, captioned in so many of the two languages, with up to `questions` questions in each."""
    scene = make_scene(seed, split)
    rng = random.Random(f"picture/{split}/{seed}")
    time = rng.choice(GLANCES)
    spoken: tuple[Language, ...] = ("en", "zh")
    turns = tuple(
        (rng.choice(IMAGE_CAPTION[spoke]), language.picture_caption(scene, time, spoke))
        for spoke in rng.sample(spoken, captions)
    )
    for spoke in spoken:
        turns += tuple(language.picture_questions(scene, time, spoke)[:questions])
    truth = {"dense": dense_words(scene, time)[None]}
    return Sample(
        f"world-picture/{split}/{seed}", "world-picture", _worn(render(scene, [time], size), rng), ("",), turns,
        picture=True, truth=truth,
    )  # fmt: skip


def dialogue_sample(seed: int, split: Split, size: int, *, questions: int, things: int | None = None) -> Sample:
    """One frame over which three to five people speak: many facts in few words, for learning to look them up.

    Where two things are to be seen, two of the people say which of them they are.
    """
    scene = make_scene(seed, split, things=things)
    rng = random.Random(f"dialogue/{split}/{seed}")
    time = rng.choice(GLANCES)
    shown = tuple(
        Thing(thing.at(time).colour, thing.shape, thing.size, "still", thing.at(time).x, thing.at(time).y)
        for thing in scene.things
        if thing.at(time).visible
    )
    speakers = rng.sample(range(PEOPLE), rng.randint(3, 5))
    likes = rng.sample(range(LIKES), len(speakers))
    said: list[tuple[int, int | None, int | None]] = [
        (who, like, None) for who, like in zip(speakers, likes, strict=True)
    ]
    if len(shown) > 1:
        named = rng.sample(range(len(shown)), 2)
        said = said[: rng.randint(0, 3)]
        said += [(who, None, thing) for who, thing in zip(rng.sample(speakers, 2), named, strict=True)]
    rng.shuffle(said)
    lines = tuple(Line(who, 0.0, 1.0, like, thing) for who, like, thing in said)
    spoken = replace(scene, things=shown, lines=lines)
    subtitles = (" ".join(cue.text for cue in language.cues(spoken)),)
    turns = tuple(language.dialogue_questions(spoken)[:questions])
    truth = {"dense": dense_words(scene, time)[None]}
    frames = _worn(render(scene, [time], size), rng)
    return Sample(f"world-dialogue/{split}/{seed}", "world-dialogue", frames, subtitles, turns, truth=truth)


def _captions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """One caption of each style and one more; one video in four is described in the language not spoken in it."""
    spoken = scene.language
    if rng.random() < 0.25:
        spoken = "zh" if spoken == "en" else "en"
    pairs = [(prompt, language.caption(scene, style, spoken)) for style, prompt in CAPTION_STYLE[spoken].items()]
    pairs.append((rng.choice(VIDEO_CAPTION[spoken]), language.caption(scene, "detailed", spoken)))
    return pairs


def _worn(frames: Pixels, rng: random.Random) -> Pixels:
    """The noise and shifted levels that encoding and scaling leave in real files."""
    noise = np.random.default_rng(rng.getrandbits(32))
    strength = rng.choice((0.0, 1.5, 3.0))
    level = 1 + rng.uniform(-0.04, 0.04)
    worn = frames * level + noise.normal(0, 1, frames.shape) * strength
    return np.clip(worn, 0, 255).astype(np.uint8)


def dense_words(scene: Scene, time: float) -> npt.NDArray[np.int64]:
    """A moment told in words: (patches, 5) word numbers, for the patch that holds a thing's middle its colour, shape,
    size, row and column, elsewhere zeros, which mean nothing.
    """
    words = np.zeros((GRID * GRID, 5), np.int64)
    shape_at = 1 + len(COLOURS)
    size_at = shape_at + len(SHAPES)
    row_at = size_at + len(SIZES)
    for thing in scene.things:
        state = thing.at(time)
        if state.visible:
            row, column = int(state.y * PLACES), int(state.x * PLACES)
            words[int(state.y * GRID) * GRID + int(state.x * GRID)] = (
                1 + COLOURS.index(state.colour),
                shape_at + SHAPES.index(thing.shape),
                size_at + SIZES.index(thing.size),
                row_at + row,
                row_at + PLACES + column,
            )
    return words
