"""The delivery log: the newest word on every message and channel, folded from `deliveries`. Pure.

It answers what is done (never sent again), what waits (sent again after a restart, from the alert
kept in its record), and which channels said that they are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from alerting.notify.messages import incident_key
from alerting.notify.outbox import Job
from schemas.alert import AlertError, decode_alert
from schemas.delivery import Delivery, DeliveryOutcome

# Done deliveries are only asked for alerts that were read and not committed, which are few; this
# is about 40 MB, after which the oldest are forgotten.
DONE_MAX = 100_000
_STATUS_GONE = 410


class DeliveryLog:
    """What the topic says."""

    def __init__(self) -> None:
        """Start empty."""
        self._done: dict[tuple[str, str], int] = {}
        self._waiting: dict[tuple[str, str], Delivery] = {}
        self._gone: dict[str, str] = {}

    def fold(self, delivery: Delivery) -> None:
        """Take one record in; records of earlier attempts change nothing."""
        key = (delivery.message_id, delivery.channel)
        if key in self._done:
            return
        known = self._waiting.get(key)
        if known is not None and known.attempt > delivery.attempt:
            return
        if delivery.outcome is DeliveryOutcome.RETRY:
            self._waiting[key] = delivery
            return
        self._waiting.pop(key, None)
        self._done[key] = delivery.attempt
        if len(self._done) > DONE_MAX:
            del self._done[next(iter(self._done))]
        if delivery.http_status == _STATUS_GONE:
            self._gone[delivery.channel] = delivery.channel_fingerprint

    def knows(self, message_id: str, channel: str) -> bool:
        """Whether a delivery has a record, and so does not depend on its alert's offset."""
        key = (message_id, channel)
        return key in self._done or key in self._waiting

    def is_gone(self, channel: str, fingerprint: str) -> bool:
        """Whether the channel answered 410 under the same policy."""
        return self._gone.get(channel) == fingerprint

    def waiting(self) -> Iterator[Job]:
        """The messages to be tried again, with the number and time of their next attempt."""
        for delivery in self._waiting.values():
            try:
                alerts = tuple(decode_alert(bytes(each)) for each in delivery.alerts)
            except AlertError:
                continue  # not written by us: there is nothing to send
            if alerts:
                yield Job(
                    delivery.message_id,
                    delivery.channel,
                    alerts,
                    delivery.queue or incident_key(alerts[0]),
                    delivery.attempt + 1,
                    delivery.next_attempt_ms,
                )
