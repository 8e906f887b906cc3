"""The dispatcher: everything between an alert that was read and a message that leaves. Pure.

    read -> decide -> muted ------------------------------> MUTED record
                   -> group ... due -> PENDING record ----> outbox -> attempt -> record
                   -> outbox (channels that take each alert by itself)
It holds the state and makes the decisions; the worker carries out what it says and gives back what
became of it. Its state is made of the topics alone, so that another worker can take over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec

from meterline.alerting.notify.core.active import ActiveAlerts
from meterline.alerting.notify.core.channel_health import Health, observed, wants_fallback
from meterline.alerting.notify.core.channel_traits import ChannelTraits
from meterline.alerting.notify.core.commit_tracker import CommitTracker
from meterline.alerting.notify.core.decide import Recipient, decide, group_key
from meterline.alerting.notify.core.delivery_log import GROUP_PREFIX, DeliveryLog, alerts_of, job_of
from meterline.alerting.notify.core.grouping import GroupName, Groups
from meterline.alerting.notify.core.labels import labels_of
from meterline.alerting.notify.core.messages import incident_key, message_id
from meterline.alerting.notify.core.outbox import IN_FLIGHT_PER_CHANNEL_MAX, Job, Outbox
from meterline.alerting.notify.core.policy_snapshot import PolicySnapshot
from meterline.alerting.notify.core.retry_schedule import Attempt, after
from meterline.schemas.alert import NOTIFIABLE, Alert, AlertStatus
from meterline.schemas.delivery import Delivery, DeliveryOutcome
from meterline.schemas.policy_notify import LOG_CHANNEL

# Muted alerts reviewed in one round: a decision takes tens of microseconds.
REVIEWED_MAX = 500


class Dispatcher:
    """State and decisions of one worker in charge."""

    def __init__(self, log: DeliveryLog, policy: PolicySnapshot, active: ActiveAlerts) -> None:
        """Continue where the delivery log ends.

        Args:
            log: read to its end.
            policy: the newest; the worker keeps it up to date.
            active: what fires, read from the topic's beginning.
        """
        self.log = log
        self.policy = policy
        self.active = active
        self.outbox = Outbox()
        self.commits = CommitTracker()
        self.health: dict[str, Health] = {}
        self.channels: Mapping[str, ChannelTraits] = {}
        self._groups = Groups()
        self._muted: list[Delivery] = []
        self._to_review: deque[Delivery] = deque()
        for job in log.waiting():
            self.outbox.add(job)
        for name, notified_ms in log.groups().items():
            self._groups.notified(name, notified_ms)

    def __len__(self) -> int:
        """Messages and alerts that are not settled."""
        return len(self.outbox) + len(self._groups) + len(self._muted)

    def set_channels(self, channels: Mapping[str, ChannelTraits]) -> None:
        """Use these channels from now on."""
        self.channels = channels
        for name, channel in channels.items():
            self.outbox.limit_rate(name, channel.rate_limit)

    def read(self, alert: Alert, partition: int, offset: int, now_ms: int) -> None:
        """An alert was read."""
        self.active.fold(alert, offset)
        if alert.status not in NOTIFIABLE:
            # It waits until it has held for long enough: no receiver is notified yet.
            self.commits.read(partition, offset, ())
            return
        decision = decide(alert, self.policy.context(self.active, now_ms), now_ms)
        outstanding = []
        for recipient in decision.recipients:
            channel = recipient.channel
            if self.log.knows(alert.id, channel):
                continue
            outstanding.append((alert.id, channel))
            muted_by = "" if channel == LOG_CHANNEL else decision.muted_by
            is_over = alert.status is AlertStatus.RESOLVED
            if is_over and self.log.was_muted(alert, channel):
                muted_by = "its firing was muted"
            if muted_by:
                self._muted.append(_muted(alert, recipient, muted_by, now_ms))
            else:
                self._enqueue(alert, recipient, now_ms)
        self.commits.read(partition, offset, outstanding)

    def review_muted(self, now_ms: int) -> None:
        """Send what a silence that is over had muted, where it still fires."""
        if not self._to_review:
            self._to_review.extend(self.log.muted())
        for _ in range(min(REVIEWED_MAX, len(self._to_review))):
            delivery = self._to_review.popleft()
            for alert in alerts_of(delivery):
                if alert.status is AlertStatus.RESOLVED or not self.active.is_firing(alert):
                    self.log.forget_muted(delivery)
                    continue
                decision = decide(alert, self.policy.context(self.active, now_ms), now_ms)
                for recipient in decision.recipients:
                    if recipient.channel == delivery.channel and not decision.muted_by:
                        self._enqueue(alert, recipient, now_ms)

    def records_before_sending(self, now_ms: int) -> list[Delivery]:
        """Records that must be durable before anything of them is sent: groups' and muted ones."""
        pending = [
            _pending(
                Job(
                    message_id(due.alerts),
                    due.name.channel,
                    due.alerts,
                    GROUP_PREFIX + due.name.key,
                    route=due.route,
                ),
                now_ms,
            )
            for due in self._groups.take_due(now_ms)
        ]
        muted, self._muted = self._muted, []
        return [*pending, *muted]

    def records(
        self, job: Job, attempt: Attempt, delays: tuple[int, ...], began_ms: int, now_ms: int
    ) -> Iterator[Delivery]:
        """The records of an attempt: its fallback's first, so that no crash lies between them."""
        following = after(attempt, job.attempt, job.message_id, delays, now_ms)
        channel = self.channels.get(job.channel)
        if channel is not None and wants_fallback(following.outcome, job.attempt):
            yield from self._fallbacks(job, channel.fallback, now_ms)
        yield replace_record(
            _record(job, following.outcome, began_ms),
            attempt=job.attempt,
            http_status=attempt.http_status,
            error=attempt.error,
            next_attempt_ms=following.at_ms,
            duration_ms=max(0, now_ms - began_ms),
            channel_fingerprint=channel.fingerprint if channel is not None else "",
        )

    def settle(self, job: Job, attempt: Attempt, delivery: Delivery, now_ms: int) -> None:
        """An attempt's records are durable."""
        health = observed(self.health.get(job.channel, Health()), attempt, now_ms)
        self.health[job.channel] = health
        self.outbox.limit_places(job.channel, 1 if health.is_paused else IN_FLIGHT_PER_CHANNEL_MAX)
        if health.is_paused:
            self.outbox.hold(job.channel, health.paused_until_ms)
        if delivery.outcome is not DeliveryOutcome.RETRY:
            self.outbox.settle(job)
            return
        self.outbox.retry(job, delivery.next_attempt_ms)
        if attempt.retry_after_seconds:
            self.outbox.hold(job.channel, delivery.next_attempt_ms)

    def recorded(self, deliveries: Iterable[Delivery]) -> None:
        """Records are durable: their alerts depend on their offsets no more."""
        for delivery in deliveries:
            self.log.fold(delivery)
            for alert_id in delivery.alert_ids:
                self.commits.recorded((alert_id, delivery.channel))
            if delivery.outcome is DeliveryOutcome.PENDING:
                self.resend(delivery)

    def resend(self, delivery: Delivery) -> None:
        """A record asks for its message to be sent."""
        job = job_of(delivery)
        if job is not None:
            self.outbox.add(job)

    def next_ms(self, now_ms: int) -> int | None:
        """When time alone makes something due; None: nothing waits."""
        times = [self.outbox.next_ms(now_ms), self._groups.next_ms()]
        return min((at for at in times if at is not None), default=None)

    def _enqueue(self, alert: Alert, recipient: Recipient, now_ms: int) -> None:
        channel = self.channels.get(recipient.channel)
        route = recipient.route
        if channel is None or not channel.groups or route is None or not route.group_by:
            self.outbox.add(_single(alert, recipient.channel, route.id if route else "", now_ms))
            return
        labels = labels_of(alert, self.policy.context(self.active, now_ms).parents)
        self._groups.add(
            GroupName(recipient.channel, group_key(route, labels)),
            alert,
            route=route.id,
            wait_ms=route.group_wait_seconds * 1000,
            interval_ms=route.group_interval_seconds * 1000,
            now_ms=now_ms,
        )

    def _fallbacks(self, job: Job, name: str, now_ms: int) -> Iterator[Delivery]:
        channel = self.channels.get(name)
        if channel is None:
            return
        unnotified = tuple(
            alert
            for alert in job.alerts
            if not self.log.knows(alert.id, name) and not self._groups.holds(alert.id, name)
        )
        # A machine takes each alert by itself.
        parts = [unnotified] if channel.groups else [(alert,) for alert in unnotified]
        for alerts in parts:
            queue = job.queue if channel.groups else incident_key(alerts[0]) if alerts else ""
            message = replace(
                job,
                message_id=message_id(alerts) if alerts else "",
                channel=name,
                alerts=alerts,
                queue=queue,
            )
            if alerts and message.key not in self.outbox:
                yield _pending(message, now_ms)


def raw(alert: Alert) -> msgspec.Raw:
    """An alert as a record keeps it."""
    return msgspec.Raw(alert.model_dump_json().encode())


def replace_record(delivery: Delivery, **changes: object) -> Delivery:
    """A record with other fields."""
    return msgspec.structs.replace(delivery, **changes)


def _single(alert: Alert, channel: str, route: str, now_ms: int) -> Job:
    return Job(
        message_id([alert]), channel, (alert,), incident_key(alert), due_ms=now_ms, route=route
    )


def _pending(job: Job, now_ms: int) -> Delivery:
    return replace_record(_record(job, DeliveryOutcome.PENDING, now_ms), next_attempt_ms=now_ms)


def _muted(alert: Alert, recipient: Recipient, why: str, now_ms: int) -> Delivery:
    route = recipient.route.id if recipient.route else ""
    job = _single(alert, recipient.channel, route, now_ms)
    return replace_record(_record(job, DeliveryOutcome.MUTED, now_ms), error=why)


def _record(job: Job, outcome: DeliveryOutcome, at_ms: int) -> Delivery:
    return Delivery(
        message_id=job.message_id,
        alert_id=job.alert.id,
        channel=job.channel,
        attempt=0,
        at_ms=at_ms,
        outcome=outcome,
        dedup_key=job.alert.dedup_key,
        alerts=tuple(raw(alert) for alert in job.alerts),
        alert_ids=tuple(alert.id for alert in job.alerts),
        route=job.route,
        replayed_at_ms=job.replayed_at_ms,
        queue=job.queue,
    )
