"""Reads whole topics without a group: all partitions, from the beginning, commits nothing.

The end of a partition is the high watermark that comes with every fetch: the embedded broker
answers ListOffsets(latest) with the last batch's base offset + 1, which is too small.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer
from kafka import TopicPartition as DriverPartition

from meterline.backends.kafka._driver_patches import topic_id
from meterline.backends.kafka.client import start_client
from meterline.backends.kafka.config import KafkaConfig, Record
from meterline.backends.kafka.consuming import (
    RECORDS_MAX,
    consumer_options,
    poll_driver,
    records_of,
)
from meterline.backends.kafka.error_mapping import mapped
from meterline.backends.kafka.errors import BrokerUnavailableError, KafkaFatalError
from meterline.backends.kafka.gaps import GapWatch

# The longest that commands and jobs read a topic to its end: a million entries take some 20 s, on a
# machine that does other things as well. A broker that is away is noticed at the start instead.
READ_SECONDS_MAX = 120.0
# One step of reading to the end: short, so that the end is noticed soon after it is known.
STEP_SECONDS_MAX = 0.05
# An empty partition's end is known when the fetch's wait is over, and a start waits for it.
FETCH_WAIT_MS_MAX = 100


class TopicReader:
    """Follows every partition of some topics. Not thread-safe."""

    def __init__(self, config: KafkaConfig, topics: Sequence[str]) -> None:
        """Start at the beginning of every partition.

        Raises:
            BrokerUnavailableError: no broker answers.
            KafkaFatalError: a topic does not exist, or the settings cannot work.
        """
        self._config = config
        self._topics = tuple(topics)
        self._started = False
        self._closed = False
        self._gaps = GapWatch() if config.refetch_gaps else None
        self._topic_ids: dict[str, object] = {}
        self._driver = self._open({})

    def read_to_end(self, timeout_seconds: float) -> Iterator[Record]:
        """Every record from the current position to the end as it is when this is called, or later.

        Whatever was acknowledged to its producer before the call is among them. May be called
        again, and mixed with `poll`: it continues where the last call ended.

        Raises:
            BrokerUnavailableError: the end was not reached within the time.
        """
        deadline = time.monotonic() + timeout_seconds
        if self._started:
            # A fetch answered before this call may know an older end: start with none in flight.
            self._driver = self._reopen()
        ends: dict[Any, int] = {}
        while not self._reached(ends):
            if time.monotonic() > deadline:
                message = (
                    f"did not read {', '.join(self._topics)} to the end within "
                    f"{timeout_seconds:g} s: is the broker up?"
                )
                raise BrokerUnavailableError(message)
            yield from self.poll(min(STEP_SECONDS_MAX, timeout_seconds))
            for partition in self._driver.assignment():
                end = self._driver.highwater(partition)
                if end is not None:
                    ends.setdefault(partition, end)

    def poll(self, timeout_seconds: float, records_max: int = RECORDS_MAX) -> list[Record]:
        """Records that came within the time, in offset order per partition; maybe none.

        Partitions that were added to a topic are read too, from their beginning.
        """
        with mapped(f"reading {', '.join(self._topics)}"):
            self._started = True
            self._add_new_partitions()
            self._rewind_replaced_topics()
            polled = poll_driver(self._driver, self._gaps, timeout_seconds, records_max)
            # The driver may learn of the new topic and read it from the old position in one poll.
            replaced = self._rewind_replaced_topics()
        return records_of({each: polled[each] for each in polled if each.topic not in replaced})

    def caught_up(self) -> bool:
        """Whether all was read up to the ends that the last fetches named; False before them."""
        with mapped(f"reading {', '.join(self._topics)}"):
            ends = {each: self._driver.highwater(each) for each in self._driver.assignment()}
            return None not in ends.values() and self._reached(ends)

    def close(self) -> None:
        """Close the connection; idempotent."""
        if not self._closed:
            self._closed = True
            with mapped("closing a topic reader"):
                self._driver.close(autocommit=False)

    def _reached(self, ends: dict[Any, int]) -> bool:
        return all(
            partition in ends and self._position(partition) >= ends[partition]
            for partition in self._driver.assignment()
        )

    def _position(self, partition: Any) -> int:
        with mapped(f"reading {partition.topic}"):
            # Does not wait: where the reading has not begun, the next poll sees to it.
            position = self._driver.position(partition, timeout_ms=0)
        return -1 if position is None else int(position)

    def _open(self, positions: dict[Any, int]) -> Any:
        options = consumer_options(self._config)
        options["fetch_max_wait_ms"] = min(FETCH_WAIT_MS_MAX, options["fetch_max_wait_ms"])
        consumer: Any = start_client(KafkaConsumer, self._config, {**options, "group_id": None})
        try:
            with mapped(f"looking for {', '.join(self._topics)}"):
                partitions = self._partitions(consumer)
                consumer.assign(partitions)
                for partition, offset in positions.items():
                    consumer.seek(partition, offset)
        except BaseException:
            consumer.close(autocommit=False)
            raise
        return consumer

    def _reopen(self) -> Any:
        positions = {
            partition: self._position(partition) for partition in self._driver.assignment()
        }
        self._driver.close(autocommit=False)
        return self._open({each: offset for each, offset in positions.items() if offset >= 0})

    def _partitions(self, consumer: Any) -> list[Any]:
        found = []
        for topic in self._topics:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                message = f"topic {topic} does not exist: run `meterline topics apply`"
                raise KafkaFatalError(message)
            found += [DriverPartition(topic, number) for number in sorted(numbers)]
        return found

    def _add_new_partitions(self) -> None:
        partitions = self._partitions(self._driver)
        if len(partitions) > len(self._driver.assignment()):
            self._driver.assign(partitions)

    def _rewind_replaced_topics(self) -> set[str]:
        """Start over in a topic that was made again, as the embedded broker's are after a restart.

        A position in the lost log means nothing in the new one; only where it is beyond the end
        would the broker say so. Returns the topics.
        """
        replaced: set[str] = set()
        for topic in self._topics:
            found = topic_id(self._driver, topic)
            if found is None or found == self._topic_ids.setdefault(topic, found):
                continue
            self._topic_ids[topic] = found
            replaced.add(topic)
            partitions = [each for each in self._driver.assignment() if each.topic == topic]
            self._driver.seek_to_beginning(*partitions)
        return replaced
