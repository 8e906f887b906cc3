"""One total that is not what it should be, as reconciliation and verification report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meterline.schemas.money import usd_text
from meterline.schemas.periods import Calendar, WindowKind


class WindowOfScope(Protocol):
    """Names a total: `WindowKey` of a replay's truth, `WindowScope` of the store."""

    @property
    def scope(self) -> str:
        """The scope."""

    @property
    def kind(self) -> WindowKind:
        """The kind of window."""

    @property
    def start_ms(self) -> int:
        """The window's start, UTC ms."""


class Amounts(Protocol):
    """What is compared: `TruthSums` of a replay, `Sums` of the store."""

    @property
    def cost_nano_usd(self) -> int:
        """Nano-dollars."""

    @property
    def input_tokens(self) -> int:
        """Tokens in, cached ones included."""

    @property
    def output_tokens(self) -> int:
        """Tokens out, reasoning included."""

    @property
    def events(self) -> int:
        """Number of events."""


@dataclass(frozen=True, slots=True)
class TotalDifference:
    """One scope and window whose total differs; amounts in dollars, as decimal text."""

    where: str
    """The side that differs: streams, clickhouse or windows."""
    scope: str
    window: str
    period: str
    expected_usd: str
    found_usd: str
    expected_events: int
    found_events: int
    tokens_diff: int
    """Tokens in and tokens out, each without sign."""


def total_difference(
    where: str, key: WindowOfScope, expected: Amounts, found: Amounts, calendar: Calendar
) -> TotalDifference:
    """Describe a total that differs."""
    return TotalDifference(
        where=where,
        scope=key.scope,
        window=key.kind.value,
        period=calendar.period(calendar.window(key.kind, key.start_ms)),
        expected_usd=usd_text(expected.cost_nano_usd),
        found_usd=usd_text(found.cost_nano_usd),
        expected_events=expected.events,
        found_events=found.events,
        tokens_diff=tokens_difference(expected, found),
    )


def tokens_difference(expected: Amounts, found: Amounts) -> int:
    """Tokens in and tokens out, each without sign."""
    return abs(expected.input_tokens - found.input_tokens) + abs(
        expected.output_tokens - found.output_tokens
    )
