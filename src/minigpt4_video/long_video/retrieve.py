"""Which clips a question is about: by the words they share (BM25), and by sentence vectors where an index has them."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minigpt4_video.long_video.index import Index
from minigpt4_video.long_video.sentences import Encoder
from minigpt4_video.planning import UNSPACED

Scores = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

RUN = re.compile(f"[^\\W_{UNSPACED}]+|(?:[{UNSPACED}](?<=\\w))+|[^\\s\\w]")
EMPTY = frozenset(
    """a an and are as at be by can did do does for from had has have how i in is it its of on or say says that the
    their there they this to video was were what when where which who why will with you""".split()  # noqa: SIM905
)
"""English words that say nothing of what a question is about."""
WORDS_TOGETHER, CHARACTERS_TOGETHER = 2, 4
SATURATION, LENGTH_MATTERS = 1.2, 0.25
"""BM25's k1 and b (Robertson and Zaragoza 2009)."""
SHARE = 0.75
"""A clip whose score is less than this share of the best one's is not about the question."""


class Passage(NamedTuple):
    """Neighbouring clips that a question is about."""

    first: int
    """Number of the first clip, and of the `last` one."""
    last: int
    score: float
    """Between 0 and 1: that of the best of them."""


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words; of scripts without spaces, runs of one to four characters, which hold the
    words whatever they are.

    Nothing reaches over a punctuation mark. Words lose a final s, so that "moves" is found by "move".
    """
    found: list[str] = []
    words: list[str] = []
    for run in RUN.findall(unicodedata.normalize("NFKC", text).lower()):
        if re.match(f"[{UNSPACED}]", run):
            words = []
            for length in range(1, CHARACTERS_TOGETHER + 1):
                found += [run[at : at + length] for at in range(len(run) - length + 1)]
        elif run in EMPTY:
            continue
        elif run[0].isalnum():
            words.append(without_s(run))
            for length in range(1, min(WORDS_TOGETHER, len(words)) + 1):
                found.append(" ".join(words[-length:]))
        else:
            words = []
    return found


def without_s(word: str) -> str:
    """A word of lower case without a final s."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class Bm25:
    """How well texts match a question, by terms: rare ones count more, repeated ones less each time."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(terms(text)) for text in texts]
        self._lengths = np.array([max(1, counter.total()) for counter in counted], np.float64)
        self._where: dict[str, list[tuple[int, int]]] = {}
        for number, counter in enumerate(counted):
            for term, times in counter.items():
                self._where.setdefault(term, []).append((number, times))

    def scores(self, question: str) -> Scores:
        """One for each text, at least 0."""
        texts = len(self._lengths)
        scores = np.zeros(texts, np.float64)
        if not texts:
            return scores
        damping = SATURATION * (1 - LENGTH_MATTERS + LENGTH_MATTERS * self._lengths / self._lengths.mean())
        for term in set(terms(question)):
            where = self._where.get(term)
            if where:
                numbers, times = np.array(where).T
                rarity = math.log(1 + (texts - len(where) + 0.5) / (len(where) + 0.5))
                scores[numbers] += rarity * times * (SATURATION + 1) / (times + damping[numbers])
        return scores


class Retriever:
    """Finds clips of one index."""

    def __init__(self, index: Index, encoder: Encoder | None = None) -> None:
        """The encoder must be the one that the index was made with."""
        self.index = index
        self._words = Bm25([clip.text for clip in index.clips])
        self._encoder = encoder if index.vectors is not None else None

    def scores(self, question: str) -> Scores:
        """One for each clip, 0 to 1: the share of the best one's words, and the mean with that of vectors where there
        are some. All are 0 where no word of the question occurs and there are no vectors.
        """
        by_words = _scaled(self._words.scores(question))
        if self._encoder is None or self.index.vectors is None:
            return by_words
        near = self.index.vectors @ self._encoder.encode([question])[0]
        return (by_words + _scaled(near - near.min())) / 2

    def clips(self, question: str, most: int, share: float = SHARE) -> list[tuple[int, float]]:
        """Numbers and scores of at most `most` clips that the question is about, the best first."""
        scores = self.scores(question)
        best = np.argsort(-scores, kind="stable")[:most]
        least = share * scores[best[0]] if len(best) else 0.0
        return [
            (int(number), float(scores[number])) for number in best if scores[number] > 0 and scores[number] >= least
        ]

    def passages(self, question: str, most: int) -> list[Passage]:
        """The same in the order of time, neighbours joined."""
        found: list[Passage] = []
        for number, score in sorted(self.clips(question, most)):
            if found and found[-1].last == number - 1:
                found[-1] = Passage(found[-1].first, number, max(found[-1].score, score))
            else:
                found.append(Passage(number, number, score))
        return found


def _scaled(scores: np.ndarray) -> Scores:
    """With 1 for the best."""
    best = float(scores.max(initial=0.0))
    return np.asarray(scores / best if best > 0 else np.zeros(len(scores)), np.float64)
