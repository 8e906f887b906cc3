"""Both brokers of one machine through kafka-python: what the pipeline relies on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError

from meterline.embedded.apache_kafka.jars import cache_directory, java_program, resolved_jars
from meterline.embedded.broker import start_broker
from meterline.embedded.errors import PortBusyError, ServerMissingError
from meterline.embedded.kafka import start_kafka
from meterline.embedded.processes import free_port
from meterline.embedded.protocol import answers_kafka
from tests.servers import require_apache, running_broker

# Maven may have to fetch the jars the first time, and a JVM starts slowly on a busy machine.
pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

TOPIC_NUMBERS = count()


@pytest.fixture(scope="module", params=["embedded", "apache"])
def bootstrap(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    kind: str = request.param
    if kind == "apache":
        require_apache()
    with running_broker(kind, tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture
def topic(bootstrap: str) -> str:
    name = f"topic-{next(TOPIC_NUMBERS)}"
    create(bootstrap, name)
    return name


def create(bootstrap: str, name: str, configs: dict[str, str] | None = None) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(name, 2, 1, topic_configs=configs or {})])
    finally:
        admin.close()


def produce(bootstrap: str, topic: str, values: list[bytes | None], partition: int = 0) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=False)
    try:
        sent = [
            producer.send(topic, value, key=b"k", partition=partition, headers=[("h", b"1")])
            for value in values
        ]
        for one in sent:
            one.get(10)
    finally:
        producer.close()


def consume(
    bootstrap: str, topic: str, number: int, partition: int = 0
) -> list[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=10,
        consumer_timeout_ms=20_000,
    )
    try:
        consumer.assign([TopicPartition(topic, partition)])
        return [
            (message.key, message.value, message.headers)
            # The count comes first: zip would otherwise wait for one message more.
            for _, message in zip(range(number), consumer, strict=False)
        ]
    finally:
        consumer.close()


def test_what_is_produced_is_consumed(bootstrap: str, topic: str) -> None:
    """Keys, values, headers and tombstones come back in order from the chosen partition."""
    produce(bootstrap, topic, [b"one", None, b"three"], partition=1)
    head = [("h", b"1")]
    assert consume(bootstrap, topic, 3, partition=1) == [
        (b"k", b"one", head),
        (b"k", None, head),
        (b"k", b"three", head),
    ]


def test_a_message_of_one_megabyte(bootstrap: str, topic: str) -> None:
    """The largest message of the design passes."""
    value = os.urandom(1_000_000)
    produce(bootstrap, topic, [value])
    assert consume(bootstrap, topic, 1)[0][1] == value


def test_topic_settings_of_the_design_are_accepted(bootstrap: str) -> None:
    """Compaction and retention settings are accepted when a topic is created."""
    for policy in ("compact", "delete", "compact,delete"):
        configs = {"cleanup.policy": policy, "retention.ms": "60000"}
        create(bootstrap, f"topic-{next(TOPIC_NUMBERS)}", configs)


def test_an_existing_topic_is_said(bootstrap: str, topic: str) -> None:
    """Creating a topic twice is TopicAlreadyExistsError on both brokers."""
    with pytest.raises(TopicAlreadyExistsError):
        create(bootstrap, topic)


def test_a_group_with_a_short_session_goes_on_where_it_committed(
    bootstrap: str, topic: str
) -> None:
    """A consumer group with a session of 3 s joins, commits, and its next member goes on there."""
    produce(bootstrap, topic, [b"one", b"two"])
    for expected in (b"one", b"two"):
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=f"group-of-{topic}",
            session_timeout_ms=3_000,
            heartbeat_interval_ms=1_000,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=10,
            max_poll_records=1,
            consumer_timeout_ms=20_000,
        )
        try:
            assert next(consumer).value == expected
            consumer.commit()
        finally:
            consumer.close()


def test_apache_kafka_keeps_its_data(tmp_path: Path) -> None:
    """The same data directory opened again, on another port, has the same messages."""
    require_apache()
    with running_broker("apache", tmp_path) as bootstrap:
        create(bootstrap, "kept")
        produce(bootstrap, "kept", [b"one"])
    with running_broker("apache", tmp_path) as bootstrap:
        assert [value for _, value, _ in consume(bootstrap, "kept", 1)] == [b"one"]


def test_apache_kafka_survives_kill_9(tmp_path: Path) -> None:
    """After SIGKILL the broker starts again on its directory with what was acknowledged."""
    require_apache()
    server = start_kafka(tmp_path)
    create(server.address, "kept")
    produce(server.address, "kept", [b"one"])
    server.kill()
    with running_broker("apache", tmp_path) as bootstrap:
        assert [value for _, value, _ in consume(bootstrap, "kept", 1)] == [b"one"]


def test_a_busy_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    """A port in use is PortBusyError from Python and one line from the command line."""
    server = start_broker()
    try:
        with pytest.raises(PortBusyError):
            start_broker(server.port)
        for arguments in (
            ("-m", "meterline.embedded.broker", "--port", str(server.port)),
            ("-m", "meterline.embedded.kafka", "--port", str(server.port), "--data", str(tmp_path)),
        ):
            done = subprocess.run(
                (sys.executable, *arguments),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 2
            [line] = done.stderr.splitlines()
            assert f"port {server.port} of 127.0.0.1 is in use" in line
    finally:
        server.stop()
    assert not answers_kafka(server.port)


def test_the_command_becomes_the_broker() -> None:
    """`python -m meterline.embedded.broker` is replaced by the broker: the child of a supervisor is it."""
    port = free_port()
    with subprocess.Popen(
        (sys.executable, "-m", "meterline.embedded.broker", "--port", str(port)),
        stdout=subprocess.DEVNULL,
    ) as child:
        try:
            while not answers_kafka(port):
                assert child.poll() is None
            assert "tansu" in Path(f"/proc/{child.pid}/cmdline").read_text()
        finally:
            child.terminate()


def test_what_apache_kafka_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java, without Maven, or with an old Java the error says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ServerMissingError, match="needs Java 17 or later and none is on PATH"):
        java_program()
    with pytest.raises(ServerMissingError, match="no mvn is on PATH"):
        resolved_jars()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(ServerMissingError, match="is 11"):
        java_program()
    assert cache_directory().parent == tmp_path / "meterline"
