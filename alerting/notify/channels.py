"""Channels: how a message leaves. A new kind is one more class here and one case in `registry`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import structlog
from typing_extensions import override

from alerting.notify.alertmanager import alertmanager_body, alertmanager_url
from alerting.notify.answers import attempted_by, done, mailed_by
from alerting.notify.decide import LOG_CHANNEL
from alerting.notify.mail import mail_content
from alerting.notify.messages import body_of
from alerting.notify.outbox import Job
from alerting.notify.pace import EMAIL_PACE, PAGERDUTY_PACE, SLACK_PACE, UNLIMITED, PaceLimit
from alerting.notify.pagerduty import pagerduty_body
from alerting.notify.schedule import Attempt
from alerting.notify.slack import slack_body
from backends.mail import MailDoor, MailRequest
from backends.webhook import WebhookDoor, WebhookForbidden, WebhookRequest, signing_secret
from schemas.alert import Alert, Severity
from schemas.delivery import DeliveryOutcome
from schemas.policy import NotifyPolicy
from schemas.policy_notify import (
    AlertmanagerChannel,
    ChannelBase,
    EmailChannel,
    PagerDutyChannel,
    SlackChannel,
    WebhookChannel,
)

Secrets = Callable[[str], str | None]
"""Answers a secret by the name of its environment variable."""

_log = structlog.get_logger()
_FINGERPRINT_LENGTH = 16


class Channel(Protocol):
    """One way out."""

    fingerprint: str
    """Changes when the channel's policy does."""
    pace: PaceLimit
    groups: bool
    """Whether people read it, so that alerts of one group come in one message."""
    fallback: str
    """Id of the channel that hears what this one cannot be told; empty for none."""

    def send(self, job: Job, firing: Sequence[Alert], now_ms: int, /) -> Future[Attempt]:
        """Begin one attempt; the future never raises.

        Args:
            job: the message.
            firing: the alerts of the same incident that fire now.
            now_ms: the present.
        """


class MissingSecret(Exception):  # noqa: N818 - named for what the caller can do
    """A secret that policy names is not set, or unusable: an operator can set it."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What channels send through."""

    webhooks: WebhookDoor
    mail: MailDoor
    secrets: Secrets

    def secret(self, name: str) -> str:
        """A secret that must be there; MissingSecret says which is not."""
        found = (self.secrets(name) or "").strip()
        if not found:
            message = f"{name} is not set in the notify worker's environment"
            raise MissingSecret(message)
        return found


class LogChannel:
    """One clear line per alert in the worker's log: always there, never fails."""

    fingerprint = LOG_CHANNEL
    pace = UNLIMITED
    groups = False
    fallback = ""

    def send(self, job: Job, _firing: Sequence[Alert], _now_ms: int, /) -> Future[Attempt]:
        """Write the line."""
        for alert in job.alerts:
            loud = alert.severity in {Severity.ERROR, Severity.CRITICAL}
            write = _log.warning if loud else _log.info
            write(f"alert.{alert.status.value}", severity=alert.severity.value, says=alert.summary)
        return done(Attempt(DeliveryOutcome.DELIVERED))


class _HttpChannel(ABC):
    """What the channels over HTTP share: they differ in their request."""

    pace = UNLIMITED
    groups = False

    def __init__(self, channel: ChannelBase, doors: Doors) -> None:
        self._id = channel.id
        self._doors = doors
        self.fallback = channel.fallback
        self.fingerprint = fingerprint_of(channel)

    @override
    def __repr__(self) -> str:
        """Without the URL, which may carry a token."""
        return f"{type(self).__name__}({self._id!r})"

    def send(self, job: Job, firing: Sequence[Alert], now_ms: int, /) -> Future[Attempt]:
        """Post one request.

        A missing or malformed secret is retried, not final: an operator sets it, restarts the
        worker, and nothing was lost.
        """
        try:
            request = self._request(job, firing, now_ms)
        except MissingSecret as error:
            return done(Attempt(DeliveryOutcome.RETRY, error=str(error)))
        return attempted_by(self._doors.webhooks.post(request))

    @abstractmethod
    def _request(self, job: Job, firing: Sequence[Alert], now_ms: int) -> WebhookRequest: ...


class SignedWebhookChannel(_HttpChannel):
    """A signed webhook (Standard Webhooks)."""

    def __init__(self, channel: WebhookChannel, doors: Doors) -> None:
        """Take the channel's policy; secrets are looked up at every attempt."""
        super().__init__(channel, doors)
        self._channel = channel

    @override
    def _request(self, job: Job, firing: Sequence[Alert], now_ms: int) -> WebhookRequest:
        channel = self._channel
        secret = ""
        if channel.secret_env:
            try:
                secret = signing_secret(self._doors.secrets(channel.secret_env) or "")
            except WebhookForbidden as error:
                message = f"{channel.secret_env}: {error}"
                raise MissingSecret(message) from error
        return WebhookRequest(
            url=channel.url or self._doors.secret(channel.url_env),
            message_id=job.message_id,
            body=body_of(job.alert),
            at_ms=now_ms,
            secret=secret,
            allow_private_address=channel.allow_private_address,
        )


class Slack(_HttpChannel):
    """A Slack incoming webhook."""

    pace = SLACK_PACE
    groups = True

    def __init__(self, channel: SlackChannel, doors: Doors) -> None:
        """Take the channel's policy; the URL is looked up at every attempt."""
        super().__init__(channel, doors)
        self._channel = channel

    @override
    def _request(self, job: Job, firing: Sequence[Alert], now_ms: int) -> WebhookRequest:
        channel = self._channel
        return WebhookRequest(
            url=self._doors.secret(channel.url_env),
            message_id=job.message_id,
            body=slack_body(job.alerts, channel.id, channel.title, channel.text),
            at_ms=now_ms,
            allow_private_address=channel.allow_private_address,
        )


class PagerDuty(_HttpChannel):
    """PagerDuty's Events API v2."""

    pace = PAGERDUTY_PACE

    def __init__(self, channel: PagerDutyChannel, doors: Doors) -> None:
        """Take the channel's policy; the integration key is looked up at every attempt."""
        super().__init__(channel, doors)
        self._channel = channel

    @override
    def _request(self, job: Job, firing: Sequence[Alert], now_ms: int) -> WebhookRequest:
        channel = self._channel
        key = self._doors.secret(channel.routing_key_env)
        return WebhookRequest(
            url=channel.url,
            message_id=job.message_id,
            body=pagerduty_body(job.alert, firing, channel, key),
            at_ms=now_ms,
            allow_private_address=channel.allow_private_address,
        )


class Alertmanager(_HttpChannel):
    """An Alertmanager's API."""

    def __init__(self, channel: AlertmanagerChannel, doors: Doors) -> None:
        """Take the channel's policy."""
        super().__init__(channel, doors)
        self._channel = channel

    @override
    def _request(self, job: Job, firing: Sequence[Alert], now_ms: int) -> WebhookRequest:
        channel = self._channel
        return WebhookRequest(
            url=alertmanager_url(channel.url or self._doors.secret(channel.url_env)),
            message_id=job.message_id,
            body=alertmanager_body(job.alerts),
            at_ms=now_ms,
            bearer=self._doors.secret(channel.token_env) if channel.token_env else "",
            allow_private_address=channel.allow_private_address,
        )


class Email:
    """Mail through an SMTP server."""

    pace = EMAIL_PACE
    groups = True

    def __init__(self, channel: EmailChannel, doors: Doors) -> None:
        """Take the channel's policy; the password is looked up at every attempt."""
        self._channel = channel
        self._doors = doors
        self.fallback = channel.fallback
        self.fingerprint = fingerprint_of(channel)

    def send(self, job: Job, _firing: Sequence[Alert], now_ms: int, /) -> Future[Attempt]:
        """Hand one mail to the server."""
        channel = self._channel
        try:
            password = self._doors.secret(channel.password_env) if channel.username else ""
        except MissingSecret as error:
            return done(Attempt(DeliveryOutcome.RETRY, error=str(error)))
        request = MailRequest(
            host=channel.host,
            port=channel.port,
            tls=channel.tls,
            sender=channel.sender,
            recipients=channel.recipients,
            content=mail_content(job, channel, now_ms),
            username=channel.username,
            password=password,
            allow_private_address=channel.allow_private_address,
        )
        return mailed_by(self._doors.mail.send(request))


def registry(policy: NotifyPolicy, doors: Doors) -> dict[str, Channel]:
    """Every channel by its id."""
    channels = {channel.id: _channel(channel, doors) for channel in policy.channels}
    channels[LOG_CHANNEL] = LogChannel()
    return channels


def fingerprint_of(channel: ChannelBase) -> str:
    """Changes when anything in the channel's policy does."""
    return hashlib.sha256(channel.model_dump_json().encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def _channel(
    channel: WebhookChannel | SlackChannel | PagerDutyChannel | EmailChannel | AlertmanagerChannel,
    doors: Doors,
) -> Channel:
    match channel:
        case WebhookChannel():
            return SignedWebhookChannel(channel, doors)
        case SlackChannel():
            return Slack(channel, doors)
        case PagerDutyChannel():
            return PagerDuty(channel, doors)
        case AlertmanagerChannel():
            return Alertmanager(channel, doors)
        case EmailChannel():
            return Email(channel, doors)
