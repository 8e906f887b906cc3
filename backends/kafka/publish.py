"""Publishing a bounded set of records with a producer of its own, as commands and jobs do."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.producer import DELIVERY_SECONDS_MAX, Producer

# The producer gives every record up after DELIVERY_SECONDS_MAX: a little longer, so that its error,
# which names the cause, is the one that is raised.
PUBLISH_SECONDS_MAX = DELIVERY_SECONDS_MAX + 5
# The producer is flushed this often, so that its buffer is never the bound: a million entries take
# 20 us each, so this is half a second's work.
RECORDS_PER_FLUSH = 20_000


class OutgoingRecord(NamedTuple):
    """One record to publish; `value` None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    """None: by the key."""


def publish_records(config: KafkaConfig, *stages: Iterable[OutgoingRecord]) -> None:
    """Publish records; returns when all of them are durable.

    Args:
        config: the cluster.
        stages: each is durable before the first record of the next is sent.

    Raises:
        KafkaClientError: not everything is durable; what is, is so in the order of the stages.
    """
    with closing(Producer(config)) as producer:
        for stage in stages:
            send_all(producer, stage)


def send_all(producer: Producer, records: Iterable[OutgoingRecord]) -> None:
    """Send records with a producer at hand; returns when all of them are durable.

    Raises:
        KafkaClientError: not everything is durable.
    """
    for number, record in enumerate(records, 1):
        producer.send(record.topic, record.key, record.value, partition=record.partition)
        if not number % RECORDS_PER_FLUSH:
            producer.flush(PUBLISH_SECONDS_MAX)
    producer.flush(PUBLISH_SECONDS_MAX)
