"""The Kafka client's promises, kept on the embedded broker and on Apache Kafka."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import psutil
import pytest

from meterline.backends.kafka import client
from meterline.backends.kafka.admin import Admin, TopicAction
from meterline.backends.kafka.config import KafkaConfig, Record, TopicPartition, embedded_kafka
from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    KafkaFatalError,
    MessageRefusedError,
    RebalancedError,
)
from meterline.backends.kafka.group import GroupConsumer
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.embedded.broker import start_broker
from meterline.schemas.topics import COMPACT_ONLY, TOPICS, Topic, TopicSpec
from tests.servers import running_broker

pytestmark = [pytest.mark.functional, pytest.mark.timeout(180)]

# Far above what anything here takes on a busy machine; reached only by a failure.
PATIENCE_SECONDS = 75.0
PARTITIONS = 3
_T = TypeVar("_T")


class Closing(Protocol):
    """Remembers what to close when the test ends."""

    def __call__(self, item: _T, /) -> _T: ...


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A running broker, and what tests need to ask of it."""

    kind: str
    config: KafkaConfig

    def topic(self, name: str, *, partitions: int = PARTITIONS, **config: str) -> str:
        """Make a fresh topic."""
        spec = TopicSpec(
            topic_name(name),
            "",
            "",
            partitions,
            {k.replace("_", "."): v for k, v in config.items()},
        )
        admin = Admin(self.config)
        try:
            admin.apply([spec], usage_partitions=1, replication_factor=1)
        finally:
            admin.close()
        return name


def topic_name(name: str) -> Topic:
    """A topic outside the registry; the client takes its text alone."""
    return name  # type: ignore[return-value]


@pytest.fixture(scope="module", params=["embedded", "apache"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    kind: str = request.param
    data: Path = tmp_path_factory.mktemp("kafka")
    with running_broker(kind, data) as bootstrap:
        # 6 s is the shortest session that Apache Kafka grants.
        apache = KafkaConfig(bootstrap, session_timeout_ms=6_000)
        yield Cluster(kind, embedded_kafka(bootstrap) if kind == "embedded" else apache)


@pytest.fixture(name="unique")
def fixture_unique(request: pytest.FixtureRequest) -> str:
    """A name for this test's topic and group."""
    name: str = request.node.originalname
    return "t-" + name.removeprefix("test_").replace("_", "-")[:60]


@pytest.fixture
def closing() -> Iterator[Closing]:
    """Close what a test opened, the last first."""
    opened: list[object] = []

    def remember(item: _T, /) -> _T:
        opened.append(item)
        return item

    yield remember
    for item in reversed(opened):
        item.close()  # type: ignore[attr-defined]


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"


def poll_until(consumer: GroupConsumer | TopicReader, count: int) -> list[Record]:
    records: list[Record] = []

    def enough() -> bool:
        records.extend(consumer.poll(0.1))
        return len(records) >= count

    eventually(enough, f"{count} records")
    return records


def next_offsets(records: Collection[Record]) -> dict[TopicPartition, int]:
    offsets: dict[TopicPartition, int] = {}
    for record in records:
        offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
    return offsets


def values(records: Collection[Record]) -> list[bytes | None]:
    return [record.value for record in records]


# --- the producer ---------------------------------------------------------------------------


def test_a_record_goes_to_the_partition_that_is_asked_for_with_its_time(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """An explicit partition and timestamp are kept, whatever the key would hash to."""
    topic = cluster.topic(unique, message_timestamp_type="CreateTime")
    producer = closing(Producer(cluster.config))
    for number in range(30):
        producer.send(
            topic,
            b"k%d" % number,
            b"v",
            partition=number % PARTITIONS,
            timestamp_ms=1_700_000_000_123,
        )
    producer.flush(PATIENCE_SECONDS)
    records = list(closing(TopicReader(cluster.config, [topic])).read_to_end(PATIENCE_SECONDS))
    assert {record.key: record.partition for record in records} == {
        b"k%d" % number: number % PARTITIONS for number in range(30)
    }
    assert {record.timestamp_ms for record in records} == {1_700_000_000_123}


def test_records_of_one_key_keep_their_order(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Records of one key land in one partition in the order they were sent."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config, linger_ms=1))
    for number in range(2_000):
        producer.send(topic, b"lane", b"%d" % number)
    producer.flush(PATIENCE_SECONDS)
    records = list(closing(TopicReader(cluster.config, [topic])).read_to_end(PATIENCE_SECONDS))
    assert values(records) == [b"%d" % number for number in range(2_000)]


def test_on_done_is_called_once_per_record_before_flush_returns(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """After a flush every on_done was called exactly once, with None for success."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config))
    answers: list[tuple[int, KafkaClientError | None]] = []

    def answered(number: int, error: KafkaClientError | None) -> None:
        answers.append((number, error))

    for number in range(500):
        producer.send(topic, b"k", b"v", on_done=partial(answered, number))
    producer.flush(PATIENCE_SECONDS)
    assert sorted(number for number, _ in answers) == list(range(500))
    assert {error for _, error in answers} == {None}
    assert producer.held_bytes == 0


def test_a_tombstone_is_a_record_without_a_value(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A value of None is sent and read as None."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config))
    producer.send(topic, b"gone", None)
    producer.flush(PATIENCE_SECONDS)
    (record,) = closing(TopicReader(cluster.config, [topic])).read_to_end(PATIENCE_SECONDS)
    assert (record.key, record.value) == (b"gone", None)


def test_an_oversize_message_is_refused_and_holds_no_buffer(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A message above the limit raises MessageRefusedError at once; on_done is not called for it."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config))
    answers: list[KafkaClientError | None] = []
    with pytest.raises(MessageRefusedError):
        producer.send(topic, b"k", b"x" * 1_200_000, on_done=answers.append)
    assert producer.held_bytes == 0
    assert answers == []


def test_the_brokers_refusal_reaches_on_done_and_the_next_flush_once(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A message that the topic refuses is MessageRefusedError to on_done and to one flush."""
    if cluster.kind == "embedded":
        pytest.skip("the embedded broker takes messages above max.message.bytes")
    topic = cluster.topic(unique, max_message_bytes="1000")
    producer = closing(Producer(cluster.config))
    answers: list[KafkaClientError | None] = []
    producer.send(topic, b"k", b"x" * 5_000, on_done=answers.append)
    with pytest.raises(MessageRefusedError, match=topic):
        producer.flush(PATIENCE_SECONDS)
    assert [type(answer) for answer in answers] == [MessageRefusedError]
    producer.flush(PATIENCE_SECONDS)


def test_a_partition_that_does_not_exist_is_refused(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A partition beyond the topic's raises MessageRefusedError."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config))
    with pytest.raises(MessageRefusedError, match="99"):
        producer.send(topic, b"k", b"v", partition=99)


def test_a_closed_producer_says_so(cluster: Cluster) -> None:
    """Sending after close is KafkaFatalError, and closing twice is allowed."""
    producer = Producer(cluster.config)
    producer.close()
    producer.close()
    with pytest.raises(KafkaFatalError, match="closed"):
        producer.send("any", b"k", b"v")


def test_on_done_hears_that_the_broker_died(closing: Closing) -> None:
    """When the broker dies, on_done gets BrokerUnavailableError within the delivery time."""
    server = start_broker()
    try:
        local = Cluster("embedded", embedded_kafka(server.address))
        topic = local.topic("dies")
        producer = closing(Producer(local.config, delivery_seconds=1.5))
        producer.send(topic, b"k", b"before")
        producer.flush(PATIENCE_SECONDS)
    finally:
        server.kill()
    answers: list[KafkaClientError | None] = []
    started = time.monotonic()
    producer.send(topic, b"k", b"after", on_done=answers.append)
    with pytest.raises(BrokerUnavailableError):
        producer.flush(PATIENCE_SECONDS)
    assert time.monotonic() - started < 10
    assert [type(answer) for answer in answers] == [BrokerUnavailableError]


def test_a_flush_that_is_not_done_in_time_says_so_and_keeps_the_records(closing: Closing) -> None:
    """A flush shorter than the outage is BrokerUnavailableError; the records stay for a later one."""
    server = start_broker()
    try:
        local = Cluster("embedded", embedded_kafka(server.address))
        topic = local.topic("waits")
        producer = closing(Producer(local.config))
        producer.send(topic, b"k", b"before")
        producer.flush(PATIENCE_SECONDS)
    finally:
        server.kill()
    producer.send(topic, b"k", b"during")
    with pytest.raises(BrokerUnavailableError, match=r"within 0\.2 s"):
        producer.flush(0.2)
    assert producer.held_bytes > 0
    revived = start_broker(server.port)
    try:
        local.topic("waits")
        producer.flush(PATIENCE_SECONDS)
        (record,) = closing(TopicReader(local.config, [topic])).read_to_end(PATIENCE_SECONDS)
        assert record.value == b"during"
    finally:
        revived.stop()


def test_a_broker_that_takes_its_time_is_waited_for_at_rest(closing: Closing) -> None:
    """With a request under way and more to send, the producer waits without using the processor."""
    server = start_broker()
    process = psutil.Process(server.pid)
    try:
        local = Cluster("embedded", embedded_kafka(server.address))
        topic = local.topic("slow")
        producer = closing(Producer(local.config, linger_ms=0))
        producer.send(topic, b"k", b"before", partition=0)
        producer.flush(PATIENCE_SECONDS)
        process.suspend()
        # The signal takes effect a moment later, and the broker answers within one.
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        producer.send(topic, b"k", b"under way", partition=0)
        with pytest.raises(BrokerUnavailableError):
            producer.flush(0.2)
        producer.send(topic, b"k", b"waits for its turn", partition=1)
        used = time.process_time()
        with pytest.raises(BrokerUnavailableError):
            producer.flush(2.0)
        assert time.process_time() - used < 0.5
        process.resume()
        producer.flush(PATIENCE_SECONDS)
    finally:
        process.resume()
        server.stop()


def test_sending_blocks_for_a_bounded_time_when_the_broker_is_away() -> None:
    """A full buffer makes send raise BrokerUnavailableError after the bound, and close still ends."""
    server = start_broker()
    try:
        local = Cluster("embedded", embedded_kafka(server.address))
        topic = local.topic("away")
        producer = Producer(local.config, buffer_bytes=20_000, send_block_seconds=0.2)
        producer.send(topic, b"k", b"before")
        producer.flush(PATIENCE_SECONDS)
    finally:
        server.kill()
    answers: list[KafkaClientError | None] = []
    sent_before_full = 20_000 // (1_001 + 512)
    for _ in range(sent_before_full):
        producer.send(topic, b"k", b"x" * 1_000, on_done=answers.append)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match="20000"):
        producer.send(topic, b"k", b"x" * 1_000, on_done=answers.append)
    assert 0.2 <= time.monotonic() - started < 2
    assert producer.held_bytes <= 20_000
    started = time.monotonic()
    producer.close(0.2)
    assert time.monotonic() - started < 10
    assert len(answers) == sent_before_full
    assert None not in answers


def test_a_fetch_that_overtakes_an_append_loses_nothing(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Producers that append to one partition at once are all read, each record once, in order."""
    topic = cluster.topic(unique, partitions=1)
    consumer = closing(GroupConsumer(cluster.config, unique, [topic]))

    def produce(number: int) -> None:
        with contextlib.closing(Producer(cluster.config, linger_ms=0)) as producer:
            for count in range(500):
                producer.send(topic, b"k", b"%d-%d" % (number, count), partition=0)
                # Small batches, so that many appends meet.
                if count % 3 == 0:
                    producer.flush(PATIENCE_SECONDS)
            producer.flush(PATIENCE_SECONDS)

    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(produce, number) for number in range(4)]
        records = poll_until(consumer, 4 * 500)
        for each in sent:
            each.result()
    assert [record.offset for record in records] == list(range(4 * 500))


# --- the group ------------------------------------------------------------------------------


def test_a_group_goes_on_where_it_committed(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A new member starts at the committed offsets, not at the last polled ones."""
    topic = cluster.topic(unique, partitions=1)
    producer = closing(Producer(cluster.config))
    for number in range(10):
        producer.send(topic, b"k", b"%d" % number)
    producer.flush(PATIENCE_SECONDS)
    first = GroupConsumer(cluster.config, unique, [topic])
    records = poll_until(first, 10)
    assert values(records) == [b"%d" % number for number in range(10)]
    first.commit({TopicPartition(topic, 0): 4})
    first.close()
    second = closing(GroupConsumer(cluster.config, unique, [topic]))
    assert values(poll_until(second, 6)) == [b"%d" % number for number in range(4, 10)]


def test_partitions_are_handed_over_after_on_revoked_committed(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """With commits in on_revoked, two members together read every record exactly once."""
    if cluster.kind == "embedded":
        pytest.skip("the embedded broker may let two members join in turns without end")
    topic = cluster.topic(unique, partitions=4)
    producer = closing(Producer(cluster.config))
    for number in range(400):
        producer.send(topic, b"k%d" % number, b"%d" % number, partition=number % 4)
    producer.flush(PATIENCE_SECONDS)
    seen: list[Record] = []
    uncommitted: list[Record] = []
    revoked: list[frozenset[TopicPartition]] = []

    def on_revoked(partitions: Collection[TopicPartition]) -> None:
        revoked.append(frozenset(partitions))
        first.commit(next_offsets(uncommitted))
        uncommitted.clear()

    first = closing(GroupConsumer(cluster.config, unique, [topic], on_revoked=on_revoked))
    batch: list[Record] = []
    while not batch:
        batch = first.poll(0.1, records_max=50)
    seen += batch
    uncommitted += batch
    every = frozenset(TopicPartition(topic, number) for number in range(4))
    assert first.assignment() == every

    second = closing(GroupConsumer(cluster.config, unique, [topic]))

    def shared() -> bool:
        more = first.poll(0.05, records_max=20)
        seen.extend(more)
        uncommitted.extend(more)
        seen.extend(second.poll(0.05))
        return len(seen) >= 400 and len(first.assignment()) == len(second.assignment()) == 2

    eventually(shared, "both members own two partitions and all is read")
    assert revoked[0] == every
    assert sorted(int(record.value or b"") for record in seen) == list(range(400))


def test_a_member_that_polls_briefly_takes_in_partitions_that_a_topic_has_grown(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A rebalance that is longer than a poll is finished by the polls after it."""
    if cluster.kind == "embedded":
        pytest.skip("the embedded broker cannot add partitions")
    topic = cluster.topic(unique, partitions=1)
    member = closing(GroupConsumer(cluster.config, unique, [topic]))

    def owns(partitions: int) -> bool:
        member.poll(0.002)
        return len(member.assignment()) == partitions

    eventually(lambda: owns(1), "the first assignment")
    cluster.topic(unique, partitions=2)
    # What the driver does by itself within half a minute.
    member._driver._client.cluster.request_update()
    eventually(lambda: owns(2), "the second assignment")


def test_leaving_the_group_runs_on_revoked_so_that_work_can_be_committed(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Close calls on_revoked while commit still works."""
    topic = cluster.topic(unique, partitions=1)
    producer = closing(Producer(cluster.config))
    producer.send(topic, b"k", b"v")
    producer.flush(PATIENCE_SECONDS)

    def on_revoked(partitions: Collection[TopicPartition]) -> None:
        consumer.commit(dict.fromkeys(partitions, 1))

    consumer = GroupConsumer(cluster.config, unique, [topic], on_revoked=on_revoked)
    poll_until(consumer, 1)
    consumer.close()
    admin = closing(Admin(cluster.config))
    assert admin.group_lag(unique, topic) == {0: 0}


def test_a_callbacks_error_comes_out_of_poll_or_close_as_it_is(
    cluster: Cluster, unique: str
) -> None:
    """What on_assigned raises is raised by poll, not wrapped in an error of the driver."""
    topic = cluster.topic(unique, partitions=1)

    def on_assigned(_partitions: Collection[TopicPartition]) -> None:
        raise LookupError(unique)

    consumer = GroupConsumer(cluster.config, unique, [topic], on_assigned=on_assigned)
    try:
        with pytest.raises(LookupError, match=unique):
            eventually(lambda: bool(consumer.poll(0.1)), "an error")
    finally:
        consumer.close()


def test_a_member_that_was_put_out_cannot_commit(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A commit for a group that the member is not in is RebalancedError: poll on, it comes again."""
    topic = cluster.topic(unique, partitions=1)
    consumer = closing(GroupConsumer(cluster.config, unique, [topic]))
    with pytest.raises(RebalancedError):
        consumer.commit({TopicPartition(topic, 0): 1})


def test_paused_partitions_return_nothing_until_resumed(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Pause stops records of a partition, keeps it assigned, and resume loses none."""
    topic = cluster.topic(unique, partitions=2)
    producer = closing(Producer(cluster.config))
    consumer = closing(GroupConsumer(cluster.config, unique, [topic]))
    eventually(lambda: not consumer.poll(0.1) and len(consumer.assignment()) == 2, "assignment")
    paused = TopicPartition(topic, 0)
    consumer.pause([paused, TopicPartition("not-ours", 7)])
    for number in range(20):
        producer.send(topic, b"k", b"v", partition=number % 2)
    producer.flush(PATIENCE_SECONDS)
    assert {record.partition for record in poll_until(consumer, 10)} == {1}
    assert paused in consumer.assignment()
    consumer.resume([paused])
    assert {record.partition for record in poll_until(consumer, 10)} == {0}
    eventually(
        lambda: not consumer.poll(0.1) and set(consumer.lag().values()) == {0},
        "no lag by watermark",
    )


# --- the log reader -------------------------------------------------------------------------


def test_an_empty_topic_has_its_end_at_the_beginning(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Reading an empty topic to its end ends at once, without records."""
    topic = cluster.topic(unique)
    reader = closing(TopicReader(cluster.config, [topic]))
    assert not reader.caught_up()
    started = time.monotonic()
    assert list(reader.read_to_end(PATIENCE_SECONDS)) == []
    assert time.monotonic() - started < 5
    assert reader.caught_up()


def test_the_end_is_the_last_record_of_the_last_batch(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A last batch of many records is read whole, where ListOffsets may name its first."""
    topic = cluster.topic(unique, partitions=1)
    producer = closing(Producer(cluster.config, linger_ms=200))
    for number in range(11):
        producer.send(topic, b"k", b"%d" % number)
    producer.flush(PATIENCE_SECONDS)
    reader = closing(TopicReader(cluster.config, [topic]))
    assert len(list(reader.read_to_end(PATIENCE_SECONDS))) == 11


def test_reading_to_the_end_again_brings_what_was_acknowledged_meanwhile(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Each reading to the end includes everything acknowledged before it, and nothing twice."""
    topic = cluster.topic(unique)
    producer = closing(Producer(cluster.config, linger_ms=0))
    reader = closing(TopicReader(cluster.config, [topic]))
    for turn in range(10):
        producer.send(topic, b"k%d" % turn, b"%d" % turn)
        producer.flush(PATIENCE_SECONDS)
        assert values(list(reader.read_to_end(PATIENCE_SECONDS))) == [b"%d" % turn]
    producer.send(topic, b"k", b"polled")
    producer.flush(PATIENCE_SECONDS)
    polled = poll_until(reader, 1)
    assert values(polled) == [b"polled"]
    assert list(reader.read_to_end(PATIENCE_SECONDS)) == []


def test_a_compacted_topic_is_read_to_its_end(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Holes that compaction leaves do not keep the reader from the end, nor lose a last value."""
    topic = cluster.topic(
        unique,
        partitions=1,
        **{name.replace(".", "_"): text for name, text in COMPACT_ONLY.items()}
        | {"segment_ms": "100", "min_cleanable_dirty_ratio": "0.0"},
    )
    producer = closing(Producer(cluster.config, linger_ms=0))
    for number in range(200):
        producer.send(topic, b"k%d" % (number % 5), b"%d" % number)
        if number % 50 == 0:
            producer.flush(PATIENCE_SECONDS)
    producer.send(topic, b"k0", None)
    producer.flush(PATIENCE_SECONDS)
    newest: dict[bytes | None, bytes | None] = {}
    for record in closing(TopicReader(cluster.config, [topic])).read_to_end(PATIENCE_SECONDS):
        newest[record.key] = record.value
    assert newest == {b"k0": None} | {
        b"k%d" % (number % 5): b"%d" % number for number in range(196, 200)
    }


def test_a_reader_takes_in_partitions_that_a_topic_has_grown(
    cluster: Cluster, unique: str, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of a partition added later are read without a restart."""
    if cluster.kind == "embedded":
        pytest.skip("the embedded broker cannot add partitions")
    monkeypatch.setattr(client, "METADATA_AGE_MS_MAX", 200)
    topic = cluster.topic(unique, partitions=1)
    reader = closing(TopicReader(cluster.config, [topic]))
    assert list(reader.read_to_end(PATIENCE_SECONDS)) == []
    cluster.topic(unique, partitions=2)
    producer = closing(Producer(cluster.config))
    eventually(lambda: sends_to(producer, topic, 1), "the producer sees the new partition")
    producer.flush(PATIENCE_SECONDS)
    polled = poll_until(reader, 1)
    assert {record.partition for record in polled} == {1}


def sends_to(producer: Producer, topic: str, partition: int) -> bool:
    try:
        producer.send(topic, b"k", b"v", partition=partition)
    except MessageRefusedError:
        return False
    return True


def test_a_topic_that_does_not_exist_stops_the_reader_with_advice(cluster: Cluster) -> None:
    """An unknown topic is KafkaFatalError, and the message says how topics are made."""
    with pytest.raises(KafkaFatalError, match="meterline topics apply"):
        TopicReader(cluster.config, ["never-made"])


def test_the_end_is_waited_for_no_longer_than_asked(closing: Closing) -> None:
    """When the broker dies while reading, read_to_end is BrokerUnavailableError within its time."""
    server = start_broker()
    try:
        local = Cluster("embedded", embedded_kafka(server.address))
        topic = local.topic("gone")
        reader = closing(TopicReader(local.config, [topic]))
    finally:
        server.kill()
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match="gone"):
        list(reader.read_to_end(1.0))
    assert time.monotonic() - started < 5


# --- administration -------------------------------------------------------------------------


def test_applying_the_registry_twice_changes_nothing_the_second_time(
    cluster: Cluster, closing: Closing
) -> None:
    """The first apply creates every topic as the registry says, the second returns no change."""
    admin = closing(Admin(cluster.config))
    created = admin.apply(TOPICS, usage_partitions=4, replication_factor=1)
    assert {change.action for change in created} == {TopicAction.CREATED}
    assert {change.topic for change in created} == {str(spec.topic) for spec in TOPICS}
    assert admin.apply(TOPICS, usage_partitions=4, replication_factor=1) == []
    assert {spec.topic: admin.partitions(spec.topic) for spec in TOPICS} == {
        spec.topic: spec.partitions or 4 for spec in TOPICS
    }


def test_apply_changes_the_configuration_that_differs(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Only the differing setting is changed, and the change names it with both values."""
    admin = closing(Admin(cluster.config))
    spec = TopicSpec(
        topic_name(unique), "", "", 1, {"retention.ms": "60000", "cleanup.policy": "delete"}
    )
    admin.apply([spec], usage_partitions=1, replication_factor=1)
    longer = dataclasses.replace(spec, config={**spec.config, "retention.ms": "120000"})
    (change,) = admin.apply([longer], usage_partitions=1, replication_factor=1)
    assert (change.action, change.detail) == (
        TopicAction.CONFIG_CHANGED,
        "retention.ms: 60000 -> 120000",
    )
    assert admin.apply([longer], usage_partitions=1, replication_factor=1) == []


def test_apply_grows_partitions_and_never_shrinks_them(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """More partitions are added where the broker can, else refused with advice; fewer are left."""
    admin = closing(Admin(cluster.config))
    spec = TopicSpec(topic_name(unique), "", "", 0)
    admin.apply([spec], usage_partitions=2, replication_factor=1)
    if cluster.kind == "embedded":
        with pytest.raises(KafkaFatalError, match="2 to 5 partitions: this broker cannot"):
            admin.apply([spec], usage_partitions=5, replication_factor=1)
        return
    (change,) = admin.apply([spec], usage_partitions=5, replication_factor=1)
    assert (change.action, change.detail) == (TopicAction.PARTITIONS_GROWN, "2 -> 5")
    assert admin.apply([spec], usage_partitions=2, replication_factor=1) == []
    assert admin.partitions(unique) == 5


def test_a_topic_that_the_cluster_refuses_stops_with_its_name(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """A refused creation names the topic; nothing is retried without end."""
    if cluster.kind == "embedded":
        pytest.skip("the embedded broker takes any configuration")
    admin = closing(Admin(cluster.config))
    spec = TopicSpec(topic_name(unique), "", "", 1, {"retention.ms": "long"})
    with pytest.raises(KafkaFatalError, match=f"creating {unique}"):
        admin.apply([spec], usage_partitions=1, replication_factor=1)


def test_group_lag_counts_what_is_not_committed(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Lag is end minus commit by partition, all of a partition without one, None without a group."""
    topic = cluster.topic(unique, partitions=2)
    admin = closing(Admin(cluster.config))
    assert admin.group_lag(unique, topic) is None
    producer = closing(Producer(cluster.config, linger_ms=100))
    for number in range(20):
        producer.send(topic, b"k", b"v", partition=number % 2)
    producer.flush(PATIENCE_SECONDS)
    consumer = closing(GroupConsumer(cluster.config, unique, [topic]))
    poll_until(consumer, 20)
    consumer.commit({TopicPartition(topic, 0): 4})
    assert admin.group_lag(unique, topic) == {0: 6, 1: 10}


def test_a_broker_that_answers_is_pinged_and_named(cluster: Cluster, closing: Closing) -> None:
    """Ping returns, and brokers names the address."""
    admin = closing(Admin(cluster.config))
    admin.ping(PATIENCE_SECONDS)
    assert admin.brokers() == (cluster.config.bootstrap,)


@pytest.mark.parametrize(
    "start",
    [Admin, Producer, lambda config: TopicReader(config, ["t"])],
    ids=["admin", "producer", "reader"],
)
def test_an_unreachable_broker_is_reported_in_one_line_within_the_bound(
    start: Callable[[KafkaConfig], object],
) -> None:
    """No broker at the address is BrokerUnavailableError in time, and leaves no socket behind."""
    descriptors = psutil.Process().num_fds()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(BrokerUnavailableError) as caught:
            start(KafkaConfig(address, bootstrap_seconds=0.5))
    assert time.monotonic() - started < 5
    assert address in str(caught.value)
    assert "start the broker" in str(caught.value)
    assert "\n" not in str(caught.value)
    eventually(lambda: psutil.Process().num_fds() <= descriptors, "sockets closed")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (KafkaConfig(" , "), "bootstrap"),
        (KafkaConfig("a:1", security={"password": "hunter2"}), "password"),
        (KafkaConfig("127.0.0.1:1", security={"security_protocol": "NONE"}), "security_protocol"),
        (KafkaConfig("127.0.0.1:1", security={"sasl_nothing": "hunter2"}), "sasl_nothing"),
    ],
    ids=["no-address", "no-security-setting", "unknown-protocol", "unknown-sasl-setting"],
)
def test_settings_that_cannot_work_stop_without_showing_secrets(
    config: KafkaConfig, says: str
) -> None:
    """Wrong settings are KafkaFatalError, name the setting, and never quote a security value."""
    for start in (Admin, Producer, lambda each: GroupConsumer(each, "g", ["t"])):
        with pytest.raises(KafkaFatalError) as caught:
            start(config)
        assert says in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_group_without_members_can_be_set_where_to_begin(
    cluster: Cluster, unique: str, closing: Closing
) -> None:
    """Its first member reads on from there."""
    topic = cluster.topic(unique, partitions=1)
    admin = closing(Admin(cluster.config))
    producer = closing(Producer(cluster.config))
    for number in range(5):
        producer.send(topic, b"k", str(number).encode())
    producer.flush(PATIENCE_SECONDS)
    assert admin.committed(unique, topic) == {}
    admin.set_offsets(unique, {TopicPartition(topic, 0): 3})
    assert admin.committed(unique, topic) == {0: 3}
    consumer = closing(GroupConsumer(cluster.config, unique, [topic]))
    assert [record.value for record in poll_until(consumer, 2)] == [b"3", b"4"]
