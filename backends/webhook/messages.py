"""One delivery attempt and its answer; needs no driver.

    WebhookError
    ├── WebhookUnreachableError   no answer: try again later
    └── WebhookForbiddenError     must not be sent: the address is not allowed, or the URL or secret
                                  is unusable

An answer, whatever its status, is not an error: the caller decides what it means.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from meterline.schemas.errors import MeterlineError

_SECRET_PREFIX = "whsec_"  # noqa: S105 - the standard's prefix, not a secret
_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 24, 64  # Standard Webhooks 1.0.0


class WebhookError(MeterlineError):
    """Root of what the webhook client raises; the message names no secret and no URL path."""


class WebhookUnreachableError(WebhookError):
    """No answer: try again later."""


class WebhookForbiddenError(WebhookError):
    """Must not be sent; no retry helps."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One attempt to deliver one message."""

    url: str = field(repr=False)
    """May carry a token, so it is never shown."""
    message_id: str
    """The webhook-id: the same in every attempt."""
    body: bytes
    at_ms: int
    """The time of this attempt: signed, so that a receiver can refuse old ones."""
    secret: str = field(default="", repr=False)
    """whsec_ and base64 of 24 to 64 bytes; empty sends without a signature."""
    allow_private_address: bool = False
    bearer: str = field(default="", repr=False)
    """A token for the Authorization header; empty for none."""
    idempotency_key: str = ""
    """For receivers that book what they get; empty for none."""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What the receiver said."""

    status: int
    retry_after_seconds: int | None = None
    code: str = ""
    """An error code such as Slack's `channel_is_archived`: the body, where it is one plain word.
    Anything else of a body stays out of messages, because it may quote what was sent."""
    body_start: str = field(default="", repr=False)
    """The beginning of the body, for receivers that answer failures with 200; never shown."""


def signing_secret(text: str) -> str:
    """Check a secret.

    Raises:
        WebhookForbiddenError: not whsec_ and base64 of 24 to 64 bytes.
    """
    try:
        size = len(base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not text.startswith(_SECRET_PREFIX) or not _SECRET_BYTES_MIN <= size <= _SECRET_BYTES_MAX:
        message = (
            f"the signing secret must be {_SECRET_PREFIX} and base64 of {_SECRET_BYTES_MIN} to "
            f"{_SECRET_BYTES_MAX} bytes"
        )
        raise WebhookForbiddenError(message)
    return text
