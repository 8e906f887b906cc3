"""A measurement of one budget or limit, and the exact arithmetic of "p percent of a limit". Pure.

All comparisons are of integers: percent is a whole number, amounts are nano-USD or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from meterline.schemas.periods import WindowKind
from meterline.schemas.rule_ref import RuleId

NANO_USD = "nano_usd"
TOKENS = "tokens"


class SpendSum(NamedTuple):
    """What one scope spent in one window, over all shards."""

    scope: str
    kind: WindowKind
    start_ms: int
    end_ms: int
    cost_nano_usd: int
    tokens: int
    """Input plus output; cached and reasoning tokens are part of these."""
    source: tuple[tuple[str, int], ...] = ()
    """(shard, offset) pairs, for the event trace; empty for a window that is over."""
    last_event_ms: int = 0
    """Newest event counted in it; 0 where it is not kept."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a rule sees in its current window."""

    rule_id: RuleId
    kind: WindowKind
    period: str
    """The window's name: 2026-10."""
    start_ms: int
    end_ms: int
    budget_version: int
    observed: int
    """Spent in the window, in `unit`; corrections may make it negative."""
    limit: int
    unit: str
    source: tuple[tuple[str, int], ...] = ()
    """(shard, offset) pairs that `observed` was made of."""

    @property
    def percent(self) -> int:
        """floor(100 * observed / limit); 100 of a limit of zero, which is always reached."""
        return 100 if self.limit == 0 else self.observed * 100 // self.limit


def reached(observed: int, limit: int, percent: int) -> bool:
    """Whether `observed` is at least `percent` of `limit`; a limit of zero is always reached."""
    return limit == 0 or observed * 100 >= percent * limit


def amount_at(limit: int, percent: int) -> int:
    """The least amount for which `reached` answers yes, for a limit above zero."""
    return -(-percent * limit // 100)
