"""Answers in OpenAI's form, whole and in chunks."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from minigpt4_video.inference.words import Utterance
from minigpt4_video.serving.scheduler import Said


class Choice:
    """One answer as the client gets it: what has been given of it, and why it ended."""

    def __init__(self, index: int, stops: Sequence[str], tokenizer: Any, logprobs: bool) -> None:
        self.index = index
        self.text = ""
        """What the client may have by now: it ends before a stop, and before what may become one."""
        self.finish: str | None = None
        self.tokens = 0
        self._stops = [stop for stop in stops if stop]
        self._tokens = _Tokens(tokenizer) if logprobs else None
        self._given = 0

    def take(self, said: Said, utterance: Utterance) -> str:
        """What is new in the text."""
        if self.finish:
            return ""
        text = said.text
        begins = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if begins:
            text = text[: min(begins)]
            self.finish = "stop"
        elif said.finished:
            self.finish = "stop" if utterance.ended else "length"
        else:
            text = text[: len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)]
        new = text[len(self.text) :]
        self.text = text
        self.tokens = said.tokens
        return new

    def logprobs(self, utterance: Utterance) -> dict[str, Any] | None:
        """Of the tokens that make up the text as far as it is given, those that were not told yet."""
        if self._tokens is None:
            return None
        told = []
        kept = self.tokens - int(self.finish is not None and utterance.ended and self.tokens == len(utterance.tokens))
        while self._given < kept:
            text, begins = self._tokens.at(utterance.tokens, self._given)
            if begins >= len(self.text) and not (self.finish and begins == len(self.text) == 0):
                break
            rivals = utterance.rivals[self._given] if utterance.rivals else []
            told.append(
                _logprob(text, utterance.log_probabilities[self._given])
                | {"top_logprobs": [_logprob(self._tokens.alone(token), value) for token, value in rivals]}
            )
            self._given += 1
        return {"content": told, "refusal": None}


class _Tokens:
    """The text of each token in its place: all of them together are the whole text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ends = [0]

    def at(self, tokens: Sequence[int], number: int) -> tuple[str, int]:
        """A token's text, and where it begins in the answer."""
        text = self._decoded(tokens[: number + 1])
        begins = self._ends[number]
        if number + 1 == len(self._ends):
            self._ends.append(max(begins, len(text)))
        return text[begins:], begins

    def alone(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).lstrip()


def _logprob(text: str, value: float) -> dict[str, Any]:
    whole = "\ufffd" not in text  # half a character has no text of its own
    return {"token": text, "logprob": max(value, -9999.0), "bytes": list(text.encode()) if whole else None}


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of a text may be the beginning of a stop."""
    longest = min(len(stop) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)


class Reply:
    """What all parts of a reply have in common."""

    def __init__(self, model: str, more: dict[str, Any]) -> None:
        """`more` is what the whole reply, or the first chunk, says beside OpenAI's fields."""
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._more = more

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        return self._head | {"object": "chat.completion", "choices": list(choices), "usage": usage} | self._more

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        told, self._more = self._more, {}
        more |= told
        return event(self._head | {"object": "chat.completion.chunk", "choices": list(choices)} | more)


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


END = b"data: [DONE]\n\n"


def whole_choice(choice: Choice, utterance: Utterance) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.text, "refusal": None}
    logprobs = choice.logprobs(utterance)
    return {"index": choice.index, "message": message, "finish_reason": choice.finish, "logprobs": logprobs}


def choice_delta(index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


def usage_of(prompt: int, cached: int, choices: Sequence[Choice]) -> dict[str, Any]:
    said = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
