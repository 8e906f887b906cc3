"""Topics to tables on the embedded broker and ClickHouse: exact, whatever happens in between."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.embedded.clickhouse import start_clickhouse
from meterline.embedded.processes import ServerProcess
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.reports.core.totals import StreamTotals, Total, WindowScope, windows_between
from meterline.reports.core.verification import EventRange
from meterline.reports.totals_reader import (
    read_event_totals,
    read_last_event_ms,
    read_stream_totals,
)
from meterline.reports.verification import check_ids, read_stored
from meterline.schemas.alert import Alert, AlertStatus, RuleType, Severity, encode_alert
from meterline.schemas.audit import AuditEntry, encode_audit
from meterline.schemas.dead_letter import (
    DeadLetter,
    decode_dead_letter,
    encode_dead_letter,
    encode_original,
)
from meterline.schemas.delivery import Delivery, DeliveryOutcome, delivery_key, encode_delivery
from meterline.schemas.metrics import NoMeter
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.reasons import RejectReason
from meterline.schemas.scopes import ScopeType, scopes_of
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.throttle import (
    Applied,
    BreakerState,
    ThrottleAck,
    ThrottleCommand,
    ack_key,
    encode_ack,
    encode_command,
)
from meterline.schemas.topics import TOPICS, Topic
from meterline.schemas.usage import UsageEvent
from meterline.sinks.consumer import run_sink
from meterline.sinks.migrate import migrate
from meterline.sinks.settings import SinkSettings
from tests.servers import running_broker
from tests.sink_process import start_sink

# A test starts two servers and joins a group: seconds each, on two shared cores.
pytestmark = [pytest.mark.functional, pytest.mark.timeout(180)]
RATE = load_catalogue(()).rate
WAIT_SECONDS = 45.0
PARTITIONS = 3


@dataclass
class World:
    """A broker with topics, a store with tables, and what was sent."""

    bootstrap: str
    store: ServerProcess
    data_dir: Path
    events: dict[str, UsageEvent] = field(default_factory=dict)

    @property
    def kafka(self) -> KafkaConfig:
        return embedded_kafka(self.bootstrap)

    @property
    def config(self) -> ClickHouseConfig:
        return ClickHouseConfig(port=self.store.port)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        client = Client(self.config)
        try:
            return client.query(sql)
        finally:
            client.close()

    def send(self, topic: Topic, *records: tuple[bytes | None, bytes | None, int]) -> None:
        producer = Producer(self.kafka)
        for key, value, partition in records:
            producer.send(topic.value, key, value, partition=partition)
        producer.flush(20)
        producer.close()

    def committed(self, topic: Topic) -> int | None:
        """Records not yet committed by the sink."""
        admin = Admin(self.kafka)
        try:
            lag = admin.group_lag(SinkSettings().group, topic.value)
        finally:
            admin.close()
        return sum(lag.values()) if lag is not None else None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = start_clickhouse(tmp_path / "store")
    try:
        with running_broker() as bootstrap:
            found = World(bootstrap, store, tmp_path / "store")
            admin = Admin(found.kafka)
            admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
            admin.close()
            client = Client(found.config)
            migrate(client)
            client.close()
            yield found
    finally:
        found.store.stop()


@contextmanager
def running_sink(world: World, settings: SinkSettings | None = None) -> Iterator[None]:
    stop = threading.Event()
    config = world.config
    results: list[int] = []

    def run() -> None:
        results.append(
            run_sink(
                settings or SinkSettings(),
                world.kafka,
                lambda: Client(config),
                RATE,
                lambda: 0,
                NoMeter(),
                stop,
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert results == [0]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS:g} s: {what}"
        time.sleep(0.05)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def event(number: int, source: random.Random, at_ms: int) -> UsageEvent:
    return UsageEvent(
        id=f"e-{number:05d}",
        time_ms=at_ms - source.randrange(3 * 86_400_000),
        organisation=source.choice(["acme", "globex"]),
        department=source.choice(["research", "sales", ""]),
        project=source.choice(["chatbot", ""]),
        user=source.choice(["ana", "ben", ""]),
        key=f"k-{number % 7}",
        model=source.choice(["gpt-4.1", "claude-sonnet-4.5", "a-model-nobody-knows"]),
        input_tokens=source.randrange(5_000),
        output_tokens=source.randrange(2_000),
    )


def batches(
    world: World, count: int, seed: int, *, size: int = 20
) -> list[tuple[bytes, bytes, int]]:
    """Messages of new events; the world remembers what is accepted."""
    source = random.Random(seed)
    records = []
    at_ms = now_ms()
    for message in range(count):
        first = len(world.events)
        events = [event(first + number, source, at_ms) for number in range(size)]
        world.events |= {each.id: each for each in events}
        body = {"lane": f"r/{seed}/0", "seq": message + 1, "events": events}
        records.append((b"lane", msgspec.json.encode(body), message % PARTITIONS))
    return records


def expected(world: World, kind: WindowKind, calendar: Calendar) -> dict[WindowScope, Total]:
    sums: dict[WindowScope, list[int]] = defaultdict(lambda: [0] * 5)
    for each in world.events.values():
        rated = RATE(each)
        scopes = scopes_of(each.organisation, each.department, each.project, each.user, each.key)
        for scope in scopes:
            total = sums[WindowScope(kind, calendar.window(kind, each.time_ms).start_ms, scope)]
            added = (
                rated.cost_nano_usd, each.input_tokens, each.output_tokens, 1, not rated.priced
            )  # fmt: skip
            for place, number in enumerate(added):
                total[place] += number
    return {key: Total(*values) for key, values in sums.items()}


def stored_count(world: World) -> int:
    return int(world.query("SELECT count() FROM usage_events FINAL")[0][0])


def assert_exact(world: World) -> None:
    """Totals of every scope and window, and the ids, are those of what was sent."""
    client = Client(world.config)
    times = [each.time_ms for each in world.events.values()]
    for kind, zone in [
        (WindowKind.MINUTE, "UTC"),
        (WindowKind.HOUR, "Asia/Kolkata"),
        (WindowKind.DAY, "America/New_York"),
        (WindowKind.MONTH, "Europe/Berlin"),
    ]:
        calendar = Calendar(zone)
        windows = windows_between(calendar, kind, min(times), max(times) + 1)
        assert read_event_totals(client, kind, windows) == expected(world, kind, calendar)
    whole = EventRange(min(times), max(times) + 1)
    assert check_ids(client, whole, world.events.keys()) == (0, 0, (), ())
    stored = read_stored(client, whole)
    assert stored.rows == stored.distinct_ids == len(world.events)
    assert stored.cost_nano_usd == sum(RATE(e).cost_nano_usd for e in world.events.values())
    assert read_last_event_ms(client) == max(times)
    client.close()


def test_bad_input_duplicates_and_conflicts(world: World) -> None:
    """Rejected events, re-sent batches and taken-back conflicts leave exactly the distinct events."""
    records = batches(world, 12, seed=1)
    source = random.Random(2)
    victim = world.events["e-00000"]
    conflict = replace_event(victim, input_tokens=99_999, key="k-other")
    same_key = replace_event(victim, input_tokens=77)
    good = event(900, source, now_ms())
    world.events[good.id] = good
    mixed = {
        "lane": "r/x/0",
        "seq": 1,
        "events": [
            {"id": "no-time"},
            {**json.loads(msgspec.json.encode(victim)), "input_tokens": -5},
            good,
            conflict,
            same_key,
        ],
    }
    bad = [b"{", b"[]", b"null", None, b"\xff", b'{"lane":"l","seq":1,"events":[]}']
    world.send(
        Topic.USAGE_EVENTS,
        *records,
        *records[:5],
        *((b"lane", value, 0) for value in bad),
        (None, msgspec.json.encode(mixed), 0),
        *records[3:7],
    )
    offset = len([r for r in [*records, *records[:5]] if r[2] == 0]) + len(bad)
    for index, body in ((3, conflict), (4, same_key)):
        letter = DeadLetter(
            topic=Topic.USAGE_EVENTS.value,
            partition=0,
            offset=offset,
            index=index,
            reason=RejectReason.CONFLICT,
            detail="same id, other body",
            event_id=body.id,
            original_base64=encode_original(msgspec.json.encode(body)),
        )
        world.send(Topic.DEAD_LETTERS, (letter.key().encode(), encode_dead_letter(letter), 0))
    with running_sink(world):
        wait_for(lambda: world.query("SELECT count() FROM dead_letters FINAL") == [(2,)], "letters")
        wait_for(lambda: stored_count(world) == len(world.events), "events")
        wait_for(lambda: world.committed(Topic.USAGE_EVENTS) == 0, "commit")
    assert_exact(world)
    [row] = world.query("SELECT reason, event_id, original FROM dead_letters FINAL LIMIT 1")
    assert row[:2] == ("conflict", victim.id)
    assert json.loads(row[2])["id"] == victim.id


def replace_event(each: UsageEvent, **changes: Any) -> UsageEvent:
    return msgspec.structs.replace(each, **changes)


def test_event_is_visible_within_a_second(world: World) -> None:
    """Once the sink runs, an event can be queried within a second or so of being sent."""
    with running_sink(world):
        world.send(Topic.USAGE_EVENTS, *batches(world, 1, seed=1))
        wait_for(lambda: stored_count(world) == len(world.events), "the first events")
        delays = []
        for seed in range(2, 6):
            began = time.monotonic()
            world.send(Topic.USAGE_EVENTS, *batches(world, 1, seed=seed))
            wait_for(lambda: stored_count(world) == len(world.events), "events")
            delays.append(time.monotonic() - began)
    # The best of four: other processes share the machine. The policy's age is 0.4 s.
    assert min(delays) < 1.5


def test_clickhouse_away_for_a_while(world: World) -> None:
    """While ClickHouse is away nothing is committed and nothing lost; when it is back, all arrives."""
    with running_sink(world):
        world.send(Topic.USAGE_EVENTS, *batches(world, 3, seed=1))
        wait_for(lambda: stored_count(world) == len(world.events), "first events")
        wait_for(lambda: world.committed(Topic.USAGE_EVENTS) == 0, "first commit")
        port = world.store.port
        world.store.stop()
        world.send(Topic.USAGE_EVENTS, *batches(world, 30, seed=2))
        # Longer than a session: a sink that forgot its heartbeats would lose its partitions.
        time.sleep(5)
        assert world.committed(Topic.USAGE_EVENTS) == 30
        world.store = start_clickhouse(world.data_dir, port)
        wait_for(lambda: stored_count(world) == len(world.events), "all events")
        wait_for(lambda: world.committed(Topic.USAGE_EVENTS) == 0, "commit")
    assert_exact(world)


def test_stop_while_clickhouse_is_away(world: World) -> None:
    """A sink that waits for ClickHouse stops when asked to, and the next one stores the rest."""
    port = world.store.port
    world.send(Topic.USAGE_EVENTS, *batches(world, 5, seed=1))
    world.store.stop()
    with running_sink(world):
        time.sleep(4)
    assert world.committed(Topic.USAGE_EVENTS) in {5, None}
    world.store = start_clickhouse(world.data_dir, port)
    with running_sink(world):
        wait_for(lambda: stored_count(world) == len(world.events), "all events")
    assert_exact(world)


@pytest.mark.parametrize(
    "crash_at",
    ["before_insert:2", "after_insert", "after_insert:2", "after_dead_letters", "after_commit"],
)
def test_killed_between_the_effects(world: World, crash_at: str) -> None:
    """Killed with SIGKILL between any two effects, a restarted sink leaves exact totals."""
    world.send(Topic.USAGE_EVENTS, *batches(world, 10, seed=1))
    world.send(Topic.AUDIT_LOG, (b"x", b"no audit entry", 0))
    sink = start_sink(world.bootstrap, world.store.port, crash_at=crash_at)
    world.send(Topic.USAGE_EVENTS, *batches(world, 10, seed=2))
    wait_for(lambda: sink.poll() is not None, f"the crash {crash_at}")
    assert sink.returncode == -signal.SIGKILL
    world.send(Topic.USAGE_EVENTS, *batches(world, 10, seed=3))
    sink = start_sink(world.bootstrap, world.store.port)
    try:
        wait_for(lambda: stored_count(world) == len(world.events), "all events")
        wait_for(lambda: world.committed(Topic.USAGE_EVENTS) == 0, "commit")
        wait_for(lambda: bool(world.query("SELECT 1 FROM dead_letters FINAL")), "the letter")
    finally:
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(30) == 0
    assert_exact(world)
    assert world.query("SELECT source_topic, reason, original FROM dead_letters FINAL") == [
        ("audit.log", "not_storable", "no audit entry")
    ]


def test_two_sinks_share_and_take_over(world: World) -> None:
    """Partitions that move between sinks, one killed and one joining, are stored exactly."""
    first = start_sink(world.bootstrap, world.store.port)
    second = start_sink(world.bootstrap, world.store.port)
    try:
        for seed in range(1, 6):
            world.send(Topic.USAGE_EVENTS, *batches(world, 10, seed=seed))
            time.sleep(0.5)
        first.kill()
        first.wait(10)
        first = start_sink(world.bootstrap, world.store.port)
        for seed in range(6, 9):
            world.send(Topic.USAGE_EVENTS, *batches(world, 10, seed=seed))
        wait_for(lambda: stored_count(world) == len(world.events), "all events")
        wait_for(lambda: world.committed(Topic.USAGE_EVENTS) == 0, "commit")
    finally:
        for sink in (first, second):
            sink.send_signal(signal.SIGTERM)
        assert [sink.wait(30) for sink in (first, second)] == [0, 0]
    assert_exact(world)


def test_poison_is_isolated(world: World) -> None:
    """A record that ClickHouse cannot hold becomes a dead letter, its neighbours are stored."""
    alerts = [alert(number) for number in range(8)]
    alerts[5] = alerts[5].model_copy(update={"observed": 2**70})
    records = [(each.dedup_key.encode(), encode_alert(each), 0) for each in alerts]
    world.send(Topic.ALERTS, *records, (b"x", b"{}", 0), (b"gone", None, 0))
    with running_sink(world):
        wait_for(lambda: world.query("SELECT count() FROM dead_letters FINAL") == [(2,)], "letters")
        wait_for(lambda: world.committed(Topic.ALERTS) == 0, "commit")
    stored = world.query("SELECT alert_id FROM alerts FINAL ORDER BY alert_id")
    assert stored == [(f"a-{number}",) for number in range(8) if number != 5]
    reader = TopicReader(world.kafka, [Topic.DEAD_LETTERS.value])
    letters = [decode_dead_letter(each.value or b"") for each in reader.read_to_end(20)]
    reader.close()
    assert [(each.topic, each.offset, each.reason) for each in letters] == [
        ("alerts", 8, RejectReason.NOT_STORABLE),
        ("alerts", 5, RejectReason.NOT_STORABLE),
    ]
    assert letters[1].original() == encode_alert(alerts[5])


def alert(number: int) -> Alert:
    return Alert(
        id=f"a-{number}",
        dedup_key=f"threshold/75/department:acme/research/2026-10/{number}",
        rule_id="threshold",
        rule_type=RuleType.THRESHOLD,
        status=AlertStatus.FIRING,
        severity=Severity.WARNING,
        scope="department:acme/research",
        window="month",
        period="2026-10",
        threshold=75,
        unit="percent",
        observed=76 * 10**9,
        limit=100 * 10**9,
        percent=76,
        also_crossed=(50,),
        summary="76 % of the budget",
        starts_at_ms=1_793_000_000_000,
        commands=("department:acme/research@1.2",),
    )


def test_control_topics_are_stored_once(world: World) -> None:
    """Commands, acks, audit entries and deliveries are stored, a repeated record only once."""
    command = ThrottleCommand(
        scope="key:acme/k-1",
        epoch=3,
        seq=9,
        state=BreakerState.OPEN,
        reason="budget exhausted",
        reason_code="budget_exhausted",
        issued_at_ms=1_793_000_000_000,
        expires_at_ms=1_793_000_900_000,
    )
    ack = ThrottleAck(
        relay="r1", scope=command.scope, epoch=3, seq=9, applied=Applied.ACCEPTED, at_ms=now_ms()
    )
    entry = AuditEntry(
        id="u-1", at_ms=1_793_000_000_000, actor="ana", action="policy.changed",
        object_id="rules", reason="more budget", before="{}", after='{"a":1}',
    )  # fmt: skip
    delivery = Delivery(
        message_id="m-1", alert_id="a-1", channel="hook", attempt=1, at_ms=1_793_000_000_000,
        outcome=DeliveryOutcome.RETRY, http_status=503, error="HTTP 503",
        next_attempt_ms=1_793_000_005_000,
    )  # fmt: skip
    sent = {
        Topic.THROTTLE_COMMANDS: (command.scope.encode(), encode_command(command)),
        Topic.THROTTLE_ACKS: (ack_key("r1", command.scope), encode_ack(ack)),
        Topic.AUDIT_LOG: (b"rules", encode_audit(entry)),
        Topic.DELIVERIES: (delivery_key("m-1", "hook"), encode_delivery(delivery)),
    }
    for topic, record in sent.items():
        world.send(topic, (*record, 0), (*record, 0), (record[0], None, 0))
    with running_sink(world):
        for topic in sent:
            wait_for(lambda topic=topic: world.committed(topic) == 0, topic)  # type: ignore[misc]
    assert world.query(
        "SELECT scope, epoch, seq, state, expires_at > issued_at FROM throttle_commands FINAL"
    ) == [("key:acme/k-1", 3, 9, "open", True)]
    assert world.query("SELECT relay, seq, applied FROM throttle_acks FINAL") == [
        ("r1", 9, "accepted")
    ]
    assert world.query("SELECT actor, after FROM audit_log FINAL") == [("ana", '{"a":1}')]
    assert world.query("SELECT channel, outcome, http_status FROM deliveries FINAL") == [
        ("hook", "retry", 503)
    ]


def test_spend_snapshots_newest_wins(world: World) -> None:
    """Of a key's snapshots the newest is the total, in any order, and shards add up."""
    base = Totals(0, 10, 1_793_003_600_000, 5, 1, 1, 0, 0, 0, 1, 0, 1_793_000_000_000)
    key = SnapshotKey(
        "department:acme/research", "hour", 1_793_000_000_000 // 3_600_000 * 3_600_000, "0"
    )
    versions = [
        (key, base),
        (key, msgspec.structs.replace(base, offset=12, cost_nano_usd=7, events=2)),
        # Late, from a stopped worker.
        (key, msgspec.structs.replace(base, offset=11, cost_nano_usd=6)),
        (key._replace(shard="1"), msgspec.structs.replace(base, offset=3, cost_nano_usd=100)),
    ]
    records = [(encode_key(each), encode_totals(totals), 0) for each, totals in versions]
    internal = (encode_key(SnapshotKey("~state", "", 0, "0")), b"[1]", 0)
    question = StreamTotals(
        WindowKind.HOUR, key.start_ms, key.start_ms + 1, (ScopeType.DEPARTMENT,)
    )

    def totals() -> dict[WindowScope, Total]:
        client = Client(world.config)
        try:
            return read_stream_totals(client, question)
        finally:
            client.close()

    place = WindowScope(WindowKind.HOUR, key.start_ms, key.scope)
    with running_sink(world):
        world.send(Topic.SPEND_SNAPSHOTS, internal, *records)
        wait_for(lambda: totals() == {place: Total(107, 2, 2, 3, 0)}, "107 nano-dollars")
        # After a lost log: a greater epoch supersedes, an expired window deletes no history.
        raised = msgspec.structs.replace(base, epoch=1, offset=-1, cost_nano_usd=8, events=2)
        world.send(
            Topic.SPEND_SNAPSHOTS,
            (encode_key(key), encode_totals(raised), 0),
            records[1],
            (encode_key(key._replace(shard="1")), None, 0),
        )
        wait_for(lambda: totals() == {place: Total(108, 2, 2, 3, 0)}, "108 nano-dollars")


def test_settings_of_a_flush_are_kept_by_the_loop(world: World) -> None:
    """A batch is written when its rows are full, long before its age."""
    usage = replace(SinkSettings().policies[Topic.USAGE_EVENTS], rows_max=40, age_ms_max=600_000)
    policies = {**SinkSettings().policies, Topic.USAGE_EVENTS: usage}
    world.send(Topic.USAGE_EVENTS, *batches(world, 5, seed=1))
    with running_sink(world, SinkSettings(policies=policies)):
        wait_for(lambda: stored_count(world) == 80, "two full batches")
    # The stop writes the rest.
    assert_exact(world)
