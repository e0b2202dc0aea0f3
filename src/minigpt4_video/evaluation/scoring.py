"""Rules that score an answer against its reference, each 0 to 1, with no judge and no network."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from minigpt4_video.evaluation.items import LETTERS, Item, Scoring
from minigpt4_video.planning import UNIT, UNSPACED

ARTICLES = {"a", "an", "the"}
ANLS_LEAST = 0.5
"""Answers that are less like the reference than this count as not like it at all."""


def normalised(text: str) -> str:
    """For exact match: lower case, no punctuation, single spaces."""
    return " ".join("".join(letter for letter in text.lower() if not _is_punctuation(letter)).split())


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or (not letter.isascii() and unicodedata.category(letter).startswith("P"))


def exact(answer: str, reference: str) -> float:
    return float(normalised(answer) == normalised(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words without articles; of scripts without spaces over characters."""
    said, wanted = (
        Counter(word for word in UNIT.findall(normalised(text)) if word not in ARTICLES) for text in (answer, reference)
    )
    if not said or not wanted:
        return float(said == wanted)
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total())


def anls(answer: str, reference: str) -> float:
    """Average normalised Levenshtein similarity: 1 less the share of characters to change, 0 below one half."""
    said, wanted = normalised(answer), normalised(reference)
    longest = max(len(said), len(wanted))
    likeness = 1.0 if longest == 0 else 1 - distance(said, wanted) / longest
    return likeness if likeness >= ANLS_LEAST else 0.0


def distance(first: str, second: str) -> int:
    """Characters to put in, take out or replace to get from one text to the other."""
    before = list(range(len(second) + 1))
    for row, a in enumerate(first, start=1):
        now = [row]
        for column, b in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (a != b)))
        before = now
    return before[-1]


ANSWER_IS = (
    r"(?:(?i:\b(?:answer|option|choice)\b(?:\s+is)?)|答案(?:是|为|应为|选)?|(?<!不)选(?:项|择)?(?:是|为)?)\s*:?\s*"
)
MARKS = re.compile(r"\\(?:boxed|text)\b|[*${}]")
"""What sets an answer off in Markdown and in TeX."""
JOINED = r"[)\]]?\s*(?:[,、/&\n]|(?:and|or)\b|[和或与及])\s*"


def letter(answer: str, choices: Sequence[str]) -> str:
    """The option an answer takes, "" where it takes none or several: a letter that stands first, in brackets or behind
    "the answer is", or the text of one option. English or Chinese."""
    allowed, text = LETTERS[: len(choices)], MARKS.sub("", unicodedata.normalize("NFKC", answer)).strip()
    said = normalised(text)
    options = {
        place: normalised(unicodedata.normalize("NFKC", choice)) for place, choice in zip(allowed, choices, strict=True)
    }
    same = [place for place, option in options.items() if len(said) > 1 and said == option]
    if len(same) == 1:  # "A型血" may be the text of another option than A
        return same[0]
    bracketed = set(re.findall(rf"\(([{allowed}])\)", text))
    if len(bracketed) > 1:
        return ""
    # A letter that a word follows may be an article, so "A man" takes no option; scripts without spaces have none.
    behind = rf"[)\].:,–—]|\s+[-–—]|\s*\n|[{UNSPACED}]|$"
    first = re.match(rf"[(\[]?([{allowed}{allowed.lower()}])(?:{behind})", text)
    if found := first or re.search(rf"{ANSWER_IS}[(\[]?([{allowed}])(?![A-Za-z0-9_])", text):
        lone = rf"[(\[]?[{allowed}](?=\s*(?:[)\].,:;/&]|(?:and|or)\b|[{UNSPACED}]|$))"
        return "" if re.match(JOINED + lone, text[found.end(1) :]) else found[1].upper()
    if bracketed:
        return str(bracketed.pop())
    same = [place for place, option in options.items() if option and said == f"{place.lower()} {option}"]
    same = same or [place for place, option in options.items() if option and _says(said, option)]
    return same[0] if len(same) == 1 else ""


def _says(said: str, option: str) -> bool:
    """Whether an option's words are among those said; scripts without spaces do not tell where a word ends."""
    return f" {option} " in f" {said} " or (option in said and re.search(f"[{UNSPACED}]", option) is not None)


def likeliest(openings: Sequence[float]) -> str:
    """The letter that the model gave the most probability; of equal ones the first."""
    return LETTERS[max(range(len(openings)), key=lambda at: openings[at])] if openings else ""


def scores(item: Item, answer: str, openings: Sequence[float] = (), scoring: Scoring = "open") -> Mapping[str, float]:
    """All rules that apply to an item, the one that matters most first."""
    if item.choices:
        found = {"accuracy": float(letter(answer, item.choices) == item.reference)}
        if openings:
            found["likelihood"] = float(likeliest(openings) == item.reference)
        return found
    if scoring == "rated":
        return {"f1": token_f1(answer, item.reference)}
    return {
        "exact": exact(answer, item.reference),
        "f1": token_f1(answer, item.reference),
        "anls": anls(answer, item.reference),
    }
