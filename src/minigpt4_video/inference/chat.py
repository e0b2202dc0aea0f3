"""Questions about a video: `VideoChat` holds a model, `Video` an opened video, whose frames are encoded once."""

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from minigpt4_video.errors import UserError
from minigpt4_video.inference.answer import Answer, Timings
from minigpt4_video.inference.footage import Footage, take_footage
from minigpt4_video.inference.loading import find_device, find_model, load_model, load_processor
from minigpt4_video.inference.words import Words
from minigpt4_video.instructions import CAPTION_STYLE, Language, Style
from minigpt4_video.messages import Message, answered, check_messages
from minigpt4_video.model.processing import IMAGE
from minigpt4_video.planning import Plan

FRAMES_AT_ONCE = 64
"""How many frames the vision tower takes in one go: bounds its memory."""


class Stream(Iterator[str]):
    """The pieces of an answer; `.answer` is the whole of it, and waits for what has not been read yet."""

    def __init__(self, words: Words, plan: Plan, frames_took: float) -> None:
        self.plan = plan
        self._words = words
        self._frames_took = frames_took
        self._begun = perf_counter()
        self._said: list[str] = []
        self._took = 0.0

    def __next__(self) -> str:
        try:
            piece = next(self._words)
        except StopIteration:
            self._took = self._took or perf_counter() - self._begun
            raise
        self._said.append(piece)
        return piece

    @property
    def answer(self) -> Answer:
        for _ in self:
            pass
        timings = Timings(self._frames_took, self._words.first_word, self._frames_took + self._took)
        return Answer("".join(self._said), self._words.confidence, self.plan, timings)

    def close(self) -> None:
        """Stop before the end; the model is free again when this returns."""
        self._words.close()


class VideoChat:
    """A model that answers. Greedy unless a temperature is given; penalties are those stored with the weights."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model = model
        self.processor = processor
        self.name = name

    @classmethod
    def from_pretrained(
        cls, model: str | Path = "tiny", device: str | None = None, dtype: str | None = None
    ) -> "VideoChat":
        """`model` is "tiny" or a folder; `device` None is a GPU where there is one; `dtype` None is the stored one.

        Raises ModelError for anything that cannot be loaded.
        """
        folder = find_model(model)
        where = find_device(device)
        return cls(load_model(folder, where, dtype), load_processor(folder), str(model))

    def open(
        self,
        path: str | Path,
        *,
        subtitles: str | Path = "auto",
        encoding: str | None = None,
        frames: int | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> "Video":
        """Decode a video, or a part of it in seconds, and put its subtitles beside its frames.

        `subtitles` is "auto" (a file beside the video, or a track inside it), "off" or a file. Raises MediaError, and
        PlanError when more `frames` are asked for than the context holds.
        """
        footage = take_footage(
            path, self.processor, subtitles=subtitles, encoding=encoding, frames=frames, start=start, end=end
        )
        return Video(self, footage)

    def answer(self, messages: Sequence[Message], **options: Any) -> Answer:
        """The answer to any conversation; options are those of `Video.ask`."""
        return self.stream(messages, **options).answer

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Stream:
        """The answer to any conversation, piece by piece."""
        check_messages(messages)
        processor = self.with_reserve(max_new_tokens)
        prepared = processor.prepare(messages)
        plan = prepared.plans[0] if prepared.plans else _plan_without_video(processor, prepared.text)
        begun = perf_counter()
        seen = {"image_features": self.encode(prepared.frames)} if prepared.frames else {}
        took = perf_counter() - begun
        settings = self.settings(max_new_tokens, temperature)
        words = Words(self.model, processor.tokenizer, self.prompt(prepared.text) | seen, settings, seed, _forget)
        return Stream(words, plan, took)

    def with_reserve(self, max_new_tokens: int | None) -> Any:
        """The processor, planning for an answer of that length. Raises UserError where it is not positive."""
        if max_new_tokens is None:
            return self.processor
        if max_new_tokens < 1:
            raise UserError(f"an answer of {max_new_tokens} tokens was asked for; ask for at least 1")
        processor = copy(self.processor)
        processor.answer_reserve = max_new_tokens
        return processor

    def encode(self, frames: Sequence[Any]) -> torch.Tensor:
        """Frames to what the projection takes: (frames, tokens_per_frame, merge_size * vision)."""
        parts = []
        with torch.inference_mode():
            for first in range(0, len(frames), FRAMES_AT_ONCE):
                pixels = self.processor.pixels(frames[first : first + FRAMES_AT_ONCE]).to(self.model.device)
                parts.append(self.model.model.get_merged_features(pixels))
            return torch.cat(parts)

    def prompt(self, text: str) -> dict[str, torch.Tensor]:
        """A literal prompt as the model reads it, (1, sequence), without its frames."""
        ids = torch.tensor([self.processor.encode(text)], device=self.model.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def settings(self, max_new_tokens: int | None, temperature: float) -> Any:
        """How to generate: as stored with the weights, but for length, temperature, and beams, which cannot stream."""
        if temperature < 0:
            raise UserError(f"the temperature is {temperature}; it cannot be below 0, which always takes the likeliest")
        settings = deepcopy(self.model.generation_config)
        settings.max_length = None
        settings.max_new_tokens = max_new_tokens or self.processor.answer_reserve
        settings.num_beams = 1
        settings.do_sample = temperature > 0
        if temperature > 0:
            settings.temperature = temperature
        else:
            settings.temperature = settings.top_p = settings.top_k = None
        return settings


def _forget(tokens: torch.Tensor, cache: Any) -> None:
    """What `Words` leaves of a conversation that nobody will go on with."""


def _plan_without_video(processor: Any, text: str) -> Plan:
    """Pictures and words alone: there was nothing to choose."""
    tokens, pictures = len(processor.encode(text)), text.count(IMAGE)
    seen = pictures * processor.tokens_per_frame
    return Plan(
        frames=pictures,
        frame_tokens=seen,
        tag_tokens=0,
        subtitle_tokens=0,
        question_tokens=tokens - seen,
        answer_reserve=processor.answer_reserve,
        window=processor.window,
        total=tokens + processor.answer_reserve,
        kept_subtitles=("",) * pictures,
        kept_frames=tuple(range(pictures)),
        left_out=(),
    )


class Memory(NamedTuple):
    """What the language model has already computed of a video and what followed it."""

    tokens: torch.Tensor
    """(tokens,), placeholders included."""
    frames: tuple[int, ...]
    """Which frames the placeholders stood for."""
    cache: DynamicCache


class Video:
    """An opened video. Its frames are encoded with the first question and kept for those after it, and so is what the
    language model made of them: a further question costs its own words only.
    """

    def __init__(self, chat: VideoChat, footage: Footage) -> None:
        self.model = chat
        self.footage = footage
        self._memory: Memory | None = None

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

    def ask_many(self, texts: Sequence[str], **options: Any) -> list[Answer]:
        """An answer to each question, none of which knows of the others."""
        return [self.ask(text, **options) for text in texts]

    def caption(self, style: Style = "brief", language: Language = "en", **options: Any) -> Answer:
        """What the video shows, in a style and a language."""
        return self.ask(caption_request(style, language), **options)

    def stream(self, text: str, **options: Any) -> Stream:
        """The pieces of an answer as the model finds them; options as for `ask`."""
        return self.continue_(self.footage.conversation(text), **options)

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
        prepared = self.footage.prepare(self.model.with_reserve(max_new_tokens), messages)
        plan = prepared.plans[0]
        prompt: dict[str, Any] = self.model.prompt(prepared.text)
        settings = self.model.settings(max_new_tokens, temperature)
        begun = perf_counter()
        if (cache := self._recall(prompt["input_ids"][0], plan)) is not None:
            prompt["past_key_values"] = cache
        else:
            prompt["image_features"] = self._features[list(plan.kept_frames)]
        took = perf_counter() - begun

        def remember(tokens: torch.Tensor, cache: Any) -> None:
            # Other caches cannot be cut back to what the next question has in common with this one.
            if isinstance(cache, DynamicCache) and not any(cache.is_sliding):
                self._memory = Memory(tokens, plan.kept_frames, cache)

        return Stream(
            Words(self.model.model, self.model.processor.tokenizer, prompt, settings, seed, remember), plan, took
        )

    def _recall(self, tokens: torch.Tensor, plan: Plan) -> DynamicCache | None:
        """The cache of what a prompt has in common with the one before it, when that holds all its frames.

        It is handed over: another question that comes while this one is being answered computes everything itself.
        """
        memory, self._memory = self._memory, None
        if memory is None or memory.frames != plan.kept_frames:
            return None
        held = memory.cache.get_seq_length()
        most = min(held, len(tokens) - 1)
        common = int((memory.tokens[:most] == tokens[:most]).long().cumprod(0).sum())
        if bool((tokens[common:] == self.model.processor.image_token_id).any()):
            return None
        if common < held:
            memory.cache.crop(common - held)  # negative: how many to drop from the end
        return memory.cache

    @cached_property
    def _features(self) -> torch.Tensor:
        return self.model.encode(list(self.footage.clip.frames))


class Conversation:
    """Questions and answers about one video, each in the light of those before."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.messages: list[Message] = []

    def stream(self, text: str, **options: Any) -> Iterator[str]:
        """The pieces of the next answer; it joins the conversation once it has been read to its end."""
        turn = {"role": "user", "content": [{"type": "text", "text": text}]}
        messages = [*self.messages, turn] if self.messages else self.video.footage.conversation(text)
        stream = self.video.continue_(messages, **options)
        try:
            yield from stream
        finally:
            stream.close()
        if said := stream.answer.text:
            self.messages = answered(messages, said)

    def ask(self, text: str, **options: Any) -> str:
        return "".join(self.stream(text, **options))


def caption_request(style: Style, language: Language) -> str:
    if language not in CAPTION_STYLE:
        raise UserError(f'there is no caption language "{language}"; choose {", ".join(CAPTION_STYLE)}')
    if style not in CAPTION_STYLE[language]:
        raise UserError(f'there is no caption style "{style}"; choose {", ".join(CAPTION_STYLE[language])}')
    return CAPTION_STYLE[language][style]
