"""The entries of closed_periods in ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.reports.booking.core.ledger import (
    PeriodEntry,
    PeriodHistory,
    PeriodLedger,
    PeriodState,
)
from meterline.schemas.tables import CLOSED_PERIODS

_COLUMNS = [InsertColumn(*column) for column in CLOSED_PERIODS.columns]


def read_ledger(client: Client) -> PeriodLedger:
    """All entries of all months."""
    found: dict[str, list[PeriodEntry]] = {}
    for row in client.query(
        "SELECT period, seq, state, revision, run, toUnixTimestamp64Milli(at), actor, reason, "
        "inputs, manifest FROM closed_periods FINAL ORDER BY period, seq"
    ):
        entry = PeriodEntry(row[0], row[1], PeriodState(row[2]), *row[3:])
        found.setdefault(entry.period, []).append(entry)
    return PeriodLedger({name: PeriodHistory(name, tuple(each)) for name, each in found.items()})


def append_entry(client: Client, entry: PeriodEntry) -> None:
    """Write one entry; when it returns, it is stored."""
    row: Sequence[object] = (
        entry.period,
        entry.seq,
        entry.state.value,
        entry.revision,
        entry.run,
        entry.at_ms,
        entry.actor,
        entry.reason,
        entry.inputs,
        entry.manifest,
        entry.at_ms,
    )
    client.insert(CLOSED_PERIODS.name, _COLUMNS, [[value] for value in row])
