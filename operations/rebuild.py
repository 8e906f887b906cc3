"""Rebuild: a new, empty log gets the state that the lost one had, from ClickHouse.

    ClickHouse  usage_events      -> spend.snapshots   totals per shard, newest ids      (streams)
                usage_batches     -> spend.snapshots   positions of lanes                (streams)
                control_records   -> control.policies, throttle.commands, alerts, deliveries

Run with the workers stopped, before the first of them starts on the new log. Effects, in order:

    1. control records    as they were, byte for byte: a repeat changes nothing, because each topic
                          is read by key, and alerts by what they are about
    2. notify's offset    behind the alerts with a delivery: none is notified twice; the others follow
    3. entries and ids    tagged (epoch, -1): older than anything that is counted afterwards
    4. state records      one per partition, last: where they are stored, the rebuild is complete
    5. an audit entry     records what was done

Killed between any two, it is run again and writes the same. Exact, because the log epoch separates
both sides of the border: events of older logs are summed here (under FINAL, so each event once),
events of the new log are counted from the log; and an event that was stored and is sent once more
is known by its lane's sequence number or its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, TopicPartition
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.publish import OutgoingRecord, send_all
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.control.audit_log import audit_record
from meterline.operations.pipeline import Pipeline
from meterline.reports import bootstrap as store
from meterline.reports.core.totals import windows_between
from meterline.schemas.audit import AuditEntry, audit_entry
from meterline.schemas.errors import UserError
from meterline.schemas.groups import Group
from meterline.schemas.money import usd_text
from meterline.schemas.periods import WindowKind
from meterline.schemas.scopes import is_organisation
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals, merged
from meterline.schemas.topics import KEPT_TOPICS, Topic
from meterline.sinks.core.stored_events import STORED_COLUMNS, stored_event
from meterline.streams.core.bootstrap import (
    BOOTSTRAP_OFFSET,
    BootstrapPolicy,
    PartitionBootstrap,
    StoredLane,
    bootstrap_records,
    bootstrap_totals,
    closed_before_ms,
)
from meterline.streams.core.changelog import newest_states
from meterline.streams.core.lanes import LANE_IDLE_MS
from meterline.streams.core.ledger import Record


class RebuildError(UserError):
    """A rebuild that is not possible or not allowed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What was restored."""

    epoch: int
    events: int
    """Stored events, each once, in the months that are kept."""
    spent_usd: str
    """What they cost."""
    totals: int
    zeroed: int
    """Totals that the old log had and no stored event supports."""
    ids: int
    lanes: int
    records: Mapping[str, int]
    """Control records by topic."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Totals:
    """The totals of all partitions, and the figures of the report."""

    by_partition: dict[int, list[tuple[SnapshotKey, Totals]]]
    others: list[tuple[SnapshotKey, Totals]]
    """Zeros for shards of partitions that no longer exist."""
    zeroed: int
    events: int
    cost_nano_usd: int


def is_needed(pipeline: Pipeline) -> bool:
    """Whether the log is new and the store remembers an older one.

    Raises:
        RebuildError: the store knows this epoch or a later one, though the log is empty.
        KafkaClientError: spend.snapshots cannot be read.
        ClickHouseError: the store does not answer, or refuses.
    """
    if _states(pipeline.kafka("rebuild")):
        return False
    epoch = pipeline.log_epoch
    with closing(Client(pipeline.clickhouse)) as client:
        ends = store.read_ends(client, epoch)
        if ends.newest_epoch >= epoch:
            message = (
                f"the log is empty, but ClickHouse holds events of log epoch {ends.newest_epoch}: "
                f"this pipeline's epoch is {epoch}; set METERLINE_LOG_EPOCH (with "
                f"`meterline up`: the file log-epoch) so that it becomes {ends.newest_epoch + 1}"
            )
            raise RebuildError(message)
        return bool(ends.events) or any(
            store.read_control_records(client, topic) for topic in KEPT_TOPICS
        )


def rebuild(pipeline: Pipeline, now_ms: int, say: Callable[[str], None]) -> RebuildReport:
    """Restore everything; returns when all of it is durable.

    Args:
        pipeline: what is restored, with the new log's epoch.
        now_ms: time of the audit entry, UTC ms.
        say: called with a line of progress for the operator.

    Raises:
        RebuildError: streams have counted in this epoch already.
        KafkaClientError: the brokers do not answer, or refuse; run it again.
        ClickHouseError: the store does not answer, or refuses; run it again.
    """
    begun = time.monotonic()
    kafka = pipeline.kafka("rebuild")
    _check_untouched(kafka, pipeline.log_epoch)
    with (
        closing(Client(pipeline.clickhouse)) as client,
        closing(Producer(kafka)) as producer,
    ):
        ends = store.read_ends(client, pipeline.log_epoch)
        records = _restore_control(kafka, client, producer)  # 1, 2
        say(f"restored {sum(records.values())} control records")
        totals = _read_totals(pipeline, client, ends)
        states: list[OutgoingRecord] = []
        ids = lanes = 0
        for bootstrap in _bootstraps(pipeline, client, ends, totals):
            flush = bootstrap_records(
                BootstrapPolicy(pipeline.ledger, ends.received_ms, ends.event_ms), bootstrap
            )
            send_all(producer, _entries(flush.entries, bootstrap.partition))  # 3
            states += _entries([flush.state], bootstrap.partition)
            ids += len(bootstrap.events)
            lanes += len(bootstrap.lanes)
        others = [(encode_key(key), encode_totals(zero)) for key, zero in totals.others]
        send_all(producer, _entries(others, 0))  # 3
        send_all(producer, states)  # 4
        report = RebuildReport(
            epoch=pipeline.log_epoch,
            events=totals.events,
            spent_usd=usd_text(totals.cost_nano_usd),
            totals=sum(len(each) for each in totals.by_partition.values()),
            zeroed=totals.zeroed,
            ids=ids,
            lanes=lanes,
            records=records,
            seconds=round(time.monotonic() - begun, 2),
        )
        send_all(producer, [audit_record(_audit_entry(report, now_ms))])  # 5
    return report


def _entries(records: Iterable[Record], partition: int) -> Iterator[OutgoingRecord]:
    for key, value in records:
        yield OutgoingRecord(Topic.SPEND_SNAPSHOTS, key, value, partition)


def _check_untouched(kafka: KafkaConfig, epoch: int) -> None:
    for partition, (of_epoch, offset) in sorted(_states(kafka).items()):
        if of_epoch > epoch:
            message = (
                f"spend.snapshots is of log epoch {of_epoch}, this pipeline's setting is {epoch}: "
                f"set METERLINE_LOG_EPOCH to the pipeline's"
            )
            raise RebuildError(message)
        if of_epoch == epoch and offset > BOOTSTRAP_OFFSET:
            message = (
                f"streams have counted partition {partition} of log epoch {epoch} up to offset "
                f"{offset}: this log is not lost. To rebuild all the same, stop the workers, "
                f"set METERLINE_LOG_EPOCH to {epoch + 1} for all of them, and run it again"
            )
            raise RebuildError(message)


def _states(kafka: KafkaConfig) -> dict[int, tuple[int, int]]:
    """By partition, epoch and offset of the newest state record on the log."""
    with closing(TopicReader(kafka, [Topic.SPEND_SNAPSHOTS])) as reader:
        return newest_states(reader.read_to_end(READ_SECONDS_MAX))


# -- control records


def _restore_control(kafka: KafkaConfig, client: Client, producer: Producer) -> dict[str, int]:
    """Publish decisions, notifications and alerts; alerts without a delivery come last."""
    counts: dict[str, int] = {}
    delivered: set[str] = set()
    for topic in KEPT_TOPICS:
        records = store.read_control_records(client, topic)
        counts[topic.value] = len(records)
        if topic is Topic.DELIVERIES:
            delivered = {_alert_of(record.value) for record in records}
        if topic is not Topic.ALERTS:
            _send_all(producer, topic, records)
            continue
        notified = [record for record in records if _id_of(record.value) in delivered]
        _send_all(producer, topic, notified)
        if notified:
            _skip_alerts(kafka)
        _send_all(producer, topic, [record for record in records if record not in notified])
    return counts


def _send_all(producer: Producer, topic: Topic, records: list[store.ControlRecord]) -> None:
    send_all(producer, (OutgoingRecord(topic, record.key, record.value) for record in records))


def _skip_alerts(kafka: KafkaConfig) -> None:
    """Let the notify worker start behind what is on the topic now."""
    with closing(TopicReader(kafka, [Topic.ALERTS])) as reader:
        last = max((record.offset for record in reader.read_to_end(READ_SECONDS_MAX)), default=-1)
    with closing(Admin(kafka)) as admin:
        admin.set_offsets(Group.NOTIFY, {TopicPartition(Topic.ALERTS, 0): last + 1})


class _Alert(msgspec.Struct):
    id: str = ""


class _Delivery(msgspec.Struct):
    alert_id: str = ""


def _id_of(value: bytes) -> str:
    return msgspec.json.decode(value, type=_Alert).id


def _alert_of(value: bytes) -> str:
    return msgspec.json.decode(value, type=_Delivery).alert_id


# -- totals, ids and lanes


def _read_totals(pipeline: Pipeline, client: Client, ends: store.StoreEnds) -> _Totals:
    partitions, policy, calendar = pipeline.partitions, pipeline.ledger, pipeline.calendar
    found: dict[tuple[int, SnapshotKey], Totals] = {}
    others: list[tuple[SnapshotKey, Totals]] = []
    zeroed = events = cost_nano_usd = 0
    for kind in WindowKind if ends.events else ():
        since_ms = closed_before_ms(policy.retention, kind, ends.received_ms)
        # The window that contains the bound ends after it, so it is the first that is kept.
        first = calendar.window(kind, since_ms)
        windows = windows_between(calendar, kind, first.start_ms, ends.event_ms + 1)
        for row in store.read_bootstrap_sums(client, windows, policy.epoch):
            partition = _partition(row.partition, partitions)
            key = SnapshotKey(row.scope, kind.value, row.start_ms, str(partition))
            end_ms = calendar.window(kind, row.start_ms).end_ms
            totals = bootstrap_totals(policy.epoch, end_ms, row.sums)
            before = found.get((partition, key))
            found[partition, key] = totals if before is None else merged(before, totals)
            if kind is WindowKind.MONTH and is_organisation(row.scope):
                events += totals.events
                cost_nano_usd += totals.cost_nano_usd
        for stale in store.read_window_rows(client, kind, first.start_ms, policy.epoch):
            partition = _partition(int(stale.shard), partitions) if stale.shard.isdigit() else 0
            key = SnapshotKey(stale.scope, kind.value, stale.start_ms, stale.shard)
            if (partition, key) in found:
                continue
            zeroed += 1
            nothing = bootstrap_totals(policy.epoch, stale.end_ms, (0,) * 9)
            if stale.shard == str(partition):
                found[partition, key] = nothing
            else:
                others.append((key, nothing))
    by_partition: dict[int, list[tuple[SnapshotKey, Totals]]] = {
        number: [] for number in range(partitions)
    }
    for (partition, key), totals in found.items():
        by_partition[partition].append((key, totals))
    return _Totals(by_partition, others, zeroed, events, cost_nano_usd)


def _bootstraps(
    pipeline: Pipeline, client: Client, ends: store.StoreEnds, totals: _Totals
) -> Iterator[PartitionBootstrap]:
    partitions, policy = pipeline.partitions, pipeline.ledger
    since_ms = ends.received_ms - LANE_IDLE_MS
    missing = store.read_missing(client, policy.epoch, since_ms)
    lanes: dict[int, list[StoredLane]] = {number: [] for number in range(partitions)}
    for lane in store.read_lanes(client, policy.epoch, since_ms):
        gaps = tuple(missing.get(lane.name, ()))
        stored = StoredLane(lane.name, lane.seq, lane.last_ms, gaps)
        lanes[_partition(lane.partition, partitions)].append(stored)
    for partition in range(partitions):
        rows = store.read_newest_events(
            client, STORED_COLUMNS, partition, policy.epoch, policy.ids_horizon
        )
        yield PartitionBootstrap(
            partition,
            totals.by_partition[partition],
            [stored_event(row) for row in rows],
            lanes[partition],
        )


def _partition(number: int, partitions: int) -> int:
    """The partition that continues an old shard; the same unless there are fewer now."""
    return number % partitions


def _audit_entry(report: RebuildReport, now_ms: int) -> AuditEntry:
    return audit_entry(
        "log.rebuilt",
        f"log-epoch:{report.epoch}",
        at_ms=now_ms,
        actor="rebuild",
        reason="the broker's data was gone",
        after=msgspec.json.encode(report.as_json()).decode(),
    )
