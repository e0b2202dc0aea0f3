"""A server whose process notes what it opens and whom it calls, with small limits and a table of names in the place of
the network's: `python watched_server.py '{"folder": ..., "log": ..., "hosts": [...], "names": {...}, ...}'`.

Names are resolved by the table, each time to the next of its addresses; connections to the public ones lead to a server
of the tests.
"""

import json
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

given = json.loads(sys.argv[1])
log = open(given["log"], "a", buffering=1)  # noqa: SIM115  (for as long as the process lives)
names: dict[str, list[list[str]]] = given["names"]
asked = dict.fromkeys(names, 0)
resolve, connect = socket.getaddrinfo, socket.create_connection


def by_the_table(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name in names:
        turns = names[name]
        addresses = turns[min(asked[name], len(turns) - 1)]
        asked[name] += 1
        return [found for address in addresses for found in resolve(address, port, *arguments, **options)]
    if name is not None and name.rstrip(".") not in given["hosts"]:
        log.write(f"resolve {name}\n")
    return resolve(host, port, *arguments, **options)


def to_the_tests(address: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
    host, _ = address
    if host in given["public"]:
        return connect(("127.0.0.1", given["public_port"]), *arguments, **options)
    return connect(address, *arguments, **options)


def note(event: str, arguments: Any) -> None:
    if event == "socket.connect":
        log.write(f"connect {arguments[1]!r}\n")
    elif event == "open" and isinstance(arguments[0], str) and given["secret"] in arguments[0]:
        log.write(f"open {arguments[0]}\n")


socket.getaddrinfo = by_the_table
socket.create_connection = to_the_tests  # type: ignore[assignment]
sys.addaudithook(note)

from minigpt4_video.cli.output import quiet  # noqa: E402

quiet()

from minigpt4_video.inference import VideoChat  # noqa: E402
from minigpt4_video.media import Limits as DecodingLimits  # noqa: E402
from minigpt4_video.serving.limits import Limits  # noqa: E402
from minigpt4_video.serving.server import Serving, serve  # noqa: E402

limits = Limits(
    request_bytes=2 * 2**20,
    body_seconds=2.0,
    head_seconds=2.0,
    media_bytes=4 * 2**20,
    uploads_bytes=8 * 2**20,
    connections=40,
    media=4,
    seconds=120.0,
    decoding=DecodingLimits(seconds=30.0, duration=600.0, pixels=2000 * 2000),
)
with suppress(KeyboardInterrupt):
    serve(
        VideoChat.from_pretrained("tiny", device="cpu"),
        Serving(
            port=0,
            uploads=Path(given["folder"]) / "uploads",
            media_folder=Path(given["media"]),
            media_hosts=tuple(given["hosts"]),
            limits=limits,
        ),
        lambda port: print(f"serving at http://127.0.0.1:{port}/v1", file=sys.stderr, flush=True),
    )
