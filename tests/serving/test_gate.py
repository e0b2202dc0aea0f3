"""What passes the gate before anything else looks at a request."""

import asyncio
from typing import Any

from minigpt4_video.serving.gate import Gate
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.metrics import Metrics

MINE, THEIRS = "a-key-of-these-tests", "another-key-of-theirs"


def received(senders: list[str], *keys: str) -> list[int]:
    """The statuses of uploads that come one after the other and all last, by the keys of their senders."""
    statuses: dict[int, int] = {}

    async def upload(number: int, key: str, gate: Gate, all_are_here: asyncio.Event) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            statuses.setdefault(number, message.get("status"))

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
        await gate({"type": "http", "method": "POST", "path": "/v1/files", "headers": headers}, receive, send)

    async def all_at_once() -> None:
        all_are_here = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await all_are_here.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        gate = Gate(app, keys=Keys(keys), limits=Limits(uploads_at_once=4), metrics=Metrics())
        async with asyncio.TaskGroup() as uploads:
            for number, key in enumerate(senders):
                uploads.create_task(upload(number, key, gate, all_are_here))
            await asyncio.sleep(0)
            all_are_here.set()

    asyncio.run(all_at_once())
    return [statuses[number] for number in range(len(senders))]


def test_no_key_takes_all_places_for_uploads_from_another():
    assert received([MINE, MINE, MINE, THEIRS, THEIRS], MINE, THEIRS) == [200, 200, 429, 200, 200]


def test_the_only_one_there_is_may_take_all_places():
    assert received([MINE] * 5, MINE) == [200] * 4 + [429]
    assert received([MINE] * 5) == [200] * 4 + [429]
