"""Frames that a model is shown: what it reads of them, computed once, or taken from the store."""

from collections.abc import Callable, Sequence
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from minigpt4_video.inference.store import Store, array_digest, key
from minigpt4_video.media import unique_frames
from minigpt4_video.model.branches import Beginning, Branches

if TYPE_CHECKING:
    from minigpt4_video.inference.chat import VideoChat


class Shown:
    """Frames, uint8 (frames, height, width, 3), and what a model has computed of them."""

    def __init__(
        self,
        chat: "VideoChat",
        frames: np.ndarray[Any, Any],
        store: Store | None,
        identity: Sequence[Any] | None = None,
    ) -> None:
        """`identity` is the model's, where nobody changes its weights meanwhile; asking for it costs milliseconds."""
        self.model = chat
        self._identity = identity
        self.store = store
        self.pictures = frames
        self._unsaved: dict[str, Callable[[], dict[str, torch.Tensor]]] = {}
        """What is to go to the store once nobody waits for an answer, by its key."""

    def frame_tokens(self, frames: Sequence[int]) -> torch.Tensor:
        """What the language model reads of some of the frames: (frames, tokens_per_frame, hidden)."""
        return self._frame_tokens if len(frames) == len(self._frame_tokens) else self._frame_tokens[list(frames)]

    @cached_property
    def _frame_tokens(self) -> torch.Tensor:
        name = self._features_key if self.store else ""  # which takes as long as a few frames
        if name and (kept := self._stored(name)) is not None:
            return kept["tokens"].to(self.model.model.device)
        unique, places = unique_frames(self.pictures)
        tokens = self.model.encode(list(unique))[torch.from_numpy(places)]
        if name:
            self._later(name, lambda: {"tokens": tokens})
        return tokens

    @cached_property
    def _features_key(self) -> str:
        return key("features", array_digest(self.pictures), self._identity or self.model.identity())

    def begin(self, board: Branches, ids: list[int], frames: tuple[int, ...], row: int = 0) -> float:
        """Read a prefix into an empty row, or take it from the store; the seconds that frames took."""
        return begin_all(board, [Reading(self, ids, frames, row)])[0]

    def restore(self, reading: "Reading", board: Branches) -> bool:
        """Take a prefix from the store, where it is there."""
        name = self._prefix_name(reading)
        kept = self._stored(name) if name else None
        if kept is None:
            return False
        layers = [(kept[f"{number}.keys"], kept[f"{number}.values"]) for number in range(len(kept) // 2)]
        board.restore(reading.row, layers)
        return True

    def has_begun(self, reading: "Reading", board: Branches) -> None:
        """What was read is to go to the store."""
        if name := self._prefix_name(reading):
            self._later(name, lambda: _layers(board, reading.row))

    def save(self) -> None:
        """Write to the store what has been computed since the last time. Other videos can be asked meanwhile."""
        with self.model.lock:
            unsaved, self._unsaved = self._unsaved, {}
        if self.store is not None:
            for name, make in unsaved.items():
                self.store.put(name, make())

    def forget_prefixes(self) -> None:
        """Write none that has not been written yet: what was to be written would keep it in memory."""
        self._unsaved = {name: make for name, make in self._unsaved.items() if not name.startswith("prefix-")}

    def _prefix_name(self, reading: "Reading") -> str:
        """Its key in the store; "" where it does not go there: on a GPU, reading it again is quicker than the disk."""
        if self.store is None or self.model.model.device.type != "cpu":
            return ""
        return key("prefix", self._features_key, reading.frames, reading.ids)

    def _stored(self, name: str) -> dict[str, torch.Tensor] | None:
        return self.store.get(name) if self.store else None

    def _later(self, name: str, make: Callable[[], dict[str, torch.Tensor]]) -> None:
        if self.store is not None:
            self._unsaved[name] = make


class Reading(NamedTuple):
    """A prefix for an empty row."""

    shown: Shown
    ids: list[int]
    frames: tuple[int, ...]
    row: int


def begin_all(board: Branches, readings: Sequence[Reading]) -> list[float]:
    """Read prefixes into empty rows, or take them from the store; for each the seconds that frames took."""
    took = [0.0] * len(readings)
    beginnings: dict[int, Beginning] = {}
    for number, one in enumerate(readings):
        if not one.shown.restore(one, board):
            begun = perf_counter()
            beginnings[number] = Beginning(one.row, one.ids, one.shown.frame_tokens(one.frames))
            took[number] = perf_counter() - begun
    board.begin_all(list(beginnings.values()))
    for number in beginnings:
        readings[number].shown.has_begun(readings[number], board)
    return took


def _layers(board: Branches, row: int) -> dict[str, torch.Tensor]:
    """A row's prefix as the store keeps it."""
    layers = enumerate(board.held(row))
    return {
        f"{number}.{name}": held for number, pair in layers for name, held in zip(("keys", "values"), pair, strict=True)
    }
