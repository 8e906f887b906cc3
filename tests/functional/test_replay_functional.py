"""A replay through the real emitters and broker, and its verification against real stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import msgspec
import pytest

from meterline.app.clock import now_ms
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig, InsertColumn
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, Record, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.operations.replay.engine import run_replay
from meterline.operations.replay.malformed import CORRUPTIONS
from meterline.operations.replay.options import (
    ReplayError,
    ReplayHooks,
    ReplayOptions,
    ReplayProgress,
    ReplayResult,
    TraceFormat,
)
from meterline.operations.replay.truth import Truth, read_truth, write_truth
from meterline.operations.verify import VerifyOptions, run_verify
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.codec import decode_usage
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.scopes import scopes_of
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.tables import SPEND_WINDOWS
from meterline.schemas.topics import TOPICS, Topic
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.usage_rows import usage_block, usage_rows
from meterline.sinks.migrate import migrate
from tests.servers import running_broker, running_clickhouse

pytestmark = [pytest.mark.functional, pytest.mark.timeout(180)]

CATALOGUE = load_catalogue()
CALENDAR = Calendar("Asia/Kolkata")
OPTIONS = ReplayOptions(
    format=TraceFormat.SYNTHETIC,
    limit=1_500,
    speed=0,
    keys=40,
    departments=5,
    duplicates=0.1,
    late=0.1,
    malformed=0.02,
    time_zone=CALENDAR.time_zone,
)


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaConfig]:
    with running_broker() as bootstrap:
        config = embedded_kafka(bootstrap)
        admin = Admin(config)
        admin.apply(TOPICS, usage_partitions=3, replication_factor=1)
        admin.close()
        yield config


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConfig]:
    with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as (host, port):
        config = ClickHouseConfig(host=host, port=port)
        client = Client(config)
        migrate(client)
        client.close()
        yield config


@pytest.fixture(scope="module")
def run(kafka: KafkaConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReplayResult, Truth]:
    """One replay, shared."""
    path = tmp_path_factory.mktemp("truth") / "truth.json"
    result = run_replay(OPTIONS, kafka, now_ms, CATALOGUE, truth=path)
    return result, read_truth(path)


def records(kafka: KafkaConfig) -> list[Record]:
    reader = TopicReader(kafka, [Topic.USAGE_EVENTS])
    try:
        return list(reader.read_to_end(30))
    finally:
        reader.close()


def distinct(log: list[Record], run_id: str) -> dict[str, tuple[UsageEvent, int]]:
    """Events of the run by id, with their partition."""
    found: dict[str, tuple[UsageEvent, int]] = {}
    for record in log:
        for event in decode_usage(record.value, record.timestamp_ms).events:
            if event.id.startswith(run_id):
                assert found.setdefault(event.id, (event, record.partition))[0] == event
    return found


def test_what_arrived_sums_to_the_truth(
    kafka: KafkaConfig, run: tuple[ReplayResult, Truth]
) -> None:
    """What the emitters sent, decoded and summed again, is the truth file, duplicates once."""
    result, truth = run
    log = records(kafka)
    events = distinct(log, result.run_id)
    assert result.complete
    assert len(events) == truth.events == result.progress.sent == OPTIONS.limit
    assert events.keys() == truth.ids()
    sums: defaultdict[tuple[str, WindowKind, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for event, _ in events.values():
        counts = (CATALOGUE.rate(event).cost_nano_usd, event.input_tokens, event.output_tokens, 1)
        names = (event.organisation, event.department, event.project, event.user, event.key)
        for scope in scopes_of(*names):
            for window in CALENDAR.windows(event.time_ms):
                row = sums[scope, window.kind, window.start_ms]
                row[:] = [left + right for left, right in zip(row, counts, strict=True)]
    assert {tuple(key): list(row) for key, row in truth.windows()} == sums


def test_duplicates_late_and_broken_are_really_sent(
    kafka: KafkaConfig, run: tuple[ReplayResult, Truth]
) -> None:
    """The log holds the duplicates and the broken messages that the result counts."""
    result, truth = run
    log = records(kafka)
    sent = [
        (event, record)
        for record in log
        for event in decode_usage(record.value, record.timestamp_ms).events
        if event.id.startswith(result.run_id)
    ]
    assert len(sent) - truth.events == truth.duplicates > 50
    late = {event.id for event, record in sent if record.timestamp_ms - event.time_ms > 110_000}
    assert len(late) == truth.late > 50
    relays = {event.relay for event, _ in sent}
    assert relays == {"replay-1", "replay-2", "replay-3"}
    rejects = [
        reject
        for record in log
        for reject in decode_usage(record.value, record.timestamp_ms).rejects
    ]
    assert len(rejects) == truth.malformed > 5
    assert {reject.reason for reject in rejects} <= CORRUPTIONS.keys()


def store(
    kafka: KafkaConfig, config: ClickHouseConfig, truth: Truth, *, but: frozenset[str] = frozenset()
) -> None:
    """Do the pipeline's work in a few lines: rows, snapshots, and their copy in ClickHouse."""
    client = Client(config)
    messages = [
        usage_rows(
            record.value, record.timestamp_ms, record.partition, record.offset, 0, CATALOGUE.rate
        )
        for record in records(kafka)
    ]
    block = usage_block([each for each in messages if each is not None])
    client.insert("usage_events", [InsertColumn(*each) for each in block.columns], block.data)
    producer = Producer(kafka)
    rows = []
    for key, sums in truth.windows():
        if key.scope in but:
            continue
        end_ms = CALENDAR.window(key.kind, key.start_ms).end_ms
        cost, tokens_in, tokens_out, events = sums
        # Two shards, so that adding them up is part of the test, and an older value of one.
        parts = [
            Totals(0, 9, end_ms, cost - 1, tokens_in, 0, 0, 0, 0, events, 0, key.start_ms),
            Totals(0, 7, end_ms, 1, 0, tokens_out, 0, 0, 0, 0, 0, key.start_ms),
        ]
        stale = msgspec.structs.replace(parts[1], offset=3, cost_nano_usd=77)
        for shard, totals in (("0", parts[0]), ("1", parts[1]), ("1", stale)):
            name = SnapshotKey(key.scope, key.kind.value, key.start_ms, shard)
            producer.send(Topic.SPEND_SNAPSHOTS, encode_key(name), encode_totals(totals))
        rows.append((key, end_ms, sums))
    producer.flush(30)
    producer.close()
    columns = {column.name: column.type for column in SPEND_WINDOWS.columns}
    data: dict[str, list[object]] = {
        "window_kind": [key.kind.value for key, _, _ in rows],
        "window_start": [key.start_ms for key, _, _ in rows],
        "window_end": [end_ms for _, end_ms, _ in rows],
        "scope_type": [key.scope.partition(":")[0] for key, _, _ in rows],
        "organisation": ["acme"] * len(rows),
        "scope": [key.scope for key, _, _ in rows],
        "shard": ["0"] * len(rows),
        "cost_usd": [sums.cost_nano_usd for _, _, sums in rows],
        "input_tokens": [sums.input_tokens for _, _, sums in rows],
        "output_tokens": [sums.output_tokens for _, _, sums in rows],
        "events": [sums.events for _, _, sums in rows],
        "version": [1] * len(rows),
    }
    client.insert(
        "spend_windows",
        [InsertColumn(name, columns[name]) for name in data],
        list(data.values()),
    )
    client.close()


def test_verify_is_equal_only_when_all_is_there(
    kafka: KafkaConfig,
    clickhouse: ClickHouseConfig,
    run: tuple[ReplayResult, Truth],
    tmp_path: Path,
) -> None:
    """Verification finds everything missing, then one scope missing, then nothing, to the nano."""
    path = tmp_path / "truth.json"
    write_truth(path, run[1])
    truth = read_truth(path)  # a copy: it is changed below
    options = VerifyOptions(path)

    report = run_verify(options, kafka, clickhouse, now_ms)
    assert not report.equal
    assert (report.events, report.missing, report.extra) == (truth.events, truth.events, 0)
    total = sum(sums.cost_nano_usd for _, sums in truth.windows())
    assert report.clickhouse_diff_nano_usd == total

    lost = "department:acme/research"
    store(kafka, clickhouse, truth, but=frozenset({lost}))
    report = run_verify(options, kafka, clickhouse, now_ms)
    assert (report.missing, report.extra, report.clickhouse_diff_nano_usd) == (0, 0, 0)
    assert report.streams_diff_nano_usd > 0
    assert {each.scope for each in report.differences} == {lost}
    assert {each.where for each in report.differences} == {"streams"}

    store(kafka, clickhouse, truth)
    report = run_verify(replace(options, wait_seconds=5), kafka, clickhouse, now_ms)
    assert report.equal, report
    assert list(report.as_json())[:5] == [
        "events",
        "streams_diff_nano_usd",
        "clickhouse_diff_nano_usd",
        "missing",
        "extra",
    ]
    # A tenth of the events is late by up to 46 hours: their minutes are kept no longer.
    assert 0 < report.expired_totals < report.totals

    # A second truth, of the same traffic but for one event and one nano-dollar.
    key, sums = next((k, s) for k, s in truth.windows() if k.kind is WindowKind.MONTH)
    truth.totals[key.scope][key.kind][key.start_ms] = sums._replace(
        cost_nano_usd=sums.cost_nano_usd + 1
    )
    write_truth(path, truth)
    report = run_verify(options, kafka, clickhouse, now_ms)
    assert (report.streams_diff_nano_usd, report.clickhouse_diff_nano_usd) == (1, 1)
    assert not report.equal


def test_a_stopped_replay_reports_what_it_sent(kafka: KafkaConfig, tmp_path: Path) -> None:
    """A stop in mid-trace delivers what was sent, and the truth says so."""
    stop = Event()
    seen: list[ReplayProgress] = []

    def watch(progress: ReplayProgress) -> None:
        seen.append(progress)
        stop.set()

    path = tmp_path / "truth.json"
    options = replace(OPTIONS, speed=60, organisation="stopped", duplicates=0, late=0, malformed=0)
    hooks = ReplayHooks(on_progress=watch, stop=stop)
    result = run_replay(options, kafka, now_ms, CATALOGUE, truth=path, hooks=hooks)
    truth = read_truth(path)
    assert not result.complete
    assert not truth.complete
    assert 0 < truth.events == seen[-1].sent < OPTIONS.limit
    assert distinct(records(kafka), result.run_id).keys() == truth.ids()


def test_refused_requests_are_not_sent(kafka: KafkaConfig, tmp_path: Path) -> None:
    """A request that the gate does not admit is neither sent nor part of the truth."""
    path = tmp_path / "truth.json"
    options = replace(OPTIONS, limit=300, organisation="gated", late=0, malformed=0)
    hooks = ReplayHooks(admit=lambda event: event.department != "research")
    result = run_replay(options, kafka, now_ms, CATALOGUE, truth=path, hooks=hooks)
    truth = read_truth(path)
    assert result.progress.refused > 0
    assert result.progress.sent + result.progress.refused == 300
    assert "department:gated/research" not in truth.totals
    assert distinct(records(kafka), result.run_id).keys() == truth.ids()


def test_backfill_keeps_the_traces_distances(kafka: KafkaConfig, tmp_path: Path) -> None:
    """With a start, event times are the trace's own, moved; the future is refused beforehand."""
    options = replace(OPTIONS, limit=200, organisation="past", late=0, duplicates=0, malformed=0)
    start_ms = now_ms() - 3 * 3_600_000
    result = run_replay(replace(options, start_ms=start_ms), kafka, now_ms, CATALOGUE)
    times = [event.time_ms for event, _ in distinct(records(kafka), result.run_id).values()]
    assert min(times) == start_ms
    assert 50 * 60_000 < max(times) - start_ms < 70 * 60_000
    with pytest.raises(ReplayError, match="would end in the future"):
        run_replay(replace(options, start_ms=now_ms()), kafka, now_ms, CATALOGUE)


def test_no_broker_is_reported_at_once(unused_tcp_port: int) -> None:
    """A replay without a broker ends with one line, before it spools anything."""
    config = KafkaConfig(f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ReplayError, match=f"{unused_tcp_port}"):
        run_replay(OPTIONS, config, now_ms, CATALOGUE)
