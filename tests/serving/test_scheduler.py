"""The thread that owns the model: whose turn it is."""

import threading

import numpy as np
import pytest

from minigpt4_video.inference import VideoChat
from minigpt4_video.media import Clip
from minigpt4_video.serving.scheduler import Said
from minigpt4_video.serving.service import Sampling, Service


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(VideoChat.from_pretrained("tiny", device="cpu"))


def test_whoever_came_first_is_answered_before_the_videos_of_others_are_read(service: Service):
    side = service.chat.processor.image_size
    found = service.metrics.prefixes.labels("nowhere")
    read_at_first_word: list[float] = []
    done = [threading.Event() for _ in range(3)]
    with service.chat.lock:  # until all three are in the line
        for level, end in enumerate(done):
            frames = np.full((2, side, side, 3), 60 * level, np.uint8)
            video = {"type": "video", "frames": Clip(frames, np.array([0.0, 1.0]), 2.0)}
            messages = [{"role": "user", "content": [video, {"type": "text", "text": "Describe the video."}]}]

            def tell(said: Said | Exception, end: threading.Event = end) -> None:
                assert isinstance(said, Said), said
                if said.tokens == 1:
                    read_at_first_word.append(found._value.get())
                if said.finished:
                    end.set()

            service.submit(service.prepare("a", messages, Sampling(4)), tell)
    assert all(end.wait(60) for end in done)
    assert read_at_first_word == [1, 2, 3]
