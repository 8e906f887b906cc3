"""The SMTP client: what a mail server cannot make it do."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from meterline.backends.mail.client import SmtpClient
from meterline.backends.mail.messages import MailRequest
from tests.mail_server import server_tls

ANSWERS = {"EHLO": "250 mute", "MAIL": "250 OK", "RCPT": "250 OK", "DATA": "354 go on"}


class MuteServer:
    """An SMTP server over TLS that takes a mail, and then neither reads nor answers any more."""

    def __init__(self, folder: Path) -> None:
        """Listen on a free port."""
        authority = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self._tls = server_tls(authority)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End the session that is open."""
        self._stop.set()
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        plain, _ = self._socket.accept()
        with plain, self._tls.wrap_socket(plain, server_side=True) as session:
            self._talk(session)
            self._stop.wait(10)

    def _talk(self, session: ssl.SSLSocket) -> None:
        session.sendall(b"220 mute\r\n")
        with session.makefile("rb") as lines:
            for line in lines:
                verb = line[:4].decode().upper()
                session.sendall(ANSWERS[verb].encode() + b"\r\n")
                if verb == "DATA":
                    break
            while lines.readline() != b".\r\n":
                pass
        session.sendall(b"250 taken\r\n")


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[MuteServer]:
    """A server of its own for each test."""
    server = MuteServer(tmp_path)
    yield server
    server.close()


def test_a_server_that_does_not_end_tls_keeps_no_socket(mute: MuteServer) -> None:
    """A client that is closed after a mail leaves no open socket, whatever the server does."""
    client = SmtpClient(5, mute.ca_file)
    request = MailRequest(
        host="127.0.0.1",
        port=mute.port,
        tls="tls",
        sender="meterline@example.test",
        recipients=("oncall@example.test",),
        content=b"Subject: full\r\n\r\nspent\r\n",
        allow_private_address=True,
    )
    assert client.send(request).result(10).code == 250
    client.close()
    # An unclosed socket is a ResourceWarning when it is collected, and warnings are errors here.
    gc.collect()
