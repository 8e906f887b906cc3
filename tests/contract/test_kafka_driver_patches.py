"""Symptoms of kafka-python that only a broker provokes, and that `_driver_patches` removes.

Tests named `*_upstream_*` use the bare driver and fail when it no longer needs the patch. What
else is patched is provoked in `tests/unit/backends/test_kafka_driver_patches.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer
from kafka import errors as driver
from kafka.structs import OffsetAndMetadata

from meterline.backends.kafka import reader as reader_module
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, TopicPartition, embedded_kafka
from meterline.backends.kafka.group import GroupConsumer
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.embedded.broker import start_broker
from meterline.schemas.topics import TopicSpec
from tests.servers import running_broker

pytestmark = [pytest.mark.functional, pytest.mark.timeout(120)]
PATIENCE_SECONDS = 60.0
# Of an answer that the broker gives within milliseconds.
SHORT_SECONDS = 1.0


@pytest.fixture(scope="module", name="config")
def fixture_config() -> Iterator[KafkaConfig]:
    """A broker."""
    with running_broker() as bootstrap:
        yield embedded_kafka(bootstrap)


def make_topic(config: KafkaConfig, name: str) -> str:
    """A topic of one partition outside the registry; the client takes its name alone."""
    spec = TopicSpec(name, "", "", 1, {})  # type: ignore[arg-type]
    with contextlib.closing(Admin(config)) as admin:
        admin.apply([spec], usage_partitions=1, replication_factor=1)
    return name


def publish(config: KafkaConfig, topic: str, values: list[bytes]) -> None:
    """Records of one partition, acknowledged."""
    with contextlib.closing(Producer(config)) as producer:
        for value in values:
            producer.send(topic, b"k", value, partition=0)
        producer.flush(PATIENCE_SECONDS)


def read_over_a_restart(wanted: bytes) -> set[bytes | None]:
    """What a reader gets of a topic that was lost and made again behind it, until `wanted` came.

    The reader may get the end of the new topic before it knows that it is a new one.
    """
    server = start_broker()
    config = embedded_kafka(server.address)
    try:
        publish(config, make_topic(config, "t"), [b"1", b"2", b"3"])
        with contextlib.closing(TopicReader(config, ["t"])) as reader:
            assert len(list(reader.read_to_end(PATIENCE_SECONDS))) == 3
            server.stop()
            server = start_broker(server.port)
            publish(config, make_topic(config, "t"), [b"4", b"5", b"6", b"7", b"8"])
            got: set[bytes | None] = set()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while wanted not in got:
                assert time.monotonic() < deadline, got
                got |= {record.value for record in reader.poll(0.1)}
            return got | {record.value for record in reader.poll(SHORT_SECONDS)}
    finally:
        server.stop()


def test_a_topic_that_was_made_again_is_read_from_its_beginning() -> None:
    """A position in the lost log skips nothing of the new one."""
    assert read_over_a_restart(b"4") == {b"4", b"5", b"6", b"7", b"8"}


def test_upstream_skips_the_beginning_of_a_topic_that_was_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the topic's id the position is kept: else drop `topic_id`."""
    monkeypatch.setattr(reader_module, "topic_id", lambda *_: None)
    assert b"4" not in read_over_a_restart(b"8")


def threads_left_by(close: Callable[[], None], before: set[threading.Thread]) -> int:
    """Threads that a client which is closed while its broker is away leaves running."""
    close()
    deadline = time.monotonic() + SHORT_SECONDS
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(left)


def test_a_producer_that_is_closed_with_the_broker_away_leaves_no_thread() -> None:
    """Unsent records are failed, and the driver's thread has ended."""
    before = set(threading.enumerate())
    server = start_broker()
    config = embedded_kafka(server.address)
    producer = Producer(config)
    producer.send(make_topic(config, "t"), b"k", b"before")
    producer.flush(PATIENCE_SECONDS)
    server.kill()
    producer.send("t", b"k", b"after")
    assert threads_left_by(lambda: producer.close(0.1), before) == 0


def test_upstream_leaves_its_thread_when_it_is_closed_with_the_broker_away() -> None:
    """The bare driver's close gives up with its flush: else drop `end_sender`."""
    before = set(threading.enumerate())
    server = start_broker()
    config = embedded_kafka(server.address)
    make_topic(config, "t")
    bare: Any = KafkaProducer(
        bootstrap_servers=config.addresses,
        enable_idempotence=False,
        proxy_url="meterline-direct://",
    )
    bare.send("t", b"before").get(PATIENCE_SECONDS)
    server.kill()
    bare.send("t", b"after")

    def close() -> None:
        with contextlib.suppress(driver.KafkaTimeoutError):
            bare.close(timeout=0.1)

    try:
        assert threads_left_by(close, before) > 0
    finally:
        bare._sender.force_close()
        bare._sender.join(PATIENCE_SECONDS)
        bare._closed = False
        bare.close(timeout=0)


def test_a_commit_in_a_callback_is_answered(config: KafkaConfig) -> None:
    """What `on_assigned` commits is stored before `poll` returns."""
    topic = make_topic(config, "t-commit")
    committed: list[int] = []

    def commit(_: object) -> None:
        member.commit({TopicPartition(topic, 0): 0})
        committed.append(0)

    member = GroupConsumer(config, "g-commit", [topic], on_assigned=commit)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not committed:
            assert time.monotonic() < deadline
            member.poll(0.1)
    finally:
        member.close()


def test_upstream_waits_for_itself_when_a_callback_commits(config: KafkaConfig) -> None:
    """The bare driver's commit in a listener is not answered: else drop `event_loop`."""
    topic = make_topic(config, "t-bare")
    answers: list[object] = []

    class Committing(ConsumerRebalanceListener):  # type: ignore[misc] # the driver is untyped
        """Commits where it is called."""

        def on_partitions_revoked(self, revoked: Any) -> None:
            """Leave."""

        def on_partitions_assigned(self, assigned: Any) -> None:
            """Commit what was assigned."""
            offsets = {each: OffsetAndMetadata(0, "", -1) for each in assigned}
            try:
                bare.commit(offsets, timeout_ms=int(SHORT_SECONDS * 1000))
            except Exception as error:  # noqa: BLE001 - which of its errors is the driver's choice
                answers.append(error)
            else:
                answers.append(None)

    bare: Any = KafkaConsumer(
        bootstrap_servers=config.addresses,
        group_id="g-bare",
        enable_auto_commit=False,
        session_timeout_ms=config.session_timeout_ms,
        heartbeat_interval_ms=config.session_timeout_ms // 3,
        proxy_url="meterline-direct://",
    )
    try:
        bare.subscribe([topic], listener=Committing())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not answers:
            assert time.monotonic() < deadline
            bare.poll(timeout_ms=100)
        assert answers[0] is not None
    finally:
        bare.close(autocommit=False)
