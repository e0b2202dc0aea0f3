"""Answers from a model: one video, many questions. Names load when first asked for: most need torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt4_video.inference.answer import Answer, Evidence, Timings
    from minigpt4_video.inference.chat import VideoChat
    from minigpt4_video.inference.video import Conversation, Video
    from minigpt4_video.inference.words import Stream

__all__ = ["Answer", "Conversation", "Evidence", "Stream", "Timings", "Video", "VideoChat"]

_HOMES = {
    "Answer": "answer",
    "Conversation": "video",
    "Evidence": "answer",
    "Stream": "words",
    "Timings": "answer",
    "Video": "video",
    "VideoChat": "chat",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
