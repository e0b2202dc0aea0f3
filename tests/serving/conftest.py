"""A server that all tests share which change nothing in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from served import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that change nothing in it."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return server.client()


Alone = Callable[..., str]


@pytest.fixture(scope="session")
def alone() -> Alone:
    """What the model says in this process, without a server: a question about a file, with the options of `ask`."""
    from minigpt4_video.inference import VideoChat

    chat = VideoChat.from_pretrained("tiny", device="cpu")

    def ask(path: Path, text: str, subtitles: str | Path = "off", frames: int | None = None, **options: Any) -> str:
        return chat.open(path, subtitles=subtitles, speech="off", frames=frames).ask(text, **options).text

    return ask
