"""The relay against a real broker: emitting, being killed, outages, commands and acknowledgements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import Record, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.embedded.broker import start_broker
from meterline.embedded.kafka import start_kafka
from meterline.embedded.processes import ServerProcess
from meterline.relay.client import RelayClient
from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.gate import Admission, GateReason, GateRequest
from meterline.relay.settings import EmitterSettings, SpoolSettings
from meterline.relay.spool import Spool
from meterline.relay.subscriber import MALFORMED_COMMAND, MALFORMED_POLICY
from meterline.schemas.codec import UsageMessage, decode_usage
from meterline.schemas.metrics import Metric
from meterline.schemas.policy import Budget, RuleSet, ScopePolicy, encode_policy
from meterline.schemas.throttle import (
    Applied,
    BreakerState,
    ThrottleAck,
    ThrottleCommand,
    decode_ack,
    encode_command,
)
from meterline.schemas.topics import TOPICS, Topic
from tests.relays import (
    DEADLINE_SECONDS,
    CountingMeter,
    assert_lanes_gapless,
    eventually,
    relay_settings,
    usage_event,
)
from tests.servers import require_apache

pytestmark = pytest.mark.functional

PARTITIONS = 4
DEPARTMENT = "department:acme/research"
RESEARCH = GateRequest("acme", "k-1", "gpt-4.1", "research")
SALES = GateRequest("acme", "k-2", "gpt-4.1", "sales")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def make_topics(address: str, partitions: int = PARTITIONS) -> None:
    admin = Admin(embedded_kafka(address))
    admin.apply(TOPICS, usage_partitions=partitions, replication_factor=1)
    admin.close()


def records(address: str, topic: Topic) -> list[Record]:
    reader = TopicReader(embedded_kafka(address), [topic])
    try:
        return list(reader.read_to_end(DEADLINE_SECONDS))
    finally:
        reader.close()


def messages(address: str) -> dict[int, list[UsageMessage]]:
    """Messages of usage.events by partition; every one must be good and in its lane's partition."""
    found: dict[int, list[UsageMessage]] = {}
    for record in records(address, Topic.USAGE_EVENTS):
        message = decode_usage(record.value, record.timestamp_ms)
        assert not message.rejects
        assert record.key == message.lane.encode()
        found.setdefault(record.partition, []).append(message)
    return found


def once(by_partition: dict[int, list[UsageMessage]]) -> list[int]:
    """Numbers of all events, repeated (lane, seq) left out, as the streams do."""
    numbers: list[int] = []
    seen: set[tuple[str, int]] = set()
    for partition in by_partition.values():
        for message in partition:
            if (message.lane, message.seq) not in seen:
                seen.add((message.lane, message.seq))
                numbers += [int(event.id[1:]) for event in message.events]
    return numbers


@pytest.fixture
def broker() -> Iterator[ServerProcess]:
    server = start_broker()
    try:
        make_topics(server.address)
        yield server
    finally:
        server.stop()


@contextmanager
def running_emitter(
    directory: Path, address: str, settings: EmitterSettings | None = None
) -> Iterator[Emitter]:
    emitter = Emitter(
        relay_settings(directory, address, emitter=settings), wall_ms, CountingMeter()
    )
    emitter.start()
    try:
        yield emitter
    finally:
        emitter.close(1.0)


def emit_all(emitter: Emitter, numbers: range) -> None:
    for number in numbers:
        event = usage_event(number, time_ms=wall_ms())
        assert emitter.emit(event) is EmitOutcome.ACCEPTED


def test_emitted_events_are_in_the_log_once(broker: ServerProcess, tmp_path: Path) -> None:
    """Each event is in the log once, in lanes without gaps, one lane per partition."""
    with running_emitter(tmp_path, broker.address) as emitter:
        emit_all(emitter, range(10_000))
        assert emitter.flush(DEADLINE_SECONDS)
        assert emitter.backlog_batches == 0
        boot = emitter.boot
    by_partition = messages(broker.address)
    assert sorted(once(by_partition)) == list(range(10_000))
    assert set(by_partition) == set(range(PARTITIONS))
    for partition, found in by_partition.items():
        assert_lanes_gapless(found)
        assert {message.lane for message in found} == {f"r1/{boot}/{partition}"}


@contextmanager
def relay_process(directory: Path, address: str, first: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.relay_process", str(directory), address, str(first)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_and_kill(directory: Path, address: str, first: int, sealed_min: int) -> tuple[int, int]:
    """Let a process emit until a number is sealed, kill -9; (accepted up to, sealed) as it printed."""
    accepted = sealed = 0
    with relay_process(directory, address, first) as process:
        assert process.stdout is not None
        for line in process.stdout:
            word, number = line.split()
            if word == "accepted":
                accepted = int(number)
            else:
                sealed = int(number)
            if sealed >= sealed_min:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert sealed >= sealed_min, "the process ended by itself"
    return accepted, sealed


def test_killed_without_a_broker(broker: ServerProcess, tmp_path: Path) -> None:
    """After kill -9 the next process sends what was sealed: the same bytes, lanes and numbers."""
    dead = "127.0.0.1:1"
    _, sealed = run_and_kill(tmp_path, dead, 0, sealed_min=1_500)
    spool = Spool(SpoolSettings(tmp_path))
    spooled = {(place.lane, place.seq): spool.read(place) for place in spool.leftover}
    assert sum(place.events for place in spool.leftover) >= sealed
    spool.close()
    with running_emitter(tmp_path, broker.address) as emitter:
        assert emitter.flush(DEADLINE_SECONDS)
        assert emitter.backlog_batches == 0
    sent = {}
    for record in records(broker.address, Topic.USAGE_EVENTS):
        message = decode_usage(record.value, record.timestamp_ms)
        sent[message.lane, message.seq] = record.value
    assert sent == spooled
    numbers = once(messages(broker.address))
    assert len(numbers) == len(set(numbers)) >= sealed


def test_killed_again_and_again(broker: ServerProcess, tmp_path: Path) -> None:
    """Killed during traffic three times, the relay loses no sealed event and repeats no other bytes."""
    runs = []
    first = 0
    for sealed_min in (300, 900, 600):
        accepted, sealed = run_and_kill(tmp_path, broker.address, first, sealed_min)
        runs.append((first, sealed))
        first = accepted + 100_000
    with running_emitter(tmp_path, broker.address) as emitter:
        assert emitter.flush(DEADLINE_SECONDS)
    by_partition = messages(broker.address)
    bodies: dict[tuple[str, int], bytes] = {}
    for record in records(broker.address, Topic.USAGE_EVENTS):
        message = decode_usage(record.value, record.timestamp_ms)
        before = bodies.setdefault((message.lane, message.seq), record.value or b"")
        assert before == record.value
    for partition in by_partition.values():
        assert_lanes_gapless(partition)
    numbers = once(by_partition)
    assert len(numbers) == len(set(numbers))
    for start, sealed in runs:
        assert sum(start <= number < start + 100_000 for number in numbers) >= sealed


def test_broker_killed_and_restarted(tmp_path: Path) -> None:
    """While the broker is dead emit stays fast, and what it never acknowledged arrives afterwards.

    On Apache Kafka, which keeps its data: the embedded broker's memory goes with it.
    """
    require_apache()
    server = start_kafka(tmp_path / "kafka")
    try:
        make_topics(server.address)
        with running_emitter(tmp_path, server.address) as emitter:
            emit_all(emitter, range(1_000))
            assert emitter.flush(DEADLINE_SECONDS)
            assert sorted(once(messages(server.address))) == list(range(1_000))
            server.kill()
            slowest = 0.0
            for number in range(1_000, 4_000):
                start = time.perf_counter()
                emit_all(emitter, range(number, number + 1))
                slowest = max(slowest, time.perf_counter() - start)
            assert not emitter.flush(0.3)
            assert emitter.backlog_batches > 0
            server = start_kafka(tmp_path / "kafka", server.port)
            assert emitter.flush(DEADLINE_SECONDS * 2)
            assert sorted(once(messages(server.address))) == list(range(4_000))
            # A stalled scheduler of a shared machine, never a wait for the broker (seconds).
            assert slowest < 1.0
    finally:
        server.stop()


def command(state: BreakerState, seq: int, scope: str = DEPARTMENT, lease: int = 60) -> bytes:
    now_ms = wall_ms()
    return encode_command(
        ThrottleCommand(
            scope=scope,
            epoch=1,
            seq=seq,
            state=state,
            reason="test",
            reason_code="budget_exhausted",
            http_status=402,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + lease * 1_000,
        )
    )


@contextmanager
def running_client(directory: Path, address: str, meter: CountingMeter) -> Iterator[RelayClient]:
    client = RelayClient(relay_settings(directory, address), wall_ms, meter)
    try:
        assert client.start(DEADLINE_SECONDS)
        yield client
    finally:
        client.close(1.0)


@pytest.fixture
def producer(broker: ServerProcess) -> Iterator[Producer]:
    made = Producer(embedded_kafka(broker.address), linger_ms=0)
    yield made
    made.close(1.0)


def acks(address: str) -> list[ThrottleAck]:
    return [decode_ack(record.value or b"") for record in records(address, Topic.THROTTLE_ACKS)]


def blocked(client: RelayClient, request: GateRequest = RESEARCH) -> bool:
    return client.decide(request).reason is GateReason.BLOCKED


def test_command_reaches_the_gate_and_is_acknowledged(
    broker: ServerProcess, producer: Producer, tmp_path: Path
) -> None:
    """A command blocks its department at once and no other; its release, and a stale one, are acknowledged."""
    with running_client(tmp_path, broker.address, CountingMeter()) as client:
        assert client.decide(RESEARCH).admission is Admission.ADMIT
        producer.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.OPEN, 7))
        eventually(lambda: blocked(client))
        decision = client.decide(RESEARCH)
        assert (decision.http_status, decision.should_retry) == (402, False)
        assert all(client.decide(SALES).admission is Admission.ADMIT for _ in range(100))
        producer.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.CLOSED, 6))
        producer.send(
            Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.OPEN, 8, lease=-60)
        )
        producer.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.CLOSED, 9))
        eventually(lambda: not blocked(client))
        eventually(lambda: len(acks(broker.address)) == 4)
    acknowledged = [(ack.relay, ack.scope, ack.seq, ack.applied) for ack in acks(broker.address)]
    assert acknowledged == [
        ("r1", DEPARTMENT, 7, Applied.ACCEPTED),
        ("r1", DEPARTMENT, 6, Applied.STALE),
        ("r1", DEPARTMENT, 8, Applied.EXPIRED),
        ("r1", DEPARTMENT, 9, Applied.ACCEPTED),
    ]


def test_reaction_time(broker: ServerProcess, producer: Producer, tmp_path: Path) -> None:
    """From the send of a command to the gate's refusal it takes milliseconds, not polls."""
    with running_client(tmp_path, broker.address, CountingMeter()) as client:
        taken = []
        for seq in range(1, 41):
            state = BreakerState.OPEN if seq % 2 else BreakerState.CLOSED
            start = time.perf_counter()
            producer.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(state, seq))
            while blocked(client) is not (state is BreakerState.OPEN):
                assert time.perf_counter() - start < DEADLINE_SECONDS
                time.sleep(0.0005)
            taken.append(time.perf_counter() - start)
        # 20 ms on a quiet machine; the median stands for it, the bound for a busy one.
        assert sorted(taken)[len(taken) // 2] < 0.06


def test_gate_knows_everything_before_it_is_ready(
    broker: ServerProcess, producer: Producer, tmp_path: Path
) -> None:
    """A relay that starts reads policies and commands to their end, and acknowledges what is in force."""
    for seq in range(1, 400):
        scope = f"department:acme/d-{seq % 50}"
        state = BreakerState.OPEN if seq >= 350 else BreakerState.CLOSED
        producer.send(Topic.THROTTLE_COMMANDS, scope.encode(), command(state, seq, scope))
    policy = ScopePolicy(scope="key:acme/k-2", disabled=True)
    producer.send(Topic.POLICIES, policy.scope.encode(), encode_policy(policy))
    producer.flush(DEADLINE_SECONDS)
    with running_client(tmp_path, broker.address, CountingMeter()) as client:
        for number in range(50):
            assert blocked(client, GateRequest("acme", "k-1", "m", f"d-{number}"))
        assert client.decide(SALES).reason is GateReason.DISABLED
        eventually(lambda: len(acks(broker.address)) == 50)
    found = acks(broker.address)
    assert {ack.seq for ack in found} == set(range(350, 400))
    assert {ack.applied for ack in found} == {Applied.ACCEPTED}


def test_malformed_records_are_skipped(
    broker: ServerProcess, producer: Producer, tmp_path: Path
) -> None:
    """Records that are no commands or policies are counted, and the ones behind them work."""
    meter = CountingMeter()
    commands = [b"{", b"[]", b'{"scope": 1}', b"\xff", command(BreakerState.OPEN, 1, "nonsense")]
    for value in commands:
        producer.send(Topic.THROTTLE_COMMANDS, b"x", value)
    for value in (b"{", b'{"kind": "scope"}', encode_policy(ScopePolicy(scope="nonsense"))):
        producer.send(Topic.POLICIES, b"x", value)
    producer.send(Topic.POLICIES, b"rules", encode_policy(RuleSet()))
    producer.send(Topic.THROTTLE_COMMANDS, b"x", None)
    producer.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.OPEN, 1))
    producer.flush(DEADLINE_SECONDS)
    with running_client(tmp_path, broker.address, meter) as client:
        assert blocked(client)
    assert meter.counts[Metric.REJECTS, MALFORMED_COMMAND] == 5
    assert meter.counts[Metric.REJECTS, MALFORMED_POLICY] == 3


def test_policy_changes_are_followed(
    broker: ServerProcess, producer: Producer, tmp_path: Path
) -> None:
    """A published policy holds within moments, and so does its deletion."""
    with running_client(tmp_path, broker.address, CountingMeter()) as client:
        policy = ScopePolicy(scope=DEPARTMENT, disabled=True, budget=Budget(month_nano_usd=1))
        producer.send(Topic.POLICIES, DEPARTMENT.encode(), encode_policy(policy))
        eventually(lambda: client.decide(RESEARCH).reason is GateReason.DISABLED)
        producer.send(Topic.POLICIES, DEPARTMENT.encode(), None)
        eventually(lambda: client.decide(RESEARCH).admission is Admission.ADMIT)


def test_gate_survives_the_broker(tmp_path: Path) -> None:
    """While the broker is dead the gate keeps its blocks; with the next broker it follows again."""
    server = start_broker()
    port = server.port
    try:
        make_topics(server.address)
        first = Producer(embedded_kafka(server.address), linger_ms=0)
        first.send(Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.OPEN, 1))
        first.flush(DEADLINE_SECONDS)
        first.close(1.0)
        with running_client(tmp_path, server.address, CountingMeter()) as client:
            assert blocked(client)
            server.kill()
            server = start_broker(port)
            make_topics(server.address)
            assert blocked(client)
            second = Producer(embedded_kafka(server.address), linger_ms=0)
            second.send(
                Topic.THROTTLE_COMMANDS, DEPARTMENT.encode(), command(BreakerState.CLOSED, 2)
            )
            second.flush(DEADLINE_SECONDS)
            second.close(1.0)
            eventually(lambda: client.decide(RESEARCH).admission is Admission.ADMIT)
    finally:
        server.stop()


def test_start_without_a_broker(tmp_path: Path) -> None:
    """Without a broker a relay starts, admits by policy, records, and stops in seconds."""
    begin = time.monotonic()
    client = RelayClient(relay_settings(tmp_path, "127.0.0.1:1"), wall_ms, CountingMeter())
    try:
        assert not client.start(0.05)
        assert client.decide(RESEARCH).admission is Admission.ADMIT
        assert client.record(usage_event(1, time_ms=wall_ms())) is EmitOutcome.ACCEPTED
    finally:
        assert not client.close(0.1)
    assert time.monotonic() - begin < 8
    spool = Spool(SpoolSettings(tmp_path))
    assert [place.events for place in spool.leftover] == [1]
    spool.close()
