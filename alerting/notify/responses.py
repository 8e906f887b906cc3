"""A receiver's answer, or the lack of one, as the outcome of an attempt. Never raises."""

from __future__ import annotations

from concurrent.futures import Future

import structlog

from meterline.alerting.notify.core.retry_schedule import Attempt, outcome_of
from meterline.backends.mail.messages import MailAnswer, SmtpForbiddenError, SmtpUnreachableError
from meterline.backends.webhook.messages import (
    WebhookAnswer,
    WebhookForbiddenError,
    WebhookUnreachableError,
)
from meterline.schemas.delivery import DeliveryOutcome

_log = structlog.get_logger()
_SMTP_SUCCESS, _SMTP_PERMANENT = 2, 5


def done(attempt: Attempt) -> Future[Attempt]:
    """An attempt that is over."""
    future: Future[Attempt] = Future()
    future.set_result(attempt)
    return future


def attempted_by(answered: Future[WebhookAnswer]) -> Future[Attempt]:
    """The attempt that a request makes."""
    attempted: Future[Attempt] = Future()
    answered.add_done_callback(lambda future: attempted.set_result(_attempt_of(future)))
    return attempted


def _attempt_of(answered: Future[WebhookAnswer]) -> Attempt:
    if answered.cancelled():
        return Attempt(DeliveryOutcome.RETRY, error="stopped before an answer came")
    error = answered.exception()
    match error:
        case None:
            answer = answered.result()
            outcome = outcome_of(answer.status)
            said = ""
            if outcome is not DeliveryOutcome.DELIVERED:
                said = f"answered {answer.status} {answer.code}".strip()
            return Attempt(outcome, answer.status, said, answer.retry_after_seconds)
        case WebhookForbiddenError():
            return Attempt(DeliveryOutcome.FORBIDDEN, error=str(error))
        case WebhookUnreachableError():
            return Attempt(DeliveryOutcome.RETRY, error=str(error))
        case _:
            return defect(error)


def mailed_by(answered: Future[MailAnswer]) -> Future[Attempt]:
    """The attempt that a mail makes."""
    attempted: Future[Attempt] = Future()
    answered.add_done_callback(lambda future: attempted.set_result(_mail_attempt_of(future)))
    return attempted


def mail_outcome_of(code: int, about: str) -> DeliveryOutcome:
    """Classify an answer: 4xx is for later, 5xx for good (RFC 5321).

    A refused password is for later as well: an operator sets another, and nothing was lost.
    """
    if code // 100 == _SMTP_SUCCESS:
        return DeliveryOutcome.DELIVERED
    if code // 100 == _SMTP_PERMANENT and about != "the password":
        return DeliveryOutcome.REFUSED
    return DeliveryOutcome.RETRY


def _mail_attempt_of(answered: Future[MailAnswer]) -> Attempt:
    if answered.cancelled():
        return Attempt(DeliveryOutcome.RETRY, error="stopped before an answer came")
    error = answered.exception()
    match error:
        case None:
            answer = answered.result()
            outcome = mail_outcome_of(answer.code, answer.about)
            said = f"refused for {', '.join(answer.refused)}" if answer.refused else ""
            if outcome is not DeliveryOutcome.DELIVERED:
                said = f"answered {answer.code} to {answer.about}"
            return Attempt(outcome, answer.code, said)
        case SmtpForbiddenError():
            return Attempt(DeliveryOutcome.FORBIDDEN, error=str(error))
        case SmtpUnreachableError():
            return Attempt(DeliveryOutcome.RETRY, error=str(error))
        case _:
            return defect(error)


def defect(error: BaseException) -> Attempt:
    """A defect on one channel must not keep the worker from the others.

    Its text could quote a URL, so only its type is kept.
    """
    _log.error("delivery.defect", error=type(error).__name__)
    return Attempt(DeliveryOutcome.RETRY, error=f"unexpected {type(error).__name__}")
