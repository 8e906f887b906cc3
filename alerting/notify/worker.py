"""The notify worker: alerts to receivers, nothing lost, nothing told twice under two ids.

Per round, numbered, each with its guarantee:
    1. read alerts and route them into the outbox
    2. send what is due. A receiver may hear a message again after a crash, always under the same
       webhook-id.
    3. record every attempt on `deliveries`, flushed. From here a retry survives a restart: its
       record carries the alert.
    4. commit the offsets of the alerts whose deliveries are all recorded. A crash before this
       reads them again, and the delivery log says that they are done or waiting.
Never blocks on a receiver: attempts run in the webhook door's thread, a bounded number a channel.

The group gives the topic's one partition to one worker; the one that gets it reads the delivery
log to its end first, so a standby goes on where the other stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec
import structlog

from alerting.notify.active import ActiveAlerts
from alerting.notify.answers import done
from alerting.notify.channels import Channel, Doors, Secrets, registry
from alerting.notify.delivery_log import DeliveryLog
from alerting.notify.messages import incident_key, message_id
from alerting.notify.outbox import Job, Outbox
from alerting.notify.progress import Progress
from alerting.notify.routing import channels_for
from alerting.notify.schedule import Attempt, after
from alerting.settings import CrashPoint, NotifySettings, crash_if
from backends.kafka import (
    BrokerUnavailable,
    GroupConsumer,
    KafkaConfig,
    KafkaDoorError,
    LogReader,
    Producer,
    Rebalanced,
    Record,
    TopicPartition,
)
from backends.mail import MailDoor
from backends.webhook import WebhookDoor
from schemas.alert import Alert, AlertError, decode_alert
from schemas.clock import Clock
from schemas.delivery import (
    Delivery,
    DeliveryOutcome,
    decode_delivery,
    delivery_key,
    encode_delivery,
)
from schemas.metrics import Meter, Metric
from schemas.policy import NOTIFY_ID, NotifyPolicy, PolicyRecordError, decode_policy
from schemas.topics import Topic

EXIT_OK = 0
EXIT_FAILED = 1
# An answer is looked for this often while one is expected.
BUSY_POLL_SECONDS = 0.02
# At a stop, answers already on their way are worth a moment: what is recorded is not sent again.
DRAIN_SECONDS_MAX = 2.0
# Each attempt already lasts the producer's whole delivery timeout with its own retries.
PUBLISH_ATTEMPTS_MAX = 3
RECORDS_PER_ROUND_MAX = 500

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Sending:
    job: Job
    future: Future[Attempt]
    began_ms: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Topics:
    producer: Producer
    consumer: GroupConsumer
    control: LogReader


def run_notify(
    settings: NotifySettings,
    kafka: KafkaConfig,
    secrets: Secrets,
    clock: Clock,
    meter: Meter,
    stop: threading.Event,
) -> int:
    """Run until `stop` is set.

    Args:
        settings: bounds and schedule.
        kafka: the cluster.
        secrets: answers a signing secret by the name that policy gives.
        clock: the present.
        meter: where metrics go.
        stop: ends the run.

    Returns:
        EXIT_OK after `stop`; EXIT_FAILED if the broker could not be reached or refused for longer
        than the bounds allow.
    """
    notifier = _Notifier(settings, secrets, clock, meter)
    try:
        notifier.run(kafka, stop)
    except KafkaDoorError as error:
        _log.error("notify.stopped", reason=str(error))
        return EXIT_FAILED
    finally:
        meter.gauge(Metric.READY, 0)
    return EXIT_OK


class _Notifier:
    """One run of the worker."""

    def __init__(
        self, settings: NotifySettings, secrets: Secrets, clock: Clock, meter: Meter
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._meter = meter
        timeout = settings.request_timeout_seconds
        self._doors = Doors(
            WebhookDoor(timeout, settings.ca_file), MailDoor(timeout, settings.ca_file), secrets
        )
        self._policy = NotifyPolicy()
        self._channels: dict[str, Channel] = registry(self._policy, self._doors)
        self._active = ActiveAlerts()
        self._delivered = DeliveryLog()
        self._outbox = Outbox()
        self._progress = Progress()
        self._sending: list[_Sending] = []
        self._changed_hands = False
        self._in_charge = False
        self._paused = False

    def run(self, kafka: KafkaConfig, stop: threading.Event) -> None:
        """Open the doors, go round, drain, close."""
        self._kafka = kafka
        try:
            producer = Producer(kafka, linger_ms=0)
            try:
                control = LogReader(kafka, (Topic.POLICIES, Topic.DELIVERIES))
                try:
                    consumer = self._join(kafka)
                    try:
                        topics = _Topics(producer, consumer, control)
                        self._go_round(topics, stop)
                    finally:
                        consumer.close()
                finally:
                    control.close()
            finally:
                producer.close()
        finally:
            self._doors.webhooks.close()
            self._doors.mail.close()

    def _join(self, kafka: KafkaConfig) -> GroupConsumer:
        return GroupConsumer(
            kafka,
            self._settings.group,
            (Topic.ALERTS,),
            on_revoked=self._revoked,
            on_assigned=self._assigned,
        )

    def _revoked(self, _: Collection[TopicPartition]) -> None:
        self._changed_hands, self._in_charge = True, False

    def _assigned(self, _: Collection[TopicPartition]) -> None:
        self._changed_hands, self._in_charge = True, True

    def _go_round(self, topics: _Topics, stop: threading.Event) -> None:
        self._follow(topics.control.read_to_end(self._settings.start_timeout_seconds))
        _log.info("notify.ready", channels=sorted(self._channels))
        self._meter.gauge(Metric.READY, 1)
        while not stop.is_set():
            self._round(topics)
            self._meter.gauge(Metric.HEARTBEAT_MS, self._clock())
        self._drain(topics)

    def _round(self, topics: _Topics) -> None:
        self._follow(topics.control.poll(0))
        busy = bool(self._sending)
        wait = BUSY_POLL_SECONDS if busy else self._settings.poll_seconds
        records = topics.consumer.poll(wait, RECORDS_PER_ROUND_MAX)
        if self._changed_hands:
            self._take_over(topics)
        # 1. Into the outbox.
        for record in records:
            self._enqueue(record)
        self._limit(topics)
        # 2. Out to the receivers.
        self._send()
        # 3. Into the delivery log.
        self._record(topics, [one for one in self._sending if one.future.done()])
        # 4. Done with these alerts.
        self._commit(topics)

    def _take_over(self, topics: _Topics) -> None:
        """Begin anew from the delivery log, with the partition or without it."""
        self._changed_hands = False
        self._outbox, self._progress, self._paused = Outbox(), Progress(), False
        self._set_paces()
        self._record_orphans(topics)
        if self._in_charge:
            self._active = self._read_active()
            self._follow(topics.control.read_to_end(self._settings.start_timeout_seconds))
            for job in self._delivered.waiting():
                self._outbox.add(job)
            _log.info("notify.in_charge", waiting=len(self._outbox))

    def _read_active(self) -> ActiveAlerts:
        """What fires, from the topic's beginning."""
        active = ActiveAlerts()
        history = LogReader(self._kafka, (Topic.ALERTS,))
        try:
            for record in history.read_to_end(self._settings.start_timeout_seconds):
                with contextlib.suppress(AlertError):  # refused where it is handled
                    active.fold(decode_alert(record.value or b""), record.offset)
        finally:
            history.close()
        return active

    def _set_paces(self) -> None:
        for name, channel in self._channels.items():
            self._outbox.limit_pace(name, channel.pace)

    def _record_orphans(self, topics: _Topics) -> None:
        """Attempts under way for an outbox that is gone: let their answers be recorded still."""
        orphans, self._sending = self._sending, []
        answered = [one for one in orphans if one.future.done()]
        self._publish(topics, [self._delivery(one)[0] for one in answered])

    def _follow(self, records: Iterable[Record]) -> None:
        for record in records:
            try:
                if record.topic == Topic.DELIVERIES and record.value:
                    self._delivered.fold(decode_delivery(record.value))
                elif record.topic == Topic.POLICIES and record.key == NOTIFY_ID.encode():
                    item = decode_policy(record.value) if record.value else NotifyPolicy()
                    if isinstance(item, NotifyPolicy):
                        self._policy = item
                        self._channels = registry(item, self._doors)
                        self._set_paces()
            except (PolicyRecordError, msgspec.MsgspecError) as error:
                self._refuse(record, error)

    def _enqueue(self, record: Record) -> None:
        try:
            alert = decode_alert(record.value or b"")
        except AlertError as error:
            self._refuse(record, error)
            self._progress.read(record.partition, record.offset, ())
            return
        self._active.fold(alert, record.offset)
        name = message_id([alert])
        outstanding = []
        for channel in channels_for(alert, self._policy):
            if self._delivered.knows(name, channel):
                continue
            outstanding.append((name, channel))
            self._outbox.add(
                Job(name, channel, (alert,), incident_key(alert), due_ms=self._clock())
            )
        self._progress.read(record.partition, record.offset, outstanding)

    def _limit(self, topics: _Topics) -> None:
        """Read no more alerts while the outbox is full: they are safe where they are."""
        full = len(self._outbox) >= self._settings.pending_max
        if full is not self._paused:
            self._paused = full
            change = topics.consumer.pause if full else topics.consumer.resume
            change(topics.consumer.assignment())
            _log.warning("notify.paused" if full else "notify.resumed", waiting=len(self._outbox))

    def _send(self) -> None:
        now_ms = self._clock()
        for job in self._outbox.take_due(now_ms):
            crash_if(self._settings.crash_at, CrashPoint.BEFORE_DELIVERY)
            channel = self._channels.get(job.channel)
            fingerprint = channel.fingerprint if channel else ""
            if channel is None:
                refused = Attempt(DeliveryOutcome.REFUSED, error="the channel was removed")
                future = done(refused)
            elif self._delivered.is_gone(job.channel, fingerprint):
                future = done(Attempt(DeliveryOutcome.GONE, error="the channel answered 410"))
            else:
                future = channel.send(job, self._active.of_incident(job.alert), now_ms)
            self._sending.append(_Sending(job, future, now_ms, fingerprint))

    def _record(self, topics: _Topics, answered: list[_Sending]) -> None:
        if not answered:
            return
        crash_if(self._settings.crash_at, CrashPoint.DELIVERED)
        outcomes = [(one, *self._delivery(one)) for one in answered]
        self._publish(topics, [delivery for _, delivery, _ in outcomes])
        crash_if(self._settings.crash_at, CrashPoint.DELIVERY_DURABLE)
        self._sending = [one for one in self._sending if one not in answered]
        for one, delivery, hold_ms in outcomes:
            self._delivered.fold(delivery)
            self._progress.recorded(one.job.key)
            if delivery.outcome is DeliveryOutcome.RETRY:
                self._outbox.retry(one.job, delivery.next_attempt_ms)
                if hold_ms:
                    self._outbox.hold(one.job.channel, hold_ms)
            else:
                self._outbox.settle(one.job)

    def _delivery(self, sending: _Sending) -> tuple[Delivery, int]:
        """The record of an attempt, and until when its receiver asked for a pause."""
        now_ms = self._clock()
        job, attempt = sending.job, sending.future.result()
        following = after(
            attempt, job.attempt, job.message_id, self._settings.retry_seconds, now_ms
        )
        delivery = Delivery(
            message_id=job.message_id,
            alert_id=job.alert.id,
            channel=job.channel,
            attempt=job.attempt,
            at_ms=sending.began_ms,
            outcome=following.outcome,
            http_status=attempt.http_status,
            error=attempt.error,
            next_attempt_ms=following.at_ms,
            dedup_key=job.alert.dedup_key,
            duration_ms=max(0, now_ms - sending.began_ms),
            channel_fingerprint=sending.fingerprint,
            alerts=tuple(_raw(alert) for alert in job.alerts),
            queue=job.queue,
        )
        self._meter.count(Metric.DELIVERIES, reason=following.outcome)
        if following.outcome is not DeliveryOutcome.DELIVERED:
            _tell(delivery)
        return delivery, following.at_ms if attempt.retry_after_seconds else 0

    def _publish(self, topics: _Topics, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        for attempt in range(1, PUBLISH_ATTEMPTS_MAX + 1):
            try:
                for one in deliveries:
                    key = delivery_key(one.message_id, one.channel)
                    topics.producer.send(Topic.DELIVERIES, key, encode_delivery(one))
                topics.producer.flush(self._settings.flush_timeout_seconds)
                break
            except BrokerUnavailable as error:
                _log.warning("notify.publish_failed", attempt=attempt, reason=str(error))
                if attempt == PUBLISH_ATTEMPTS_MAX:
                    raise
        self._meter.gauge(Metric.LAST_FLUSH_MS, self._clock())

    def _commit(self, topics: _Topics) -> None:
        moved = self._progress.take_committable()
        offsets = {TopicPartition(Topic.ALERTS, each): at for each, at in moved.items()}
        try:
            topics.consumer.commit(offsets)
        except Rebalanced:
            # Somebody else reads these alerts again; the delivery log tells them what is done.
            _log.info("notify.rebalanced")
        except BrokerUnavailable as error:
            # The next commit covers this one; until then a restart reads a few alerts again.
            _log.warning("notify.commit_failed", reason=str(error))

    def _drain(self, topics: _Topics) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while self._sending and time.monotonic() < deadline:
            answered = [one for one in self._sending if one.future.done()]
            self._record(topics, answered)
            if not answered:
                time.sleep(BUSY_POLL_SECONDS)
        self._commit(topics)

    def _refuse(self, record: Record, error: Exception) -> None:
        self._meter.count(Metric.REJECTS, reason="wrong_type")
        _log.warning(
            "notify.record_refused",
            topic=record.topic,
            offset=record.offset,
            reason=str(error),
        )


def _raw(alert: Alert) -> msgspec.Raw:
    return msgspec.Raw(alert.model_dump_json().encode())


def _tell(delivery: Delivery) -> None:
    _log.warning(
        "delivery.failed",
        channel=delivery.channel,
        message=delivery.message_id,
        attempt=delivery.attempt,
        outcome=delivery.outcome.value,
        status=delivery.http_status,
        reason=delivery.error,
        next_attempt_ms=delivery.next_attempt_ms,
    )
