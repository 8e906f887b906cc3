"""What the group consumer and the topic reader share: settings, and the driver's values as `Record`s."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka import TopicPartition as DriverPartition

from meterline.backends.kafka.client import REQUEST_TIMEOUT_MS, common_options
from meterline.backends.kafka.config import KafkaConfig, Record, TopicPartition
from meterline.backends.kafka.gaps import GapWatch

# Memory of one consumer: what is fetched and not yet polled. One partition's share holds a whole
# message of the largest size and some; the total is what all partitions together may hold.
FETCH_PARTITION_BYTES_MAX = 2 * 1024 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024
RECORDS_MAX = 500


def consumer_options(config: KafkaConfig) -> dict[str, Any]:
    """The driver's settings for anything that reads."""
    return {
        **common_options(config),
        "fetch_max_wait_ms": config.fetch_max_wait_ms,
        "max_partition_fetch_bytes": FETCH_PARTITION_BYTES_MAX,
        "fetch_max_bytes": FETCH_BYTES_MAX,
        "auto_offset_reset": "earliest",
        # Offsets are committed when the work is durable, never by a timer.
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }


def to_driver(partitions: Iterable[TopicPartition]) -> list[Any]:
    """Partitions as the driver's type."""
    return [DriverPartition(topic, partition) for topic, partition in partitions]


def from_driver(partitions: Iterable[Any]) -> frozenset[TopicPartition]:
    """The driver's partitions as `TopicPartition`s."""
    return frozenset(TopicPartition(each.topic, each.partition) for each in partitions)


def records_of(polled: dict[Any, list[Any]]) -> list[Record]:
    """The driver's poll result as records, each partition's in offset order."""
    return [
        Record(each.topic, each.partition, each.offset, each.timestamp, each.key, each.value)
        for batch in polled.values()
        for each in batch
    ]


def poll_driver(
    driver: Any, gaps: GapWatch | None, timeout_seconds: float, records_max: int
) -> dict[Any, list[Any]]:
    """Poll; with `gaps`, without the records that a fetch gave too early."""
    timeout_ms = int(timeout_seconds * 1000)
    if gaps is None:
        polled: dict[Any, list[Any]] = driver.poll(timeout_ms=timeout_ms, max_records=records_max)
        return polled
    # Waits at most as long as the poll itself may, for all of them together.
    deadline = time.monotonic() + timeout_seconds
    positions = {
        each: driver.position(each, timeout_ms=_left_ms(deadline))
        for each in driver.assignment() or ()
    }
    polled = driver.poll(timeout_ms=_left_ms(deadline), max_records=records_max)
    for partition, records in polled.items():
        position = positions.get(partition)
        if position is None:
            # Given to this member within the poll: what is missing follows only from where its
            # reading begins.
            position = _first_position(driver, partition)
        again = gaps.admit(partition, position, records)
        if again is not None:
            driver.seek(partition, again)
    return polled


def _left_ms(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000))


def _first_position(driver: Any, partition: Any) -> int:
    if driver.config["group_id"] is not None:
        committed = driver.committed(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        if committed is not None:
            return int(committed)
    return int(driver.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition])
