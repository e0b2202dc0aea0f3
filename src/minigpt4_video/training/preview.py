"""One page about the first samples of a data set: the frames, subtitles and words that a run would be trained on.

Token ids come from the function that training takes them from, and are written out again as text.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import UserError
from minigpt4_video.inference.contact_sheet import clock
from minigpt4_video.inference.report import data_url, document
from minigpt4_video.media import Clip
from minigpt4_video.model.processing import MiniGPT4VideoProcessor
from minigpt4_video.training.files import item
from minigpt4_video.training.kept import Reader
from minigpt4_video.training.packing import Branch, Row
from minigpt4_video.training.sets import Group, gather

STYLE = """
.text { font: .875rem/1.7 ui-monospace, "Cascadia Mono", "Noto Sans Mono CJK SC", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .5rem 0; }
.text .frame { display: inline-block; vertical-align: middle; width: 7rem; margin: .15rem; white-space: normal; }
.text .frame img { width: 100%; border-radius: .3rem; display: block; }
.behind { border-top: 1px dashed var(--line); padding-top: .5rem; }
mark { background: color-mix(in srgb, var(--subtitles) 35%, transparent); color: inherit; border-radius: .2rem; }
"""


class Piece(NamedTuple):
    """A stretch of what the model reads: words, or the frames' placeholders."""

    text: str
    trained: bool = False
    frame: int | None = None
    """Which of the row's frames; its text is empty then."""


class Watching(Reader):
    """Reads as a run does, and notes when each frame is shown."""

    def __init__(self) -> None:
        super().__init__(None, "nothing")
        self.times: list[float | None] = []

    def clip(self, path: str, frames: int, **options: Any) -> Clip:
        clip = super().clip(path, frames, **options)
        self.times += [float(time) for time in clip.times]
        return clip

    def picture(self, path: str, size: int, content: bytes | None) -> Any:
        self.times.append(None)
        return super().picture(path, size, content)


def page(
    rows: Iterable[Record | Flaw], processor: MiniGPT4VideoProcessor, *, title: str, frames: int, width: int
) -> str:
    """The page as HTML, with records gathered by what they show. All text is escaped."""
    groups, flaws = gather(rows)
    sections = [_section(group, processor, frames, width) for group in groups]
    told = "".join(f"<li>{escape(f'{flaw.where}: {flaw.problem} {flaw.detail}')}</li>" for flaw in flaws)
    samples = sum(len(group.records) for group in groups)
    body = f"""<header><h1 dir="auto">{escape(title)}</h1>
<p class="facts">{samples} samples that show {len(groups)} things. Exactly the text that the model reads, with frames in
the place of their {processor.tokens_per_frame} tokens each; what is <mark>marked</mark> is learnt.</p></header>
{"".join(sections)}
{f"<h2>Rows that cannot be used</h2><ul>{told}</ul>" if told else ""}
<footer>Made with MiniGPT4-Video.</footer>
"""
    return document(title, body, STYLE)


def pieces(ids: Sequence[int], learned: Sequence[tuple[int, int]], processor: MiniGPT4VideoProcessor) -> list[Piece]:
    """Token ids as text again, cut at frames and where learning begins and ends; frames are numbered from 0."""
    found: list[Piece] = []
    marks = np.zeros(len(ids), bool)
    for first, last in learned:
        marks[first:last] = True
    at = frame = 0
    while at < len(ids):
        if ids[at] == processor.image_token_id:
            found.append(Piece("", frame=frame))
            frame += 1
            at += processor.tokens_per_frame
            continue
        end = next((k for k in range(at, len(ids)) if ids[k] == processor.image_token_id), len(ids))
        begin, said = at, ""  # words between two frames are tokenised by themselves, so they are written by themselves
        while at < end:
            after = next((k for k in range(at, end) if marks[k] != marks[at]), end)
            whole = processor.tokenizer.decode(
                ids[begin:after], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            found.append(Piece(whole[len(said) :], bool(marks[at])))
            at, said = after, whole
    return found


def _section(group: Group, processor: MiniGPT4VideoProcessor, frames: int, width: int) -> str:
    reader = Watching()
    first = group.records[0]
    names = ", ".join(record.id for record in group.records)
    heading = f'<section class="turn"><h1 dir="auto">{escape(names)}</h1>'
    try:
        made = item(group, processor, reader, frames=frames, width=width)
    except UserError as error:
        return f"{heading}<p>cannot be used: {escape(str(error))}</p></section>\n"
    pictures = [frame for medium in made.media if medium.frames is not None for frame in medium.frames.numpy()]
    blocks = []
    for row, numbers in zip(made.rows, made.shows, strict=True):
        shown = [_figure(pictures[number], reader.times[number]) for number in numbers]
        blocks.append(_row(row, shown, processor))
    left = "".join(f"<li>{escape(f'{skip.id} is left out: {skip.reason}')}</li>" for skip in made.skipped)
    offered, kept = len(pictures), len(made.shows[0]) if made.shows else 0
    facts = f"{first.source}, {first.language}, {kept} of {offered} frames"
    return f'{heading}<p class="facts">{escape(facts)}</p>{"".join(blocks)}<ul>{left}</ul></section>\n'


def _row(row: Row, figures: Sequence[str], processor: MiniGPT4VideoProcessor) -> str:
    prefix = pieces(row.prefix, (), processor)
    shown = sum(piece.frame is not None for piece in prefix)
    blocks = [f'<div class="text">{_html(prefix, figures)}</div>'] if prefix else []
    for branch in row.branches:
        blocks.append(_branch(branch, figures[shown:], processor))
    return f'<p class="facts">{len(row.prefix)} tokens before what is asked</p>{"".join(blocks)}'


def _branch(branch: Branch, figures: Sequence[str], processor: MiniGPT4VideoProcessor) -> str:
    learnt = sum(last - first for first, last in branch.learned)
    text = _html(pieces(branch.ids, branch.learned, processor), figures)
    return f'<div class="text behind">{text}</div><p class="facts">{len(branch.ids)} tokens, {learnt} learnt</p>'


def _html(found: Sequence[Piece], figures: Sequence[str]) -> str:
    parts = []
    for piece in found:
        if piece.frame is not None:
            parts.append(figures[piece.frame])
        else:
            parts.append(f"<mark>{escape(piece.text)}</mark>" if piece.trained else escape(piece.text))
    return "".join(parts)


def _figure(frame: Any, time: float | None) -> str:
    when = "" if time is None else f"<time>{clock(time)}</time>"
    return f'<span class="frame"><img alt="frame" src="{data_url(frame)}">{when}</span>'
