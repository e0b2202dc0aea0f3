"""An opened video: decoded, encoded and read by the language model once, for all questions about it."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.footage import Footage
from minigpt4_video.inference.prompts import QUESTION, Form, Prompt, whole_prompt
from minigpt4_video.inference.shown import Shown
from minigpt4_video.inference.words import Round, Stream, Utterance, Words, finished_answer
from minigpt4_video.instructions import Language, Style, caption_request
from minigpt4_video.messages import Message, answered, check_messages
from minigpt4_video.model.branches import Branch, Branches
from minigpt4_video.planning import Plan

if TYPE_CHECKING:
    from minigpt4_video.inference.chat import VideoChat


class Prefix(NamedTuple):
    """What the language model has read of a video: the part of the prompt that all questions about it share."""

    ids: list[int]
    frames: tuple[int, ...]
    """Which frames the placeholders stand for."""
    board: Branches
    """Of one row, which holds it."""


class Turn(NamedTuple):
    """The last answer, with the question before it, as a branch that the next turn may go on from."""

    branch: Branch
    ids: list[int]


class Video:
    """An opened video. Its frames are encoded with the first question and read by the language model then; a further
    question costs its own words only, and several at once are branches behind the same prefix.
    """

    def __init__(self, chat: "VideoChat", footage: Footage) -> None:
        self.model = chat
        self.footage = footage
        self._prefix: Prefix | None = None
        self._turn: Turn | None = None
        self.shown = Shown(chat, footage.clip.frames, chat.store)

    @property
    def memory(self) -> int:
        """Bytes that are kept of what the language model has read of the video."""
        return self._prefix.board.memory if self._prefix else 0

    def ask(
        self,
        text: str,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Answer:
        """One answer. `temperature` 0 always takes the likeliest word; above it `seed` makes the draw repeatable."""
        return self.stream(text, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed).answer

    def ask_many(
        self,
        texts: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Answer]:
        """An answer to each question, none of which knows of the others; the model finds them together.

        They take at most as much memory again as the context window; those beyond that wait for others to end.
        """
        settings = self.model.settings(max_new_tokens, temperature, seed)
        prompts = [self.question(text, max_new_tokens) for text in texts]
        answers: dict[int, Answer] = {}
        for shows in dict.fromkeys(prompt.shows for prompt in prompts):
            alike = {number: prompt for number, prompt in enumerate(prompts) if prompt.shows == shows}
            with self.model.lock:
                begun = perf_counter()
                prefix, took = self._read(list(alike.values()), settings.max_new_tokens)
                common = len(prefix.ids)
                found = {
                    number: self.model.utterance(one.ids[common:], settings, seed, begun + took)
                    for number, one in alike.items()
                }
                self._make_room(prefix, sum(one.room for one in found.values()))
            _answer_all(Round(prefix.board), list(found.values()), self.model.lock)
            self.save()
            answers |= {number: finished_answer(one, prompts[number].plan, took) for number, one in found.items()}
        return [answers[number] for number in range(len(texts))]

    def caption(self, style: Style = "brief", language: Language = "en", **options: Any) -> Answer:
        """What the video shows, in a style and a language."""
        return self.ask(caption_request(style, language), **options)

    def stream(self, text: str, **options: Any) -> Stream:
        """The pieces of an answer as the model finds them; options as for `ask`."""
        return self._stream(self.question(text, options.get("max_new_tokens")), **options)

    def plan(self, text: str | None = None, *, max_new_tokens: int | None = None) -> Plan:
        """What the model would be shown with this question; None stands for a short one."""
        return self.footage.plan(self.model.with_reserve(max_new_tokens), text)

    def chat(self) -> "Conversation":
        """A conversation in which each question knows of those before it."""
        return Conversation(self)

    def continue_(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Stream:
        """The next turn of a conversation whose only video is this one."""
        check_messages(messages)
        prompt = whole_prompt(self.model.with_reserve(max_new_tokens), self.footage, messages)
        return self._stream(prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)

    def _stream(
        self, prompt: Prompt, *, max_new_tokens: int | None = None, temperature: float = 0.0, seed: int | None = None
    ) -> Stream:
        settings = self.model.settings(max_new_tokens, temperature, seed)
        with self.model.lock:
            begun = perf_counter()
            prefix, took = self._read([prompt], settings.max_new_tokens)
            behind = prompt.ids[len(prefix.ids) :]
            branch = self._go_on(prefix, behind)
            utterance = self.model.utterance(behind[len(branch) if branch else 0 :], settings, seed, begun + took)
            room = len(behind) + settings.max_new_tokens
            self._make_room(prefix, room - (branch.room if branch else 0), room)
            if branch is None:
                branch = prefix.board.branch(0, room)
            else:
                prefix.board.widen(branch, room)
            utterance.branch = branch
        round_ = Round(prefix.board)
        round_.waiting.append((0, utterance))
        return Stream(
            Words(round_, utterance, self.model.lock, self._keep_turn(prefix, behind, utterance)), prompt.plan, took
        )

    def question(self, text: str, max_new_tokens: int | None = None) -> Prompt:
        """A question about this video as token ids. Raises UserError and PlanError."""
        messages = self.footage.conversation(text)
        processor = self.model.with_reserve(max_new_tokens)
        quick = self._form.prompt(processor, text) if self._form else None
        return quick or whole_prompt(processor, self.footage, messages)

    @cached_property
    def _form(self) -> Form | None:
        return Form.of(self.model.with_reserve(1), self.footage)

    def shared(self, prompts: Sequence[Prompt]) -> list[int]:
        """The tokens that prompts which show the same begin with, and that other questions would begin with too."""
        first = prompts[0]
        placeholder = self.model.processor.image_token_id
        least = len(first.ids) - first.ids[::-1].index(placeholder)
        other = self._form.prompt(self.model.processor, QUESTION) if self._form else None
        if other is None or other.shows != first.shows:
            return first.ids[:least]
        others = [other.ids, *(prompt.ids[:-1] for prompt in prompts)]
        return first.ids[: max(least, min(_common(first.ids, ids) for ids in others))]

    def forget(self) -> None:
        """Give up what the language model has read of the video; the next question reads it again."""
        with self.model.lock:
            self._prefix = self._turn = None
            self.shown.forget_prefixes()

    def frame_tokens(self, frames: Sequence[int]) -> torch.Tensor:
        """What the language model reads of some of the frames: (frames, tokens_per_frame, hidden)."""
        return self.shown.frame_tokens(frames)

    def _read(self, prompts: Sequence[Prompt], most: int) -> tuple[Prefix, float]:
        """The prefix of prompts that show the same, from memory where it is there, and the seconds that frames took."""
        prefix = self._prefix
        frames = prompts[0].plan.kept_frames
        took = 0.0
        known = prefix is not None and prefix.frames == frames
        if prefix is None or not known or not all(_goes_on(prompt.ids, prefix.ids) for prompt in prompts):
            self.forget()  # before the new one takes its memory
            ids = self.shared(prompts)
            # What was planned fits the window, so one question at a time needs no more.
            longest = max(len(prompt.ids) for prompt in prompts)
            board = Branches(self.model.model, 1, max(self.model.processor.window, longest + most))
            took = self.shown.begin(board, ids, frames)
            prefix = self._prefix = Prefix(ids, frames, board)
        self.model.used(self)
        return prefix, took

    def _go_on(self, prefix: Prefix, behind: Sequence[int]) -> Branch | None:
        """The branch of the turn before, cut back to what the next one begins with.

        It is handed over: a question that comes while another is being answered reads all of its own words.
        """
        turn, self._turn = self._turn, None
        if turn is None:
            return None
        common = _common(behind[:-1], turn.ids[: len(turn.branch)])
        if common == 0:
            prefix.board.leave(turn.branch)
            return None
        prefix.board.cut(turn.branch, common)
        return turn.branch

    def _make_room(self, prefix: Prefix, wanted: int, least: int = 0) -> None:
        """Slots for `wanted` more tokens: up to as many again as the window holds, and in any case for `least`."""
        board = prefix.board
        missing = wanted - board.room(0)
        if missing > 0 and self._turn is not None:
            board.leave(self._turn.branch)
            self._turn = None
            missing = wanted - board.room(0)
        allowed = 2 * self.model.processor.window - board.slots
        missing = max(min(missing, allowed), least - board.room(0) if least else 0)
        if missing > 0:
            board.grow(board.slots + missing)
            self.model.used(self)

    def save(self) -> None:
        """Write to the store what has been computed since the last time. Other videos can be asked meanwhile."""
        self.shown.save()

    def _keep_turn(self, prefix: Prefix, behind: list[int], utterance: Utterance) -> Callable[[bool], None]:
        """What becomes of a branch when its answer has been read, or is not wanted any more."""

        def left(whole: bool) -> None:
            branch = utterance.branch
            assert branch is not None  # it was given one before its first step
            with self.model.lock:
                if not whole or self._prefix is not prefix:
                    prefix.board.leave(branch)
                    return
                if self._turn is not None:
                    prefix.board.leave(self._turn.branch)
                prefix.board.widen(branch, len(branch))
                self._turn = Turn(branch, [*behind, *utterance.tokens])
            self.save()

        return left


def _answer_all(round_: Round, utterances: Sequence[Utterance], lock: RLock) -> None:
    """Find all of some answers about the video in row 0."""
    round_.waiting += [(0, one) for one in utterances]
    try:
        while round_:
            with lock:
                if not round_.speaking:  # streams that others have begun and not read may hold what was free
                    row, first = round_.waiting[0]
                    round_.board.grow(round_.board.slots + max(0, first.room - round_.board.room(row)))
                for one in round_.step():
                    if one.branch is not None:
                        round_.board.leave(one.branch)
    finally:
        with lock:
            for one in utterances:
                if one.branch is not None:
                    round_.board.leave(one.branch)


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((at for at, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), min(len(ids), len(others)))


def _goes_on(ids: Sequence[int], beginning: Sequence[int]) -> bool:
    return len(ids) > len(beginning) and ids[: len(beginning)] == beginning


class Conversation:
    """Questions and answers about one video, each in the light of those before."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.messages: list[Message] = []
        self.left_out: tuple[str, ...] = ()
        """What did not fit beside the last question."""

    def stream(self, text: str, **options: Any) -> Iterator[str]:
        """The pieces of the next answer; it joins the conversation once it has been read to its end."""
        turn = {"role": "user", "content": [{"type": "text", "text": text}]}
        messages = [*self.messages, turn] if self.messages else self.video.footage.conversation(text)
        stream = self.video.continue_(messages, **options)
        self.left_out = stream.plan.left_out
        try:
            yield from stream
        finally:
            stream.close()
        if said := stream.answer.text:
            self.messages = answered(messages, said)

    def ask(self, text: str, **options: Any) -> str:
        return "".join(self.stream(text, **options))
