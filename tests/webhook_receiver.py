"""A webhook receiver over real HTTP: answers by a script, verifies as a customer would."""

from __future__ import annotations

import ssl
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook
from typing_extensions import override

SECRET = "whsec_" + "bWV0ZXJsaW5lLXRlc3Qtc2VjcmV0LTAxMjM0NTY3"


@dataclass
class Answer:
    """What the receiver answers once."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    """Answer only when the server stops."""


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self) -> Any:
        """The document, if its signature holds; raises otherwise."""
        return Webhook(SECRET).verify(self.body, self.headers)


class Receiver:
    """What came, and what is answered, per path."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.script: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.base_url = ""
        self.released = threading.Event()
        self.judges: dict[str, Callable[[Received], Answer | None]] = {}
        """What a path answers to a request that it finds fault with."""

    def url(self, path: str, *answers: Answer) -> str:
        """The URL of a path, which answers as scripted and then 204."""
        self.script[path].extend(answers)
        return self.base_url + path

    def of(self, path: str) -> list[Received]:
        """The requests to one path."""
        return [request for request in self.requests if request.path == path]


class _QuietServer(ThreadingHTTPServer):
    """A sender that dies with its connection open is no fault of the receiver."""

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running_receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port of this machine; with `tls` over https."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            receiver.requests.append(Received(self.path, headers, body))
            script = receiver.script[self.path]
            answer = script.popleft() if script else Answer()
            judge = receiver.judges.get(self.path)
            if judge is not None and answer.status < 300 and not answer.hang:
                answer = judge(receiver.requests[-1]) or answer
            if answer.hang:
                receiver.released.wait()
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, text in answer.headers.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self._write(answer.body)

        def _write(self, body: bytes) -> None:
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the sender had read enough

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = _QuietServer(("127.0.0.1", 0), Handler)
    receiver.base_url = f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.base_url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
