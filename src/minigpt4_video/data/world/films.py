"""Films: hundreds of scenes one after another, with a few things planted in them that are seen or said nowhere else.

What is asked of a film is asked of what was planted: about one moment, about the order of several, and how many there
are in the whole film. The other scenes are distractors: other things, other people, other statements. Neighbouring
scenes differ in light, as shots of a film do.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal, get_args

from minigpt4_video.data.world import language as words
from minigpt4_video.data.world.files import QUESTIONS, srt, write_frames, write_text
from minigpt4_video.data.world.render import Pixels, render
from minigpt4_video.data.world.scene import (
    COLOURS,
    LIKES,
    PEOPLE,
    SHAPES,
    STEP,
    Colour,
    Language,
    Line,
    Scene,
    Shape,
    Thing,
    make_scene,
)
from minigpt4_video.errors import UserError
from minigpt4_video.media.alignment import Cue

FPS = 5
LEAST_MINUTES = 4.0
"""Shorter films have too few scenes for what is planted."""
FIRST, NUMBERS = 100_000_000, 1_000_000
"""Scenes of a film are those from `FIRST + seed * NUMBERS` on, which no recipe draws."""
DARK, LIGHT = (10, 24), (42, 58)
"""Shades of the background, by turns: both are shades that scenes have."""
AT_ENDS = (" at the start", " at the end", "开始时", "结束时")
"""Said of a scene, not of a film."""

Scope = Literal["moment", "order", "count"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Look = tuple[Colour, Shape]


@dataclass(frozen=True)
class Part:
    """A scene in its place, seconds from the beginning of the film."""

    start: float
    scene: Scene

    @property
    def end(self) -> float:
        return self.start + self.scene.seconds


@dataclass(frozen=True)
class FilmQuestion:
    scope: Scope
    kind: str
    needs: words.Needs
    language: Language
    text: str
    answer: str
    moments: tuple[float, ...]
    """When what is asked for happens, increasing seconds."""
    spans: tuple[tuple[float, float], ...]
    """The scenes that show it."""


@dataclass(frozen=True)
class Film:
    seed: int
    language: Language
    parts: tuple[Part, ...]
    questions: tuple[FilmQuestion, ...]

    @property
    def seconds(self) -> float:
        return self.parts[-1].end


@dataclass(frozen=True)
class _Reserved:
    """What distractors never show or say."""

    once: tuple[Look, ...]
    """Looks that are seen in one scene."""
    often: tuple[Look, ...]
    """Looks that are counted."""
    liked_once: tuple[int, ...]
    liked_by_some: tuple[int, ...]
    """Likes that two or three people have, one after the other."""
    speakers: tuple[int, ...]
    """People who speak once and say what they like."""
    named: tuple[int, int]
    """People who say once which thing they are."""
    people: tuple[int, ...]
    """All others."""
    likes: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random) -> "_Reserved":
        looks = rng.sample([(colour, shape) for colour in COLOURS for shape in SHAPES], 9)
        likes, people = rng.sample(range(LIKES), LIKES), rng.sample(range(PEOPLE), PEOPLE)
        return cls(
            once=tuple(looks[:6]), often=tuple(looks[6:]),
            liked_once=tuple(likes[:3]), liked_by_some=tuple(likes[3:6]), likes=tuple(likes[6:]),
            speakers=tuple(people[:2]), named=(people[2], people[3]), people=tuple(people[4:]),
        )  # fmt: skip

    @property
    def looks(self) -> frozenset[Look]:
        return frozenset((*self.once, *self.often))


@dataclass(frozen=True)
class _Planted:
    """A scene, with a name for what is asked of it where something was planted."""

    what: tuple[str, int] | None
    scene: Scene


def make_film(seed: int, minutes: float, language: Language) -> Film:
    """The film number `seed` in a language; it ends with the scene after `minutes`. UserError where that is short."""
    if not LEAST_MINUTES <= minutes < float("inf"):
        raise UserError(f"a film of {minutes:g} minutes cannot be made; ask for at least {LEAST_MINUTES:g}")
    rng = random.Random(f"film/{seed}/{language}/{minutes:g}")
    reserved = _Reserved.draw(rng)
    neutral = _neutral(rng, seed, language, reserved)
    planted = list(_plant(rng, neutral, reserved))
    scenes: list[_Planted] = []
    seconds = sum(one.scene.seconds for one in planted)
    while seconds < 60 * minutes:
        scenes.append(_Planted(None, next(neutral)))
        seconds += scenes[-1].scene.seconds
    for one in planted:
        scenes.insert(rng.randint(0, len(scenes)), one)
    parts: list[Part] = []
    places: dict[tuple[str, int], list[Part]] = {}
    start = 0.0
    for number, one in enumerate(scenes):
        shade = rng.randint(*(LIGHT if number % 2 else DARK))
        scene = replace(one.scene, background=(shade, shade, shade))
        part = Part(start, scene)
        parts.append(part)
        if one.what is not None:
            places.setdefault(one.what, []).append(part)
        start = part.end
    return Film(seed, language, tuple(parts), tuple(_questions(rng, language, reserved, places)))


def _neutral(rng: random.Random, seed: int, language: Language, reserved: _Reserved) -> Iterator[Scene]:
    """Scenes without anything that is reserved."""
    for number in count(FIRST + seed * NUMBERS):
        scene = make_scene(number, "train", language)
        if not _looks(scene) & reserved.looks:
            yield replace(scene, lines=_neutral_lines(rng, scene, reserved))


def _looks(scene: Scene) -> frozenset[Look]:
    return frozenset(
        (colour, thing.shape)
        for thing in scene.things
        for colour in (thing.colour, thing.later_colour)
        if colour is not None
    )


def _neutral_lines(rng: random.Random, scene: Scene, reserved: _Reserved) -> tuple[Line, ...]:
    """The same lines, spoken by others about other things."""
    speakers = sorted({line.speaker for line in scene.lines})
    people = dict(zip(speakers, rng.sample(reserved.people, len(speakers)), strict=True))
    said = sorted({line.likes for line in scene.lines if line.likes is not None})
    likes = dict(zip(said, rng.sample(reserved.likes, len(said)), strict=True))
    return tuple(
        replace(line, speaker=people[line.speaker], likes=None if line.likes is None else likes[line.likes])
        for line in scene.lines
    )


def _plant(rng: random.Random, neutral: Iterator[Scene], reserved: _Reserved) -> Iterator[_Planted]:
    for number, look in enumerate(reserved.once):
        yield _Planted(("once", number), _with_look(rng, neutral, look, reserved))
    for number, look in enumerate(reserved.often):
        for _ in range(rng.randint(2, 6)):
            yield _Planted(("often", number), _with_look(rng, neutral, look, reserved))
    for number, liked in enumerate(reserved.liked_once):
        yield _Planted(("liked", number), _saying(next(neutral), rng.choice(reserved.people), liked))
    for number, liked in enumerate(reserved.liked_by_some):
        for speaker in rng.sample(reserved.people, rng.randint(2, 3)):
            yield _Planted(("some", number), _saying(next(neutral), speaker, liked))
    for number, speaker in enumerate(reserved.speakers):
        yield _Planted(("speaker", number), _saying(next(neutral), speaker, rng.choice(reserved.likes)))
    yield _Planted(("named", 0), _naming(neutral, reserved.named))


def _with_look(rng: random.Random, neutral: Iterator[Scene], look: Look, reserved: _Reserved) -> Scene:
    """A scene in which one thing has another look."""
    for scene in neutral:
        changed = rng.randrange(len(scene.things))
        things = tuple(
            replace(thing, colour=look[0], shape=look[1]) if index == changed else thing
            for index, thing in enumerate(scene.things)
        )
        shades = [colour for thing in things for colour in (thing.colour, thing.later_colour) if colour is not None]
        dressed = replace(scene, things=things)
        if len(set(shades)) == len(shades) and _looks(dressed) & reserved.looks == {look}:
            return dressed
    raise AssertionError("scenes never end")


def _saying(scene: Scene, speaker: int, liked: int) -> Scene:
    return replace(scene, lines=(Line(speaker, 0.2, 0.8, likes=liked),))


def _naming(neutral: Iterator[Scene], people: tuple[int, int]) -> Scene:
    """A scene in which two people say which thing they are, and the two can be told apart."""
    for scene in neutral:
        if len(scene.things) == 2:
            lines = tuple(Line(who, 0.1 + 0.5 * i, 0.4 + 0.5 * i, thing=i) for i, who in enumerate(people))
            named = replace(scene, lines=lines)
            if any(_of_the_whole(q, "named") for q in words.questions(named, named.language)):
                return named
    raise AssertionError("scenes never end")


def _of_the_whole(question: words.Question, *kinds: str) -> bool:
    return question.kind in kinds and not any(end in question.text for end in AT_ENDS)


def _questions(
    rng: random.Random, spoken: Language, reserved: _Reserved, places: dict[tuple[str, int], list[Part]]
) -> Iterator[FilmQuestion]:
    """Of what is seen in both languages, of what is said in the language it is said in."""
    for (what, number), parts in places.items():
        first = parts[0]
        if what == "once":
            thing = next(t for t in first.scene.things if (t.colour, t.shape) == reserved.once[number])
            for language in get_args(Language):
                for one in words.questions(first.scene, language):
                    is_fit = _of_the_whole(one, "size", "position", "motion", "event")
                    if is_fit and words.describe(thing, language) in one.text:
                        yield _moment(one, first, _when(first, thing))
        elif what == "often":
            yield from _counts(rng, reserved.often[number], parts)
        elif what == "some":
            yield _order(rng, spoken, reserved.liked_by_some[number], parts)
        else:
            kinds = {"liked": ("who",), "speaker": ("likes",), "named": ("named",)}[what]
            for one in words.questions(first.scene, spoken):
                if _of_the_whole(one, *kinds):
                    line = first.scene.lines[0]
                    yield _moment(one, first, first.start + (line.start + line.end) / 2 * first.scene.seconds)


def _when(part: Part, thing: Thing) -> float:
    """The moment of a thing's event; of what goes on all the time, the middle."""
    is_event = thing.action not in STEP and thing.action != "still"
    return part.start + (thing.when if is_event else 0.5) * part.scene.seconds


def _moment(one: words.Question, part: Part, when: float) -> FilmQuestion:
    return FilmQuestion(
        "moment", one.kind, one.needs, one.language, one.text, one.answer, (when,), ((part.start, part.end),)
    )


def _counts(rng: random.Random, look: Look, parts: list[Part]) -> Iterator[FilmQuestion]:
    colour, shape = look
    article = "an" if colour == "orange" else "a"
    zh = words.ZH_COLOUR[colour] + words.ZH_SHAPE[shape]
    wordings: dict[Language, tuple[str, ...]] = {
        "en": (
            f"How many times is there {article} {colour} {shape}?",
            f"How many times can you see {article} {colour} {shape}?",
        ),
        "zh": (f"有几次能看到{zh}？", f"有多少次能看到{zh}？"),
    }
    for language, texts in wordings.items():
        moments, spans = zip(*(((p.start + p.end) / 2, (p.start, p.end)) for p in parts), strict=True)
        yield FilmQuestion(
            "count", "film-count", "picture", language, rng.choice(texts), str(len(parts)), moments, spans
        )


def _order(rng: random.Random, spoken: Language, liked: int, parts: list[Part]) -> FilmQuestion:
    said = words.LIKED[spoken][liked]
    wordings: dict[Language, tuple[str, ...]] = {
        "en": (f"{said.capitalize()}: who speaks first?", f"About {said}, who speaks first?"),
        "zh": (f"{said}：谁先说话？", f"说到{said}，谁先说话？"),
    }
    name = words.NAMES[spoken][parts[0].scene.lines[0].speaker]
    return FilmQuestion(
        "order", "film-order", "subtitles", spoken, rng.choice(wordings[spoken]), name,
        tuple((p.start + p.end) / 2 for p in parts), tuple((p.start, p.end) for p in parts),
    )  # fmt: skip


def cues(film: Film) -> list[Cue]:
    """The subtitles of a film, times in seconds."""
    return [
        Cue(part.start + cue.start, part.start + cue.end, cue.text)
        for part in film.parts
        for cue in words.cues(part.scene)
    ]


def write_films(
    output: Path,
    *,
    minutes: float,
    seed: int = 0,
    count: int = 1,
    language: Language | None = None,
    size: int = 128,
    progress: Callable[[float, float], None] | None = None,
) -> list[Path]:
    """Writes films `seed` to `seed + count - 1` as NAME.mp4 and NAME.srt, and `questions.jsonl` last.

    Returns the videos. Without a language, even numbers are English and odd ones Chinese. `progress` is called with
    the seconds done and the seconds of all. Memory does not grow with the length. Raises UserError as `make_film`
    does, and for a count below one or an output that is a file.
    """
    if count < 1:
        raise UserError(f"cannot make {count} films; ask for at least one")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder to write into")
    spoken: tuple[Language, Language] = ("en", "zh")
    films = [make_film(number, minutes, language or spoken[number % 2]) for number in range(seed, seed + count)]
    output.mkdir(parents=True, exist_ok=True)
    whole = sum(film.seconds for film in films)
    done = 0.0
    videos, rows = [], []

    def frames(film: Film) -> Iterator[Pixels]:
        for part in film.parts:
            total = round(part.scene.seconds * FPS)
            yield from render(part.scene, [index / total for index in range(total)], size)
            if progress is not None:
                progress(done + part.end, whole)

    for film in films:
        video = output / f"film-{film.language}-{film.seed:06d}.mp4"
        write_frames(frames(film), video, FPS, size)
        write_text(video.with_suffix(".srt"), srt(cues(film)))
        rows.append(json.dumps(_record(film, video.name), ensure_ascii=False))
        videos.append(video)
        done += film.seconds
    write_text(output / QUESTIONS, "\n".join(rows) + "\n")
    return videos


def _record(film: Film, video: str) -> dict[str, object]:
    return {
        "video": video,
        "seed": film.seed,
        "language": film.language,
        "duration": film.seconds,
        "scenes": len(film.parts),
        "questions": [asdict(question) for question in film.questions],
    }
