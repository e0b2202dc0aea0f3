"""A question about an opened video as token ids, without tokenising the video's part of the prompt again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minigpt4_video.errors import PlanError
from minigpt4_video.inference.footage import Footage
from minigpt4_video.messages import Message
from minigpt4_video.model.processing import IMAGE
from minigpt4_video.planning import Plan

QUESTION = "\u241e"
"""Stands for a question, to see where the tokens of one begin."""


class Prompt(NamedTuple):
    """A conversation about a video as the model reads it."""

    ids: list[int]
    plan: Plan
    text: str
    """The same before it is tokenised, with `<ImageHere>` for each frame."""

    @property
    def shows(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """What of the video is in it: frames and their texts."""
        return self.plan.kept_frames, self.plan.kept_subtitles


def whole_prompt(processor: Any, footage: Footage, messages: Sequence[Message]) -> Prompt:
    """Any conversation about a video. Raises PlanError."""
    prepared = footage.prepare(processor, messages)
    return Prompt(processor.encode(prepared.text), prepared.plans[0], prepared.text)


@dataclass(frozen=True)
class Form:
    """What all first questions about a video have in common, where the whole video fits beside them."""

    window: int
    head: str
    """Up to the last frame."""
    ids: list[int]
    """The same as tokens."""
    tail: str
    """The text behind that, with `QUESTION` in it."""
    bare: str
    """The whole text without the video."""
    plan: Plan

    @classmethod
    def of(cls, processor: Any, footage: Footage) -> "Form | None":
        """None where something had to be left out: what is shown then depends on the length of the question."""
        try:
            prepared = footage.prepare(processor, footage.conversation(QUESTION))
        except PlanError:
            return None  # a shorter question may still fit
        plan = prepared.plans[0]
        head, _, tail = prepared.text.rpartition(IMAGE)
        shown = processor.frame_text(plan.kept_subtitles)
        if plan.left_out or prepared.text.count(QUESTION) != 1 or QUESTION not in tail:
            return None
        if prepared.text.count(shown) != 1:
            return None
        head += IMAGE
        return cls(plan.window, head, processor.encode(head), tail, prepared.text.replace(shown, ""), plan)

    def prompt(self, processor: Any, text: str) -> Prompt | None:
        """What `whole_prompt` gives for this question; None where it has to look itself."""
        said = processor.plain(text)
        asked = len(processor.encode(self.bare.replace(QUESTION, said)))
        reserve = processor.answer_reserve
        total = self.plan.total - self.plan.question_tokens - self.plan.answer_reserve + asked + reserve
        if processor.window != self.window or total > self.window or IMAGE in said:
            return None
        tail = self.tail.replace(QUESTION, said)
        behind = processor.tokenizer(tail, add_special_tokens=False)["input_ids"]
        plan = replace(self.plan, question_tokens=asked, answer_reserve=reserve, total=total)
        return Prompt([*self.ids, *behind], plan, self.head + tail)
