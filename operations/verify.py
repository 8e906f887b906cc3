"""Verification: the truth of a replay against the stream totals and against ClickHouse.

    ClickHouse    raw events of the run (their ids begin with its run id), per scope and window,
                  against the truth
    streams       totals of spend.snapshots, all shards, against the truth plus what ClickHouse
                  holds in the same windows of other origin: earlier replays, live traffic
    windows       ClickHouse's copy of the snapshots against the snapshots themselves

So a pipeline need not be empty before a replay. While other traffic flows, the last two may
differ for as long as it is on its way; `wait_seconds` polls until all is equal.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.operations.replay.truth import VERIFIED, Truth, TruthSums, WindowKey, read_truth
from meterline.operations.total_difference import (
    TotalDifference,
    tokens_difference,
    total_difference,
)
from meterline.reports.core.query import Query, between
from meterline.reports.core.totals import StreamTotals
from meterline.reports.core.verification import EventRange
from meterline.reports.totals_reader import read_stream_totals
from meterline.reports.verification import check_ids
from meterline.schemas.clock import Clock
from meterline.schemas.measures import events_sql
from meterline.schemas.periods import MINUTE_MS, Calendar, Window, WindowKind
from meterline.schemas.scopes import is_organisation
from meterline.schemas.spend import SnapshotKey, Totals, decode_snapshot, newer
from meterline.schemas.topics import Topic
from meterline.streams.core.entries import Retention

POLL_SECONDS = 0.5
QUARTER_MS = 15 * MINUTE_MS
"""Every time zone's offset since 2020 is a multiple of it: a quarter of an hour lies in exactly one
hour, day and month, so quarters can be summed to any of them."""
DIFFERENCES_SHOWN_MAX = 10
_NOTHING: Final = TruthSums()

Totaled = Mapping[WindowKey, TruthSums]


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """The truth file, and how long to wait until the pipeline agrees with it."""

    truth: Path
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How far apart truth and pipeline are; sums of absolute differences over all totals."""

    events: int
    """Distinct events of the truth."""
    streams_diff_nano_usd: int
    clickhouse_diff_nano_usd: int
    missing: int
    """Events of the truth that ClickHouse does not have."""
    extra: int
    """Events of the run that ClickHouse has and the truth has not."""
    streams_diff_tokens: int
    streams_diff_events: int
    clickhouse_diff_tokens: int
    clickhouse_diff_events: int
    windows_diff_nano_usd: int
    windows_diff_events: int
    totals: int
    """Scopes and windows compared."""
    expired_totals: int
    """Of those, totals of windows that the streams keep no longer: compared in ClickHouse only."""
    other_events: int
    """Events of other origin in the same months."""
    waited_seconds: float
    differences: tuple[TotalDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether everything agrees to the nano-dollar, the token and the event."""
        return not any(
            (
                self.streams_diff_nano_usd,
                self.clickhouse_diff_nano_usd,
                self.missing,
                self.extra,
                self.streams_diff_tokens,
                self.streams_diff_events,
                self.clickhouse_diff_tokens,
                self.clickhouse_diff_events,
                self.windows_diff_nano_usd,
                self.windows_diff_events,
            )
        )

    def as_json(self) -> dict[str, object]:
        """Plain values, the documented five first."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ObservedTotals:
    """What the pipeline holds at one moment."""

    own: Totaled
    """Raw events of the run in ClickHouse."""
    others: Totaled
    """Raw events of other origin in ClickHouse."""
    streams: Totaled
    windows: Totaled
    missing: int
    extra: int


def run_verify(
    options: VerifyOptions,
    kafka: KafkaConfig,
    clickhouse: ClickHouseConfig,
    clock: Clock,
    on_poll: Callable[[VerifyReport], None] | None = None,
) -> VerifyReport:
    """Compare until everything is equal or the time is over; returns the last report.

    Raises:
        TruthError: the truth file cannot be used.
        KafkaClientError: spend.snapshots cannot be read.
        ClickHouseError: ClickHouse does not answer, or refuses.
    """
    truth = read_truth(options.truth)
    begun = time.monotonic()
    client = Client(clickhouse)
    reader = SnapshotReader(truth, TopicReader(kafka, [Topic.SPEND_SNAPSHOTS]))
    try:
        while True:
            read_at = time.monotonic()
            observed = _observe(truth, reader, client)
            report = compare_totals(truth, observed, clock(), waited_seconds=read_at - begun)
            if report.equal or time.monotonic() - begun >= options.wait_seconds:
                return report
            if on_poll is not None:
                on_poll(report)
            time.sleep(POLL_SECONDS)
    finally:
        reader.close()
        client.close()


def compare_totals(
    truth: Truth, observed: ObservedTotals, now_ms: int, waited_seconds: float = 0.0
) -> VerifyReport:
    """Sum the differences."""
    expected = dict(truth.windows())
    calendar = Calendar(truth.time_zone)
    kept = {key for key in expected if _kept(calendar, key, truth, now_ms)}
    clickhouse = _Tally("clickhouse", calendar)
    # Windows that only ClickHouse has are compared as well.
    for key in expected.keys() | observed.own.keys():
        clickhouse.compare(key, expected.get(key, _NOTHING), observed.own.get(key, _NOTHING))
    streams, windows = _Tally("streams", calendar), _Tally("windows", calendar)
    for key in kept:
        found = observed.streams.get(key, _NOTHING)
        streams.compare(key, expected[key].plus(observed.others.get(key, _NOTHING)), found)
        windows.compare(key, found, observed.windows.get(key, _NOTHING))
    differences = [*clickhouse.differences, *streams.differences, *windows.differences]
    return VerifyReport(
        events=truth.events,
        streams_diff_nano_usd=streams.nano_usd,
        clickhouse_diff_nano_usd=clickhouse.nano_usd,
        missing=observed.missing,
        extra=observed.extra,
        streams_diff_tokens=streams.tokens,
        streams_diff_events=streams.events,
        clickhouse_diff_tokens=clickhouse.tokens,
        clickhouse_diff_events=clickhouse.events,
        windows_diff_nano_usd=windows.nano_usd,
        windows_diff_events=windows.events,
        totals=len(expected),
        expired_totals=len(expected) - len(kept),
        other_events=sum(
            sums.events
            for key, sums in observed.others.items()
            if key.kind is WindowKind.MONTH and is_organisation(key.scope)
        ),
        waited_seconds=round(waited_seconds, 3),
        differences=tuple(differences[:DIFFERENCES_SHOWN_MAX]),
    )


class _Tally:
    """Sums of absolute differences of one comparison, and the first of them."""

    def __init__(self, where: str, calendar: Calendar) -> None:
        self.nano_usd = 0
        self.tokens = 0
        self.events = 0
        self.differences: list[TotalDifference] = []
        self._where = where
        self._calendar = calendar

    def compare(self, key: WindowKey, expected: TruthSums, found: TruthSums) -> None:
        if expected == found:
            return
        self.nano_usd += abs(expected.cost_nano_usd - found.cost_nano_usd)
        self.tokens += tokens_difference(expected, found)
        self.events += abs(expected.events - found.events)
        if len(self.differences) < DIFFERENCES_SHOWN_MAX:
            self.differences.append(
                total_difference(self._where, key, expected, found, self._calendar)
            )


def _kept(calendar: Calendar, key: WindowKey, truth: Truth, now_ms: int) -> bool:
    """Whether the streams still keep this window, and kept it when the run's events came.

    They drop a minute three hours after its end; an event that is later than that is counted in
    the wider windows only.
    """
    end_ms = calendar.window(key.kind, key.start_ms).end_ms
    return end_ms + Retention().of(key.kind) > max(now_ms, truth.ended_ms)


class SnapshotReader:
    """Follows spend.snapshots; keeps the newest totals of the truth's scopes and windows."""

    def __init__(self, truth: Truth, reader: TopicReader) -> None:
        """Read with a reader at the topic's beginning, which `close` closes."""
        self._wanted = {key for key, _ in truth.windows()}
        self._reader = reader
        self._newest: dict[SnapshotKey, Totals] = {}

    def totals(self) -> Totaled:
        """Read to the end and add up the shards.

        Raises:
            BrokerUnavailable: the end was not reached within READ_SECONDS_MAX.
            SnapshotError: a record that is no snapshot.
        """
        for record in self._reader.read_to_end(READ_SECONDS_MAX):
            self.apply(record.key, record.value)
        summed: defaultdict[WindowKey, TruthSums] = defaultdict(TruthSums)
        for key, totals in self._newest.items():
            window = WindowKey(key.scope, WindowKind(key.kind), key.start_ms)
            summed[window] = summed[window].plus(TruthSums.of(totals))
        return summed

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Apply one record, in the order of the log."""
        snapshot = decode_snapshot(key, value)
        if snapshot is None or self._window(snapshot.key) not in self._wanted:
            return
        if snapshot.totals is None:
            self._newest.pop(snapshot.key, None)
            return
        present = self._newest.get(snapshot.key)
        if present is None or newer(snapshot.totals, present):
            self._newest[snapshot.key] = snapshot.totals

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    @staticmethod
    def _window(key: SnapshotKey) -> WindowKey:
        return WindowKey(key.scope, WindowKind(key.kind), key.start_ms)


def _observe(truth: Truth, snapshots: SnapshotReader, client: Client) -> ObservedTotals:
    own: defaultdict[WindowKey, TruthSums] = defaultdict(TruthSums)
    others: defaultdict[WindowKey, TruthSums] = defaultdict(TruthSums)
    windows: dict[WindowKey, TruthSums] = {}
    wanted = {key for key, _ in truth.windows()}
    for organisation in truth.organisations:
        for key, is_own, sums in _event_sums(truth, organisation, client):
            if is_own:
                own[key] = own[key].plus(sums)
            elif key in wanted:
                others[key] = others[key].plus(sums)
        windows.update(_window_sums(truth, organisation, client))
    missing, extra = _identity(truth, client)
    return ObservedTotals(own, others, snapshots.totals(), windows, missing, extra)


def _event_sums(
    truth: Truth, organisation: str, client: Client
) -> Iterable[tuple[WindowKey, bool, TruthSums]]:
    calendar = Calendar(truth.time_zone)
    spans = _spans(truth)
    # Minutes in the range of the truth's minutes; hours, days and months from quarters of an hour.
    for grain_ms, kinds in (
        (MINUTE_MS, (WindowKind.MINUTE,)),
        (QUARTER_MS, (WindowKind.HOUR, WindowKind.DAY, WindowKind.MONTH)),
    ):
        first_ms = min(spans[kind][0] for kind in kinds)
        end_ms = max(spans[kind][1] for kind in kinds)
        statement = event_sums(organisation, truth.run_id, first_ms, end_ms, grain_ms=grain_ms)
        for scope, start_ms, own, *sums in client.query(*statement):
            for window in calendar.windows(start_ms):
                if window.kind in kinds:
                    yield _key(scope, window), bool(own), _sums(sums)


_SCOPES = """arrayFilter(scope -> scope != '', [
        concat('organisation:', organisation),
        concat('department:', organisation, '/', department),
        concat('key:', organisation, '/', key),
        if(project = '', '', concat('project:', organisation, '/', project)),
        if(user = '', '', concat('user:', organisation, '/', user))
    ])"""


def event_sums(
    organisation: str, run_id: str, start_ms: int, end_ms: int, *, grain_ms: int
) -> Query:
    """Sums of raw events by scope and slice of time, those of the run apart from others.

    Of the raw events under FINAL, the path that shares nothing with the streams but the decoder,
    the rates and the log.

    Rows: scope, slice start in ms, whether of the run, a sum per measure of VERIFIED.
    """
    sql = f"""
SELECT scope,
       intDiv(toUnixTimestamp64Milli(event_time), {{grain_ms:Int64}}) * {{grain_ms:Int64}} AS slice_ms,
       startsWith(event_id, {{prefix:String}}) AS own,
       {events_sql(VERIFIED)}
FROM usage_events FINAL
ARRAY JOIN {_SCOPES} AS scope
WHERE organisation = {{organisation:String}} AND {between("event_time")}
GROUP BY scope, slice_ms, own"""  # noqa: S608 - constants of this module; values are bound
    return Query(
        sql,
        {
            "organisation": organisation,
            "prefix": f"{run_id}-",
            "grain_ms": grain_ms,
            "start_ms": start_ms,
            "end_ms": end_ms,
        },
    )


def _window_sums(
    truth: Truth, organisation: str, client: Client
) -> Iterable[tuple[WindowKey, TruthSums]]:
    for kind, (first_ms, end_ms) in _spans(truth).items():
        question = StreamTotals(kind, first_ms, end_ms, organisation=organisation)
        for key, total in read_stream_totals(client, question).items():
            yield WindowKey(key.scope, key.kind, key.start_ms), TruthSums.of(total)


def _spans(truth: Truth) -> dict[WindowKind, tuple[int, int]]:
    """The range of the truth's windows of each kind."""
    calendar = Calendar(truth.time_zone)
    starts: defaultdict[WindowKind, set[int]] = defaultdict(set)
    for key, _ in truth.windows():
        starts[key.kind].add(key.start_ms)
    return {
        kind: (min(each), calendar.window(kind, max(each)).end_ms) for kind, each in starts.items()
    }


def _identity(truth: Truth, client: Client) -> tuple[int, int]:
    """Events missing and too many, by id."""
    if not truth.events:
        return 0, 0
    first_ms, end_ms = _spans(truth)[WindowKind.MONTH]
    events = EventRange(first_ms, end_ms, id_prefix=f"{truth.run_id}-")
    check = check_ids(client, events, truth.ids())
    return check.missing, check.extra


def _key(scope: str, window: Window) -> WindowKey:
    return WindowKey(scope, window.kind, window.start_ms)


def _sums(columns: Sequence[Any]) -> TruthSums:
    return TruthSums(*(each.read(value) for each, value in zip(VERIFIED, columns, strict=True)))
