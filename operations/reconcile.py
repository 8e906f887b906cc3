"""Reconciliation: compares stream totals, stored totals and events; `--repair` makes them agree.

    1. spend.snapshots to its end, until each entry is covered by its partition's state record:
       the state's offset is the applied offset
    2. wait until the sink has stored everything up to the applied offsets
    3. spend_windows, and sums of usage_events up to the applied offsets
    4. compare (`reports.reconciliation`)

Repair, in order: the records that make the totals right, on spend.snapshots, from where every
reader takes them; then an audit entry per window. Killed between, it is found right the next time,
without its audit entry; run twice, it writes the same difference again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, Record
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.control.audit_log import audit_record
from meterline.operations.pipeline import Pipeline
from meterline.operations.total_difference import TotalDifference, total_difference
from meterline.reports.core.event_sums import AppliedOffset
from meterline.reports.core.reconciliation import (
    Drift,
    LaneGap,
    Side,
    TotalsBySource,
    behind,
    find_drift,
    left_over,
    missing_batches,
    repair_record,
    window_of,
)
from meterline.reports.core.totals import WindowScope, windows_between
from meterline.reports.reconciliation_reader import (
    read_event_sums,
    read_lane_gaps,
    read_window_shards,
)
from meterline.schemas.audit import AuditEntry, audit_entry
from meterline.schemas.errors import UserError
from meterline.schemas.groups import Group
from meterline.schemas.measures import Sums
from meterline.schemas.money import usd_text
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.scopes import is_organisation
from meterline.schemas.spend import (
    SnapshotKey,
    Totals,
    decode_snapshot,
    encode_key,
    encode_totals,
    newer,
)
from meterline.schemas.topics import Topic
from meterline.streams.core.bootstrap import BOOTSTRAP_OFFSET
from meterline.streams.core.changelog import newest_states
from meterline.streams.core.entries import Retention

# A flush's state record follows its entries within milliseconds; a worker that died between them
# is started again within seconds.
SETTLE_SECONDS_MAX = 20.0
POLL_SECONDS = 0.2
# More than this is no slip of a few windows: rebuild instead.
REPAIRS_MAX = 5_000
DIFFERENCES_SHOWN_MAX = 20
# Late events are counted in the wider windows indefinitely, in these while the streams keep them.
_ONLY_KEPT = frozenset({WindowKind.MINUTE, WindowKind.HOUR})


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What was compared and what was found."""

    period: str
    totals: int
    """Scopes and windows compared."""
    events: int
    """Raw events in the period."""
    spent_usd: str
    drift_nano_usd: int
    """Sum of the differences, without sign."""
    drift_events: int
    drift_windows: int
    missing_batches: int
    """Batches that lanes skipped: sent and lost, or still on their way."""
    lanes_with_gaps: int
    repaired: int
    seconds: float
    differences: tuple[TotalDifference, ...]
    gaps: tuple[LaneGap, ...]

    @property
    def exact(self) -> bool:
        """Whether all totals agree."""
        return not self.drift_windows

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "exact": self.exact, "gaps": [gap._asdict() for gap in self.gaps]}


@dataclass(frozen=True, slots=True)
class _Sides:
    compared: TotalsBySource
    events: int
    cost_nano_usd: int


class SnapshotTable:
    """The newest records of spend.snapshots of some windows, and each shard's applied offset."""

    def __init__(self, period: Window, partitions: int) -> None:
        """Keep the windows that begin in the period."""
        self.newest: dict[SnapshotKey, Totals] = {}
        self._period = period
        self._applied = dict.fromkeys(range(partitions), AppliedOffset(0, BOOTSTRAP_OFFSET))
        self._ahead: dict[int, AppliedOffset] = {}

    def apply(self, records: Sequence[Record]) -> None:
        """Apply records, in the order of the log."""
        for partition, state in newest_states(records).items():
            self._applied[partition] = max(
                self._applied.get(partition, AppliedOffset(*state)), AppliedOffset(*state)
            )
        for record in records:
            snapshot = decode_snapshot(record.key, record.value)
            if snapshot is None:
                continue
            key, totals = snapshot
            if totals is None:
                self.newest.pop(key, None)
                continue
            if key.shard == str(record.partition):
                tag = AppliedOffset(totals.epoch, totals.offset)
                self._ahead[record.partition] = max(self._ahead.get(record.partition, tag), tag)
            begins_in = self._period.start_ms <= key.start_ms < self._period.end_ms
            known = self.newest.get(key)
            if begins_in and (known is None or newer(totals, known)):
                self.newest[key] = totals

    @property
    def settled(self) -> bool:
        """Whether every entry is covered by its partition's state."""
        return all(tag <= self._applied[partition] for partition, tag in self._ahead.items())

    @property
    def applied(self) -> list[AppliedOffset]:
        """The applied offset of every partition."""
        return [self._applied[partition] for partition in sorted(self._applied)]


def reconcile(
    pipeline: Pipeline,
    period: Window,
    now_ms: int,
    *,
    wait_seconds: float,
    repair: bool = False,
) -> ReconcileReport:
    """Compare one month, and repair what differs if asked.

    Args:
        pipeline: whose totals are compared.
        period: a calendar month.
        now_ms: UTC ms; what the streams keep depends on it.
        wait_seconds: how long the sink may take to reach the applied offsets.
        repair: replace the totals that differ from the events.

    Raises:
        UserError: the streams or the sink are behind; or too much differs for a repair.
        KafkaClientError: the brokers do not answer, or refuse.
        ClickHouseError: the store does not answer, or refuses.
    """
    begun = time.monotonic()
    kafka = pipeline.kafka("reconcile")
    calendar = pipeline.calendar
    table = SnapshotTable(period, pipeline.partitions)
    with closing(TopicReader(kafka, [Topic.SPEND_SNAPSHOTS])) as reader:
        _settle(reader, table)  # 1
    deadline = time.monotonic() + wait_seconds
    _await_sink(kafka, table.applied, deadline)  # 2
    with closing(Client(pipeline.clickhouse)) as client:
        sides = _read_sides(pipeline, client, period, now_ms, table)  # 3
        while behind(sides.compared) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            sides = _read_sides(pipeline, client, period, now_ms, table)
        found = find_drift(sides.compared)  # 4
        gaps = read_lane_gaps(client, period.start_ms, period.end_ms)
    repaired = _repair(pipeline, sides.compared, found, now_ms) if repair and found else 0
    return ReconcileReport(
        period=calendar.period(period),
        totals=len(sides.compared.ends),
        events=sides.events,
        spent_usd=usd_text(sides.cost_nano_usd),
        drift_nano_usd=sum(drift.nano_usd for drift in found),
        drift_events=sum(abs(drift.expected.events - drift.found.events) for drift in found),
        drift_windows=len(found),
        missing_batches=missing_batches(gaps),
        lanes_with_gaps=len({gap.lane for gap in gaps}),
        repaired=repaired,
        seconds=round(time.monotonic() - begun, 2),
        differences=tuple(
            total_difference(each.side.value, each.key, each.expected, each.found, calendar)
            for each in found[:DIFFERENCES_SHOWN_MAX]
        ),
        gaps=tuple(gaps[:DIFFERENCES_SHOWN_MAX]),
    )


def month_window(calendar: Calendar, name: str, now_ms: int) -> Window:
    """The month that `2026-10` names; the current one without a name.

    Raises:
        UserError: no such month.
    """
    if not name:
        return calendar.window(WindowKind.MONTH, now_ms)
    try:
        # Its middle is in the month whatever the time zone.
        middle = datetime.strptime(f"{name}-15", "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        message = f"{name!r} is not a month: write --period 2026-10"
        raise UserError(message) from error
    return calendar.window(WindowKind.MONTH, int(middle.timestamp()) * 1000)


def _settle(reader: TopicReader, table: SnapshotTable) -> None:
    table.apply(list(reader.read_to_end(READ_SECONDS_MAX)))
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while not table.settled:
        if time.monotonic() > deadline:
            message = (
                "spend.snapshots ends within a flush: a streams worker has died; "
                "see `meterline status`, and run it again"
            )
            raise UserError(message)
        table.apply(reader.poll(POLL_SECONDS))


def _await_sink(kafka: KafkaConfig, applied: Sequence[AppliedOffset], deadline: float) -> None:
    """Wait until everything that the streams counted and refused is stored."""
    admin = Admin(kafka)
    try:
        while True:
            stored = admin.committed(Group.SINK, Topic.USAGE_EVENTS)
            dead_letters = admin.group_lag(Group.SINK, Topic.DEAD_LETTERS) or {}
            missing = sum(
                max(0, each.offset + 1 - stored.get(partition, 0))
                for partition, each in enumerate(applied)
            )
            if not missing and not sum(dead_letters.values()):
                return
            if time.monotonic() > deadline:
                message = (
                    f"the sink is {missing:,} messages behind the streams: there is nothing to "
                    "compare yet; see `meterline status`, and run it again"
                )
                raise UserError(message)
            time.sleep(POLL_SECONDS)
    finally:
        admin.close()


def _read_sides(
    pipeline: Pipeline, client: Client, period: Window, now_ms: int, table: SnapshotTable
) -> _Sides:
    calendar, retention = pipeline.calendar, pipeline.ledger.retention
    windows: dict[SnapshotKey, Totals] = {}
    events: dict[WindowScope, Sums] = {}
    for kind in WindowKind:
        kept_ms = retention.of(kind)
        spans = windows_between(calendar, kind, *_range(kind, period, now_ms - kept_ms))
        if not spans:
            continue
        events |= read_event_sums(client, spans, table.applied)
        windows |= read_window_shards(client, kind, spans[0].start_ms, spans[-1].end_ms)
    stored = {window_of(key) for key in windows}
    streams = {
        key: totals
        for key, totals in table.newest.items()
        if key.kind not in _ONLY_KEPT or _is_kept(retention, calendar, window_of(key), now_ms)
    }
    keys = events.keys() | stored | {window_of(key) for key in streams}
    ends = {key: calendar.window(key.kind, key.start_ms).end_ms for key in keys}
    kept = {key for key in keys if ends[key] + retention.of(key.kind) > now_ms}
    compared = TotalsBySource(streams, windows, events, ends, kept, table.applied)
    month = [
        sums
        for key, sums in events.items()
        if key.kind is WindowKind.MONTH and is_organisation(key.scope)
    ]
    return _Sides(
        compared,
        sum(sums.events for sums in month),
        sum(sums.cost_nano_usd for sums in month),
    )


def _range(kind: WindowKind, period: Window, kept_since_ms: int) -> tuple[int, int]:
    """Which part of the period to compare: all of its days, but only the hours that are kept."""
    if kind in _ONLY_KEPT:
        return max(period.start_ms, kept_since_ms), period.end_ms
    return period.start_ms, period.end_ms


def _is_kept(retention: Retention, calendar: Calendar, key: WindowScope, now_ms: int) -> bool:
    end_ms = calendar.window(key.kind, key.start_ms).end_ms
    return end_ms + retention.of(key.kind) > now_ms


# -- repair


def _repair(pipeline: Pipeline, sides: TotalsBySource, found: list[Drift], now_ms: int) -> int:
    """Make the totals right; the number of windows replaced."""
    if len(found) > REPAIRS_MAX:
        message = (
            f"{len(found):,} totals differ, more than {REPAIRS_MAX:,}: this is no slip; stop the "
            "workers and restore the state with `meterline rebuild`"
        )
        raise UserError(message)
    stale, extra = set(behind(sides)), set(left_over(sides))
    publish_records(
        pipeline.kafka("reconcile"),
        (
            record
            for drift in found
            for record in _records(pipeline, sides, drift, stale | extra, now_ms)
        ),
        [audit_record(_audit_entry(pipeline.calendar, drift, now_ms)) for drift in found],
    )
    return len(found)


def _records(
    pipeline: Pipeline,
    sides: TotalsBySource,
    drift: Drift,
    wrong_copies: set[SnapshotKey],
    now_ms: int,
) -> Iterator[OutgoingRecord]:
    for key, totals in _replacements(pipeline.log_epoch, sides, drift, wrong_copies, now_ms):
        own = key.shard.isdigit() and int(key.shard) < pipeline.partitions
        yield OutgoingRecord(
            Topic.SPEND_SNAPSHOTS,
            encode_key(key),
            encode_totals(totals),
            partition=int(key.shard) if own else 0,
        )


def _replacements(
    epoch: int,
    sides: TotalsBySource,
    drift: Drift,
    wrong_copies: set[SnapshotKey],
    now_ms: int,
) -> list[tuple[SnapshotKey, Totals]]:
    """What to publish: the difference, or what the copy should be."""
    if drift.side is Side.STREAMS:
        return [repair_record(drift, sides.streams, epoch, now_ms)]
    if drift.key not in sides.kept:
        return [repair_record(drift, sides.windows, epoch, now_ms)]
    # The streams are right: their record again, or a zero where they have none.
    nothing = Totals(epoch, BOOTSTRAP_OFFSET, drift.end_ms, *Sums(), last_event_ms=0)
    return [
        (key, sides.streams.get(key, nothing))
        for key in wrong_copies
        if window_of(key) == drift.key
    ]


def _audit_entry(calendar: Calendar, drift: Drift, now_ms: int) -> AuditEntry:
    period = calendar.period(calendar.window(drift.key.kind, drift.key.start_ms))
    return audit_entry(
        "spend.repaired",
        drift.key.scope,
        at_ms=now_ms,
        actor="reconcile",
        reason=f"{drift.side.value} of {drift.key.kind.value} {period} differed",
        before=msgspec.json.encode(drift.found._asdict()).decode(),
        after=msgspec.json.encode(drift.expected._asdict()).decode(),
    )
