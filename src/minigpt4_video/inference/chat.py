"""A model that answers about videos, and about any conversation."""

import math
from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Any
from weakref import ref

import torch
import transformers

import minigpt4_video.model
from minigpt4_video.errors import UserError
from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.footage import take_footage
from minigpt4_video.inference.loading import (
    Quantized,
    find_model,
    find_place,
    load_model,
    load_processor,
    memory_needed,
)
from minigpt4_video.inference.store import Store, Weights, source_digest, stored_clip
from minigpt4_video.inference.transcripts import stored_words
from minigpt4_video.inference.video import Video
from minigpt4_video.inference.words import Choice, Round, Stream, Utterance, Words
from minigpt4_video.media import Cue, Rule, read_clip
from minigpt4_video.messages import Message, Part, check_messages
from minigpt4_video.model.branches import Branches
from minigpt4_video.model.processing import IMAGE
from minigpt4_video.planning import Plan

FRAMES_AT_ONCE = {"cpu": 8, "cuda": 64}
"""How many frames the vision tower takes in one go: bounds its memory. A GPU is busy only with more."""

KEPT_BYTES = 8 * 2**30
"""Memory that the prefixes of opened videos may take together; whatever it is, one of them is kept."""


LEAST_TEMPERATURE = 1e-3
"""Below it the likeliest word is certain as far as numbers go, and dividing by it would leave their range."""


class VideoChat:
    """A model that answers. Greedy unless a temperature is given; penalties are those stored with the weights."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        folder: Path | None = None,
        store: Store | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """`folder` is where the weights were read from, `store` where to keep what has been computed of videos."""
        self.model = model
        self.processor = processor
        self.name = name
        self.store = store
        self.kept_bytes = kept_bytes
        self._weights = Weights(model, folder)
        self._frames_at_once = FRAMES_AT_ONCE.get(model.device.type, FRAMES_AT_ONCE["cpu"])
        self.lock = RLock()
        """Held for every pass through the model, so that threads may share one."""
        self._videos: list[ref[Video]] = []
        """Those with a prefix in memory, the last used last."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        store: Store | None = None,
        quantize: Quantized | None = None,
    ) -> "VideoChat":
        """`model` is "tiny" or a folder; `device` None is a GPU that holds it, or all that hold it together, else the
        CPU; `dtype` None is as stored; `quantize` "8bit" or "4bit" takes less memory and answers a little differently.

        With a `store`, videos that another process has opened are warm. Raises ModelError for anything that cannot be
        loaded.
        """
        folder = find_model(model)
        where = find_place(device, memory_needed(folder, dtype, quantize))
        loaded = load_model(folder, where, dtype, quantize)
        return cls(loaded, load_processor(folder), str(model), folder=folder, store=store)

    def open(
        self,
        path: str | Path,
        *,
        subtitles: str | Path | Sequence[Cue] = "auto",
        subtitle_language: str | None = None,
        encoding: str | None = None,
        speech: str | Path | None = None,
        frames: int | None = None,
        start: float | None = None,
        end: float | None = None,
        rule: Rule = "even",
    ) -> Video:
        """Decode a video, or a part of it in seconds, and put its subtitles beside its frames.

        `subtitles` is "auto" (a file beside the video, else a track inside it, else what is said), "off", a file, or
        cues; `subtitle_language` ("en", "pt-BR") chooses among files and tracks; `speech` names a speech model, as
        `find_recogniser` has it, or is "off"; `rule` is that of `media.sample_times`. Raises MediaError, and PlanError
        when more `frames` are asked for than the context holds.
        """
        # Left away where it is the usual one, so that what was kept before there was a choice still counts.
        chosen: dict[str, Any] = {} if rule == "even" else {"rule": rule}
        footage = take_footage(
            path,
            self.processor,
            subtitles=subtitles,
            subtitle_language=subtitle_language,
            encoding=encoding,
            speech=speech,
            frames=frames,
            start=start,
            end=end,
            read=partial(stored_clip, self.store, read_clip, **chosen),
            listen=partial(stored_words, self.store),
        )
        return Video(self, footage)

    def answer(self, messages: Sequence[Message], **options: Any) -> Answer:
        """The answer to any conversation; options are those of `Video.ask`.

        Of a video that is a file, subtitles are found as `open` finds them, where its part does not say which.
        """
        return self.stream(messages, **options).answer

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Stream:
        """The answer to any conversation, piece by piece, as `answer` takes it."""
        check_messages(messages)
        processor = self.with_reserve(max_new_tokens)
        prepared = processor.prepare(with_subtitles(messages))
        plan = prepared.plans[0] if prepared.plans else _plan_without_video(processor, prepared.text)
        settings = self.settings(max_new_tokens, temperature, seed)
        ids = processor.encode(prepared.text)
        begun = perf_counter()
        frame_tokens = self.encode(prepared.frames) if prepared.frames else None
        took = perf_counter() - begun
        utterance = self.utterance(ids[-1:], settings, seed, begun + took)
        with self.lock:
            board = Branches(self.model, 1, len(ids) - 1 + utterance.room)
            board.begin(0, ids[:-1], frame_tokens)
        round_ = Round(board)
        round_.waiting.append((0, utterance))
        return Stream(Words(round_, utterance, self.lock, _let_go), plan, took)

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
        """Frames to what the language model reads: (frames, tokens_per_frame, hidden)."""
        parts = []
        with self.lock, torch.inference_mode():
            for first in range(0, len(frames), self._frames_at_once):
                pixels = self.processor.pixels(frames[first : first + self._frames_at_once]).to(self.model.device)
                parts.append(self.model.get_image_features(pixels))
            return torch.cat(parts)

    def identity(self) -> list[Any]:
        """All but the video and the question that decides what is computed."""
        code = source_digest(Path(minigpt4_video.model.__file__).parent)
        attention = self.model.config.text_config._attn_implementation
        pixels = [self.processor.image_size, self.processor.image_mean, self.processor.image_std]
        quantized = getattr(self.model.config, "quantization_config", None)
        bits = quantized and quantized.to_diff_dict()
        computed = [str(self.model.dtype), self.model.device.type, attention, self._frames_at_once, str(bits)]
        versions = [code, torch.__version__, transformers.__version__]
        return [self._weights.digest(self.store), versions, computed, pixels]

    def utterance(
        self,
        ids: Sequence[int],
        settings: Any,
        seed: int | None,
        begun: float,
        openings: Sequence[str] = (),
        rivals: int = 0,
    ) -> Utterance:
        """An answer to be found, to what the prompt holds behind its prefix; its clock runs since `begun`."""
        choice = Choice(self.model, settings, seed)
        tokenizer = self.processor.tokenizer
        return Utterance(ids, settings, choice, tokenizer, begun, self._first_tokens(openings), rivals)

    def _first_tokens(self, texts: Sequence[str]) -> list[int]:
        """The token each text begins with; none at all where these do not tell the texts apart."""
        tokenizer = self.processor.tokenizer
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        first = [one[0] for one in ids if one]
        return first if len(set(first)) == len(texts) else []

    def settings(
        self, max_new_tokens: int | None, temperature: float, seed: int | None = None, top_p: float | None = None
    ) -> Any:
        """How to generate: as stored with the weights, but for length, temperature, and beams, which cannot stream.

        Raises UserError for a temperature or a seed that is none.
        """
        if not 0 <= temperature < math.inf:
            raise UserError(f"the temperature is {temperature}; give 0, which always takes the likeliest word, or more")
        if seed is not None and not 0 <= seed < 2**63:
            raise UserError(f"the seed is {seed}; give a number from 0 to {2**63 - 1}")
        settings = copy(self.model.generation_config)  # whose parts are only replaced
        settings.max_length = None
        settings.max_new_tokens = max_new_tokens or self.processor.answer_reserve
        settings.num_beams = 1
        settings.do_sample = temperature >= LEAST_TEMPERATURE
        if settings.do_sample:
            settings.temperature = temperature
            settings.top_p = settings.top_p if top_p is None else top_p
        else:
            settings.temperature = settings.top_p = settings.top_k = None
        return settings

    def used(self, video: "Video") -> None:
        """Note that a video's prefix is in use; the longest unused give theirs up where all together take too much."""
        with self.lock:
            others = [other for other in self._videos if other() not in (None, video)]
            self._videos = [*others, ref(video)]
            held = sum(one.memory for other in self._videos if (one := other()) is not None)
            for other in others:
                if held <= self.kept_bytes:
                    break
                if (one := other()) is not None:
                    held -= one.memory
                    one.forget()


def with_subtitles(messages: Sequence[Message]) -> list[Message]:
    """The same conversation, in which a video that is a file and says nothing of subtitles has those that are found."""

    def heard(part: Part) -> Part:
        is_file = part["type"] == "video" and "path" in part
        return {"subtitles": "auto", **part} if is_file else part

    return [
        message if isinstance(message["content"], str) else {**message, "content": list(map(heard, message["content"]))}
        for message in messages
    ]


def _let_go(whole: bool) -> None:
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
