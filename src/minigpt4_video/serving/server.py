"""A process that serves: the model, the interface, the page, and uvicorn around them."""

import ipaddress
import socket
from collections.abc import Callable, Sequence

import uvicorn

from minigpt4_video.errors import UserError
from minigpt4_video.inference import VideoChat
from minigpt4_video.serving.api import create_app
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.service import Service


def serve(
    chat: VideoChat,
    *,
    host: str,
    port: int,
    keys: Sequence[str] = (),
    page: bool = False,
    listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve until interrupted; `listening` is told the port once clients can connect.

    Raises UserError where others could ask and no key is demanded of them, and where the port is taken.
    """
    check_exposure(host, keys)
    app = create_app(Service(chat), keys=Keys(keys))
    if page:
        raise UserError("there is no page yet")  # the page is mounted on the app here
    with _bound(host, port) as bound:
        listening(bound.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        server.run([bound])


def check_exposure(host: str, keys: Sequence[str]) -> None:
    """Raise UserError where others than this machine could ask and no key is demanded of them."""
    if not keys and not is_loopback(host):
        raise UserError(
            f"{host} can be reached from other machines; give --api-key, or leave --host out to serve this machine only"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family, backlog=512)
    except OSError as error:
        raise UserError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
