"""The engine for those who outgrow the built-in one: vLLM answers, from prompts that are embeddings.

Our tower, projection and planner make the embeddings of a prompt; vLLM has the language model, with paged attention,
continuous batching and prefix caching, so that a further question about a video costs its own words there too. vLLM is
not among this package's dependencies: its pins exclude ours.
"""

import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from minigpt4_video.errors import ModelError, UserError
from minigpt4_video.inference.answer import Answer, Timings
from minigpt4_video.inference.batching import Pending, Question, Reply, Request, check_length, opened
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.prompts import Prompt
from minigpt4_video.inference.store import module_digest
from minigpt4_video.inference.video import Video

DIGEST = "minigpt4_video_digest.txt"
"""Beside the weights of a language model: which ones they are."""
USED = 0.9
"""Share of a GPU's free memory that vLLM takes where it is not told another."""


def write_language_model(model: Any, folder: Path) -> None:
    """The language model alone, as any program for language models takes it; nothing where it is there already.

    Raises ModelError for a folder that holds something else.
    """
    digest = module_digest(model.model.language_model) + module_digest(model.lm_head)
    if folder.exists():
        _check_digest(folder, digest)
        return
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(model.config.text_config, dtype=model.dtype)
    inside = language_model.base_model_prefix
    state = {f"{inside}.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    state["lm_head.weight"] = model.lm_head.weight
    language_model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    language_model.tie_weights()
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        language_model.save_pretrained(aside)
        (aside / DIGEST).write_text(digest, encoding="ascii")
        aside.chmod(0o755)
        with suppress(OSError):  # another process may have been quicker
            aside.rename(folder)
        _check_digest(folder, digest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_digest(folder: Path, digest: str) -> None:
    told = folder / DIGEST
    if not told.is_file() or told.read_text(encoding="ascii") != digest:
        raise ModelError(f"{folder} does not hold this language model; remove it or name another folder")


UNKNOWN: dict[str, Any] = {
    "no_repeat_ngram_size": 0, "bad_words_ids": None, "sequence_bias": None, "suppress_tokens": [],
    "begin_suppress_tokens": [], "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
"""Settings of generation that the built-in engine follows and vLLM has no form of, with the values that do nothing."""


class _Planned(NamedTuple):
    """A question that vLLM has not been given yet."""

    pending: Pending
    number: int
    video: Video
    prompt: Prompt
    params: Any


@dataclass
class _Asked:
    """A question that vLLM is answering."""

    planned: _Planned
    frames_took: float
    begun: float
    first_word: float = field(default=0.0)


class VLLM:
    """An `Engine`: `together` questions are in vLLM's hands at once, `ahead` more videos are being decoded.

    `folder` is where the language model is, or is written to; `options` are those of `vllm.LLM`, such as
    `tensor_parallel_size` and `gpu_memory_utilization`. Raises ModelError where vLLM is not installed.
    """

    def __init__(
        self, chat: VideoChat, folder: str | Path, *, together: int = 64, ahead: int = 2, **options: Any
    ) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise ModelError(
                f"vLLM cannot be used here ({error}); install it in an environment of its own, as "
                "docs/many-questions.md tells, or take the engine that is built in"
            ) from error
        self.chat = chat
        self.together = together
        self.ahead = ahead
        write_language_model(chat.model, Path(folder))
        self.slots = chat.processor.window + chat.processor.window // 2
        """Tokens of a prompt with its answer."""
        given: dict[str, Any] = {
            "max_model_len": self.slots,
            "dtype": str(chat.model.dtype).removeprefix("torch."),
            "skip_tokenizer_init": True,
            "enable_prompt_embeds": True,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if chat.model.device.type == "cuda":  # where our model has its place already
            free, whole = torch.cuda.mem_get_info(chat.model.device)
            given["gpu_memory_utilization"] = USED * free / whole
        self.llm = LLM(model=str(folder), **(given | options))
        self._numbers = count()

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """A reply to each request, in their order. What is wrong with one request is in its reply."""
        engine = self.llm.llm_engine
        order: deque[Pending] = deque()
        waiting: deque[_Planned] = deque()
        asked: dict[str, _Asked] = {}
        try:
            with (
                ThreadPoolExecutor(1, "decode") as decoder,
                closing(opened(self.chat, requests, decoder, self.ahead)) as openings,
            ):
                opening = next(openings, None)
                while order or opening is not None:
                    while len(asked) < self.together:
                        if waiting:
                            self._ask(waiting.popleft(), asked)
                        elif opening and len(order) < self.together and (not asked or opening.video.done()):
                            order.append(pending := Pending(opening.request))
                            try:
                                waiting += self._plan(pending, opening.video.result())
                            except UserError as error:
                                pending.error = error
                            opening = next(openings, None)
                        else:
                            break
                    for output in engine.step() if asked else ():
                        self._hear(output, asked)
                    while order and order[0].is_done:
                        yield order.popleft().reply()
        finally:
            if asked:  # whoever asked wants no more
                engine.abort_request(list(asked))

    def _plan(self, pending: Pending, video: Video) -> list[_Planned]:
        """All questions of a request. Raises UserError where one of them cannot be asked."""
        planned = []
        for number, question in enumerate(pending.request.questions):
            one = Question(question) if isinstance(question, str) else question
            settings = one.settings(self.chat)
            prompt = video.question(one.text, one.max_new_tokens)
            check_length(prompt, settings.max_new_tokens, self.slots)
            planned.append(_Planned(pending, number, video, prompt, sampling(settings, one.seed)))
        return planned

    def _ask(self, planned: _Planned, asked: dict[str, _Asked]) -> None:
        """Hand a question over. Its embeddings are made now, because they are as large as a video's features."""
        prompt = planned.prompt
        begun = perf_counter()
        frame_tokens = planned.video.frame_tokens(prompt.plan.kept_frames)
        took = perf_counter() - begun
        planned.video.save()
        ids = torch.tensor([prompt.ids], device=self.chat.model.device)
        with torch.inference_mode():
            embeds = self.chat.model.model.place_frames(ids, frame_tokens)[0].cpu()
        given: dict[str, Any] = {
            "prompt_embeds": embeds,
            # Penalties look at ids; without any they would see what an earlier prompt left in their place.
            "prompt_token_ids": [self.chat.processor.tokenizer.pad_token_id] * len(prompt.ids),
            "prompt_is_token_ids": [False] * len(prompt.ids),
        }
        name = str(next(self._numbers))
        self.llm.llm_engine.add_request(name, given, planned.params)
        asked[name] = _Asked(planned, took, perf_counter())

    def _hear(self, output: Any, asked: dict[str, _Asked]) -> None:
        one = asked[output.request_id]
        now = perf_counter() - one.begun
        one.first_word = one.first_word or now
        if not output.finished:
            return
        del asked[output.request_id]
        pending, number, _, prompt, _ = one.planned
        said = output.outputs[0]
        tokens = list(said.token_ids)
        certain = [given[token].logprob for token, given in zip(tokens, said.logprobs, strict=True)]
        text = str(self.chat.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        confidence = sum(certain) / len(certain) if certain else 0.0
        timings = Timings(one.frames_took, one.first_word, one.frames_took + now)
        cut_off = said.finish_reason == "length"
        pending.answers[number] = Answer(text, confidence, prompt.plan, timings, tokens=len(tokens), cut_off=cut_off)


def sampling(settings: GenerationConfig, seed: int | None) -> Any:
    """vLLM's form of how to generate. Raises ModelError for what it does not know."""
    from vllm import SamplingParams

    for name, nothing in UNKNOWN.items():
        if (value := getattr(settings, name)) not in (None, nothing):
            raise ModelError(
                f"vLLM is not told of {name} ({value}), which is stored with these weights; take the engine that is "
                "built in"
            )
    ends = settings.eos_token_id
    drawn = {}
    if settings.do_sample:
        drawn = {
            name: value for name in ("top_p", "top_k", "min_p") if (value := getattr(settings, name, None)) is not None
        }
    return SamplingParams(
        temperature=settings.temperature if settings.do_sample else 0.0,
        seed=seed if settings.do_sample else None,
        max_tokens=settings.max_new_tokens,
        min_tokens=settings.min_new_tokens or 0,
        repetition_penalty=settings.repetition_penalty or 1.0,
        stop_token_ids=ends if isinstance(ends, list) else [] if ends is None else [ends],
        logprobs=0,
        detokenize=False,
        **drawn,
    )
