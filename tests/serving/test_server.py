"""The server as a process of its own, asked by OpenAI's own client."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import openai
import pytest


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "minigpt4_video", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"MINIGPT4_VIDEO_STORE": "off"}
    )
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if found := re.search(r"http://\S+/v1", line):
            yield found[0]
            break
    else:
        pytest.fail(told)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_openai_s_client_gets_an_answer(address: str):
    client = openai.OpenAI(base_url=address, api_key="none")

    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello?"}])

    assert answer.choices[0].message.content
    assert client.models.list().data[0].id == "tiny"
