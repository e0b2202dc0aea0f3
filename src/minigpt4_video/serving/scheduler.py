"""The thread that owns the model: prompts wait in its line and are answered together.

A prompt's beginning, up to its last frame, is read into a row of keys and values; its answers are branches behind it.
Whoever asks about the same frames with the same beginning gets a branch in the same row. A row whose answers are
finished keeps what it has read until another beginning needs the place, and that is kept in memory then.
"""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from minigpt4_video.errors import PlanError, UserError
from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.shown import Shown
from minigpt4_video.inference.store import Store, array_digest
from minigpt4_video.inference.words import Round, Utterance
from minigpt4_video.model.branches import Branches, bytes_per_slot
from minigpt4_video.serving.metrics import Metrics

logger = logging.getLogger(__name__)

GIB = 2**30
PATIENCE = 2.0
"""Seconds for which a prompt that needs an empty row lets later ones go first."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Asked:
    """A prompt and how it is to be answered."""

    tenant: str
    """What is kept of it serves this one's prompts alone."""
    store: Store | None
    ids: list[int]
    frames: np.ndarray[Any, Any] | None
    """uint8 (frames, height, width, 3), as many as there are in `ids`."""
    settings: Any
    seeds: Sequence[int | None]
    """One an answer."""
    rivals: int = 0
    once: bool = False
    """Whether nobody will ask about these frames again: what was read of them is not kept."""


class Said(NamedTuple):
    """An answer so far."""

    answer: int
    text: str
    tokens: int
    finished: bool


Tell = Callable[[Said | Exception], None]


@dataclass(eq=False)
class Ticket:
    """A prompt in the scheduler's hands. `tell` is called in its thread, after every token of every answer."""

    asked: Asked
    tell: Tell
    utterances: dict[int, Utterance] = field(default_factory=dict)
    cached: int = 0
    """Tokens of the prompt that had been read before."""
    unwanted: set[int] = field(default_factory=set)
    seated: int = 0
    """Answers that have, or had, room."""
    common: int = 0
    """Tokens of the prompt's beginning."""
    name: str = ""
    begun: float = field(default_factory=perf_counter)
    arrived: float = field(default_factory=monotonic)


class Closing(Exception):
    """The server takes no more work."""


@dataclass(eq=False)
class _Seat:
    """A row in use."""

    name: str
    once: bool
    live: int = 0
    used: float = 0.0


class Scheduler:
    """Answers prompts, a token of each in every pass. `memory` bytes are for keys and values, at most half of it for
    `rows` that are read at the same time, the rest for what they have read before.

    Raises UserError where that does not hold one row. Without `reuse`, nothing that was read serves another prompt.
    """

    def __init__(self, chat: VideoChat, metrics: Metrics, *, rows: int, memory: int, reuse: bool = True) -> None:
        self.chat = chat
        self._metrics = metrics
        self._reuse = reuse
        self._identity = chat.identity() if reuse and chat.store is not None else None
        slots = 2 * chat.processor.window
        row = (slots + 1) * bytes_per_slot(chat.model.config.text_config, chat.model.dtype)
        if memory < row:
            raise UserError(
                f"{memory / GIB:.2f} GiB do not hold the keys and values of one row, which take {row / GIB:.2f} GiB; "
                "give more, or take a smaller model"
            )
        self.rows = max(1, min(rows, memory // 2 // row))
        self._kept_most = memory - self.rows * row
        self._board = Branches(chat.model, self.rows, slots)
        self._round = Round(self._board)
        self._seats: dict[int, _Seat] = {}
        self._speakers: dict[Utterance, tuple[Ticket, int]] = {}
        self._kept: OrderedDict[str, Layers] = OrderedDict()
        self._kept_bytes = 0
        self._line: deque[Ticket] = deque()
        self._has_read = False
        """Whether a beginning was read since the last pass."""
        self._wake = threading.Condition()
        self._arrived: list[Ticket] = []
        self._cut: list[tuple[Ticket, int | None]] = []
        self._closing = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def submit(self, asked: Asked, tell: Tell) -> Ticket:
        """Answer a prompt. Raises Closing once the server takes no more."""
        ticket = Ticket(asked, tell)
        with self._wake:
            if self._closing:
                raise Closing
            self._arrived.append(ticket)
            self._wake.notify()
        return ticket

    def cut(self, ticket: Ticket, index: int | None = None) -> None:
        """Say no more of one answer, or of all of a ticket's; what they took is free with the next token."""
        with self._wake:
            self._cut.append((ticket, index))
            self._wake.notify()

    def close(self, seconds: float) -> None:
        """Take no more, let what is being answered come to its end for some seconds, and stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(seconds)
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while self._take():
            try:
                self._drop()
                self._seat_line()
                if self._round:
                    self._step()
            except Exception as error:
                logger.exception("a pass failed")
                self._fail_all(error)
            self._metrics.line.set(len(self._line))
            self._metrics.speaking.set(len(self._speakers))
        self._fail_all(Closing())

    def _take(self) -> bool:
        """Wait for something to do; whether there is."""
        with self._wake:
            while not (self._arrived or self._cut or self._line or self._speakers or self._closing):
                self._wake.wait()
            self._line += self._arrived
            self._arrived = []
            return not self._stopped and not (self._closing and not self._line and not self._speakers)

    def _drop(self) -> None:
        """Let go of what nobody wants any more."""
        with self._wake:
            cut, self._cut = self._cut, []
        for ticket, index in cut:
            ticket.unwanted |= set(range(len(ticket.asked.seeds))) if index is None else {index}
        if not cut:
            return
        for utterance, (ticket, index) in list(self._speakers.items()):
            if index in ticket.unwanted:
                self._leave(utterance)
        self._line = deque(
            ticket for ticket in self._line if not set(range(ticket.seated, len(ticket.asked.seeds))) <= ticket.unwanted
        )

    def _seat_line(self) -> None:
        """Give room to those in the line, the first first; others may pass for a while where their row is there.

        One beginning is read, and then all answers go on by a token: whoever is heard waits for one video, not for all.
        """
        waiting: deque[Ticket] = deque()
        patient = True
        self._has_read = False
        while self._line:
            ticket = self._line.popleft()
            if not patient or not self._seat_all(ticket):
                waiting.append(ticket)
                patient = patient and (self._has_read or monotonic() - ticket.arrived < PATIENCE)
        self._line = waiting

    def _seat_all(self, ticket: Ticket) -> bool:
        """Give room to the answers of a ticket; whether all have it. What fails is told."""
        asked = ticket.asked
        try:
            while ticket.seated < len(asked.seeds):
                if ticket.seated not in ticket.unwanted and not self._seat(ticket, ticket.seated):
                    return False
                ticket.seated += 1
        except Exception as error:
            if not isinstance(error, UserError):
                logger.exception("a prompt could not be read")
            self._fail(ticket, error)
        return True

    def _seat(self, ticket: Ticket, index: int) -> bool:
        asked = ticket.asked
        if not ticket.name:
            ticket.common, ticket.name = self._beginning(asked)
        behind = asked.ids[ticket.common :]
        need = len(behind) + asked.settings.max_new_tokens
        if ticket.common + need > self._board.slots:
            raise PlanError(f"the question and its answer need {need} tokens beside the video; ask for a shorter one")
        row = self._row(ticket, need)
        if row is None:
            return False
        utterance = self.chat.utterance(behind, asked.settings, asked.seeds[index], ticket.begun, rivals=asked.rivals)
        utterance.branch = self._board.branch(row, need)
        self._seats[row].live += 1
        self._round.waiting.append((row, utterance))
        self._speakers[utterance] = ticket, index
        ticket.utterances[index] = utterance
        return True

    def _beginning(self, asked: Asked) -> tuple[int, str]:
        """How many tokens a prompt's beginning has, and a name that only the same beginnings of one tenant share."""
        placeholder = self.chat.processor.image_token_id
        common = 1 if asked.frames is None else len(asked.ids) - asked.ids[::-1].index(placeholder)
        seen = "" if asked.frames is None else array_digest(asked.frames)
        unique = "" if self._reuse else id(asked)
        told = f"{asked.tenant} {seen} {unique} {asked.ids[:common]}"
        return common, sha256(told.encode()).hexdigest()

    def _row(self, ticket: Ticket, need: int) -> int | None:
        """A row with the ticket's beginning and room for `need` more tokens; None where there is none now."""
        name = ticket.name
        for row, seat in self._seats.items():
            if seat.name == name and self._board.room(row) >= need:
                self._found(ticket, "row")
                return row
        layers = self._known(name)
        if layers is None and self._has_read:
            return None
        empty = self._board.empty()
        idle = [row for row, seat in self._seats.items() if not seat.live]
        if not empty and not idle:
            return None
        row = empty[0] if empty else min(idle, key=lambda row: self._seats[row].used)
        if not empty:
            self._empty(row)
        ids = ticket.asked.ids[: ticket.common]
        with self.chat.lock:
            self._has_read |= layers is None
            if layers is not None:
                self._board.restore(row, layers)
                self._found(ticket, "memory")
            elif ticket.asked.frames is None:
                self._board.begin(row, ids)
                self._found(ticket, "nowhere")
            else:
                store = ticket.asked.store if self._reuse else None
                shown = Shown(self.chat, ticket.asked.frames, store, self._identity)
                stored = shown.begin(self._board, ids, tuple(range(len(ticket.asked.frames))), row) == 0.0
                self._found(ticket, "store" if stored else "nowhere")
                shown.save()  # at once: the row may hold another beginning later
        self._seats[row] = _Seat(name, ticket.asked.once)
        return row

    def _found(self, ticket: Ticket, where: str) -> None:
        if ticket.utterances:
            return
        ticket.cached = ticket.common if where in ("row", "memory", "store") else 0
        self._metrics.prefixes.labels(where).inc()
        self._metrics.prompt_tokens.inc(len(ticket.asked.ids))
        self._metrics.kept_tokens.inc(ticket.cached)

    def _known(self, name: str) -> Layers | None:
        """What was read of this beginning, where a row or the memory holds it."""
        for row, seat in self._seats.items():
            if seat.name == name:
                return self._board.held(row)
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        return None

    def _empty(self, row: int) -> None:
        """Empty a row; what it has read is kept in memory, as far as that is allowed."""
        seat = self._seats.pop(row)
        others = any(other.name == seat.name for other in self._seats.values())
        if self._reuse and not seat.once and not others and seat.name not in self._kept:
            layers = [(keys.clone(), values.clone()) for keys, values in self._board.held(row)]
            self._kept[seat.name] = layers
            self._kept_bytes += _size(layers)
            while self._kept_bytes > self._kept_most:
                self._kept_bytes -= _size(self._kept.popitem(last=False)[1])
        self._board.end(row)

    def _step(self) -> None:
        """One token further in every answer."""
        with self.chat.lock:
            finished = self._round.step()
        for utterance in [*finished, *self._round.speaking]:
            ticket, index = self._speakers[utterance]
            self._metrics.tokens.inc()
            said = Said(index, utterance.text, len(utterance.tokens), utterance.finished)
            self._tell(ticket, said)
        for utterance in finished:
            self._leave(utterance)

    def _leave(self, utterance: Utterance) -> None:
        """Free what an answer took."""
        del self._speakers[utterance]
        self._round.speaking = [one for one in self._round.speaking if one is not utterance]
        self._round.waiting = [(row, one) for row, one in self._round.waiting if one is not utterance]
        if utterance.branch is not None:
            self._board.leave(utterance.branch)
            seat = self._seats[utterance.branch.row]
            seat.live -= 1
            seat.used = monotonic()

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        ticket.unwanted = set(range(len(ticket.asked.seeds)))
        for utterance in ticket.utterances.values():
            if utterance in self._speakers:
                self._leave(utterance)
        self._tell(ticket, error)

    def _fail_all(self, error: Exception) -> None:
        """Every prompt fails, and every row is read anew: none knows what a failed pass has left of it."""
        tickets = {*(ticket for ticket, _ in self._speakers.values()), *self._line}
        self._line.clear()
        for ticket in tickets:
            self._fail(ticket, error)
        for row in list(self._seats):
            del self._seats[row]
            self._board.end(row)

    def _tell(self, ticket: Ticket, what: Said | Exception) -> None:
        with suppress(RuntimeError):  # whose loop has ended wants no more
            ticket.tell(what)


def _size(layers: Layers) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in layers)
