"""Answers from a model: one video, many questions."""

from minigpt4_video.inference.answer import Answer, Evidence, Timings
from minigpt4_video.inference.chat import Conversation, Stream, Video, VideoChat

__all__ = ["Answer", "Conversation", "Evidence", "Stream", "Timings", "Video", "VideoChat"]
