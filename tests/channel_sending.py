"""One attempt of a message over a channel, as the notify worker makes it."""

from __future__ import annotations

from typing import NamedTuple

from meterline.alerting.notify.channels.base import BoundChannel, Message
from meterline.alerting.notify.core.messages import incident_key, message_id
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.alerting.notify.sending import NotificationSender
from meterline.schemas.alert import Alert

ANSWER_SECONDS_MAX = 10
NOW_MS = 1_791_201_600_000


class Sendable(NamedTuple):
    """A channel, and what it is sent through."""

    sender: NotificationSender
    channel: BoundChannel


def job(*alerts: Alert) -> Job:
    """One message."""
    return Job(message_id(alerts), "x", alerts, incident_key(alerts[0]))


def send(channel: Sendable, *alerts: Alert, firing: tuple[Alert, ...] = ()) -> Attempt:
    """One attempt."""
    message = Message(job(*alerts), firing, NOW_MS)
    return channel.sender.send(channel.channel, message).result(ANSWER_SECONDS_MAX)
