"""Words as the model finds them: how a token is chosen, an answer in the making, and several of them in one pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from time import perf_counter
from typing import Any
from unicodedata import east_asian_width

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from minigpt4_video.inference.answer import Answer, Evidence, Timings
from minigpt4_video.model.branches import A_PASS, Branch, Branches
from minigpt4_video.planning import Plan


class Choice:
    """How the next token of one answer is chosen; penalties count the answer's own tokens, never the prompt's.

    Each answer draws from random numbers of its own, so that a draw does not depend on what else is being answered.
    """

    def __init__(self, model: Any, settings: GenerationConfig, seed: int | None) -> None:
        device = model.lm_head.weight.device
        ends = settings.eos_token_id
        self.processors = LogitsProcessorList()
        if settings.sequence_bias is not None:
            self.processors.append(SequenceBiasLogitsProcessor(settings.sequence_bias))
        if settings.repetition_penalty not in (None, 1.0):
            self.processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if settings.no_repeat_ngram_size:
            self.processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
        if settings.bad_words_ids is not None:
            self.processors.append(NoBadWordsLogitsProcessor(settings.bad_words_ids, ends))
        if settings.min_new_tokens and ends is not None:
            self.processors.append(MinNewTokensLengthLogitsProcessor(0, settings.min_new_tokens, ends, device=device))
        if settings.suppress_tokens:
            self.processors.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=device))
        if settings.begin_suppress_tokens:
            self.processors.append(
                SuppressTokensAtBeginLogitsProcessor(settings.begin_suppress_tokens, 0, device=device)
            )
        placeholder = model.config.image_token_id
        if placeholder < model.lm_head.out_features:
            self.processors.append(SuppressTokensLogitsProcessor([placeholder], device=device))
        self.generator = None
        if settings.do_sample:
            self.generator = torch.Generator(device)
            if seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(seed)
            self.processors.append(TemperatureLogitsWarper(settings.temperature))
            if settings.top_k:
                self.processors.append(TopKLogitsWarper(settings.top_k))
            if settings.top_p is not None and settings.top_p < 1:
                self.processors.append(TopPLogitsWarper(settings.top_p))
            if settings.min_p is not None:
                self.processors.append(MinPLogitsWarper(settings.min_p))
            if settings.typical_p is not None and settings.typical_p < 1:
                self.processors.append(TypicalLogitsWarper(settings.typical_p))
            if settings.epsilon_cutoff:
                self.processors.append(EpsilonLogitsWarper(settings.epsilon_cutoff))
            if settings.eta_cutoff:
                self.processors.append(EtaLogitsWarper(settings.eta_cutoff, device=device))

    @property
    def takes_the_likeliest(self) -> bool:
        """Whether the logits need no further look than for their greatest."""
        return not self.processors and self.generator is None

    def __call__(self, said: Sequence[int], logits: torch.Tensor) -> int:
        """The token after those that were `said`, from (vocabulary,) logits."""
        ids = torch.tensor([said], dtype=torch.long, device=logits.device)
        scores = self.processors(ids, logits[None].float())
        if self.generator is None:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.generator))


class _Pieces:
    """Tokens to pieces of whole words, of a script without spaces to single characters. Together they are all tokens
    decoded at once, without the space around that.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.ready: list[str] = []
        self.text = ""
        """All pieces together."""
        self._tokenizer = tokenizer
        self._tokens: list[int] = []

    def put(self, token: int, last: bool) -> None:
        """One more token; behind the `last` one no word goes on."""
        self._tokens.append(token)
        # All of them, because what a token says depends on those before: spaces, and characters of several tokens.
        text = str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))
        settled = text.strip() if last else text[: _settled(text)].strip()
        if len(settled) > len(self.text):
            self.ready.append(settled[len(self.text) :])
            self.text = settled


def _settled(text: str) -> int:
    """How much of a text will stay when more tokens come: all but a word that may go on, or half a character."""
    if text and (text[-1].isspace() or east_asian_width(text[-1]) in "WF"):
        return len(text)
    return max(text.rfind(" "), text.rfind("\n")) + 1


class Utterance:
    """An answer in the making."""

    def __init__(
        self,
        ids: Sequence[int],
        settings: GenerationConfig,
        choice: Choice,
        tokenizer: Any,
        begun: float,
        openings: Sequence[int] = (),
        rivals: int = 0,
    ) -> None:
        """`rivals` is how many of the likeliest tokens are noted beside each that is taken."""
        self.openings = list(openings)
        """Tokens that the answer may begin with and whose log-probabilities there are wanted."""
        self.opening_log_probabilities: tuple[float, ...] = ()
        self.pending = list(ids)
        """What the model is to read next: what the prompt holds behind its prefix, then each new token."""
        self.room = len(ids) + settings.max_new_tokens
        """Tokens its branch may come to hold."""
        self.branch: Branch | None = None
        self.tokens: list[int] = []
        self.log_probabilities: list[float] = []
        """One for each token, under the model's own distribution."""
        self.rivals: list[list[tuple[int, float]]] = []
        """For each token the likeliest in its place, with their log-probabilities, where they were asked for."""
        self.finished = False
        self.first_word = 0.0
        """Seconds from `begun` until the first token."""
        self.took = 0.0
        """Seconds until the last one."""
        self._choice = choice
        self.most_rivals = rivals
        self._most = settings.max_new_tokens
        ends = settings.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self._pieces = _Pieces(tokenizer)
        self._begun = begun

    @property
    def confidence(self) -> float:
        """Mean log-probability of the tokens, the end token among them, under the model's own distribution."""
        return sum(self.log_probabilities) / len(self.tokens) if self.tokens else 0.0

    @property
    def ended(self) -> bool:
        """Whether the model ended it, not its length."""
        return bool(self.tokens) and self.tokens[-1] in self._ends

    @property
    def text(self) -> str:
        """What has been said so far."""
        return self._pieces.text

    @property
    def cut_off(self) -> bool:
        """Whether it ended at its longest length and not by the model's own end."""
        return self.finished and self.tokens[-1] not in self._ends

    def piece(self, number: int) -> str | None:
        """A piece of the text, None where it has not been said yet."""
        return self._pieces.ready[number] if number < len(self._pieces.ready) else None

    def choose(self, logits: torch.Tensor, likeliest: int) -> int:
        return likeliest if self._choice.takes_the_likeliest else self._choice(self.tokens, logits)

    def take(self, token: int, log_probability: float, rivals: list[tuple[int, float]] | None = None) -> None:
        """Say one more token."""
        self.tokens.append(token)
        self.pending = [token]
        self.log_probabilities.append(log_probability)
        if rivals is not None:
            self.rivals.append(rivals)
        self.took = perf_counter() - self._begun
        self.first_word = self.first_word or self.took
        self.finished = token in self._ends or len(self.tokens) >= self._most
        self._pieces.put(token, last=self.finished)


class Round:
    """Answers that are found together, a token of each in every pass: a finished one leaves, a waiting one enters."""

    def __init__(self, board: Branches) -> None:
        self.board = board
        self.waiting: list[tuple[int, Utterance]] = []
        """Each with the row of its prefix."""
        self.speaking: list[Utterance] = []

    def __bool__(self) -> bool:
        return bool(self.waiting or self.speaking)

    def step(self) -> list[Utterance]:
        """Read the questions there is room for, then one token further in every other answer; which have finished.

        What has finished keeps its branch until it is made to leave.
        """
        speaking = self.speaking
        for entering in _of_like_length(self._admit()):
            self._read(entering)
            self.speaking = self.speaking + entering
            self.waiting = [(row, one) for row, one in self.waiting if one not in entering]
        if speaking:
            self._read(speaking)
        finished = [one for one in self.speaking if one.finished]
        self.speaking = [one for one in self.speaking if not one.finished]
        return finished

    def _admit(self) -> dict[int, list[Utterance]]:
        """Those for whom there is room, by row, in the order in which they came."""
        admitted: dict[int, list[Utterance]] = {}
        full: set[int] = set()
        for row, one in self.waiting:
            if row in full:
                continue
            if one.branch is None:
                if one.room > self.board.room(row):
                    full.add(row)
                    continue
                one.branch = self.board.branch(row, one.room)
            admitted.setdefault(row, []).append(one)
        return admitted

    def _read(self, ones: Sequence[Utterance]) -> None:
        with torch.inference_mode():
            logits = self.board.extend([(one.branch, one.pending) for one in ones if one.branch is not None])
            likeliest = logits.argmax(-1).tolist()
            tokens = [one.choose(row, best) for one, row, best in zip(ones, logits, likeliest, strict=True)]
            chosen = torch.tensor(tokens, device=logits.device)[:, None]
            spread = logits.float().log_softmax(-1)
            certainty = spread.gather(-1, chosen)[:, 0].tolist()
            rivals = [_likeliest(row, one.most_rivals) for one, row in zip(ones, spread, strict=True)]
            for one, row in zip(ones, spread, strict=True):
                if one.openings and not one.tokens:
                    one.opening_log_probabilities = tuple(row[one.openings].tolist())
        for one, token, log_probability, others in zip(ones, tokens, certainty, rivals, strict=True):
            one.take(token, log_probability, others)


def _of_like_length(admitted: Mapping[int, list[Utterance]]) -> list[list[Utterance]]:
    """The questions of rows, those of near rows together where they are of like length: a pass reads as many tokens in
    each row from its first to its last, padding where there are none, which must not take longer than a further pass.
    """
    passes: list[list[Utterance]] = []
    first = widest = read = 0
    for row, ones in sorted(admitted.items()):
        width = sum(len(one.pending) for one in ones)
        together = (row - first + 1) * max(widest, width)
        if passes and together - read - width <= A_PASS:
            passes[-1] += ones
            widest, read = max(widest, width), together
        else:
            passes.append(list(ones))
            first, widest, read = row, width, width
    return passes


def _likeliest(spread: torch.Tensor, count: int) -> list[tuple[int, float]] | None:
    """The likeliest tokens of (vocabulary,) log-probabilities, with these."""
    if not count:
        return None
    values, tokens = spread.topk(min(count, len(spread)))
    return list(zip(tokens.tolist(), values.tolist(), strict=True))


class Words(Iterator[str]):
    """The pieces of one answer, each computed when it is asked for. `left` is called once, at the end or at `close`,
    with whether the answer is whole, and takes the lock where it needs it.
    """

    def __init__(self, round_: Round, utterance: Utterance, lock: RLock, left: Callable[[bool], None]) -> None:
        self.utterance = utterance
        self._round = round_
        self._lock = lock
        self._left: Callable[[bool], None] | None = left
        self._given = 0

    def __next__(self) -> str:
        while (piece := self.utterance.piece(self._given)) is None:
            if self.utterance.finished or self._left is None:
                self.close()
                raise StopIteration
            with self._lock:
                try:
                    self._round.step()
                except BaseException:  # an interruption too: what the answer took of the memory must be free
                    self.close()
                    raise
        self._given += 1
        return piece

    def close(self) -> None:
        """Say no more; what the answer took of the memory is free again."""
        with self._lock:
            left, self._left = self._left, None
        if left is not None:
            left(self.utterance.finished)

    def __del__(self) -> None:
        self.close()


class Stream(Iterator[str]):
    """The pieces of an answer; `.answer` is the whole of it, and waits for what has not been read yet."""

    def __init__(self, words: Words, plan: Plan, frames_took: float) -> None:
        self.plan = plan
        self.evidence: tuple[Evidence, ...] = ()
        """What the video was taken from, where that is a part of a longer one."""
        self._words = words
        self._frames_took = frames_took

    def __next__(self) -> str:
        return next(self._words)

    @property
    def answer(self) -> Answer:
        for _ in self:
            pass
        answer = finished_answer(self._words.utterance, self.plan, self._frames_took)
        return replace(answer, evidence=self.evidence)

    def close(self) -> None:
        """Stop before the end; the model is free again when this returns."""
        self._words.close()


def finished_answer(utterance: Utterance, plan: Plan, frames_took: float) -> Answer:
    """What a whole utterance says."""
    timings = Timings(frames_took, utterance.first_word, frames_took + utterance.took)
    return Answer(
        utterance.text,
        utterance.confidence,
        plan,
        timings,
        tokens=len(utterance.tokens),
        cut_off=utterance.cut_off,
        openings=utterance.opening_log_probabilities,
    )
