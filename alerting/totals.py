"""Totals: the newest value of every shard, and the sum per scope and window.

A shard's value with the highest (epoch, offset) wins, so repeats, reordering and late writes of a
stopped worker change nothing. Windows are dropped a while after their end; a record of a dropped
window is ignored, because the sum of only its shards that still speak would be too low.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.periods import HOUR_MS, WindowKind
from schemas.spend import SpendSnapshot, Totals, newer

# An alert looks at the current window only; the hour beyond the end is for clocks that differ.
KEPT_AFTER_END_MS = HOUR_MS
# Rules of this issue need no minutes, which are nine of ten windows.
WATCHED_KINDS = frozenset({WindowKind.HOUR, WindowKind.DAY, WindowKind.MONTH})


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
    """(shard, offset) pairs, for the receipt."""


WindowKey = tuple[str, str, int]
"""Scope, window kind and start."""


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
        self._horizon_ms = 0
        self.last_event_ms = 0
        """Newest event time seen in any total."""

    def __len__(self) -> int:
        """Windows held."""
        return len(self._windows)

    def apply(self, snapshot: SpendSnapshot) -> WindowKey | None:
        """Take one snapshot in; the window whose sum changed, or None."""
        key, totals = snapshot
        if totals is None or key.kind not in WATCHED_KINDS or totals.end_ms <= self._horizon_ms:
            # A deleted entry is a window that streams expired: it ended long ago here as well.
            return None
        window_key = (key.scope, key.kind, key.start_ms)
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

    def of(self, scope: str) -> tuple[SpendSum, ...]:
        """Every sum held of one scope."""
        return tuple(self.sums(sorted(self._scopes.get(scope, ()))))

    def drop_ended(self, now_ms: int) -> int:
        """Forget the windows that ended more than KEPT_AFTER_END_MS ago; how many."""
        self._horizon_ms = max(self._horizon_ms, now_ms - KEPT_AFTER_END_MS)
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
    )
