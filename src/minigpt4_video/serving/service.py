"""The model behind the server: what the interface and the page ask for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from minigpt4_video.inference import VideoChat
from minigpt4_video.inference.footage import Footage
from minigpt4_video.inference.video import Video
from minigpt4_video.messages import Message
from minigpt4_video.serving.limits import Limits


class Service:
    """Opens videos and answers, for many at once."""

    def __init__(self, chat: VideoChat, limits: Limits | None = None) -> None:
        self.chat = chat
        self.limits = limits or Limits()
        self._lock = Lock()

    def watch(self, path: Path, *, subtitles: str | Path = "auto", frames: int | None = None) -> Footage:
        """What the model would see of a video: frames, their times, a text for each."""
        return self.chat.open(path, subtitles=subtitles, speech="off", frames=frames).footage

    def stream(self, footage: Footage, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        """The pieces of an answer to a conversation about a video; options are those of `Video.ask`."""
        yield from Video(self.chat, footage).continue_(messages, **options)
