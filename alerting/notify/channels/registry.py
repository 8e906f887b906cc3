"""Channels: how a message leaves. A new kind is one more class here and one case in `registry`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import structlog
from typing_extensions import override

from meterline.alerting.notify.channels.alertmanager import (
    AlertmanagerKind,
    alertmanager_body,
    alertmanager_url,
)
from meterline.alerting.notify.channels.email import EmailKind, mail_content
from meterline.alerting.notify.channels.pagerduty import PagerDutyKind, pagerduty_body
from meterline.alerting.notify.channels.slack import SlackKind, slack_body
from meterline.alerting.notify.channels.webhook import WebhookKind
from meterline.alerting.notify.core.decide import LOG_CHANNEL
from meterline.alerting.notify.core.messages import body_of
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.rate_limit import (
    EMAIL_RATE,
    PAGERDUTY_RATE,
    SLACK_RATE,
    UNLIMITED,
    RateLimit,
)
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.alerting.notify.responses import attempted_by, done, mailed_by
from meterline.backends.mail.client import SmtpClient
from meterline.backends.mail.messages import MailRequest
from meterline.backends.webhook.client import WebhookClient
from meterline.backends.webhook.messages import (
    WebhookForbiddenError,
    WebhookRequest,
    signing_secret,
)
from meterline.schemas.alert import Alert, Severity
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.errors import MeterlineError
from meterline.schemas.policy import NotifyPolicy
from meterline.schemas.policy_kinds import ChannelKind
from meterline.schemas.policy_notify import (
    AlertmanagerChannel,
    ChannelBase,
    EmailChannel,
    PagerDutyChannel,
    SlackChannel,
    WebhookChannel,
)

_KINDS: tuple[ChannelKind[Any, Any], ...] = (
    WebhookKind(),
    SlackKind(),
    PagerDutyKind(),
    EmailKind(),
    AlertmanagerKind(),
)
CHANNEL_KINDS: Mapping[str, ChannelKind[Any, Any]] = MappingProxyType(
    {kind.name: kind for kind in _KINDS}
)
"""Every kind of channel, by `type`."""

Secrets = Callable[[str], str | None]
"""Answers a secret by the name of its environment variable."""

Policy = TypeVar("Policy", bound=ChannelBase)

_log = structlog.get_logger()
_FINGERPRINT_LENGTH = 16


class Channel(Protocol):
    """One way out."""

    fingerprint: str
    """Changes when the channel's policy does."""
    pace: RateLimit
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


class MissingSecretError(MeterlineError):
    """A secret that policy names is not set, or unusable: an operator can set it."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What channels send through."""

    webhooks: WebhookClient
    mail: SmtpClient
    secrets: Secrets

    def secret(self, name: str) -> str:
        """A secret that must be there; MissingSecret says which is not."""
        found = (self.secrets(name) or "").strip()
        if not found:
            message = f"{name} is not set in the notify worker's environment"
            raise MissingSecretError(message)
        return found


class _Post(NamedTuple):
    """What one channel posts; not to be shown, for the URL may carry a token."""

    url: str
    body: bytes
    secret: str = ""
    bearer: str = ""


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


class _PolicyChannel(ABC, Generic[Policy]):
    """What every channel that policy names has; secrets are looked up at every attempt."""

    pace = UNLIMITED
    groups = False

    def __init__(self, policy: Policy, doors: Doors) -> None:
        """Take the channel's policy."""
        self._policy = policy
        self._doors = doors
        self.fallback = policy.fallback
        self.fingerprint = fingerprint_of(policy)

    @override
    def __repr__(self) -> str:
        """Without the URL, which may carry a token."""
        return f"{type(self).__name__}({self._policy.id!r})"

    def send(self, job: Job, firing: Sequence[Alert], now_ms: int, /) -> Future[Attempt]:
        """Begin one attempt.

        A missing or malformed secret is retried, not final: an operator sets it, restarts the
        worker, and nothing was lost.
        """
        try:
            return self._begin(job, firing, now_ms)
        except MissingSecretError as error:
            return done(Attempt(DeliveryOutcome.RETRY, error=str(error)))

    @abstractmethod
    def _begin(self, job: Job, firing: Sequence[Alert], now_ms: int) -> Future[Attempt]: ...


class _HttpChannel(_PolicyChannel[Policy]):
    """What the channels over HTTP share: they differ in what they post, and where."""

    @override
    def _begin(self, job: Job, firing: Sequence[Alert], now_ms: int) -> Future[Attempt]:
        post = self._post(job, firing)
        request = WebhookRequest(
            url=post.url,
            message_id=job.message_id,
            body=post.body,
            at_ms=now_ms,
            secret=post.secret,
            bearer=post.bearer,
            allow_private_address=self._policy.allow_private_address,
        )
        return attempted_by(self._doors.webhooks.post(request))

    @abstractmethod
    def _post(self, job: Job, firing: Sequence[Alert]) -> _Post: ...


class SignedWebhookChannel(_HttpChannel[WebhookChannel]):
    """A signed webhook (Standard Webhooks)."""

    @override
    def _post(self, job: Job, firing: Sequence[Alert]) -> _Post:
        policy = self._policy
        secret = ""
        if policy.secret_env:
            try:
                secret = signing_secret(self._doors.secrets(policy.secret_env) or "")
            except WebhookForbiddenError as error:
                message = f"{policy.secret_env}: {error}"
                raise MissingSecretError(message) from error
        url = policy.url or self._doors.secret(policy.url_env)
        return _Post(url, body_of(job.alert), secret=secret)


class Slack(_HttpChannel[SlackChannel]):
    """A Slack incoming webhook."""

    pace = SLACK_RATE
    groups = True

    @override
    def _post(self, job: Job, firing: Sequence[Alert]) -> _Post:
        policy = self._policy
        body = slack_body(job.alerts, policy.id, policy.title, policy.text)
        return _Post(self._doors.secret(policy.url_env), body)


class PagerDuty(_HttpChannel[PagerDutyChannel]):
    """PagerDuty's Events API v2."""

    pace = PAGERDUTY_RATE

    @override
    def _post(self, job: Job, firing: Sequence[Alert]) -> _Post:
        key = self._doors.secret(self._policy.routing_key_env)
        return _Post(self._policy.url, pagerduty_body(job.alert, firing, self._policy, key))


class Alertmanager(_HttpChannel[AlertmanagerChannel]):
    """An Alertmanager's API."""

    @override
    def _post(self, job: Job, firing: Sequence[Alert]) -> _Post:
        policy = self._policy
        url = alertmanager_url(policy.url or self._doors.secret(policy.url_env))
        bearer = self._doors.secret(policy.token_env) if policy.token_env else ""
        return _Post(url, alertmanager_body(job.alerts), bearer=bearer)


class Email(_PolicyChannel[EmailChannel]):
    """Mail through an SMTP server."""

    pace = EMAIL_RATE
    groups = True

    @override
    def _begin(self, job: Job, firing: Sequence[Alert], now_ms: int) -> Future[Attempt]:
        policy = self._policy
        request = MailRequest(
            host=policy.host,
            port=policy.port,
            tls=policy.tls,
            sender=policy.sender,
            recipients=policy.recipients,
            content=mail_content(job, policy, now_ms),
            username=policy.username,
            password=self._doors.secret(policy.password_env) if policy.username else "",
            allow_private_address=policy.allow_private_address,
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
