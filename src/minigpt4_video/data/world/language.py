"""Scenes in words, English and Chinese: subtitles, captions, and questions with the one right answer.

Every answer is computed from the scene, never from another text. A question is offered only where its answer is
beyond doubt.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from minigpt4_video.data.world.scene import (
    COLOURS,
    HELD_OUT,
    MOTIONS,
    SHAPES,
    STEP,
    Colour,
    Language,
    Line,
    Scene,
    Shape,
    Size,
    Thing,
)
from minigpt4_video.media.alignment import Cue

Needs = Literal["picture", "subtitles", "both"]
Kind = Literal[
    "colour", "shape", "size", "position", "motion", "count", "existence", "event", "order",
    "who", "likes", "first-speaker", "named", "who-is",
]  # fmt: skip
Style = Literal["brief", "detailed", "tags"]

NEEDS: dict[Kind, Needs] = {
    "colour": "picture", "shape": "picture", "size": "picture", "position": "picture", "motion": "picture",
    "count": "picture", "existence": "picture", "event": "picture", "order": "picture",
    "who": "subtitles", "likes": "subtitles", "first-speaker": "subtitles",
    "named": "both", "who-is": "both",
}  # fmt: skip
"""What each kind of question cannot be answered without."""

NAMES: dict[Language, tuple[str, ...]] = {
    "en": ("Anna", "Ben", "Carl", "Dora", "Emma", "Frank", "Grace", "Henry"),
    "zh": ("小明", "小刚", "小丽", "小华", "小强", "小芳", "小军", "小雪"),
}
LIKED: dict[Language, tuple[str, ...]] = {
    "en": ("apples", "bread", "milk", "music", "football", "tea", "fish", "cats", "books", "rain"),
    "zh": ("苹果", "面包", "牛奶", "音乐", "足球", "茶", "鱼", "猫", "书", "雨"),
}
ZH_COLOUR: dict[Colour, str] = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "white": "白色",
}
ZH_SHAPE: dict[Shape, str] = {"circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形"}
ZH_SIZE: dict[Size, str] = {"big": "大", "small": "小"}
ZH_SIDE = {"left": "左", "right": "右", "up": "上", "down": "下"}
ZH_PLACE = {"top left": "左上", "top right": "右上", "bottom left": "左下", "bottom right": "右下"}
ZH_VERBS = ("喜欢", "移动", "出现", "消失", "变成", "不动", "没有")
ZH_NUMBER = ("零", "一", "两", "三")
EN_NUMBER = ("zero", "one", "two", "three")


@dataclass(frozen=True)
class Question:
    kind: Kind
    needs: Needs
    language: Language
    text: str
    answer: str


def chinese_words() -> list[str]:
    """The words of more than one character that answers and subtitles are made of."""
    tables = (ZH_COLOUR.values(), ZH_SHAPE.values(), ZH_PLACE.values(), NAMES["zh"], LIKED["zh"], ZH_VERBS)
    return [word for table in tables for word in table if len(word) > 1]


def cues(scene: Scene) -> list[Cue]:
    """The subtitles of a scene in its language, times in seconds."""
    return [Cue(line.start * scene.seconds, line.end * scene.seconds, _spoken(scene, line)) for line in scene.lines]


def _spoken(scene: Scene, line: Line) -> str:
    speaker = NAMES[scene.language][line.speaker]
    if line.likes is not None:
        like = LIKED[scene.language][line.likes]
        return f"{speaker}: I like {like}." if scene.language == "en" else f"{speaker}：我喜欢{like}。"
    assert line.thing is not None
    look = describe(scene.things[line.thing], scene.language)
    return f"{speaker}: I am the {look}." if scene.language == "en" else f"{speaker}：我是{look}。"


def describe(thing: Thing, language: Language, *, size: bool = False) -> str:
    """Colour (at first) and shape, as 'red circle' or '红色圆形'."""
    if language == "en":
        return f"{thing.size} {thing.colour} {thing.shape}" if size else f"{thing.colour} {thing.shape}"
    look = ZH_COLOUR[thing.colour] + ZH_SHAPE[thing.shape]
    return f"{ZH_SIZE[thing.size]}{look}" if size else look


def happening(thing: Thing, language: Language) -> str:
    """What the thing does, as a verb phrase: 'moves left', 'turns green', '向左移动'."""
    action = thing.action
    if language == "en":
        if action in STEP:
            return f"moves {action}"
        if action == "turn":
            return f"turns {thing.later_colour}"
        return {"still": "stays still", "appear": "appears", "disappear": "disappears"}[action]
    if action in STEP:
        return f"向{ZH_SIDE[action]}移动"
    if action == "turn":
        assert thing.later_colour is not None
        return f"变成{ZH_COLOUR[thing.later_colour]}"
    return {"still": "不动", "appear": "出现", "disappear": "消失"}[action]


def place(thing: Thing, time: float) -> str | None:
    """The quarter of the picture that the thing is in, or None too near to a border between quarters."""
    state = thing.at(time)
    if min(abs(state.x - 0.5), abs(state.y - 0.5)) < 0.06:
        return None
    return f"{'top' if state.y < 0.5 else 'bottom'} {'left' if state.x < 0.5 else 'right'}"


def said_place(name: str, language: Language) -> str:
    return name if language == "en" else ZH_PLACE[name]


def caption(scene: Scene, style: Style, language: Language) -> str:
    """The whole video in words: `brief` names the things, `detailed` tells all, `tags` lists words."""
    things = sorted(scene.things, key=lambda thing: COLOURS.index(thing.colour))
    if style == "tags":
        words = [describe(thing, language) for thing in things] + [happening(thing, language) for thing in things]
        return (", " if language == "en" else "，").join(dict.fromkeys(words))
    if style == "brief":
        looks = [describe(thing, language) for thing in things]
        if language == "en":
            looks = [f"a {look}" if look[0] != "o" else f"an {look}" for look in looks]
            return _join_en(looks).capitalize() + "."
        return "和".join(looks) + "。"
    if language == "en":
        told = [f"A {describe(thing, 'en', size=True)} {happening(thing, 'en')}." for thing in things]
        told += [f"{NAMES['en'][line.speaker]} likes {LIKED['en'][liked]}." for line, liked in _likes(scene)]
        return " ".join(told)
    told = [f"{describe(thing, 'zh', size=True)}{happening(thing, 'zh')}。" for thing in things]
    return "".join(told + [f"{NAMES['zh'][line.speaker]}喜欢{LIKED['zh'][liked]}。" for line, liked in _likes(scene)])


def picture_caption(scene: Scene, time: float, language: Language) -> str:
    """One moment in words: what is visible, how big and where."""
    told = []
    for thing in sorted(scene.things, key=lambda thing: COLOURS.index(thing.colour)):
        state = thing.at(time)
        if not state.visible:
            continue
        where = place(thing, time)
        colour = state.colour if language == "en" else ZH_COLOUR[state.colour]
        if language == "en":
            told.append(f"A {thing.size} {colour} {thing.shape}" + (f" at the {where}." if where else "."))
        else:
            spot = f"在{ZH_PLACE[where]}" if where else ""
            told.append(f"{ZH_SIZE[thing.size]}{colour}{ZH_SHAPE[thing.shape]}{spot}。")
    if not told:
        return "Nothing." if language == "en" else "什么都没有。"
    return (" " if language == "en" else "").join(told)


def picture_questions(scene: Scene, time: float, language: Language, seed: int = 0) -> list[tuple[str, str]]:
    """(question, answer) pairs about one moment of a scene: what is visible, where, how big, of what colour and
    shape."""
    rng = random.Random(f"moment/{scene.split}/{scene.seed}/{language}/{seed}")
    shown = []
    for thing in scene.things:
        state = thing.at(time)
        if state.visible:
            shown.append(Thing(state.colour, thing.shape, thing.size, "still", state.x, state.y))
    if not shown:
        return []
    still = replace(scene, things=tuple(shown), lines=())
    asked = [
        one for one in (*_about_things(still, rng), *_about_existence(still, rng)) if one[0] not in ("motion", "event")
    ]
    rng.shuffle(asked)
    if language == "en":
        return [(rng.choice(english), answer[0]) for _, english, _, answer in asked]
    return [(rng.choice(chinese), answer[1]) for _, _, chinese, answer in asked]


def dialogue_questions(scene: Scene, seed: int = 0) -> list[tuple[str, str]]:
    """(question, answer) pairs about what is said, and about things that still stand named, in the scene's language."""
    rng = random.Random(f"dialogue/{scene.split}/{scene.seed}/{seed}")
    asked = [*_about_speech(scene), *_about_named(scene, rng)]
    rng.shuffle(asked)
    side = 0 if scene.language == "en" else 1
    return [(rng.choice(one[1 + side]), one[3][side]) for one in asked]


def _join_en(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _likes(scene: Scene) -> list[tuple[Line, int]]:
    """The lines that say what somebody likes, and what."""
    return [(line, line.likes) for line in scene.lines if line.likes is not None]


def questions(scene: Scene, language: Language, seed: int = 0) -> list[Question]:
    """Every question that the scene answers, each in one of its wordings, in an order that the seed decides."""
    rng = random.Random(f"{scene.split}/{scene.seed}/{language}/{seed}")
    asked: list[Question] = []
    sources = [_about_things(scene, rng), _about_order(scene), _about_existence(scene, rng)]
    if language == scene.language:
        sources += [_about_speech(scene), _about_named(scene, rng)]
    for source in sources:
        for kind, english, chinese, answer in source:
            wordings = english if language == "en" else chinese
            text = answer[0] if language == "en" else answer[1]
            asked.append(Question(kind, NEEDS[kind], language, rng.choice(wordings), text))
    rng.shuffle(asked)
    return asked


Wordings = tuple[Kind, tuple[str, ...], tuple[str, ...], tuple[str, str]]
"""Kind, English wordings, Chinese wordings, (English answer, Chinese answer)."""


def _about_things(scene: Scene, rng: random.Random) -> Iterator[Wordings]:
    number = len(scene.things)
    yield (
        "count",
        ("How many objects are there?", "How many shapes are in the video?"),
        ("有几个物体？", "视频里有几个形状？"),
        (EN_NUMBER[number], ZH_NUMBER[number] + "个"),
    )
    for thing in scene.things:
        en, zh = describe(thing, "en"), describe(thing, "zh")
        alike = [other for other in scene.things if other.shape == thing.shape]
        if thing.action != "turn":
            yield (
                "shape",
                (f"What shape is the {thing.colour} object?", f"What shape is {thing.colour}?"),
                (f"{ZH_COLOUR[thing.colour]}物体是什么形状？", f"{ZH_COLOUR[thing.colour]}的是什么形状？"),
                (thing.shape, ZH_SHAPE[thing.shape]),
            )
            if len(alike) == 1:
                yield (
                    "colour",
                    (f"What color is the {thing.shape}?", f"What colour is the {thing.shape}?"),
                    (f"{ZH_SHAPE[thing.shape]}是什么颜色？", f"{ZH_SHAPE[thing.shape]}的颜色是什么？"),
                    (thing.colour, ZH_COLOUR[thing.colour]),
                )
        yield (
            "size",
            (f"How big is the {en}?", f"Is the {en} big or small?"),
            (f"{zh}有多大？", f"{zh}是大还是小？"),
            (thing.size, ZH_SIZE[thing.size]),
        )
        yield from _where("position", thing, f"the {en}", zh)
        yield from _which_way("motion", thing, f"the {en}", zh, rng)
        yield _what_happens("event", thing, f"the {en}", zh)


def _places(thing: Thing) -> Iterator[tuple[str, str, str]]:
    """(when in English, when in Chinese, which quarter): of a moving thing at both ends, of others at any time."""
    moments: tuple[tuple[str, str, float], ...] = (
        (" at the start", "开始时", 1 / 16),
        (" at the end", "结束时", 15 / 16),
    )
    if thing.action not in STEP:
        moments = (("", "", 0.5),)
    for when_en, when_zh, time in moments:
        where = place(thing, time)
        if where is not None:
            yield when_en, when_zh, where


def _where(kind: Kind, thing: Thing, en: str, zh: str) -> Iterator[Wordings]:
    for when_en, when_zh, where in _places(thing):
        yield kind, (f"Where is {en}{when_en}?",), (f"{when_zh}{zh}在哪里？",), (where, ZH_PLACE[where])


def _which_way(kind: Kind, thing: Thing, en: str, zh: str, rng: random.Random) -> Iterator[Wordings]:
    wordings = (f"Which way does {en} move?", f"In which direction does {en} move?")
    chinese = (f"{zh}往哪个方向移动？", f"{zh}向哪边移动？")
    if thing.action in STEP:
        yield kind, wordings, chinese, (thing.action, f"向{ZH_SIDE[thing.action]}")
    elif thing.action == "still" and rng.random() < 0.5:
        yield kind, wordings, chinese, ("it does not move", "不动")


def _what_happens(kind: Kind, thing: Thing, en: str, zh: str) -> Wordings:
    return (
        kind,
        (f"What happens to {en}?", f"What does {en} do?"),
        (f"{zh}怎么了？", f"{zh}发生了什么？"),
        (f"it {happening(thing, 'en')}", happening(thing, "zh")),
    )


def _about_order(scene: Scene) -> Iterator[Wordings]:
    """Of things that do the same, which is the first and which the last."""
    for action, verb, zh_verb in (("appear", "appears", "出现"), ("disappear", "disappears", "消失")):
        events = sorted((thing for thing in scene.things if thing.action == action), key=lambda thing: thing.when)
        if len(events) < 2:
            continue
        for thing, english, chinese in (
            (events[0], f"Which object {verb} first?", f"哪个物体先{zh_verb}？"),
            (events[-1], f"Which object {verb} last?", f"哪个物体最后{zh_verb}？"),
        ):
            yield "order", (english,), (chinese,), (f"the {describe(thing, 'en')}", describe(thing, "zh"))


def _about_existence(scene: Scene, rng: random.Random) -> Iterator[Wordings]:
    """One look that is there and one that is not, and in training never a held-out one."""
    shown = {(colour, thing.shape) for thing in scene.things for colour in (thing.colour, thing.later_colour)}
    absent = [
        (colour, shape)
        for colour in COLOURS
        for shape in SHAPES
        if (colour, shape) not in shown and (scene.split == "held-out" or (colour, shape) not in HELD_OUT)
    ]
    # Half of the absent looks share a colour or a shape with what is there, so that neither word alone decides.
    near = [look for look in absent if any(look[0] == c or look[1] == s for c, s in shown)]
    here = rng.choice(scene.things)
    for (colour, shape), answer in (
        ((here.colour, here.shape), ("yes", "有")),
        (rng.choice(near if near and rng.random() < 0.5 else absent), ("no", "没有")),
    ):
        article = "an" if colour == "orange" else "a"
        yield (
            "existence",
            (f"Is there {article} {colour} {shape}?", f"Can you see {article} {colour} {shape}?"),
            (f"有{ZH_COLOUR[colour]}{ZH_SHAPE[shape]}吗？", f"能看到{ZH_COLOUR[colour]}{ZH_SHAPE[shape]}吗？"),
            answer,
        )


def _about_speech(scene: Scene) -> Iterator[Wordings]:
    for line, like in _likes(scene):
        names = tuple(NAMES[language][line.speaker] for language in ("en", "zh"))
        liked = tuple(LIKED[language][like] for language in ("en", "zh"))
        yield (
            "who",
            (f"Who likes {liked[0]}?", f"Who says they like {liked[0]}?"),
            (f"谁喜欢{liked[1]}？", f"谁说喜欢{liked[1]}？"),
            (names[0], names[1]),
        )
        yield (
            "likes",
            (f"What does {names[0]} like?", f"What does {names[0]} say they like?"),
            (f"{names[1]}喜欢什么？", f"{names[1]}说喜欢什么？"),
            (liked[0], liked[1]),
        )
    if scene.lines:
        first = scene.lines[0].speaker
        yield (
            "first-speaker",
            ("Who speaks first?", "Who is the first to speak?"),
            ("谁先说话？", "谁第一个说话？"),
            (NAMES["en"][first], NAMES["zh"][first]),
        )


def _about_named(scene: Scene, rng: random.Random) -> Iterator[Wordings]:
    """Two people said which thing they are: only what tells the two apart is asked, so both picture and subtitles are
    needed."""
    named = [(line.speaker, scene.things[line.thing]) for line in scene.lines if line.thing is not None]
    if len(named) != 2:
        return
    for (speaker, thing), (_, other) in (named, named[::-1]):
        en, zh = NAMES["en"][speaker], NAMES["zh"][speaker]
        if thing.size != other.size:
            yield (
                "named",
                (f"How big is {en}?", f"Is {en} big or small?"),
                (f"{zh}有多大？", f"{zh}是大还是小？"),
                (thing.size, ZH_SIZE[thing.size]),
            )
            yield (
                "who-is",
                (f"Who is {thing.size}?",),
                (f"谁是{ZH_SIZE[thing.size]}的？",),
                (en, zh),
            )
        same_place = {place(thing, t) for t in (1 / 16, 15 / 16)} & {place(other, t) for t in (1 / 16, 15 / 16)}
        if not same_place:
            yield from _where("named", thing, en, zh)
            for when_en, when_zh, where in _places(thing):
                yield (
                    "who-is",
                    (f"Who is at the {where}{when_en}?",),
                    (f"{when_zh}谁在{ZH_PLACE[where]}？",),
                    (en, zh),
                )
        if thing.action != other.action:
            if other.action in MOTIONS:
                yield from _which_way("named", thing, en, zh, rng)
            yield _what_happens("named", thing, en, zh)
