"""Totals: the newest value of every shard, and the sum per scope and window.

A shard's value with the highest (epoch, offset) wins, so repeats, reordering and late writes of a
stopped worker change nothing. Windows are dropped a while after their end; a record of a dropped
window is ignored, because the sum of only its shards that still speak would be too low.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from meterline.alerting.core.past_windows import PastWindows, WindowKey
from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.periods import DAY_MS, HOUR_MS, MINUTE_MS, WindowKind
from meterline.schemas.spend import SpendSnapshot, Totals, newer

__all__ = ["KEPT_AFTER_END_MS", "MINUTES_KEPT_MS", "SpendSum", "SpendTotals", "WindowKey"]

# Budgets and limits concern the current window only; the hour beyond is for clocks that differ.
KEPT_AFTER_END_MS = HOUR_MS
# What rules of history need: the hours of nine days, the minutes of two hours.
HOURS_KEPT_MS = 10 * DAY_MS
# How old a scope is: a key that slept for a week is not new.
DAYS_KEPT_MS = 45 * DAY_MS
MINUTES_KEPT_MS = 3 * HOUR_MS


@dataclass(slots=True)
class _Window:
    end_ms: int
    cost_nano_usd: int = 0
    tokens: int = 0
    shards: dict[str, Totals] = field(default_factory=dict)


class SpendTotals:
    """Sums of the windows that have not ended long ago.

    Bounded by scopes x 3 windows x shards: old windows go with `drop_ended`.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._windows: dict[WindowKey, _Window] = {}
        self._scopes: dict[str, set[WindowKey]] = {}
        self._past = {
            WindowKind.HOUR.value: PastWindows(HOUR_MS, HOURS_KEPT_MS),
            WindowKind.MINUTE.value: PastWindows(MINUTE_MS, MINUTES_KEPT_MS),
            # Where daylight saving moves, a day's end is an hour off here: only starts are used.
            WindowKind.DAY.value: PastWindows(DAY_MS, DAYS_KEPT_MS),
        }
        self._horizon_ms = 0
        self.last_event_ms = 0
        """Newest event time seen in any total."""

    def __len__(self) -> int:
        """Windows held."""
        return len(self._windows)

    def apply(self, snapshot: SpendSnapshot) -> WindowKey | None:
        """Apply one snapshot; the window whose sum changed, or None."""
        key, totals = snapshot
        if totals is None:
            # A deleted entry is a window that streams expired: it ended long ago here as well.
            return None
        past = self._past.get(key.kind)
        changes_past = past is not None and past.apply(key, totals)
        window_key = (key.scope, key.kind, key.start_ms)
        if changes_past:
            self.last_event_ms = max(self.last_event_ms, totals.last_event_ms)
        if key.kind == WindowKind.MINUTE or totals.end_ms <= self._horizon_ms:
            return window_key if changes_past else None
        window = self._windows.get(window_key)
        if window is None:
            window = self._windows[window_key] = _Window(totals.end_ms)
            self._scopes.setdefault(key.scope, set()).add(window_key)
        known = window.shards.get(key.shard)
        if known is not None:
            if not newer(totals, known):
                return None
            window.cost_nano_usd -= known.cost_nano_usd
            window.tokens -= known.input_tokens + known.output_tokens
        window.shards[key.shard] = totals
        window.cost_nano_usd += totals.cost_nano_usd
        window.tokens += totals.input_tokens + totals.output_tokens
        self.last_event_ms = max(self.last_event_ms, totals.last_event_ms)
        return window_key

    def sums(self, keys: Iterable[WindowKey]) -> Iterator[SpendSum]:
        """The sums of the named windows that are held."""
        for key in keys:
            window = self._windows.get(key)
            if window is not None:
                yield _sum(key, window)
            elif key[1] in self._past:
                yield from self._past[key[1]].sums(key)

    def of(self, scope: str) -> tuple[SpendSum, ...]:
        """Every sum held of one scope, those of the past first."""
        current = self._scopes.get(scope, set())
        past = [
            (scope, kind, start_ms)
            for kind, windows in self._past.items()
            for start_ms in windows.starts(scope)
        ]
        found = [key for key in past if key not in current]
        return tuple(self.sums([*found, *sorted(current)]))

    def odd_hours(self, start_ms: int) -> Iterator[tuple[str, int, int, int]]:
        """(scope, unpriced events, tokens, cost) of an hour's totals without price or cost."""
        for (scope, kind, start), window in self._windows.items():
            if kind != WindowKind.HOUR or start != start_ms:
                continue
            unpriced = sum(each.unpriced_events for each in window.shards.values())
            if unpriced or (window.tokens and not window.cost_nano_usd):
                yield scope, unpriced, window.tokens, window.cost_nano_usd

    def hours_seen(self) -> set[int]:
        """Numbers of the hours in which any scope spent: the pipeline was alive for certain."""
        return {start_ms // HOUR_MS for start_ms in self._past[WindowKind.HOUR.value].all_starts()}

    def drop_ended(self, now_ms: int) -> int:
        """Forget the windows that ended more than KEPT_AFTER_END_MS ago; returns their number."""
        self._horizon_ms = max(self._horizon_ms, now_ms - KEPT_AFTER_END_MS)
        for past in self._past.values():
            past.drop_ended(now_ms)
        ended = [key for key, held in self._windows.items() if held.end_ms <= self._horizon_ms]
        for key in ended:
            del self._windows[key]
            held_of_scope = self._scopes[key[0]]
            held_of_scope.discard(key)
            if not held_of_scope:
                del self._scopes[key[0]]
        return len(ended)


def _sum(key: WindowKey, window: _Window) -> SpendSum:
    scope, kind, start_ms = key
    return SpendSum(
        scope,
        WindowKind(kind),
        start_ms,
        window.end_ms,
        window.cost_nano_usd,
        window.tokens,
        tuple((shard, totals.offset) for shard, totals in sorted(window.shards.items())),
        max(totals.last_event_ms for totals in window.shards.values()),
    )
