"""Attention over packed branches in pieces, so that nothing is computed that nobody sees.

A mask over a whole line costs the square of the line, and takes the kernels that skip what lies ahead away from it. In
pieces the prefix of each film is an ordinary causal sequence, and only the branches behind it need a mask, of their own
length. What comes out is what `branches.masks` gives, without the parts of the square that are hidden.
"""

from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from minigpt4_video.model.branches import NOWHERE, PACKED, Places, visible

ALIGNED = 16
"""Rows of a mask begin at multiples of this: GPUs' kernels copy others."""


class Piece(NamedTuple):
    """One film of one line: its prefix is `start` to `behind`, its branches end at `end`."""

    line: int
    start: int
    behind: int
    end: int
    mask: torch.Tensor | None
    """What its branches see, additive (1, 1, end - behind, end - start); None where all is one causal sequence."""


def pieces(places: Places, text_config: Any, dtype: torch.dtype) -> list[Piece] | None:
    """The films of packed lines as `branches.lay_out` writes them; None where a layer looks at a window only, for which
    whole masks are needed."""
    kinds = getattr(text_config, "layer_types", None) or ()
    if places.film is None or "sliding_attention" in kinds or getattr(text_config, "sliding_window", None) is not None:
        return None
    made = []
    branches, films = places.branch.tolist(), places.film.tolist()
    for line, (numbers, film_of) in enumerate(zip(branches, films, strict=True)):
        width = next((at for at, number in enumerate(numbers) if number == NOWHERE), len(numbers))
        start = 0
        while start < width:
            end = next((at for at in range(start, width) if film_of[at] != film_of[start]), width)
            behind = next((at for at in range(start, end) if numbers[at]), end)
            mask = None
            if end > behind and numbers[end - 1] > 1:
                mask = _mask(places, line, start, behind, end, dtype)
            made.append(Piece(line, start, behind, end, mask))
            start = end
    return made


def _mask(places: Places, line: int, start: int, behind: int, end: int, dtype: torch.dtype) -> torch.Tensor:
    queries, keys = (
        Places(places.branch[line : line + 1, first:end], places.position[line : line + 1, first:end])
        for first in (behind, start)
    )
    length = end - start
    room = torch.zeros(1, 1, end - behind, -(-length // ALIGNED) * ALIGNED, dtype=dtype, device=places.branch.device)
    mask = room[..., :length]
    mask.masked_fill_(~visible(queries, keys)[:, None], torch.finfo(dtype).min)
    return mask


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pieces: list[Piece] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa, piece by piece where `pieces` are given, whose masks then take the place of the mask.

    Queries, keys and values are (lines, heads, tokens, head), the output (lines, tokens, heads, head); it is 0 for
    padding.
    """
    if pieces is None:
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return attended

    def sdpa(*given: Any) -> torch.Tensor:
        made: torch.Tensor = sdpa_attention_forward(module, *given, **options)[0]
        return made

    width = query.shape[2]
    lines = []
    for line in range(len(query)):
        films = [piece for piece in pieces if piece.line == line]
        lengths = [piece.end - piece.start for piece in films]
        # Split, for the gradient of a slice is a whole line of zeros around it.
        parts = (
            [*states[line : line + 1].split([*lengths, width - sum(lengths)], 2)] for states in (query, key, value)
        )
        made = []
        for piece, asked, seen, held in zip(films, *parts, strict=False):
            behind = piece.behind - piece.start
            if piece.mask is None:
                made.append(sdpa(asked, seen, held, None))
            else:
                first, rest = asked.split([behind, asked.shape[2] - behind], 2)
                made.append(sdpa(first, seen[:, :, :behind], held[:, :, :behind], None))
                made.append(sdpa(rest, seen, held, piece.mask))
        whole = torch.cat(made, 1)
        lines.append(torch.nn.functional.pad(whole, (0, 0, 0, 0, 0, width - whole.shape[1])))
    return torch.cat(lines), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
