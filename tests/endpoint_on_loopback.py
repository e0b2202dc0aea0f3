"""An endpoint on loopback that answers as a test says, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Server:
    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: list[dict[str, Any]] = []
        """With the path and the headers under "path" and "headers"."""

    def texts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


def answer(text: str) -> Reply:
    return Reply(body=json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode())


@contextmanager
def serving(reply: Callable[[str, int], Reply | str]) -> Iterator[Server]:
    """`reply(text, number)` is what the endpoint says to the number-th request."""
    lock = threading.Lock()
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append({**asked, "path": self.path, "headers": dict(self.headers)})
            said = reply(asked["messages"][-1]["content"], number)
            made = answer(said) if isinstance(said, str) else said
            self.send_response(made.status)
            for name, value in made.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: object) -> None:
            pass

    held = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{held.server_port}/v1"
    thread = threading.Thread(target=held.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        held.shutdown()
        thread.join()
        held.server_close()
