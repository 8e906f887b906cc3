"""How far every month has come: entries of closed_periods, never changed.

    OPEN ──► CLOSING ──► FROZEN ──► CLOSED ──► REOPENED ──► CLOSING ...
      ▲         │           │
      └─────────┴───────────┘  refused, with the reasons

A month without an entry is OPEN. After a crash in CLOSING the attempt is given up (its lines count
for nothing); after one in FROZEN it goes on with the same inputs and lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.schemas.tables import CLOSED_PERIODS


class PeriodState(StrEnum):
    """Where a month stands."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    FROZEN = "FROZEN"
    """Inputs and lines are fixed; files are being written."""
    CLOSED = "CLOSED"
    REOPENED = "REOPENED"


@dataclass(frozen=True, slots=True)
class PeriodEntry:
    """One change of state."""

    period: str
    seq: int
    state: PeriodState
    revision: int
    """The revision that is closed, or that is being made; 0 before the first."""
    run: int
    at_ms: int
    actor: str
    reason: str = ""
    inputs: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class PeriodHistory:
    """All entries of one month, in order."""

    period: str
    entries: tuple[PeriodEntry, ...] = ()

    @property
    def last(self) -> PeriodEntry | None:
        """What holds."""
        return self.entries[-1] if self.entries else None

    @property
    def state(self) -> PeriodState:
        """Where the month stands."""
        return self.entries[-1].state if self.entries else PeriodState.OPEN

    @property
    def closed(self) -> tuple[PeriodEntry, ...]:
        """One entry per revision that was closed, the first first."""
        return tuple(each for each in self.entries if each.state is PeriodState.CLOSED)

    def next(  # noqa: PLR0913 - one argument per field that a step decides
        self,
        state: PeriodState,
        *,
        revision: int,
        run: int,
        at_ms: int,
        actor: str,
        reason: str = "",
        inputs: str = "",
        manifest: str = "",
    ) -> PeriodEntry:
        """The entry that follows."""
        seq = self.entries[-1].seq + 1 if self.entries else 1
        return PeriodEntry(
            self.period, seq, state, revision, run, at_ms, actor, reason, inputs, manifest
        )


@dataclass(slots=True)
class PeriodLedger:
    """The months as they stand, by name."""

    months: dict[str, PeriodHistory] = field(default_factory=dict)

    def history(self, period: str) -> PeriodHistory:
        """One month; an empty history for one that nothing was ever done to."""
        return self.months.get(period, PeriodHistory(period))

    def closed_runs(self) -> list[int]:
        """The runs whose lines count, of all months."""
        return sorted(each.run for month in self.months.values() for each in month.closed)


_COLUMNS = [InsertColumn(*column) for column in CLOSED_PERIODS.columns]


def read_ledger(client: Client) -> PeriodLedger:
    """Everything that was ever done to any month."""
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
