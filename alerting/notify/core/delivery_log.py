"""The delivery log: the newest word on every message and channel, folded from `deliveries`. Pure.

It knows what is done (never sent again), what waits (sent again after a restart, from the alerts
kept in its record), what is muted (sent later, if it still fires), and which channels said that
they are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from meterline.alerting.notify.core.grouping import GroupName
from meterline.alerting.notify.core.messages import incident_key
from meterline.alerting.notify.core.outbox import Job
from meterline.schemas.alert import Alert, AlertError, decode_alert
from meterline.schemas.delivery import Delivery, DeliveryOutcome

# Done deliveries are only asked for alerts that were read and not committed, which are few; this
# is about 40 MB, after which the oldest are forgotten.
DONE_MAX = 100_000
# Muted alerts wait in memory for the end of their silence; the oldest are forgotten, and never sent.
MUTED_MAX = 50_000
_STATUS_GONE = 410
_WAITING = frozenset({DeliveryOutcome.RETRY, DeliveryOutcome.PENDING})


class DeliveryLog:
    """What the topic says."""

    def __init__(self) -> None:
        """Start empty."""
        self._done: dict[tuple[str, str], int] = {}
        self._waiting: dict[tuple[str, str], Delivery] = {}
        self._notified: dict[tuple[str, str], None] = {}
        self._muted: dict[tuple[str, str], Delivery] = {}
        self._gone: dict[str, str] = {}
        self._groups: dict[GroupName, int] = {}

    def fold(self, delivery: Delivery) -> bool:
        """Take one record in; records of earlier attempts change nothing.

        Returns:
            True if it asks for a message to be sent again that was done before: a replay.
        """
        if delivery.outcome is DeliveryOutcome.MUTED:
            self._mute(delivery)
            return False
        self._remember(delivery)
        key = (delivery.message_id, delivery.channel)
        if delivery.replayed_at_ms > self._stamp(key):
            self._done.pop(key, None)
            self._waiting.pop(key, None)
        elif delivery.replayed_at_ms < self._stamp(key) or key in self._done:
            return False
        known = self._waiting.get(key)
        if known is not None and known.attempt > delivery.attempt:
            return False
        if delivery.outcome in _WAITING:
            self._waiting[key] = delivery
            return delivery.replayed_at_ms > 0 and known is None
        self._waiting.pop(key, None)
        self._done[key] = delivery.replayed_at_ms
        if len(self._done) > DONE_MAX:
            del self._done[next(iter(self._done))]
        if delivery.http_status == _STATUS_GONE:
            self._gone[delivery.channel] = delivery.channel_fingerprint
        return False

    def knows(self, alert_id: str, channel: str) -> bool:
        """Whether an alert has a record on a channel, and so does not depend on its offset."""
        return (alert_id, channel) in self._notified

    def is_gone(self, channel: str, fingerprint: str) -> bool:
        """Whether the channel answered 410 under the same policy."""
        return self._gone.get(channel) == fingerprint

    def was_muted(self, alert: Alert, channel: str) -> bool:
        """Whether the channel was not notified of the alert's firing."""
        return (alert.dedup_key, channel) in self._muted

    def muted(self) -> list[Delivery]:
        """Alerts that were muted for a channel."""
        return list(self._muted.values())

    def forget_muted(self, delivery: Delivery) -> None:
        """A muted alert is over."""
        self._muted.pop((delivery.dedup_key, delivery.channel), None)

    def groups(self) -> dict[GroupName, int]:
        """When each group was notified last."""
        return self._groups

    def waiting(self) -> Iterator[Job]:
        """The messages to be tried again, with the number and time of their next attempt."""
        for delivery in self._waiting.values():
            job = job_of(delivery)
            if job is not None:
                yield job

    def _remember(self, delivery: Delivery) -> None:
        for alert_id in delivery.alert_ids or (delivery.alert_id,):
            self._notified[alert_id, delivery.channel] = None
            if len(self._notified) > DONE_MAX:
                del self._notified[next(iter(self._notified))]
        for alert in alerts_of(delivery) if self._muted else ():
            self._muted.pop((alert.dedup_key, delivery.channel), None)
        if len(delivery.alert_ids) > 1 or delivery.queue.startswith(GROUP_PREFIX):
            name = GroupName(delivery.channel, delivery.queue.removeprefix(GROUP_PREFIX))
            self._groups[name] = max(delivery.at_ms, self._groups.pop(name, 0))

    def _mute(self, delivery: Delivery) -> None:
        key = (delivery.dedup_key, delivery.channel)
        if (delivery.alert_id, delivery.channel) in self._notified and key not in self._muted:
            return  # notified since: this is the log read again
        self._notified[delivery.alert_id, delivery.channel] = None
        self._muted[key] = delivery
        if len(self._muted) > MUTED_MAX:
            del self._muted[next(iter(self._muted))]

    def _stamp(self, key: tuple[str, str]) -> int:
        waiting = self._waiting.get(key)
        return waiting.replayed_at_ms if waiting is not None else self._done.get(key, 0)


GROUP_PREFIX = "group "
"""Begins the queue of a group's messages; no incident's key begins so."""


def alerts_of(delivery: Delivery) -> tuple[Alert, ...]:
    """The alerts of a record; none if Meterline did not write it."""
    try:
        return tuple(decode_alert(bytes(each)) for each in delivery.alerts)
    except AlertError:
        return ()


def job_of(delivery: Delivery) -> Job | None:
    """What a record asks to be sent; None if there is nothing to send."""
    alerts = alerts_of(delivery)
    if not alerts:
        return None
    return Job(
        delivery.message_id,
        delivery.channel,
        alerts,
        delivery.queue or incident_key(alerts[0]),
        delivery.attempt + 1,
        delivery.next_attempt_ms,
        delivery.route,
        delivery.replayed_at_ms,
    )
