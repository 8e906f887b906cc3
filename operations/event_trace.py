"""The trace of one event: `meterline where`, assembled from what ClickHouse holds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.arrivals import Arrival, ArrivalOutcome, EventRow, arrivals
from meterline.reports.core.totals import WindowScope
from meterline.reports.event_trace import (
    FiredAlert,
    ShardTotal,
    read_batches,
    read_dead_letters,
    read_event_rows,
    read_fired,
    read_shard_totals,
)
from meterline.schemas.money import usd_text
from meterline.schemas.periods import Calendar, rfc3339


@dataclass(frozen=True, slots=True)
class WindowLine:
    """One total that the event belongs to."""

    scope: str
    window: str
    period: str
    included: bool
    """Whether the stored total of its shard reaches up to the event's place in the log."""
    spent_usd: str
    events: int


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One alert whose observation the event was part of."""

    alert_id: str
    dedup_key: str
    scope: str
    severity: str
    starts_at: str
    summary: str


@dataclass(frozen=True, slots=True)
class EventTrace:
    """Everything that is stored about one event id."""

    event_id: str
    status: str
    """counted, refused or unknown."""
    arrivals: tuple[Arrival, ...]
    event_time: str = ""
    model: str = ""
    priced: bool = False
    price_version: str = ""
    cost_usd: str = ""
    windows: tuple[WindowLine, ...] = ()
    alerts: tuple[AlertLine, ...] = ()
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "arrivals": [
                {
                    "outcome": one.outcome.value,
                    "partition": one.partition,
                    "offset": one.place.offset,
                    "index": one.place.event,
                    "log_epoch": one.place.epoch,
                    "received_at": rfc3339(one.received_ms),
                    "lane": one.lane,
                    "seq": one.seq,
                    "reason": one.reason,
                    "detail": one.detail,
                }
                for one in self.arrivals
            ],
        }


def read_event_trace(client: Client, event_id: str, calendar: Calendar) -> EventTrace:
    """Read the trace of an event.

    Raises:
        ClickHouseError: the store does not answer, or refuses.
    """
    begun = time.monotonic()
    rows = read_event_rows(client, event_id)
    dead_letters = read_dead_letters(client, event_id)
    batches = read_batches(client, ((row.batch_version, row.partition) for row in rows))
    arrived = tuple(arrivals(rows, dead_letters, batches))
    counted = next((one for one in arrived if one.outcome is ArrivalOutcome.COUNTED), None)
    if counted is None:
        status = "refused" if arrived else "unknown"
        return EventTrace(event_id, status, arrived, seconds=round(time.monotonic() - begun, 3))
    row = next(
        row for row in rows if (row.partition, row.place) == (counted.partition, counted.place)
    )
    windows = calendar.windows(row.time_ms)
    keys = [
        WindowScope(window.kind, window.start_ms, scope)
        for scope in row.scopes
        for window in windows
    ]
    totals = read_shard_totals(client, keys)
    periods = {window.kind: calendar.period(window) for window in windows}
    fired = read_fired(client, row.scopes, list(periods.values()), row.received_ms)
    return EventTrace(
        event_id,
        "counted",
        arrived,
        event_time=rfc3339(row.time_ms),
        model=row.model,
        priced=row.priced,
        price_version=row.price_version,
        cost_usd=usd_text(row.cost_nano_usd),
        windows=tuple(_window_line(key, periods[key.kind], row, totals) for key in keys),
        alerts=tuple(_alert_line(one) for one in fired if _observed(one, row, totals)),
        seconds=round(time.monotonic() - begun, 3),
    )


def _window_line(
    key: WindowScope, period: str, row: EventRow, totals: list[ShardTotal]
) -> WindowLine:
    shards = [one for one in totals if one.key == key]
    return WindowLine(
        scope=key.scope,
        window=key.kind.value,
        period=period,
        included=any(
            one.shard == str(row.partition)
            and (one.epoch, one.offset) >= (row.place.epoch, row.place.offset)
            for one in shards
        ),
        spent_usd=usd_text(sum(one.cost_nano_usd for one in shards)),
        events=sum(one.events for one in shards),
    )


def _observed(alert: FiredAlert, row: EventRow, totals: list[ShardTotal]) -> bool:
    """Whether the event was part of what the alert was raised for.

    It fired after the event had arrived; and where its command says up to which offset of the event's
    shard was counted, and the log is still the same, not before that offset.
    """
    same_log = all(
        one.epoch == row.place.epoch for one in totals if one.shard == str(row.partition)
    )
    if not same_log:
        return True
    offsets = dict(
        pair.split(":", 1) for text in alert.evidence for pair in text.split(",") if ":" in pair
    )
    known = offsets.get(str(row.partition))
    return known is None or int(known) >= row.place.offset


def _alert_line(alert: FiredAlert) -> AlertLine:
    return AlertLine(
        alert.alert_id,
        alert.dedup_key,
        alert.scope,
        alert.severity,
        rfc3339(alert.starts_ms),
        alert.summary,
    )
