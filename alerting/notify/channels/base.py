"""What every kind of channel is, and what several of them share. Pure.

A kind is one module here and one line in `registry`:

    class Slack(Channel[SlackEntry, SlackChannel]):
        name = "slack"              `type:` in the policy file
        entry = SlackEntry          the fields of the file
        published = SlackChannel    the model in control.policies
        groups = True               a chat or mail: alerts of one group share a message
        rate_limit = ...            what the receiver takes

        check(entry)                what must hold between the fields
        request(channel, message, secrets)   a message as a request
        judge(answer)               only where an answer means something else than usual

Nothing here sends: `alerting.notify.sending` carries the request out and hands the answer back.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from meterline.alerting.notify.core.channel_traits import ChannelTraits
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.rate_limit import UNLIMITED, RateLimit
from meterline.alerting.notify.core.responses import http_attempt, mail_attempt
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.backends.mail.messages import MailAnswer, MailRequest
from meterline.backends.webhook.messages import WebhookAnswer, WebhookRequest
from meterline.schemas.alert import Alert
from meterline.schemas.errors import MeterlineError
from meterline.schemas.policy_kinds import (
    ChannelEntry,
    ChannelEntryT,
    ChannelKind,
    ChannelT,
    FieldFault,
)
from meterline.schemas.policy_notify import ChannelBase

_FINGERPRINT_LENGTH = 16


class NotReadyError(MeterlineError):
    """A message cannot be sent until an operator acts: it is retried, and not lost."""


class Message(NamedTuple):
    """One attempt to send one message."""

    job: Job
    firing: Sequence[Alert]
    """The alerts of the same incident that fire now."""
    at_ms: int
    """The time of the attempt."""


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Alerts to be written to the worker's log."""

    alerts: Sequence[Alert]


Request: TypeAlias = WebhookRequest | MailRequest | LogRequest
Secrets: TypeAlias = Mapping[str, str]
"""The secret of each field in `_env` that the channel fills in, by the field's name."""


class Channel(ChannelKind[ChannelEntryT, ChannelT]):
    """A kind of channel: what the policy compiler and the notify worker need to know of it."""

    rate_limit: RateLimit = UNLIMITED
    """What a receiver takes of one channel."""
    groups: bool = False
    """Whether the alerts of one group come in one message, as in a chat or a mail."""

    @abstractmethod
    def request(self, channel: ChannelT, message: Message, secrets: Secrets, /) -> Request:
        """A message as a request.

        Args:
            channel: the published policy of the channel.
            message: the message, its time, and what else fires of its incident.
            secrets: by the name of the field that names their variable.

        Raises:
            NotReadyError: not before an operator acts.
        """

    def judge(self, answer: WebhookAnswer, /) -> Attempt:
        """What a receiver's answer over HTTP makes of the attempt."""
        return http_attempt(answer)

    def judge_mail(self, answer: MailAnswer, /) -> Attempt:
        """What a mail server's answer makes of the attempt."""
        return mail_attempt(answer)


@dataclass(frozen=True, slots=True)
class BoundChannel:
    """A channel of the published policy with its kind."""

    kind: Channel[Any, Any]
    published: ChannelBase

    @property
    def traits(self) -> ChannelTraits:
        """What the dispatcher decides by."""
        return ChannelTraits(
            fingerprint=fingerprint_of(self.published),
            rate_limit=self.kind.rate_limit,
            groups=self.kind.groups,
            fallback=self.published.fallback,
        )


def fingerprint_of(channel: ChannelBase) -> str:
    """Changes when anything in the channel's policy does."""
    return hashlib.sha256(channel.model_dump_json().encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def post(
    channel: ChannelBase,
    message: Message,
    url: str,
    body: bytes,
    *,
    secret: str = "",
    bearer: str = "",
) -> WebhookRequest:
    """A message as a POST.

    Args:
        channel: the published policy of the channel.
        message: the message.
        url: where to; may carry a token.
        body: JSON.
        secret: signs the request; empty for none.
        bearer: a token for the Authorization header; empty for none.
    """
    return WebhookRequest(
        url=url,
        message_id=message.job.message_id,
        body=body,
        at_ms=message.at_ms,
        secret=secret,
        bearer=bearer,
        allow_private_address=channel.allow_private_address,
    )


def cut(text: str, length: int) -> str:
    """At most `length` characters; the last of a text that was longer is an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def required(entry: ChannelEntry, *names: str) -> Iterator[FieldFault]:
    """Fields that a kind cannot do without."""
    for name in names:
        if not getattr(entry, name):
            yield name, f"is required for a {entry.type} channel"
