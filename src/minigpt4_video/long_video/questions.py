"""What a question about a long video asks for, and the questions of yes or no that its clips are asked for it."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import islice

from minigpt4_video.long_video.retrieve import EMPTY, without_s
from minigpt4_video.planning import UNSPACED

YES = re.compile(r"yes\b|[是有对能会](?![没不])", re.IGNORECASE)
"""How a yes begins, whatever comes after it."""
NO = re.compile(r"\b(no|not|none|nothing|nobody|never|neither|nowhere|cannot|without)\b|n['’]t\b|[没不未无否]", re.I)
"""What makes any other answer a no."""

COUNTS = (
    (re.compile(r"how many times (.+)", re.IGNORECASE), "{}?"),
    (re.compile(r"(?:一共|总共)?有(?:几|多少)次(.+)"), "{}吗？"),
)
"""Questions that count moments, and the one to ask at each."""

SEVERAL = re.compile(
    r"\b(first|last|before|after|then|next|earl\w*|lat(er|est)|order|sequence|between|while|both|all|each|every|list)\b"
    r"|\b(compare\w*|differ\w*|summar\w*|story|why|how (do|does|did|can|could|to))\b"
    r"|先(?!生)|最早|最后|之前|之后|以前|以后|然后|接着|顺序|都|各|每|哪些|列出|比较|区别|概括|总结|故事|为什么|如何|怎样",
    re.IGNORECASE,
)

PIECES = re.compile(f"[{UNSPACED}](?<=\\w)|[^\\W_{UNSPACED}]+|[^\\s\\w]")
"""Words, characters of scripts without spaces, and marks."""
LOOKED_AT = 1000
"""Of these, how many of a question are compared with descriptions, which takes the time of both lengths together."""


def asks_for_several(question: str) -> bool:
    """Whether it is about several moments together, such as their order. Any other question is about one of them."""
    return SEVERAL.search(question) is not None


def moment_question(question: str) -> str | None:
    """What is asked at each moment where a question counts them: of "How many times is there a cat?" it is
    "Is there a cat?", of "有几次能看到猫？" it is "能看到猫吗？". None for any other question.
    """
    bare = question.strip().rstrip("?？.。 ")
    for pattern, form in COUNTS:
        if match := pattern.fullmatch(bare):
            rest = form.format(match[1].strip())
            return rest[0].upper() + rest[1:]
    return None


def presence_question(question: str, described: Sequence[str], heard: Sequence[str] = ()) -> str | None:
    """Whether what clips were found by is in the picture: of "What does the red cat do?", where a clip was described
    as "A red cat runs.", it is "Is there a red cat?", of "红色的猫怎么了？" it is "有红色的猫吗？".

    That is the longest run of words, of scripts without spaces of characters, that the question shares with a
    description. None where there is none, and where it was `heard`: it need not be seen then.
    """
    places = list(islice(PIECES.finditer(question), LOOKED_AT))
    asked = [place[0] for place in places]
    longest = range(0)
    for text in described:
        longest = max(longest, _shared(asked, PIECES.findall(text)), key=len)
    run = [asked[at] for at in longest]
    if not run or any(len(_shared(run, PIECES.findall(text))) == len(run) for text in heard):
        return None
    thing = question[places[longest[0]].start() : places[longest[-1]].end()]
    if re.search(f"[{UNSPACED}]", thing):
        return f"有{thing}吗？" if len(thing) > 1 else None
    return f"Is there {'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}?"


def is_yes(text: str) -> bool:
    """Whether an answer to a question of yes or no is yes, in English and Chinese."""
    said = text.strip()
    return bool(said) and (YES.match(said) is not None or NO.search(said) is None)


def _shared(one: Sequence[str], other: Sequence[str]) -> range:
    """Where in `one` the longest run of words is that both have, over no mark and without empty words at its ends.
    Case and a final s make no difference."""
    like = [without_s(word.lower()) if word[0].isalnum() else f"mark {at}" for at, word in enumerate(one)]
    told = [without_s(word.lower()) for word in other]
    found = SequenceMatcher(None, like, told, autojunk=False).find_longest_match()
    run = range(found.a, found.a + found.size)
    while run and one[run[0]].lower() in EMPTY:
        run = run[1:]
    while run and one[run[-1]].lower() in EMPTY:
        run = run[:-1]
    return run
