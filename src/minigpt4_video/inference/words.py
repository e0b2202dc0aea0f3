"""Words as the model finds them."""

from collections.abc import Callable, Iterator
from threading import Event, Thread
from time import perf_counter
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer


class _StopWhenLeft(StoppingCriteria):  # type: ignore[misc]
    """Ends generation at the next token when nobody listens any more."""

    def __init__(self, left: Event) -> None:
        self.left = left

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.left.is_set(), dtype=torch.bool, device=input_ids.device)


class Words(Iterator[str]):
    """The pieces of one answer, computed in a second thread while they are read.

    When they are exhausted, `confidence` and `first_word` are there. `close()` ends the computation early. `done` is
    given the whole sequence (tokens,) and the cache it left.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        inputs: dict[str, Any],
        settings: GenerationConfig,
        seed: int | None,
        done: Callable[[torch.Tensor, Any], None],
    ) -> None:
        self.first_word = 0.0
        """Seconds until the first word."""
        self.confidence = 0.0
        """Mean log-probability of the tokens, the end token among them, under the model's own distribution."""
        self._done = done
        self._streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._left = Event()
        self._fault: BaseException | None = None
        self._begun = perf_counter()
        self._pieces = self._clean()
        self._thread = Thread(target=self._work, args=(model, inputs, settings, seed), daemon=True)
        self._thread.start()

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._left.set()
        self._thread.join()

    def _clean(self) -> Iterator[str]:
        """The streamer's pieces without empty ones and without the space before the first and after the last word."""
        waiting = ""
        begun = False
        for piece in self._streamer:
            if not begun and not self.first_word:
                self.first_word = perf_counter() - self._begun
            piece = waiting + piece
            waiting = ""
            if not begun:
                piece = piece.lstrip()
            kept = piece.rstrip()
            waiting = piece[len(kept) :]
            if kept:
                begun = True
                yield kept
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _work(self, model: Any, inputs: dict[str, Any], settings: GenerationConfig, seed: int | None) -> None:
        try:
            devices = [model.device] if model.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices), torch.inference_mode():
                if seed is not None:
                    torch.manual_seed(seed)
                made = model.generate(
                    **inputs,
                    generation_config=settings,
                    streamer=self._streamer,
                    stopping_criteria=StoppingCriteriaList([_StopWhenLeft(self._left)]),
                    return_dict_in_generate=True,
                    output_logits=True,
                )
            self.confidence = _mean_log_probability(made.logits, made.sequences[0, inputs["input_ids"].shape[1] :])
            self._done(made.sequences[0], made.past_key_values)
        except BaseException as error:  # raised again where the pieces are read
            self._fault = error
        finally:
            self._streamer.end()


def _mean_log_probability(logits: tuple[torch.Tensor, ...], tokens: torch.Tensor) -> float:
    """Of (1, vocabulary) logits a step before any penalty or temperature, and the (steps,) tokens that were taken."""
    chosen = [step[0].float().log_softmax(-1)[token] for step, token in zip(logits, tokens, strict=True)]
    return float(torch.stack(chosen).mean()) if chosen else 0.0
