"""A producer whose broker dies with its messages under way, and comes back on the same data."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
from pathlib import Path

import pytest

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, TopicPartition
from meterline.backends.kafka.errors import BrokerUnavailableError, KafkaClientError
from meterline.backends.kafka.producer import Producer
from meterline.embedded.kafka import start_kafka
from meterline.schemas.topics import TOPICS, Topic
from tests.servers import require_apache

pytestmark = [
    pytest.mark.functional,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("kafka-restart"),
]
DELIVERY_SECONDS = 1.5
PATIENCE_SECONDS = 60.0


def test_a_producer_goes_on_after_its_messages_expired_under_way(tmp_path: Path) -> None:
    """An idempotent producer that lost its id with an expired message gets another one."""
    require_apache()
    answers: queue.SimpleQueue[KafkaClientError | None] = queue.SimpleQueue()
    server = start_kafka(tmp_path / "kafka")
    try:
        config = KafkaConfig(server.address, idempotent=True)
        with contextlib.closing(Admin(config)) as admin:
            admin.apply(TOPICS, usage_partitions=1, replication_factor=1)
        producer = Producer(config, linger_ms=0, delivery_seconds=DELIVERY_SECONDS)
        try:

            def send() -> KafkaClientError | None:
                producer.send(Topic.USAGE_EVENTS, b"k", b"v", on_done=answers.put)
                return answers.get(timeout=PATIENCE_SECONDS)

            assert send() is None
            os.kill(server.pid, signal.SIGSTOP)
            # Sent, and not answered before the connection breaks: that costs the id.
            producer.send(Topic.USAGE_EVENTS, b"k", b"v", on_done=answers.put)
            time.sleep(0.3)
            server.kill()
            assert isinstance(answers.get(timeout=PATIENCE_SECONDS), BrokerUnavailableError)
            server = start_kafka(tmp_path / "kafka", server.port)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (answer := send()) is not None:
                assert time.monotonic() < deadline, answer
        finally:
            producer.close(1)
    finally:
        server.stop()


def test_a_new_cluster_takes_offsets_before_it_has_a_coordinator(tmp_path: Path) -> None:
    """What a rebuild stores for a group waits until the new cluster has made its offsets topic."""
    require_apache()
    server = start_kafka(tmp_path / "kafka")
    try:
        with contextlib.closing(Admin(KafkaConfig(server.address))) as admin:
            admin.apply(TOPICS, usage_partitions=1, replication_factor=1)
            admin.set_offsets("reader", {TopicPartition(Topic.ALERTS, 0): 3})
            assert admin.committed("reader", Topic.ALERTS) == {0: 3}
    finally:
        server.stop()
