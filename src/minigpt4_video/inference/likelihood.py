"""How likely a model finds given answers, instead of what it would say itself."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from minigpt4_video.inference.chat import VideoChat, with_subtitles
from minigpt4_video.messages import Message, check_messages
from minigpt4_video.model.branches import Branches


class Likelihood(NamedTuple):
    log_probability: float
    """Of all tokens of the answer together."""
    tokens: int
    is_greedy: bool
    """Whether every token was the likeliest, so that the model begins its own answer like this."""


def likelihoods(chat: VideoChat, messages: Sequence[Message], answers: Sequence[str]) -> list[Likelihood]:
    """Of each answer to a conversation. The conversation is read once; the answers are branches behind it.

    Answers are taken without an end token. Raises UserError and PlanError.
    """
    check_messages(messages)
    tokenizer = chat.processor.tokenizer
    wanted = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in answers]
    prepared = chat.processor.prepare(with_subtitles(messages))
    ids = chat.processor.encode(prepared.text)
    with chat.lock, torch.inference_mode():
        frames = chat.encode(prepared.frames) if prepared.frames else None
        board = Branches(chat.model, 1, len(ids) + sum(len(one) + 1 for one in wanted))
        board.begin(0, ids[:-1], frames)
        branches = [board.branch(0, len(one) + 1) for one in wanted]
        sums, greedy = [0.0] * len(wanted), [True] * len(wanted)
        for at in range(max(map(len, wanted), default=0)):
            left = [number for number, one in enumerate(wanted) if at < len(one)]
            read = [(branches[number], [ids[-1] if at == 0 else wanted[number][at - 1]]) for number in left]
            certainty = board.extend(read).float().log_softmax(-1)
            for number, row in zip(left, certainty, strict=True):
                sums[number] += float(row[wanted[number][at]])
                greedy[number] = greedy[number] and int(row.argmax()) == wanted[number][at]
    return [Likelihood(total, len(one), same) for total, one, same in zip(sums, wanted, greedy, strict=True)]
