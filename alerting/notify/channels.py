"""Channels: how a message leaves. A new kind is one more class here and one case in `registry`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import structlog
from typing_extensions import override

from alerting.notify.messages import body_of
from alerting.notify.outbox import Job
from alerting.notify.routing import LOG_CHANNEL
from alerting.notify.schedule import Attempt, outcome_of
from backends.webhook import (
    WebhookAnswer,
    WebhookDoor,
    WebhookForbidden,
    WebhookRequest,
    WebhookUnreachable,
    signing_secret,
)
from schemas.alert import Severity
from schemas.delivery import DeliveryOutcome
from schemas.policy import NotifyPolicy, WebhookChannel

Secrets = Callable[[str], str | None]
"""Answers a secret by the name of its environment variable."""

_log = structlog.get_logger()
_FINGERPRINT_LENGTH = 16


class Channel(Protocol):
    """One way out."""

    fingerprint: str
    """Changes when the channel's policy does."""

    def send(self, job: Job, now_ms: int, /) -> Future[Attempt]:
        """Begin one attempt; the future never raises."""


class LogChannel:
    """One clear line per alert in the worker's log: always there, never fails."""

    fingerprint = LOG_CHANNEL

    def send(self, job: Job, _now_ms: int, /) -> Future[Attempt]:
        """Write the line."""
        alert = job.alert
        loud = alert.severity in {Severity.ERROR, Severity.CRITICAL}
        write = _log.warning if loud else _log.info
        write(f"alert.{alert.status.value}", severity=alert.severity.value, says=alert.summary)
        return _answered(Attempt(DeliveryOutcome.DELIVERED))


class SignedWebhookChannel:
    """A signed webhook (Standard Webhooks)."""

    def __init__(self, channel: WebhookChannel, door: WebhookDoor, secrets: Secrets) -> None:
        """Take the channel's policy; the secret is looked up at every attempt."""
        self._channel = channel
        self._door = door
        self._secrets = secrets
        policy = channel.model_dump_json().encode()
        self.fingerprint = hashlib.sha256(policy).hexdigest()[:_FINGERPRINT_LENGTH]

    @override
    def __repr__(self) -> str:
        """Without the URL, which may carry a token."""
        return f"SignedWebhookChannel({self._channel.id!r})"

    def send(self, job: Job, now_ms: int, /) -> Future[Attempt]:
        """Post the alert.

        A missing or malformed secret is retried, not final: an operator sets it, restarts the
        worker, and nothing was lost.
        """
        secret = ""
        name = self._channel.secret_env
        if name:
            try:
                secret = signing_secret(self._secrets(name) or "")
            except WebhookForbidden as error:
                return _answered(Attempt(DeliveryOutcome.RETRY, error=f"{name}: {error}"))
        request = WebhookRequest(
            url=self._channel.url,
            message_id=job.message_id,
            body=body_of(job.alert),
            at_ms=now_ms,
            secret=secret,
            allow_private_address=self._channel.allow_private_address,
        )
        attempted: Future[Attempt] = Future()
        self._door.post(request).add_done_callback(
            lambda answered: attempted.set_result(_attempt_of(answered))
        )
        return attempted


def registry(policy: NotifyPolicy, door: WebhookDoor, secrets: Secrets) -> dict[str, Channel]:
    """Every channel by its id."""
    channels: dict[str, Channel] = {
        channel.id: SignedWebhookChannel(channel, door, secrets) for channel in policy.channels
    }
    channels[LOG_CHANNEL] = LogChannel()
    return channels


def _attempt_of(answered: Future[WebhookAnswer]) -> Attempt:
    if answered.cancelled():
        return Attempt(DeliveryOutcome.RETRY, error="stopped before an answer came")
    error = answered.exception()
    match error:
        case None:
            answer = answered.result()
            outcome = outcome_of(answer.status)
            said = "" if outcome is DeliveryOutcome.DELIVERED else f"answered {answer.status}"
            return Attempt(outcome, answer.status, said, answer.retry_after_seconds)
        case WebhookForbidden():
            return Attempt(DeliveryOutcome.FORBIDDEN, error=str(error))
        case WebhookUnreachable():
            return Attempt(DeliveryOutcome.RETRY, error=str(error))
        case _:
            # A defect on one channel must not keep the worker from the others. Its text could
            # quote the URL, so only its type is kept.
            _log.error("delivery.defect", error=type(error).__name__)
            return Attempt(DeliveryOutcome.RETRY, error=f"unexpected {type(error).__name__}")


def _answered(attempt: Attempt) -> Future[Attempt]:
    future: Future[Attempt] = Future()
    future.set_result(attempt)
    return future
