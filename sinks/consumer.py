"""The sink's loop: poll, batch, write, commit.

    this thread    poll ──► decode, batch ──► hand over ··········► commit
    the writer's                                 └─► ClickHouse, dead letters ─┘

One batch is being written while the next is read: ClickHouse and the decoding work at the same
time. Never two, so memory holds two batches of a topic at most, and offsets are committed in order.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from meterline.backends.clickhouse.client import Client
from meterline.backends.failpoints import Failpoints, SinkFailpoint
from meterline.backends.kafka.config import KafkaConfig, Record, TopicPartition
from meterline.backends.kafka.errors import BrokerUnavailableError, RebalancedError
from meterline.backends.kafka.group import GroupConsumer
from meterline.backends.kafka.producer import Producer
from meterline.schemas.clock import Clock
from meterline.schemas.errors import MeterlineError
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.topics import Topic
from meterline.sinks.core.batch import FlushReason, SinkBatch, flush_reason
from meterline.sinks.core.handlers import topic_handlers
from meterline.sinks.core.usage_rows import Rate
from meterline.sinks.settings import SinkSettings
from meterline.sinks.writer import BatchWriter

_log = structlog.get_logger("sink")

# A sink that waits for its writer polls the group this often; well below every session time-out,
# and longer than an insert usually takes.
HOLD_POLL_SECONDS = 0.2
# Two batches are some 100,000 lists and texts, none of them in a cycle: scanning them every 700
# new ones (the default) would take a fifth of the decoding's time.
GC_THRESHOLDS = (50_000, 20, 50)


class StoppedError(MeterlineError):
    """A stop was requested while waiting for a server; unwritten records are read again."""


@dataclass(frozen=True, slots=True)
class SinkDependencies:
    """The dependencies of a sink."""

    client: Client
    rate: Rate
    clock: Clock
    meter: Meter


class _Writing(NamedTuple):
    """The batch that the writer thread is storing."""

    topic: Topic
    batch: SinkBatch
    reason: FlushReason
    done: Future[None]


class Sink:
    """One member of the sink's group."""

    def __init__(
        self,
        settings: SinkSettings,
        kafka: KafkaConfig,
        dependencies: SinkDependencies,
        stop: threading.Event,
    ) -> None:
        """Subscribe.

        Raises:
            KafkaClientError: no broker answers, or the settings cannot work.
        """
        self._settings = settings
        self._dependencies = dependencies
        self._stop = stop
        self._failpoints = Failpoints(settings.crash_at, SinkFailpoint)
        self._handlers = topic_handlers(settings.epoch, dependencies.rate)
        self._batches = {topic: SinkBatch(topic.value) for topic in settings.policies}
        # Polled and not yet in a batch: one poll's records, and at most one poll's more that a
        # rebalance brought while the sink waited for its writer.
        self._polled: deque[Record] = deque()
        self._uncommitted: dict[TopicPartition, int] = {}
        self._writer = BatchWriter(
            settings,
            dependencies.client,
            lambda: Producer(kafka),
            dependencies.meter,
            self._failpoints,
        )
        self._thread = ThreadPoolExecutor(1, "sink-writer")
        self._writing: _Writing | None = None
        self._consumer = GroupConsumer(
            kafka,
            settings.group,
            [topic.value for topic in settings.policies],
            on_revoked=self._forget,
        )

    def run(self) -> None:
        """Run until `stop` is set; then write and commit what has been read."""
        try:
            while not self._stop.is_set():
                self._poll(self._due_seconds())
                self._take()
                self._flush_due()
            for topic in self._batches:
                self._flush(topic, FlushReason.SHUTDOWN)
            self._settle()
        except StoppedError:
            _log.info("sink.stopped_unwritten")

    def close(self) -> None:
        """Leave the group and close the connections."""
        self._consumer.close()
        # A writer that waits for a server sees the stop; one at work ends its statement.
        self._stop.set()
        self._thread.shutdown()
        self._writer.close()

    def _due_seconds(self) -> float:
        """Seconds that a poll may wait for records without making a batch late."""
        timeout_ms = self._settings.poll_ms_max
        now_ms = _monotonic_ms()
        for topic, batch in self._batches.items():
            if batch:
                due_ms = batch.began_ms + self._settings.policies[topic].age_ms_max - now_ms
                timeout_ms = max(0, min(timeout_ms, due_ms))
        return timeout_ms / 1000

    def _poll(self, timeout_seconds: float) -> None:
        try:
            self._polled += self._consumer.poll(timeout_seconds, self._settings.poll_records_max)
        except RebalancedError as error:
            # `_forget` was called for the partitions that were revoked.
            _log.info("sink.rebalanced", reason=str(error))
        except BrokerUnavailableError as error:
            _log.warning("sink.broker_away", reason=str(error))
            self._stop.wait(self._settings.retry_ms_min / 1000)

    def _take(self) -> None:
        """Add records to their batches; a full batch is written before more is added to it."""
        while self._polled:
            record = self._polled.popleft()
            topic = Topic(record.topic)
            batch = self._batches[topic]
            batch.read(record, _monotonic_ms())
            self._handlers[topic].take(batch, record)
            # Age is checked between polls; here only the size.
            reason = flush_reason(self._settings.policies[topic], batch, batch.began_ms)
            if reason is not FlushReason.NONE:
                self._flush(topic, reason)

    def _flush_due(self) -> None:
        if self._writing is not None and self._writing.done.done():
            self._settle()
        for topic, batch in self._batches.items():
            reason = flush_reason(self._settings.policies[topic], batch, _monotonic_ms())
            if reason is not FlushReason.NONE:
                self._flush(topic, reason)
        if self._uncommitted:
            self._commit({})

    def _flush(self, topic: Topic, reason: FlushReason) -> None:
        """Hand one batch to the writer, after the one before it.

        1. and 2. `BatchWriter.write`: rows in ClickHouse, dead letters in Kafka. Both may repeat.
        3. `_settle`: commit the offsets.
        """
        batch = self._batches[topic]
        if not batch:
            return
        # A new batch first: a rebalance from here on must not change what is written.
        self._batches[topic] = SinkBatch(topic.value)
        self._settle()
        done = self._thread.submit(self._writer.write, batch, self._handlers[topic], self._hold)
        self._writing = _Writing(topic, batch, reason, done)

    def _settle(self) -> None:
        """Wait for the batch that is being written, and commit it.

        Only what is durable is committed; a crash before the commit reads the same messages again,
        and their rows replace themselves.
        """
        writing = self._writing
        if writing is None:
            return
        self._stay_until(writing.done)
        self._writing = None
        writing.done.result()
        self._commit(writing.batch.offsets)
        self._failpoints.hit(SinkFailpoint.AFTER_COMMIT)
        topic, batch = writing.topic, writing.batch
        self._dependencies.meter.count(Metric.MESSAGES, len(batch.entries), reason=topic.value)
        self._dependencies.meter.gauge(Metric.LAST_FLUSH_MS, self._dependencies.clock())
        _log.debug("sink.flushed", topic=topic.value, rows=batch.rows, reason=writing.reason.value)

    def _stay_until(self, done: Future[None]) -> None:
        """Wait without reading, but poll: a member that does not loses its partitions."""
        wait((done,), HOLD_POLL_SECONDS)
        if done.done():
            return
        while not done.done():
            self._consumer.pause(self._consumer.assignment())
            # Empty unless a rebalance has just brought partitions, which the next round pauses.
            self._poll(0)
            wait((done,), HOLD_POLL_SECONDS)
        self._consumer.resume(self._consumer.assignment())

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        owned = self._consumer.assignment()
        wanted = {
            each: offset
            for each, offset in {**self._uncommitted, **offsets}.items()
            if each in owned
        }
        try:
            self._consumer.commit(wanted)
        except (BrokerUnavailableError, RebalancedError) as error:
            # Kept and committed with the next batch, unless `_forget` is called for the
            # partitions: until then a crash repeats, and loses nothing.
            _log.warning("sink.commit_waits", reason=str(error))
            self._uncommitted = wanted
        else:
            self._uncommitted = {}

    def _hold(self, seconds: float) -> None:
        """Wait for a server, in the writer's thread."""
        if self._stop.wait(seconds):
            raise StoppedError

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what was read of revoked partitions: their next owner reads it again.

        Writing it here first would save a repetition, but would let a slow ClickHouse hold up the
        whole group's rebalance.
        """
        for batch in self._batches.values():
            batch.forget(partitions)
        self._polled = deque(
            record
            for record in self._polled
            if TopicPartition(record.topic, record.partition) not in partitions
        )
        self._uncommitted = {
            each: offset for each, offset in self._uncommitted.items() if each not in partitions
        }


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def run_sink(  # noqa: PLR0913, PLR0917 - what the composition root has to give
    settings: SinkSettings,
    kafka: KafkaConfig,
    client_factory: Callable[[], Client],
    rate: Rate,
    clock: Clock,
    meter: Meter,
    stop: threading.Event,
) -> int:
    """Read the topics and store them until `stop` is set; the process's exit code.

    Args:
        settings: bounds, waits and the log's generation.
        kafka: the broker.
        client_factory: connects to ClickHouse.
        rate: prices an event.
        clock: UTC milliseconds, for metrics only.
        meter: counts rows, retries and refusals.
        stop: requests a clean end.

    Raises:
        SinkError, ClickHouseError, KafkaClientError: it cannot continue; the message says why.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    sink = Sink(settings, kafka, SinkDependencies(client_factory(), rate, clock, meter), stop)
    try:
        _log.info("sink.started", group=settings.group, epoch=settings.epoch)
        # ClickHouse answered and the group is joined in the first poll: nothing else to wait for.
        meter.gauge(Metric.READY, 1)
        sink.run()
    finally:
        meter.gauge(Metric.READY, 0)
        sink.close()
    return 0
