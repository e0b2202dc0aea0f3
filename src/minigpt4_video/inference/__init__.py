"""Answers from a model: one video, many questions."""

from minigpt4_video.inference.answer import Answer, Evidence, Timings
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.video import Conversation, Video
from minigpt4_video.inference.words import Stream

__all__ = ["Answer", "Conversation", "Evidence", "Stream", "Timings", "Video", "VideoChat"]
