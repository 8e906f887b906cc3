"""The notify worker: alerts to receivers, nothing lost, nothing sent twice under two ids.

Per round, numbered, each with its guarantee:
    1. read alerts, then what was written of policy, silences and commands before them, and decide
       who is notified (`alerting.notify.core.dispatcher`), also over a channel that was published
       just before the alert.
    2. write down what their alerts alone could not give back: the messages of groups, and who was
       not notified and why, flushed. From here a group's message has its id and content for good.
    3. send what is due. A receiver may get a message again after a crash, always under the same
       webhook-id.
    4. record every attempt on `deliveries`, flushed, a fallback's message before the failure that
       asks for it. From here a retry survives a restart: its record carries the alerts.
    5. commit the offsets of the alerts whose deliveries are all recorded. A crash before this
       reads them again, and the delivery log says that they are done or waiting.
Never blocks on a receiver: attempts run in the clients' threads, a bounded number a channel.

The group gives the topic's one partition to one worker; the one that gets it reads the delivery
log to its end first, so a standby continues where the other stopped.
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

from meterline.alerting.notify.channels.base import BoundChannel, Message
from meterline.alerting.notify.channels.registry import bound_channels, unreadable
from meterline.alerting.notify.core.active import ActiveAlerts
from meterline.alerting.notify.core.delivery_log import DeliveryLog
from meterline.alerting.notify.core.dispatcher import Dispatcher
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.policy_snapshot import PolicySnapshot
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.alerting.notify.sending import NotificationSender, SecretLookup, done
from meterline.alerting.settings import NotifySettings
from meterline.backends.failpoints import AlertingFailpoint, Failpoints
from meterline.backends.kafka.config import KafkaConfig, Record, TopicPartition
from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    RebalancedError,
)
from meterline.backends.kafka.group import GroupConsumer
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.backends.mail.client import SmtpClient
from meterline.backends.webhook.client import WebhookClient
from meterline.schemas.alert import AlertError, decode_alert
from meterline.schemas.clock import Clock
from meterline.schemas.delivery import (
    Delivery,
    DeliveryOutcome,
    decode_delivery,
    delivery_key,
    encode_delivery,
)
from meterline.schemas.groups import Group, group_spec
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.policy import PolicyRecordError, decode_policy
from meterline.schemas.throttle import ThrottleError, decode_command
from meterline.schemas.topics import Topic

EXIT_OK = 0
EXIT_FAILED = 1
# Responses are polled this often while one is outstanding.
BUSY_POLL_SECONDS = 0.02
# At a stop, responses already on their way are worth a moment: what is recorded is not sent again.
DRAIN_SECONDS_MAX = 2.0
# Each attempt already lasts the producer's whole delivery timeout with its own retries.
PUBLISH_ATTEMPTS_MAX = 3
RECORDS_PER_ROUND_MAX = 500
# How soon after the end of a silence the alerts that it muted are sent.
REVIEW_MS = 1_000
# A round is never shorter: time alone gives nothing to do twice in a millisecond.
WAIT_SECONDS_MIN = 0.005

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Sending:
    job: Job
    future: Future[Attempt]
    began_ms: int


@dataclass(frozen=True, slots=True)
class _Topics:
    producer: Producer
    consumer: GroupConsumer
    control: TopicReader


def run_notify(
    settings: NotifySettings,
    kafka: KafkaConfig,
    secrets: SecretLookup,
    clock: Clock,
    meter: Meter,
    stop: threading.Event,
) -> int:
    """Run until `stop` is set.

    Args:
        settings: bounds and schedule.
        kafka: the cluster.
        secrets: looks up a secret by the name that policy gives.
        clock: the current time, UTC ms.
        meter: where metrics go.
        stop: ends the run.

    Returns:
        EXIT_OK after `stop`; EXIT_FAILED if the broker could not be reached or refused for longer
        than the bounds allow.
    """
    notifier = _Notifier(settings, secrets, clock, meter)
    try:
        notifier.run(kafka, stop)
    except KafkaClientError as error:
        _log.error("notify.stopped", reason=str(error))
        return EXIT_FAILED
    finally:
        meter.gauge(Metric.READY, 0)
    return EXIT_OK


class _Notifier:
    """One run of the worker."""

    def __init__(
        self, settings: NotifySettings, secrets: SecretLookup, clock: Clock, meter: Meter
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._meter = meter
        self._failpoints = Failpoints(settings.crash_at, AlertingFailpoint)
        timeout = settings.request_timeout_seconds
        self._sender = NotificationSender(
            WebhookClient(timeout, settings.ca_file), SmtpClient(timeout, settings.ca_file), secrets
        )
        self._log = DeliveryLog()
        self._policy = PolicySnapshot()
        self._channels: dict[str, BoundChannel] = {}
        self._dispatcher = Dispatcher(self._log, self._policy, ActiveAlerts())
        self._set_channels()
        self._sending: list[_Sending] = []
        self._changed_hands = False
        self._in_charge = False
        self._paused = False
        self._reviewed_ms = 0

    def run(self, kafka: KafkaConfig, stop: threading.Event) -> None:
        """Open the clients, run rounds until the stop, drain, close."""
        self._kafka = kafka
        try:
            producer = Producer(kafka, linger_ms=0)
            try:
                control = TopicReader(
                    kafka, (Topic.POLICIES, Topic.THROTTLE_COMMANDS, Topic.DELIVERIES)
                )
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
            self._sender.close()

    def _join(self, kafka: KafkaConfig) -> GroupConsumer:
        return GroupConsumer(
            kafka,
            self._settings.group,
            group_spec(Group.NOTIFY).topics,
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
        records = topics.consumer.poll(self._wait_seconds(), RECORDS_PER_ROUND_MAX)
        if self._changed_hands:
            self._take_over(topics)
        # 1. Who is notified. Policy was read before the wait for alerts: the change that caused an alert
        #    may also have named its channel.
        if records:
            self._follow(topics.control.read_to_end(self._settings.start_timeout_seconds))
        for record in records:
            self._read(record)
        self._review()
        self._limit(topics)
        # 2. What must be written before it is sent.
        self._write_first(topics)
        # 3. Out to the receivers.
        self._send()
        # 4. Into the delivery log.
        self._record(topics, [one for one in self._sending if one.future.done()])
        # 5. Done with these alerts.
        self._commit(topics)

    def _wait_seconds(self) -> float:
        wait = BUSY_POLL_SECONDS if self._sending else self._settings.poll_seconds
        next_ms = self._dispatcher.next_ms(self._clock())
        if next_ms is None:
            return wait
        return max(WAIT_SECONDS_MIN, min(wait, (next_ms - self._clock()) / 1000))

    def _take_over(self, topics: _Topics) -> None:
        """Start again from the delivery log, with the partition or without it."""
        self._changed_hands = False
        self._record_orphans(topics)
        active = ActiveAlerts()
        if self._in_charge:
            active = self._read_active()
            self._follow(topics.control.read_to_end(self._settings.start_timeout_seconds))
        self._dispatcher = Dispatcher(
            self._log if self._in_charge else DeliveryLog(), self._policy, active
        )
        self._paused = False
        self._set_channels()
        if self._in_charge:
            _log.info("notify.in_charge", waiting=len(self._dispatcher))

    def _read_active(self) -> ActiveAlerts:
        """What fires, from the topic's beginning."""
        active = ActiveAlerts()
        history = TopicReader(self._kafka, (Topic.ALERTS,))
        try:
            for record in history.read_to_end(self._settings.start_timeout_seconds):
                with contextlib.suppress(AlertError):  # refused where it is handled
                    active.fold(decode_alert(record.value or b""), record.offset)
        finally:
            history.close()
        return active

    def _set_channels(self) -> None:
        self._channels = bound_channels(self._policy.policy)
        for name, reason in unreadable(self._channels).items():
            _log.warning("notify.channel_unreadable", channel=name, reason=reason)
        self._dispatcher.set_channels(
            {name: channel.traits for name, channel in self._channels.items()}
        )

    def _record_orphans(self, topics: _Topics) -> None:
        """Record the responses that the previous dispatcher's attempts have got by now."""
        orphans, self._sending = self._sending, []
        answered = [one for one in orphans if one.future.done()]
        self._publish(topics, [each for one in answered for each in self._records(one)])

    def _follow(self, records: Iterable[Record]) -> None:
        for record in records:
            try:
                self._follow_one(record)
            except (PolicyRecordError, ThrottleError, msgspec.MsgspecError) as error:
                self._refuse(record, error)

    def _follow_one(self, record: Record) -> None:
        match record.topic:
            case Topic.DELIVERIES if record.value:
                delivery = decode_delivery(record.value)
                # An operator asked for it again while this worker is in charge.
                if self._log.fold(delivery) and self._in_charge:
                    self._dispatcher.resend(delivery)
            case Topic.POLICIES:
                item = decode_policy(record.value) if record.value else None
                name = (record.key or b"").decode(errors="replace")
                if self._policy.fold_policy(name, item):
                    self._set_channels()
            case Topic.THROTTLE_COMMANDS if record.value:
                self._policy.fold_command(decode_command(record.value))

    def _read(self, record: Record) -> None:
        try:
            alert = decode_alert(record.value or b"")
        except AlertError as error:
            self._refuse(record, error)
            self._dispatcher.commits.read(record.partition, record.offset, ())
            return
        self._dispatcher.read(alert, record.partition, record.offset, self._clock())

    def _review(self) -> None:
        now_ms = self._clock()
        if now_ms - self._reviewed_ms >= REVIEW_MS:
            self._reviewed_ms = now_ms
            self._dispatcher.review_muted(now_ms)

    def _limit(self, topics: _Topics) -> None:
        """Read no more alerts while the dispatcher is full: they are safe in the topic."""
        full = len(self._dispatcher) >= self._settings.pending_max
        if full is not self._paused:
            self._paused = full
            change = topics.consumer.pause if full else topics.consumer.resume
            change(topics.consumer.assignment())
            _log.warning(
                "notify.paused" if full else "notify.resumed", waiting=len(self._dispatcher)
            )

    def _write_first(self, topics: _Topics) -> None:
        deliveries = self._dispatcher.records_before_sending(self._clock())
        if not deliveries:
            return
        self._publish(topics, deliveries)
        self._failpoints.hit(AlertingFailpoint.MESSAGE_DURABLE)
        self._dispatcher.recorded(deliveries)

    def _send(self) -> None:
        now_ms = self._clock()
        for job in self._dispatcher.outbox.take_due(now_ms):
            self._failpoints.hit(AlertingFailpoint.BEFORE_DELIVERY)
            channel = self._channels.get(job.channel)
            if channel is None:
                refused = Attempt(DeliveryOutcome.REFUSED, error="the channel was removed")
                future = done(refused)
            elif self._log.is_gone(job.channel, channel.traits.fingerprint):
                future = done(Attempt(DeliveryOutcome.GONE, error="the channel answered 410"))
            else:
                firing = self._dispatcher.active.of_incident(job.alert)
                future = self._sender.send(channel, Message(job, firing, now_ms))
            self._sending.append(_Sending(job, future, now_ms))

    def _record(self, topics: _Topics, answered: list[_Sending]) -> None:
        if not answered:
            return
        self._failpoints.hit(AlertingFailpoint.DELIVERED)
        outcomes = [(one, self._records(one)) for one in answered]
        self._publish(topics, [each for _, records in outcomes for each in records])
        self._failpoints.hit(AlertingFailpoint.DELIVERY_DURABLE)
        self._sending = [one for one in self._sending if one not in answered]
        for one, records in outcomes:
            self._dispatcher.recorded(records)
            self._dispatcher.settle(one.job, one.future.result(), records[-1], self._clock())

    def _records(self, sending: _Sending) -> list[Delivery]:
        """The records of an attempt, its own the last."""
        return list(
            self._dispatcher.records(
                sending.job,
                sending.future.result(),
                self._settings.retry_seconds,
                sending.began_ms,
                self._clock(),
            )
        )

    def _publish(self, topics: _Topics, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        for one in deliveries:
            self._meter.count(Metric.DELIVERIES, reason=one.outcome)
            if one.outcome not in _QUIET:
                _log_failure(one)
        for attempt in range(1, PUBLISH_ATTEMPTS_MAX + 1):
            try:
                for one in deliveries:
                    key = delivery_key(one.message_id, one.channel)
                    topics.producer.send(Topic.DELIVERIES, key, encode_delivery(one))
                topics.producer.flush(self._settings.flush_timeout_seconds)
                break
            except BrokerUnavailableError as error:
                _log.warning("notify.publish_failed", attempt=attempt, reason=str(error))
                if attempt == PUBLISH_ATTEMPTS_MAX:
                    raise
        self._meter.gauge(Metric.LAST_FLUSH_MS, self._clock())

    def _commit(self, topics: _Topics) -> None:
        moved = self._dispatcher.commits.take_committable()
        offsets = {TopicPartition(Topic.ALERTS, each): at for each, at in moved.items()}
        try:
            topics.consumer.commit(offsets)
        except RebalancedError:
            # Another worker reads these alerts again; the delivery log says what is done.
            _log.info("notify.rebalanced")
        except BrokerUnavailableError as error:
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


_QUIET = frozenset({DeliveryOutcome.DELIVERED, DeliveryOutcome.PENDING, DeliveryOutcome.MUTED})


def _log_failure(delivery: Delivery) -> None:
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
