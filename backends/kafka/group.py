"""A member of a consumer group: polls, commits explicitly, is notified of partitions taken away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from kafka import KafkaConsumer
from kafka import errors as driver
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future
from kafka.structs import OffsetAndMetadata
from typing_extensions import override

from meterline.backends.kafka._driver_patches import event_loop, finish_joins
from meterline.backends.kafka.client import REQUEST_TIMEOUT_MS, start_client
from meterline.backends.kafka.config import KafkaConfig, Record, TopicPartition
from meterline.backends.kafka.consuming import (
    RECORDS_MAX,
    consumer_options,
    from_driver,
    poll_driver,
    records_of,
    to_driver,
)
from meterline.backends.kafka.error_mapping import mapped
from meterline.backends.kafka.gaps import GapWatch

# A member that does not poll for this long is taken for dead: longer than the longest insert
# with its retries, shorter than the retention of anything.
POLL_INTERVAL_MS_MAX = 300_000
# A commit to a live coordinator takes milliseconds; a rebalance is waited for by polling.
COMMIT_TIMEOUT_MS = 10_000
# Leaving the group politely; without it the group waits for the session's end.
CLOSE_TIMEOUT_MS = 5_000
# Three heartbeats may be lost before a session ends, as Kafka recommends.
HEARTBEATS_PER_SESSION = 3

OnPartitions: TypeAlias = Callable[[Collection[TopicPartition]], None]


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc] # the driver is untyped
    """Runs the caller's callbacks outside the driver's event loop.

    The driver calls listeners on the loop that sends its heartbeats and commits; a callback that
    commits there would wait for itself. Each runs in a thread of its own while `poll` waits for
    it, so for the caller it is as if `poll` had called it.
    """

    def __init__(
        self, loop: Any, on_revoked: OnPartitions | None, on_assigned: OnPartitions | None
    ) -> None:
        self.loop = loop
        self.on_revoked = on_revoked
        self.on_assigned = on_assigned
        self.failure: BaseException | None = None

    @override
    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._run(self.on_revoked, revoked)

    @override
    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._run(self.on_assigned, assigned)

    async def _run(self, callback: OnPartitions | None, partitions: Any) -> None:
        if callback is None or not partitions:
            return
        done = Future()

        def call() -> None:
            try:
                callback(from_driver(partitions))
            except BaseException as error:  # noqa: BLE001 - raised again by poll or close
                self.failure = error
            self.loop.call_soon_threadsafe(lambda: done.success(None))

        threading.Thread(target=call, name="kafka-rebalance", daemon=True).start()
        await done


class GroupConsumer:
    """One member of a group. Not thread-safe, except as the callbacks need it."""

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        topics: Sequence[str],
        *,
        on_revoked: OnPartitions | None = None,
        on_assigned: OnPartitions | None = None,
    ) -> None:
        """Subscribe; partitions come with later polls. New groups start at the beginning.

        Args:
            config: the cluster.
            group: the group's name.
            topics: what to read.
            on_revoked: called within `poll` or `close` before partitions go to another member:
                finish and commit their work here (`commit` may be called), then forget it. Also
                called when they are already lost; then `commit` raises RebalancedError.
            on_assigned: called within `poll` when partitions have come.

        Raises:
            BrokerUnavailableError: no broker answers.
            KafkaFatalError: the settings cannot work.
        """
        self._closed = False
        self._gaps = GapWatch() if config.refetch_gaps else None
        options = {
            **consumer_options(config),
            "group_id": group,
            "session_timeout_ms": config.session_timeout_ms,
            "heartbeat_interval_ms": config.session_timeout_ms // HEARTBEATS_PER_SESSION,
            "max_poll_interval_ms": POLL_INTERVAL_MS_MAX,
        }
        self._driver: Any = start_client(KafkaConsumer, config, options)
        finish_joins(self._driver)
        self._listener = _Listener(event_loop(self._driver), on_revoked, on_assigned)
        with mapped(f"subscribing to {', '.join(topics)}"):
            self._driver.subscribe(topics=list(topics), listener=self._listener)

    def poll(self, timeout_seconds: float, records_max: int = RECORDS_MAX) -> list[Record]:
        """Records that came within the time, in offset order per partition; maybe none.

        Away brokers are waited for: an empty list says nothing about them (`Admin.ping` does).

        Raises:
            KafkaClientError: a subclass that says what to do; also the error of a callback, as it is.
        """
        with mapped("reading from the broker"):
            polled: dict[Any, list[Any]] = {}
            try:
                polled = poll_driver(self._driver, self._gaps, timeout_seconds, records_max)
            finally:
                self._raise_failure()
        return records_of(polled)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offset to read of each partition; returns when the broker has it.

        Raises:
            RebalancedError: the partitions are no longer this member's; their records are delivered
                again, to the member that has them now.
            BrokerUnavailableError: not stored within COMMIT_TIMEOUT_MS.
        """
        if not offsets:
            return
        stored = {
            partition: OffsetAndMetadata(offset, "", -1)
            for partition, offset in zip(to_driver(offsets), offsets.values(), strict=True)
        }
        with mapped("committing offsets"):
            self._driver.commit(stored, timeout_ms=COMMIT_TIMEOUT_MS)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Let `poll` return nothing of these until `resume`; those no longer assigned are left."""
        with mapped("pausing partitions"):
            self._driver.pause(*to_driver(self.assignment() & set(partitions)))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`."""
        with mapped("resuming partitions"):
            self._driver.resume(*to_driver(self.assignment() & set(partitions)))

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are this member's now."""
        return from_driver(self._driver.assignment() or ())

    def lag(self) -> Mapping[TopicPartition, int]:
        """Records behind the end, by the last fetch; partitions not fetched yet are left out."""
        behind: dict[TopicPartition, int] = {}
        with mapped("asking for the lag"):
            for partition in self._driver.assignment() or ():
                end = self._driver.highwater(partition)
                if end is not None:
                    position = self._driver.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
                    if position is not None:
                        behind[TopicPartition(*partition)] = max(0, end - position)
        return behind

    def close(self) -> None:
        """Leave the group after `on_revoked`; idempotent. Commits nothing by itself."""
        if self._closed:
            return
        self._closed = True
        with mapped("leaving the consumer group"):
            try:
                self._driver.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
            except driver.KafkaTimeoutError:
                # The broker is away: the group removes this member when the session ends.
                return
            finally:
                self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._listener.failure = self._listener.failure, None
        if failure is not None:
            raise failure
