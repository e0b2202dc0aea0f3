"""Several sets in one stream: draw number n is always the same, so a run can go on anywhere without replaying."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import NamedTuple

from minigpt4_video.errors import DataError


class Part(NamedTuple):
    """What is mixed in: so many items, drawn this often relative to the others."""

    items: int
    weight: float = 1.0


class Draw(NamedTuple):
    part: int
    item: int
    epoch: int
    """How often all of the part has been drawn before."""


class Mixture:
    """An endless stream over parts by weight; within a part every item once in each epoch, in another order each time.

    `mixture[n]` is computed from n alone. Of the first n draws each part has had its share of n, give or take less than
    the number of parts, so that a short run keeps the proportions too.
    """

    def __init__(self, parts: Sequence[Part], seed: int = 0) -> None:
        """Raises DataError where nothing can be drawn."""
        for number, part in enumerate(parts, start=1):
            if not 0 <= part.weight < float("inf"):
                raise DataError(f"part {number} of the mixture has the weight {part.weight}; give a number from 0 up")
            if part.weight and part.items < 1:
                raise DataError(f"part {number} of the mixture is empty; leave it out or check its files")
        self.parts = list(parts)
        self.seed = seed
        left = sum((Fraction(part.weight) for part in parts), Fraction())
        if not left:
            raise DataError("the mixture has nothing to draw from; give a set with a weight above 0")
        self._shares: list[Fraction] = []
        """Of each part, of the draws that no part before it took."""
        for part in parts:
            self._shares.append(Fraction(part.weight) / left if left else Fraction())
            left -= Fraction(part.weight)

    def __getitem__(self, n: int) -> Draw:
        if n < 0:
            raise IndexError(f"draw {n}")
        for number, share in enumerate(self._shares):
            # A part's draws lie evenly among those that the parts before it left.
            before, after = n * share.numerator // share.denominator, (n + 1) * share.numerator // share.denominator
            if after > before:
                count = self.parts[number].items
                epoch, place = divmod(before, count)
                return Draw(number, shuffled(place, count, f"{self.seed}/{number}/{epoch}"), epoch)
            n -= before
        raise AssertionError("the last share is the whole of what is left")


def shuffled(place: int, count: int, key: str) -> int:
    """Where `place` goes in an order of `count` things that `key` decides; no memory, whatever the count.

    A Feistel network over the next power of four, walked until it lands inside: a permutation, as every round can be
    undone.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [blake2b(f"{key}/{turn}".encode(), digest_size=8).digest() for turn in range(4)]
    while True:
        left, right = place >> half, place & mask
        for secret in keys:
            mixed = blake2b(right.to_bytes(8), key=secret, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed) & mask)
        place = (left << half) | right
        if place < count:
            return place


def by_language(weights: Mapping[str, float], counts: Mapping[str, int], weight: float = 1.0) -> dict[str, Part]:
    """One part for each language of a set, sharing the set's weight as `weights` say.

    Raises DataError for a language of which the set has nothing.
    """
    whole = sum(weights.values())
    for language, share in weights.items():
        if share < 0 or not whole:
            raise DataError(
                f"the language {language} has the weight {share}; give numbers from 0 up, not all of them 0"
            )
        if share and not counts.get(language):
            raise DataError(f"the set has nothing in the language {language}; it has {', '.join(counts) or 'nothing'}")
    return {language: Part(counts[language], weight * share / whole) for language, share in weights.items() if share}
