"""This model under `lmms-eval --model minigpt4_video`: found there by an entry point of this package.

lmms-eval hands over messages for what is to be generated (its chat models) and, for likelihoods, a text and what is
shown (its simple models); both are served here. Its release 0.7.3 turns the likelihoods of any model into texts before
it scores multiple choice by them, so such tasks end in an error there; those that ask for a letter run.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from minigpt4_video.errors import UserError
from minigpt4_video.inference.batching import BuiltIn, Question, Request
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.likelihood import likelihoods
from minigpt4_video.messages import Message, Part

MODEL_ID = "minigpt4_video"


def manifest() -> ModelManifest:
    """What the entry point gives."""
    here = __name__
    return ModelManifest(MODEL_ID, chat_class_path=f"{here}.ChatModel", simple_class_path=f"{here}.SimpleModel")


class SimpleModel(lmms):  # type: ignore[misc]
    """For tasks that are scored by likelihood; generation is there too."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        frames: int | None = None,
        subtitles: str = "off",
        batch_size: int | str = 8,
        **unknown: Any,
    ) -> None:
        """Arguments are those of `--model_args`. Raises UserError for one that there is not."""
        super().__init__()
        if wrong := [name for name in unknown if name not in ("device_map", "max_batch_size", "task_dict")]:
            raise UserError(f"--model_args has {wrong[0]}; it takes pretrained, device, dtype, frames, subtitles")
        self.chat = VideoChat.from_pretrained(pretrained, device, dtype)
        self.frames = int(frames) if frames else None
        self.subtitles = subtitles
        self.rows = int(batch_size) if str(batch_size).isdecimal() else 8

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to all requests; those about one video are found behind one prefix."""
        asked = [self._asked(request) for request in requests]
        answers: dict[int, str] = {}
        together: dict[str, list[int]] = {}
        for number, (messages, _) in enumerate(asked):
            together.setdefault(_only_video(messages) or f"\0{number}", []).append(number)
        groups = [(video, numbers) for video, numbers in together.items() if not video.startswith("\0")]
        for video, numbers in together.items():
            if video.startswith("\0"):
                messages, options = asked[numbers[0]]
                answers[numbers[0]] = self.chat.answer(messages, **_limits(options)).text

        def engine_requests() -> Iterator[Request]:
            for video, numbers in groups:
                questions = [Question(_words(asked[n][0]), **_limits(asked[n][1])) for n in numbers]
                yield Request(video, questions, subtitles=self.subtitles, frames=self.frames)

        for (_, numbers), reply in zip(groups, BuiltIn(self.chat, self.rows).answer(engine_requests()), strict=True):
            if reply.error is not None:
                raise reply.error
            answers |= {number: answer.text for number, answer in zip(numbers, reply.answers, strict=True)}
        return [_until(answers[number], asked[number][1]) for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The loss of each continuation, which lmms-eval takes the least of: the negative of its log-probability. Those
        of one document are read together."""
        found: dict[int, tuple[float, bool]] = {}
        together: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            context, _, _, document, task, split = request.args
            together.setdefault((context, document, task, split), []).append(number)
        for (context, document, task, split), numbers in together.items():
            doc = self.task_dict[task][split][document]
            given = [requests[number].args[1] for number in numbers]
            continuations = [one(doc) if callable(one) else one for one in given]
            messages = self._messages(context, requests[numbers[0]].args[2](doc))
            told = likelihoods(self.chat, messages, [str(one).strip() for one in continuations])
            found |= {n: (-one.log_probability, one.is_greedy) for n, one in zip(numbers, told, strict=True)}
        return [found[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise UserError("tasks of several rounds are not served by this model in lmms-eval")

    def _asked(self, request: Any) -> tuple[list[Message], dict[str, Any]]:
        context, options, shown, document, task, split = request.args
        return self._messages(context, shown(self.task_dict[task][split][document])), dict(options)

    def _messages(self, text: str, shown: Sequence[Any] | None) -> list[Message]:
        content = [self._part(one) for one in shown or ()]
        return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]

    def _part(self, shown: Any) -> Part:
        """A path is a video; whatever else is handed over is a picture."""
        if not isinstance(shown, str):
            return {"type": "image", "image": shown}
        part: Part = {"type": "video", "path": shown, "subtitles": self.subtitles}
        return part | ({"num_frames": self.frames} if self.frames else {})


class ChatModel(SimpleModel):
    """For tasks that hand over messages."""

    is_simple = False

    def _asked(self, request: Any) -> tuple[list[Message], dict[str, Any]]:
        _, to_messages, options, document, task, split = request.args
        told: Callable[[Any], list[dict[str, Any]]] = to_messages
        messages = []
        for message in told(self.task_dict[task][split][document]):
            content = message["content"]
            if not isinstance(content, str):
                content = [self._content(part) for part in content]
            messages.append({"role": message["role"], "content": content})
        return messages, dict(options)

    def _content(self, part: dict[str, Any]) -> Part:
        if part["type"] == "text":
            return {"type": "text", "text": part["text"]}
        return self._part(part["url"])


def _only_video(messages: Sequence[Message]) -> str:
    """The path where a conversation is one question about one video, which stands first; else ""."""
    if len(messages) != 1 or isinstance(messages[0]["content"], str):
        return ""
    first, *rest = messages[0]["content"]
    if first["type"] != "video" or not rest or any(part["type"] != "text" for part in rest):
        return ""
    return str(first["path"])


def _words(messages: Sequence[Message]) -> str:
    return "".join(part["text"] for part in messages[0]["content"] if part["type"] == "text")


def _limits(options: dict[str, Any]) -> dict[str, Any]:
    """A task's generation options as `Video.ask` takes them."""
    drawn = float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0
    return {"max_new_tokens": int(options.get("max_new_tokens") or 64), "temperature": drawn}


def _until(text: str, options: dict[str, Any]) -> str:
    stops = options.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop.strip():
            text = text.split(stop)[0]
    return text.strip()
