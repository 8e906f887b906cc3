"""The state of every month: append-only entries of closed_periods; pure.

    OPEN ──► CLOSING ──► FROZEN ──► CLOSED ──► REOPENED ──► CLOSING ...
      ▲         │           │
      └─────────┴───────────┘  refused, with the reasons

A month without an entry is OPEN. After a crash in CLOSING the attempt is given up (its lines count
for nothing); after one in FROZEN it is resumed with the same inputs and lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class PeriodState(StrEnum):
    """State of a month in the close."""

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
        """The latest entry."""
        return self.entries[-1] if self.entries else None

    @property
    def state(self) -> PeriodState:
        """The state of the last entry; OPEN without one."""
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
    """The history of every month, by name."""

    months: dict[str, PeriodHistory] = field(default_factory=dict)

    def history(self, period: str) -> PeriodHistory:
        """One month; an empty history for one without entries."""
        return self.months.get(period, PeriodHistory(period))

    def closed_runs(self) -> list[int]:
        """The runs whose lines count, of all months."""
        return sorted(each.run for month in self.months.values() for each in month.closed)
