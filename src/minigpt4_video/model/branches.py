"""One prefix, many branches: what a video's frames were computed for serves every question behind them.

A token's place is its branch and its position: branch 0 is the prefix, positions of every other branch go on where the
prefix ends. A token sees the prefix and what stands before it in its own branch, so each branch is computed as if it
stood alone behind the prefix; the attention is transformers' own, given that as a 4-D mask. Where a token is stored
does not matter, so slots that a finished branch leaves are taken by the next one.

`lay_out` writes whole rows for one forward pass, as training does. `Branches` keeps keys and values, and reads many
questions, or one new token of many answers, in one pass that goes over the prefix once.
"""

import math
import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Literal, NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from minigpt4_video.errors import ModelError

PACKED = "packed_branches"
"""How transformers knows `packed_attention`, which is sdpa here."""
READ_TOGETHER = 2048
"""Tokens of several prefixes that are read in one pass: a larger one is no quicker for each of them, but takes more
memory."""
A_PASS = 64
"""Tokens that take about as long as a pass of its own: padding is worth as much."""
NOWHERE = -1
"""The branch of padding and of empty slots, which nothing sees."""


class Places(NamedTuple):
    """Where tokens stand; all (rows, tokens) of integers."""

    branch: torch.Tensor
    position: torch.Tensor
    film: torch.Tensor | None = None
    """Where a row holds several prefixes one behind the other: which of them a token belongs to."""


def visible(queries: Places, keys: Places, window: int | None = None) -> torch.Tensor:
    """Which key each query sees, (rows, queries, keys) of bool; with `window`, only the last so many positions."""
    at, behind = queries.position[:, :, None], keys.position[:, None, :]
    branch = keys.branch[:, None, :]
    seen = ((branch == 0) | (branch == queries.branch[:, :, None])) & (branch != NOWHERE) & (behind <= at)
    if queries.film is not None and keys.film is not None:
        seen &= queries.film[:, :, None] == keys.film[:, None, :]
    return seen if window is None else seen & (at - behind < window)


def masks(queries: Places, keys: Places, text_config: Any, dtype: torch.dtype) -> Any:
    """What `visible` says as the language model takes it: an additive mask (rows, 1, queries, keys), or one for each
    kind of layer where some look at a window and some at everything. Raises ModelError for layers that are no attention
    with a mask, such as a state that runs on.
    """

    def additive(window: int | None) -> torch.Tensor:
        seen = visible(queries, keys, window)[:, None]
        return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)

    window = getattr(text_config, "sliding_window", None)
    by_kind = {"full_attention": None, "sliding_attention": window}
    kinds = list(dict.fromkeys(getattr(text_config, "layer_types", None) or ()))
    if strange := [kind for kind in kinds if kind not in by_kind]:
        raise ModelError(f"layers of the kind {strange[0]} take no mask for branches; their answers would be mixed")
    if window is None or not kinds:
        return additive(window)
    return {kind: additive(by_kind[kind]) for kind in kinds}


Film = tuple[Sequence[int], Sequence[Sequence[int]]]
"""The ids of a prefix, and of each branch behind it."""


class Layout(NamedTuple):
    """Prefixes and their branches, for one forward pass; all (rows, tokens)."""

    input_ids: torch.Tensor
    places: Places


def lay_out(
    rows: Sequence[Sequence[Film]], pad: int, side: Literal["left", "right"] = "right", width: int | None = None
) -> Layout:
    """Each row is one film behind the other. Shorter rows are padded on one side, to `width` or the longest row."""
    longest = max(sum(len(prefix) + sum(map(len, branches)) for prefix, branches in row) for row in rows)
    width = longest if width is None else width
    made: tuple[list[list[int]], ...] = ([], [], [], [])
    for row in rows:
        ids: list[int] = []
        numbers: list[int] = []
        positions: list[int] = []
        films: list[int] = []
        for film, (prefix, branches) in enumerate(row):
            before = len(ids)
            ids += prefix
            numbers += [0] * len(prefix)
            positions += range(len(prefix))
            for number, behind in enumerate(branches, start=1):
                ids += behind
                numbers += [number] * len(behind)
                positions += range(len(prefix), len(prefix) + len(behind))
            films += [film] * (len(ids) - before)
        for lines, line, fill in zip(made, (ids, numbers, positions, films), (pad, NOWHERE, 0, 0), strict=True):
            padding = [fill] * (width - len(line))
            lines.append(padding + line if side == "left" else line + padding)
    input_ids, branch, position, film_of = (torch.tensor(lines) for lines in made)
    return Layout(input_ids, Places(branch, position, film_of))


def bytes_per_slot(text_config: Any, dtype: torch.dtype) -> int:
    """Memory for the keys and values of one token in all layers."""
    heads = text_config.num_attention_heads
    head = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    kept = getattr(text_config, "num_key_value_heads", None) or heads
    return int(2 * text_config.num_hidden_layers * kept * head * dtype.itemsize)


@dataclass
class _Cursor:
    """Where the layers write in the coming pass, and how far they read."""

    rows: slice | list[int]
    """Neighbours, or, of prefixes, which see nothing but themselves, any."""
    slots: torch.Tensor | slice
    """(rows, queries), or, of prefixes, the same in each row."""
    read: int
    before: int
    """How many slots were full before; the library asks where it is given no mask."""


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (rows, heads, slots + 1, head) of one layer; what padding brings goes to the last slot, which is
    never read. In memory a slot's heads lie together, so that of a row only what is used is touched.
    """

    def __init__(self, cursor: _Cursor, rows: int, slots: int) -> None:
        super().__init__()
        self.cursor = cursor
        self.rows = rows
        self.slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # Zeros, because a masked slot takes part with weight 0, and 0 times what memory happens to hold may be NaN.
        self.keys, self.values = (
            _zeros((self.rows, states.shape[1], self.slots + 1, states.shape[3]), states)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, slots = self.cursor.rows, self.cursor.slots
        pairs = ((self.keys, key_states), (self.values, value_states))
        if isinstance(slots, slice):
            for held, states in pairs:
                held[rows, :, slots] = states
            return key_states, value_states
        slots = slots.to(key_states.device)  # where layers are spread over devices
        seen = []
        for held, states in pairs:
            part = held[rows]
            part.transpose(1, 2)[torch.arange(len(slots), device=slots.device)[:, None], slots] = states.transpose(1, 2)
            seen.append(part[:, :, : self.cursor.read])
        return seen[0], seen[1]

    def grow(self, slots: int) -> None:
        if self.is_initialized:
            for name in ("keys", "values"):
                held = getattr(self, name)
                larger = _zeros((*held.shape[:2], slots + 1, held.shape[3]), held)
                larger[:, :, : self.slots] = held[:, :, : self.slots]
                setattr(self, name, larger)
        self.slots = slots

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        return self.cursor.read, 0

    def get_seq_length(self) -> int:
        return self.cursor.before

    def get_max_length(self) -> int:
        return self.slots


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros (rows, heads, slots, head) of the kind and on the device of another tensor; of main memory several rows
    take only what is used.
    """
    rows, heads, slots, head = shape
    # Rows have room for far more than most come to hold. One alone is filled by its video, and may lie in what was
    # freed when that was encoded, which the allocator does not give back.
    if rows > 1 and like.device.type == "cpu":
        size = math.prod(shape) * like.itemsize
        if sys.platform == "win32":
            pages = mmap.mmap(-1, size)
        else:
            pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        made = torch.frombuffer(pages, dtype=like.dtype).view(rows, slots, heads, head)
    else:
        made = like.new_zeros(rows, slots, heads, head)
    return made.transpose(1, 2)


@dataclass(eq=False)
class Branch:
    """A branch of one row: an answer in the making, with its question."""

    row: int
    number: int
    room: int
    """Tokens it may come to hold."""
    slots: list[int] = field(default_factory=list)
    """Where its tokens are kept, in their order."""

    def __len__(self) -> int:
        return len(self.slots)


class Beginning(NamedTuple):
    """A prefix for an empty row."""

    row: int
    ids: Sequence[int]
    frame_tokens: torch.Tensor | None = None
    """(frames, tokens_per_frame, hidden), for the places of the placeholders."""


def _of_like_length(beginnings: Sequence[Beginning]) -> list[list[Beginning]]:
    """Those that are read in one pass, of `READ_TOGETHER` tokens at most."""
    passes: list[list[Beginning]] = []
    for one in sorted(beginnings, key=lambda one: -len(one.ids)):
        width = len(passes[-1][0].ids) if passes else 0
        if passes and width * (len(passes[-1]) + 1) <= READ_TOGETHER and width - len(one.ids) <= A_PASS:
            passes[-1].append(one)
        else:
            passes.append([one])
    return passes


@dataclass
class _Row:
    """What a row holds and which slots are free."""

    prefix: int
    free: list[int]
    """A heap: the lowest slots are taken first, because a pass reads all slots up to the highest one in use."""
    branches: dict[int, Branch] = field(default_factory=dict)
    numbers: int = 0

    def promised(self) -> int:
        return sum(branch.room - len(branch) for branch in self.branches.values())

    def top(self) -> int:
        """One more than the highest slot in use."""
        return max([self.prefix, *(max(branch.slots) + 1 for branch in self.branches.values() if branch.slots)])


class Branches:
    """Rows of `slots` tokens, in each one prefix and the branches behind it; memory is `rows` x `slots` x
    `bytes_per_slot`, and fixed.
    """

    def __init__(self, model: Any, rows: int, slots: int) -> None:
        implementation = model.config.text_config._attn_implementation
        if implementation not in (None, "sdpa", "eager", PACKED):
            raise ModelError(f"{implementation} attention takes no mask for branches; load the model with sdpa")
        self.model = model
        self.text_config = model.config.text_config
        self.slots = slots
        self._cursor = _Cursor(slice(0), slice(0), 0, 0)
        layers = [_Layer(self._cursor, rows, slots) for _ in range(self.text_config.num_hidden_layers)]
        self._layers = layers
        self._cache = Cache(layers=layers)
        self._rows: list[_Row | None] = [None] * rows
        shape = (rows, slots + 1)
        self._branch = torch.full(shape, NOWHERE, device=model.device)
        self._position = torch.zeros(shape, dtype=torch.long, device=model.device)

    @property
    def memory(self) -> int:
        """Bytes of keys and values."""
        return (self.slots + 1) * len(self._rows) * bytes_per_slot(self.text_config, self.model.dtype)

    def empty(self) -> list[int]:
        """Rows without a prefix."""
        return [number for number, row in enumerate(self._rows) if row is None]

    def begin(self, row: int, ids: Sequence[int], frame_tokens: torch.Tensor | None = None) -> None:
        """Read one prefix, as `begin_all` does."""
        self.begin_all([Beginning(row, ids, frame_tokens)])

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def begin_all(self, beginnings: Sequence[Beginning]) -> None:
        """Read prefixes into empty rows, those of like length in one pass.

        Raises ModelError where the frame tokens of one are not as many as its placeholders, or its row does not hold
        it; neither its pass nor those after it are read then.
        """
        for together in _of_like_length(beginnings):
            self._begin(together)

    def _begin(self, together: Sequence[Beginning]) -> None:
        device = self.model.device
        width = max(len(one.ids) for one in together)
        # Behind a prefix, where no token of it looks.
        ids = torch.tensor([[*one.ids, *[0] * (width - len(one.ids))] for one in together], device=device)
        for line, one in zip(ids == self.model.config.image_token_id, together, strict=True):
            tokens = 0 if one.frame_tokens is None else one.frame_tokens.shape[0] * one.frame_tokens.shape[1]
            self.model.model.check_count(line[None], tokens)
        frames = [one.frame_tokens for one in together if one.frame_tokens is not None]
        embeds = self.model.model.place_frames(ids, torch.cat(frames) if frames else None)
        rows = [one.row for one in together]
        begun: list[int] = []
        try:
            for one in together:
                self._found(one.row, len(one.ids))
                begun.append(one.row)
            self._point(rows, slice(0, width), read=width, before=0)
            positions = torch.arange(width, device=device).expand(len(rows), width)
            # Alone in their rows, prefixes are ordinary causal sequences, for which the library has faster kernels.
            self._language_model(embeds, None, positions)
        except BaseException:  # an interruption too: a prefix read in part must not be taken for one
            for row in begun:
                self.end(row)
            raise

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def restore(self, row: int, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put back what `held` gave, into an empty row."""
        length = layers[0][0].shape[1]
        self._found(row, length)
        self._point([row], slice(0, length), read=length, before=0)
        for number, (keys, values) in enumerate(layers):
            device = self._place(number)
            self._cache.update(keys[None].to(device), values[None].to(device), number)

    def held(self, row: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of a row's prefix, (heads, tokens, head) for each layer."""
        length = self._taken(row).prefix
        return [(layer.keys[row, :, :length], layer.values[row, :, :length]) for layer in self._layers]

    def grow(self, slots: int) -> None:
        """More slots for every row; what is held stays."""
        if slots <= self.slots:
            return
        added = range(self.slots, slots)
        with torch.inference_mode():
            for layer in self._layers:
                layer.grow(slots)
        more = (0, slots - self.slots)
        self._branch = torch.nn.functional.pad(self._branch, more, value=NOWHERE)
        self._position = torch.nn.functional.pad(self._position, more)
        for row in self._rows:
            if row is not None:
                row.free += added  # higher than all in the heap, so it stays one
        self.slots = slots

    def room(self, row: int) -> int:
        """How many tokens a further branch of a row could hold."""
        taken = self._taken(row)
        return len(taken.free) - taken.promised()

    def branch(self, row: int, room: int) -> Branch:
        """A new empty branch for up to `room` tokens, which are kept free for it. Raises ModelError where they are not
        there.
        """
        if room > self.room(row):
            raise ModelError(f"a branch of {room} tokens does not fit the {self.room(row)} that are free")
        taken = self._taken(row)
        taken.numbers += 1
        made = taken.branches[taken.numbers] = Branch(row, taken.numbers, room)
        return made

    def widen(self, branch: Branch, room: int) -> None:
        """Keep free more or less for a branch than when it began. Raises ModelError where that is not there."""
        if room - branch.room > self.room(branch.row):
            raise ModelError(f"a branch of {room} tokens does not fit what is free")
        branch.room = room

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def extend(self, additions: Sequence[tuple[Branch, Sequence[int]]]) -> torch.Tensor:
        """Read further tokens of several branches; the logits after the last of each, (additions, vocabulary).

        One pass for all of them: questions, or the newest token of each answer. Frames can be in the prefix only.
        Raises ModelError, with all branches as they were, where one of them has no room.
        """
        for branch, ids in additions:
            if len(branch) + len(ids) > branch.room:
                raise ModelError(f"a branch with room for {branch.room} tokens was given {len(branch) + len(ids)}")
        first = min(branch.row for branch, _ in additions)
        rows = slice(first, max(branch.row for branch, _ in additions) + 1)
        lines: list[tuple[list[int], list[int], list[int], list[int]]] = [
            ([], [], [], []) for _ in range(rows.stop - first)
        ]
        ends = []
        for branch, ids in additions:
            line, taken = lines[branch.row - first], self._taken(branch.row)
            begins = taken.prefix + len(branch)
            slots = [heappop(taken.free) for _ in ids]
            branch.slots += slots
            line[0].extend(ids)
            line[1].extend([branch.number] * len(ids))
            line[2].extend(range(begins, begins + len(ids)))
            line[3].extend(slots)
            ends.append((branch.row - first, len(line[0]) - 1))
        width = max(len(line[0]) for line in lines)
        fills = (0, NOWHERE, 0, self.slots)
        padded = [
            [kind + [fill] * (width - len(kind)) for kind, fill in zip(line, fills, strict=True)] for line in lines
        ]
        input_ids, numbers, positions, places = torch.tensor(padded, device=self.model.device).unbind(1)
        index = torch.arange(first, rows.stop, device=self.model.device)[:, None]
        self._branch[index, places] = numbers
        self._position[index, places] = positions
        read = max(row.top() for row in self._rows[rows] if row is not None)
        self._point(rows, places, read=read, before=read - 1)
        mask = None
        if width > 1 or len(additions) > 1 or not self._is_alone(additions[0][0], read):
            keys = Places(self._branch[rows, :read], self._position[rows, :read])
            mask = masks(Places(numbers, positions), keys, self.text_config, self.model.dtype)
        hidden = self._language_model(self.model.model.place_frames(input_ids, None), mask, positions)
        lasts = torch.tensor(ends, device=hidden.device)
        logits: torch.Tensor = self.model.lm_head(hidden[lasts[:, 0], lasts[:, 1]])
        return logits

    def cut(self, branch: Branch, length: int) -> None:
        """Forget all but the first `length` tokens of a branch."""
        taken = self._taken(branch.row)
        gone = branch.slots[length:]
        del branch.slots[length:]
        if gone:
            self._branch[branch.row, torch.tensor(gone, device=self._branch.device)] = NOWHERE
        for slot in gone:
            heappush(taken.free, slot)

    def leave(self, branch: Branch) -> None:
        """Give a branch's slots back. A branch that has left already is left alone."""
        row = self._rows[branch.row]
        if row is not None and row.branches.get(branch.number) is branch:
            self.cut(branch, 0)
            del row.branches[branch.number]

    def end(self, row: int) -> None:
        """Empty a row."""
        self._rows[row] = None
        self._branch[row] = NOWHERE

    def _found(self, row: int, length: int) -> None:
        if self._rows[row] is not None:
            raise ModelError(f"row {row} holds a prefix already; end it first")
        if length > self.slots:
            raise ModelError(f"a prefix of {length} tokens does not fit a row of {self.slots}")
        self._rows[row] = _Row(length, list(range(length, self.slots)))
        self._branch[row, :length] = 0
        self._position[row, :length] = torch.arange(length, device=self._position.device)

    def _taken(self, row: int) -> _Row:
        taken = self._rows[row]
        if taken is None:
            raise ModelError(f"row {row} is empty; begin it with a prefix")
        return taken

    def _is_alone(self, branch: Branch, read: int) -> bool:
        """Whether a row's slots are the prefix and this branch in order, and no window hides any."""
        taken = self._taken(branch.row)
        in_order = branch.slots[0] == taken.prefix and branch.slots[-1] == read - 1
        return (
            in_order
            and taken.prefix + len(branch) == read
            and branch.slots == sorted(branch.slots)
            and getattr(self.text_config, "sliding_window", None) is None
        )

    def _point(self, rows: slice | list[int], slots: torch.Tensor | slice, *, read: int, before: int) -> None:
        cursor = self._cursor
        cursor.rows, cursor.slots, cursor.read, cursor.before = rows, slots, read, before

    def _place(self, layer: int) -> torch.device:
        """Where a layer's keys lie: of a model on several devices each layer has its own."""
        layers = self.model.model.language_model.layers
        device: torch.device = next(layers[layer].parameters()).device
        return device

    def _language_model(self, embeds: torch.Tensor, mask: Any, positions: torch.Tensor) -> torch.Tensor:
        outputs = self.model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            return_dict=True,
        )
        hidden: torch.Tensor = outputs.last_hidden_state
        return hidden
