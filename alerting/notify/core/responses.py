"""A receiver's answer as the outcome of an attempt. Pure."""

from __future__ import annotations

from meterline.alerting.notify.core.retry_schedule import Attempt, outcome_of
from meterline.backends.mail.messages import MailAnswer
from meterline.backends.webhook.messages import WebhookAnswer
from meterline.schemas.delivery import DeliveryOutcome

_SMTP_SUCCESS, _SMTP_PERMANENT = 2, 5


def http_attempt(answer: WebhookAnswer) -> Attempt:
    """The attempt that an HTTP status makes; the error names the status and the receiver's code."""
    outcome = outcome_of(answer.status)
    error = ""
    if outcome is not DeliveryOutcome.DELIVERED:
        error = f"answered {answer.status} {answer.code}".strip()
    return Attempt(outcome, answer.status, error, answer.retry_after_seconds)


def mail_attempt(answer: MailAnswer) -> Attempt:
    """The attempt that an SMTP code makes; the error names what was refused."""
    outcome = mail_outcome_of(answer.code, answer.about)
    error = f"refused for {', '.join(answer.refused)}" if answer.refused else ""
    if outcome is not DeliveryOutcome.DELIVERED:
        error = f"answered {answer.code} to {answer.about}"
    return Attempt(outcome, answer.code, error)


def mail_outcome_of(code: int, about: str) -> DeliveryOutcome:
    """Classify an answer: 4xx is retried, 5xx is final (RFC 5321).

    A refused password is retried as well: an operator sets another, and nothing was lost.
    """
    if code // 100 == _SMTP_SUCCESS:
        return DeliveryOutcome.DELIVERED
    if code // 100 == _SMTP_PERMANENT and about != "the password":
        return DeliveryOutcome.REFUSED
    return DeliveryOutcome.RETRY
