"""What looks wrong about a text, as notes to filter by. Nothing is removed: that is for whoever trains on it."""

import re
from collections import Counter

REFUSALS = re.compile(
    r"^\W*(?:i(?:'| a)m sorry|sorry|i (?:can(?:no|')t|am (?:not able|unable))|as an ai|unfortunately|抱歉|对不起|很抱歉"
    r"|作为(?:一个)?(?:人工智能|AI|语言模型)|我(?:无法|不能))",
    re.IGNORECASE,
)
OPENING = re.compile(
    r"^\s*(?:in )?(?:the|this) (?:video|clip|footage|scene)(?: clip)?(?: (?:shows|depicts|features|displays|captures"
    r"|presents|begins with|starts with|is about|is of)(?: that)?|,)\s+(?=\S)|^\s*(?:在?(?:这段|这个|该)?视频(?:中|里)?"
    r"(?:展示了|显示了?|描述了|呈现了|是关于|，|:|：)?)(?=\S)",
    re.IGNORECASE,
)
CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
LETTER = re.compile(r"[^\W\d_]")
UNIT = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|\w+")
LOOP, TIMES = 4, 3
"""So many words in a row, so often, are a loop."""


def notes(text: str, language: str) -> list[str]:
    """Any of "refusal", "repeats", "other language" and "opening"; `language` is that of the request, "" for any."""
    found = []
    if REFUSALS.match(text):
        found.append("refusal")
    if repeats(text):
        found.append("repeats")
    letters = len(LETTER.findall(text))
    share = len(CHINESE.findall(text)) / letters if letters else None
    if share is not None and ((language == "en" and share > 0.3) or (language == "zh" and share < 0.3)):
        found.append("other language")
    if without_opening(text) != text:
        found.append("opening")
    return found


def repeats(text: str) -> bool:
    """Whether the same few words come again and again."""
    units = UNIT.findall(text.casefold())
    runs = Counter(tuple(units[at : at + LOOP]) for at in range(len(units) - LOOP + 1))
    return bool(runs) and runs.most_common(1)[0][1] >= TIMES


def without_opening(text: str) -> str:
    """A caption without "The video shows" before it, which says nothing of the video; models of text to video should
    not be taught to wait for it."""
    bare = OPENING.sub("", text, count=1)
    return bare if bare == text or not bare else bare[0].upper() + bare[1:]
