"""A real SMTP server (aiosmtpd) with STARTTLS and AUTH, and a certificate authority of its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from meterline.embedded.processes import free_port

USERNAME, PASSWORD = "meterline", "mail-pa55word"


@dataclass
class Mailbox:
    """What came, and what the server answers to it."""

    port: int = 0
    ca_file: str = ""
    answer: str = "250 taken"
    recipient_answers: dict[str, str] = field(default_factory=dict)
    mails: list[Message] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Take a recipient, or not."""
        answer = self.recipient_answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Take a mail, or not."""
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content))
            self.encrypted.append(session.ssl is not None)
        return self.answer


def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's certificate for this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@contextmanager
def running_mail_server(folder: Path, *, starttls: bool = True) -> Iterator[Mailbox]:
    """A mail server on a free port of this machine."""
    authority = trustme.CA()
    mailbox = Mailbox(ca_file=str(folder / "ca.pem"))
    authority.cert_pem.write_to_path(mailbox.ca_file)

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login, data.password) == (USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=server_tls(authority) if starttls else None,
        require_starttls=starttls,
        authenticator=authenticate,
        auth_require_tls=True,
    )
    controller.start()
    mailbox.port = controller.port
    try:
        yield mailbox
    finally:
        controller.stop()
