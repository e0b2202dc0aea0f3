"""Scenes: coloured shapes that move, appear, disappear or change colour, and people who speak over them.

A scene is a pure function of (seed, split). Space is the unit square, x to the right and y downwards; time runs from
0 to 1 over the whole video. Some pairs of colour and shape are held out: they occur in the split "held-out" only.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Literal, get_args

Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "white"]
Shape = Literal["circle", "square", "triangle", "star"]
Size = Literal["big", "small"]
Action = Literal["still", "left", "right", "up", "down", "appear", "disappear", "turn"]
Split = Literal["train", "held-out"]
Language = Literal["en", "zh"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
SIZES: tuple[Size, ...] = get_args(Size)
MOTIONS: tuple[Action, ...] = ("left", "right", "up", "down")
EVENTS: tuple[Action, ...] = ("appear", "disappear", "turn")
COMINGS: tuple[Action, ...] = ("appear", "disappear")
"""Events that are asked for in order."""
RADIUS: dict[Size, float] = {"big": 0.17, "small": 0.1}
STEP: dict[Action, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
PEOPLE = 8
"""How many names each language has."""
LIKES = 10
"""How many things each language has that one can like."""

HELD_OUT: frozenset[tuple[Colour, Shape]] = frozenset(
    {("red", "star"), ("orange", "circle"), ("green", "triangle"), ("blue", "square"), ("purple", "star")}
)
"""Pairs that no training scene shows, says or asks about."""

GLANCES: tuple[float, ...] = tuple((i + 0.5) / 8 for i in range(8))
"""The moments at which things must be apart: the middles of eight equal spans, where eight frames are taken."""
STRIPS = 4
"""Strips of the picture, one above the other, in each of which there is at most one thing: the embedded model has one
token for each."""
TRIES = 200
"""How often things are placed anew before they are given other things to do."""


@dataclass(frozen=True)
class State:
    """What one thing looks like at one moment."""

    x: float
    y: float
    colour: Colour
    visible: bool


@dataclass(frozen=True)
class Thing:
    """One coloured shape and the one thing that it does."""

    colour: Colour
    shape: Shape
    size: Size
    action: Action
    x: float
    y: float
    distance: float = 0.0
    """How far a moving thing goes, in widths of the picture."""
    when: float = 0.5
    """The moment of an event, between 0 and 1."""
    later_colour: Colour | None = None

    def at(self, time: float) -> State:
        across, down = STEP.get(self.action, (0, 0))
        after = time >= self.when
        return State(
            x=self.x + across * self.distance * time,
            y=self.y + down * self.distance * time,
            colour=self.later_colour if self.later_colour is not None and after else self.colour,
            visible=after if self.action == "appear" else not after if self.action == "disappear" else True,
        )


@dataclass(frozen=True)
class Line:
    """One sentence of speech: either what somebody likes, or which thing somebody is."""

    speaker: int
    start: float
    end: float
    likes: int | None = None
    thing: int | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that decides a video, its subtitles and the answers to every question about it."""

    seed: int
    split: Split
    language: Language
    seconds: float
    background: tuple[int, int, int]
    things: tuple[Thing, ...]
    lines: tuple[Line, ...] = field(default=())


def make_scene(seed: int, split: Split = "train", language: Language | None = None, things: int | None = None) -> Scene:
    """The scene number `seed` of a split; a held-out scene shows at least one held-out pair."""
    rng = random.Random(f"{split}/{seed}")
    spoken: Language = rng.choice(("en", "zh"))
    seconds = rng.choice((4.0, 5.0, 6.0))
    shade = rng.randint(8, 60)
    background = (shade + rng.randint(-8, 8), shade + rng.randint(-8, 8), shade + rng.randint(-8, 8))
    placed = _things(rng, split, rng.choice((1, 2, 2, 2, 3)) if things is None else things)
    return Scene(seed, split, language or spoken, seconds, background, placed, _lines(rng, placed))


def _things(rng: random.Random, split: Split, count: int) -> tuple[Thing, ...]:
    colours = list(COLOURS)
    rng.shuffle(colours)
    moments = [0.25, 0.5, 0.75]
    rng.shuffle(moments)
    looks: list[tuple[Colour, Shape]] = []
    for i in range(count):
        colour = colours[i]
        allowed = [shape for shape in SHAPES if (colour, shape) not in HELD_OUT]
        looks.append((colour, rng.choice(allowed)))
    if split == "held-out":
        pair = rng.choice(sorted(HELD_OUT))
        others = [look for look in looks if look[0] != pair[0]]
        looks = [pair, *others, *looks][:count] if len(others) >= count - 1 else [pair, *others]
        rng.shuffle(looks)
    spare = [c for c in colours if c not in {look[0] for look in looks}]
    while True:
        actions = _actions(rng, count)
        for _ in range(TRIES):
            things = tuple(
                _place(rng, colour, shape, action, when, spare, split)
                for (colour, shape), action, when in zip(looks, actions, moments, strict=False)
            )
            if all(_apart(a, b) for i, a in enumerate(things) for b in things[:i]):
                return things


def _actions(rng: random.Random, count: int) -> list[Action]:
    """What each thing does; often two or more come, or go, one after the other."""
    if count > 1 and rng.random() < 0.4:
        event = rng.choice(COMINGS)
        actions: list[Action] = [event, event]
        actions += [rng.choice((event, event, *MOTIONS, "still")) for _ in range(count - 2)]
        rng.shuffle(actions)
        return actions
    return [rng.choice((*MOTIONS, *MOTIONS, *EVENTS, "still")) for _ in range(count)]


def _place(
    rng: random.Random, colour: Colour, shape: Shape, action: Action, when: float, spare: list[Colour], split: Split
) -> Thing:
    size = rng.choice(SIZES)
    margin = RADIUS[size] + 0.01
    low, high = margin, 1 - margin
    distance = rng.uniform(0.4, high - low) if action in STEP else 0.0
    across, down = STEP.get(action, (0, 0))
    x = rng.uniform(low + distance * (across < 0), high - distance * (across > 0))
    y = rng.uniform(low + distance * (down < 0), high - distance * (down > 0))
    later: Colour | None = None
    if action == "turn":
        later = rng.choice([c for c in spare if split == "held-out" or (c, shape) not in HELD_OUT] or [colour])
    return Thing(colour, shape, size, action, x, y, distance, when + rng.uniform(-0.05, 0.05), later)


def _apart(a: Thing, b: Thing) -> bool:
    """Never touching where a frame is taken, and never in the same strip of the picture."""
    if b.later_colour is not None and a.later_colour == b.later_colour:
        return False
    reach = RADIUS[a.size] + RADIUS[b.size] + 0.03
    for time in GLANCES:
        p, q = a.at(time), b.at(time)
        if math.hypot(p.x - q.x, p.y - q.y) < reach:
            return False
        if int(p.y * STRIPS) == int(q.y * STRIPS):
            return False
    return True


def _lines(rng: random.Random, things: tuple[Thing, ...]) -> tuple[Line, ...]:
    kind = rng.choice(("likes", "names", "names", "both", "none") if len(things) > 1 else ("likes", "likes", "none"))
    if kind == "none":
        return ()
    speakers = rng.sample(range(PEOPLE), 2)
    likes = rng.sample(range(LIKES), 2)
    named = rng.sample(range(len(things)), 2) if len(things) > 1 else []
    said: list[tuple[int, int | None, int | None]] = []
    if kind in ("likes", "both"):
        said += [(speaker, like, None) for speaker, like in zip(speakers, likes, strict=True)]
    if kind in ("names", "both"):
        said += [(speaker, None, thing) for speaker, thing in zip(speakers, named, strict=True)]
    rng.shuffle(said)
    span = 1 / len(said)
    return tuple(
        Line(speaker, round((i + 0.1) * span, 3), round((i + 0.8) * span, 3), like, thing)
        for i, (speaker, like, thing) in enumerate(said)
    )
