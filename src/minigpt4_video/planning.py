"""What fits a model's context window: which frames, how much of the subtitles, and what was left out.

The question is never cut and the whole video stays covered: subtitles are shortened first, then frames are left out
evenly. Training and answering call this same function.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigpt4_video.errors import PlanError

# A unit is what is never cut in two: a word or, in scripts written without spaces, a character.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
UNIT = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


@dataclass(frozen=True)
class Plan:
    """How a context window is filled; every number but `frames` and `window` is a part of `total`, in tokens."""

    frames: int
    """Number of frames kept."""
    frame_tokens: int
    tag_tokens: int
    """The tags that open the frames."""
    subtitle_tokens: int
    """The texts of the frames with the tags before them."""
    question_tokens: int
    answer_reserve: int
    window: int
    total: int
    """Never more than `window`."""
    kept_subtitles: tuple[str, ...]
    """One text for each kept frame, "" for none."""
    kept_frames: tuple[int, ...]
    """Indices into the frames that were offered, increasing."""
    left_out: tuple[str, ...]
    """A sentence for each kind of thing that did not fit; empty when all did."""


def plan(
    *,
    question_tokens: int,
    subtitles: Sequence[str],
    tokens_per_frame: int,
    window: int,
    answer_reserve: int,
    count: Callable[[str], int],
    frame_tags: tuple[str, str] = ("<Img>", "<Cap>"),
) -> Plan:
    """Fit frames and their texts into `window` tokens, beside the question and the room kept for the answer.

    `subtitles` holds one text for each frame that is offered ("" for none), so its length is the number of frames.
    `question_tokens` is all of the prompt that is neither a frame nor a frame's text: the question, the chat template,
    the beginning-of-sequence token. `count` gives the tokens of a text tokenised by itself; the text between two
    frames is counted as it is tokenised, with `frame_tags`: the tag that opens a frame and the one that opens its text.

    The text of a frame that is left out moves to the next kept frame, where aligning would have put it.
    Raises `PlanError` where not even one frame fits.
    """
    if not subtitles:
        raise PlanError("There is no frame to plan for; give at least one frame.")
    offered = len(subtitles)
    open_tag, text_tag = frame_tags
    tag = count(open_tag)
    room = window - question_tokens - answer_reserve
    fitting = room // (tokens_per_frame + tag)
    if fitting < 1:
        raise PlanError(
            f"The question ({question_tokens} tokens), the room for the answer ({answer_reserve}) and one frame"
            f" ({tokens_per_frame + tag}) need {question_tokens + answer_reserve + tokens_per_frame + tag} tokens, but"
            f" the model's window holds {window}; ask a shorter question or for a shorter answer."
        )
    frames = min(offered, fitting)
    kept_frames = tuple((2 * index + 1) * offered // (2 * frames) for index in range(frames))
    texts = _gather(subtitles, kept_frames)

    def cost(candidates: Sequence[str]) -> int:
        tokens = 0
        for index, text in enumerate(candidates):
            if text:
                following = open_tag if index + 1 < len(candidates) else ""
                tokens += max(0, count(f"{text_tag}{text} {following}") - (tag if following else 0))
        return tokens

    kept_subtitles = _shorten(texts, room - frames * (tokens_per_frame + tag), cost)
    subtitle_tokens = cost(kept_subtitles)
    left_out = []
    if frames < offered:
        left_out.append(
            f"{offered - frames} of {offered} frames were left out, evenly over the whole video: the window of {window}"
            f" tokens has room for {frames}."
        )
    all_units, kept_units = (sum(len(UNIT.findall(text)) for text in some) for some in (texts, kept_subtitles))
    if kept_units < all_units:
        left_out.append(
            f"{all_units - kept_units} of {all_units} subtitle words were left out, from the ends of the longest texts:"
            f" the window of {window} tokens is full; with fewer frames more of them fit."
        )
    return Plan(
        frames=frames,
        frame_tokens=frames * tokens_per_frame,
        tag_tokens=frames * tag,
        subtitle_tokens=subtitle_tokens,
        question_tokens=question_tokens,
        answer_reserve=answer_reserve,
        window=window,
        total=frames * (tokens_per_frame + tag) + subtitle_tokens + question_tokens + answer_reserve,
        kept_subtitles=kept_subtitles,
        kept_frames=kept_frames,
        left_out=tuple(left_out),
    )


def _gather(subtitles: Sequence[str], kept_frames: tuple[int, ...]) -> tuple[str, ...]:
    """One text for each kept frame: its own after those of the frames left out before it; the last takes the rest."""
    ends = (*(frame + 1 for frame in kept_frames[:-1]), len(subtitles))
    starts = (0, *ends[:-1])
    return tuple(
        " ".join(text.strip() for text in subtitles[start:end] if text.strip())
        for start, end in zip(starts, ends, strict=True)
    )


def _shorten(texts: tuple[str, ...], room: int, cost: Callable[[Sequence[str]], int]) -> tuple[str, ...]:
    """Cut all texts to the same greatest number of units with which they cost at most `room`."""
    if cost(texts) <= room:
        return texts
    ends = [[match.end() for match in UNIT.finditer(text)] for text in texts]

    def cut(units: int) -> tuple[str, ...]:
        return tuple(
            text[: end[units - 1]] if len(end) > units else text for text, end in zip(texts, ends, strict=True)
        )

    fits, too_many = 0, max(len(end) for end in ends)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if cost(cut(middle)) <= room:
            fits = middle
        else:
            too_many = middle
    return cut(fits) if fits else ("",) * len(texts)


def too_many(asked: int, held: int, window: int) -> PlanError:
    """What to raise where more frames are asked for by number than a context holds."""
    return PlanError(
        f"{asked} frames were asked for, but the context of {window} tokens holds {held} of them beside the question; "
        f"ask for at most {held}"
    )
