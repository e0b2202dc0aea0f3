"""A server as a process of its own, with the embedded model."""

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

CLIP = Path(__file__).parents[1] / "examples" / "clip.mp4"
KEY = "a-key-of-these-tests"


@dataclass
class Server:
    """A running server."""

    address: str
    """With "/v1" at its end."""
    process: "subprocess.Popen[str]"
    folder: Path
    """Where its store and its uploads are."""

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1].split("/")[0])

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.address, api_key=key, **{"max_retries": 0, "timeout": 120} | options)


@contextmanager
def serving(folder: Path, *options: str, command: list[str] | None = None) -> Iterator[Server]:
    """A server on a free port of this machine; it is stopped, if it still runs, and must not have told of a fault."""
    command = command or [sys.executable, "-m", "minigpt4_video", "serve", "--port", "0", *options]
    places = {"MINIGPT4_VIDEO_STORE": str(folder / "store"), "XDG_DATA_HOME": str(folder / "data")}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | places,
    )
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if found := re.search(r"http://\S+/v1", line):
            break
    else:
        pytest.fail(f"the server did not start: {told}")
    try:
        yield Server(found[0], process, folder)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        process.wait(60)
        assert "Traceback" not in told, told


def data_url(content: bytes | Path, kind: str = "video/mp4") -> str:
    held = content if isinstance(content, bytes) else content.read_bytes()
    return f"data:{kind};base64,{base64.b64encode(held).decode()}"


def video(url: str, **options: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url, **options}}


def asked(*parts: dict[str, Any] | str) -> list[dict[str, Any]]:
    """One message by the user, of media and words."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]
