"""Sending: looks up secrets, hands requests to the clients, and turns answers into attempts.

    NotReadyError       from the kind, or of a secret that is not set     -> RETRY
    *ForbiddenError     the address, the URL or the secret is unusable    -> FORBIDDEN
    *UnreachableError   no answer                                         -> RETRY
    anything else       a defect: logged by its type, for its text may quote a URL  -> RETRY
The futures never raise. Secrets are looked up for every attempt: an operator sets a missing one,
restarts the worker, and nothing was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

import structlog

from meterline.alerting.notify.channels.base import (
    BoundChannel,
    LogRequest,
    Message,
    NotReadyError,
    Request,
)
from meterline.alerting.notify.core.responses import http_attempt
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.backends.mail.client import SmtpClient
from meterline.backends.mail.messages import (
    MailRequest,
    SmtpForbiddenError,
    SmtpUnreachableError,
)
from meterline.backends.webhook.client import WebhookClient
from meterline.backends.webhook.messages import (
    WebhookAnswer,
    WebhookForbiddenError,
    WebhookRequest,
    WebhookUnreachableError,
)
from meterline.schemas.alert import Severity
from meterline.schemas.delivery import DeliveryOutcome

SecretLookup: TypeAlias = Callable[[str], str | None]
"""A secret by the name of its environment variable; None where it is not set."""

_Answer = TypeVar("_Answer")
_WARNED = frozenset({Severity.ERROR, Severity.CRITICAL})
_log = structlog.get_logger()


class NotificationSender:
    """Sends messages to receivers; owns the clients."""

    def __init__(self, webhooks: WebhookClient, mail: SmtpClient, secrets: SecretLookup) -> None:
        """Take over the clients.

        Args:
            webhooks: for requests over HTTP.
            mail: for mail.
            secrets: looks up what the policy names.
        """
        self._webhooks = webhooks
        self._mail = mail
        self._secrets = secrets

    def send(self, bound: BoundChannel, message: Message) -> Future[Attempt]:
        """Begin one attempt."""
        try:
            secrets = self._secrets_of(bound)
            request = bound.kind.request(bound.published, message, secrets)
        except NotReadyError as error:
            return done(Attempt(DeliveryOutcome.RETRY, error=str(error)))
        return self._begin(bound, request)

    def close(self) -> None:
        """Abandon what is under way and close the clients; idempotent."""
        self._webhooks.close()
        self._mail.close()

    def _begin(self, bound: BoundChannel, request: Request) -> Future[Attempt]:
        match request:
            case WebhookRequest():
                return _judged(self._webhooks.post(request), bound.kind.judge)
            case MailRequest():
                return _judged(self._mail.send(request), bound.kind.judge_mail)
            case LogRequest():
                _write(request)
                return done(Attempt(DeliveryOutcome.DELIVERED))

    def _secrets_of(self, bound: BoundChannel) -> dict[str, str]:
        found = {}
        for name in bound.kind.environment_fields:
            variable = getattr(bound.published, name)
            if not variable:
                continue
            secret = (self._secrets(variable) or "").strip()
            if not secret:
                message = f"{variable} is not set in the notify worker's environment"
                raise NotReadyError(message)
            found[name] = secret
        return found


def done(attempt: Attempt) -> Future[Attempt]:
    """An attempt that is over."""
    future: Future[Attempt] = Future()
    future.set_result(attempt)
    return future


def attempt_of(answered: Future[WebhookAnswer]) -> Future[Attempt]:
    """The attempt that a request makes, judged by its HTTP status."""
    return _judged(answered, http_attempt)


def _judged(answered: Future[_Answer], judge: Callable[[_Answer], Attempt]) -> Future[Attempt]:
    attempted: Future[Attempt] = Future()
    answered.add_done_callback(lambda future: attempted.set_result(_attempt(future, judge)))
    return attempted


def _attempt(answered: Future[_Answer], judge: Callable[[_Answer], Attempt]) -> Attempt:
    if answered.cancelled():
        return Attempt(DeliveryOutcome.RETRY, error="stopped before an answer came")
    error = answered.exception()
    match error:
        case None:
            return judge(answered.result())
        case WebhookForbiddenError() | SmtpForbiddenError():
            return Attempt(DeliveryOutcome.FORBIDDEN, error=str(error))
        case WebhookUnreachableError() | SmtpUnreachableError():
            return Attempt(DeliveryOutcome.RETRY, error=str(error))
        case _:
            # A defect on one channel must not keep the worker from the others.
            _log.error("delivery.defect", error=type(error).__name__)
            return Attempt(DeliveryOutcome.RETRY, error=f"unexpected {type(error).__name__}")


def _write(request: LogRequest) -> None:
    for alert in request.alerts:
        write = _log.warning if alert.severity in _WARNED else _log.info
        write(f"alert.{alert.status.value}", severity=alert.severity.value, says=alert.summary)
