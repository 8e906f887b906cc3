"""One delivery attempt and the server's answer; needs no driver.

    SmtpError
    ├── SmtpUnreachableError   no usable answer: try again later
    └── SmtpForbiddenError     must not be sent: the server's address is not public

A server's answer, whatever its code, is not an error: the caller decides what it means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meterline.schemas.errors import MeterlineError

TlsMode = Literal["starttls", "tls", "none"]


class SmtpError(MeterlineError):
    """Root of what the mail client raises; the message names no secret."""


class SmtpUnreachableError(SmtpError):
    """No usable answer: try again later."""


class SmtpForbiddenError(SmtpError):
    """Must not be sent; no retry helps."""


@dataclass(frozen=True, slots=True)
class MailRequest:
    """One attempt to hand one mail to one server."""

    host: str
    port: int
    tls: TlsMode
    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    """The whole mail, headers included."""
    username: str = ""
    password: str = field(default="", repr=False)
    allow_private_address: bool = False


@dataclass(frozen=True, slots=True)
class MailAnswer:
    """What the server said: 250, or the code of its refusal, and which command it was about."""

    code: int
    about: str = ""
    refused: tuple[str, ...] = ()
    """Recipients that were refused while others were not."""
