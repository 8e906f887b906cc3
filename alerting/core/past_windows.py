"""Sums of windows that are over, for rules of history: exact, and small enough to keep.

    (scope, shard) -> starts  [ 09:00  10:00  12:00 ]      only windows with spend take room:
                      tags    [   17     40     88  ]      24 bytes each
                      costs   [  ...    ...    ...  ]
A late event changes one shard's value of a closed window; the newest tag (epoch, offset) wins, as
for current windows, so a baseline that is rebuilt from the topic is the one that was built live.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import SnapshotKey, Totals

# Epochs are few (a lost broker each) and offsets below 2^47: together they fit one integer.
_EPOCH_SHIFT = 47
# Nine billion dollars in one window of one shard; see alerting.rules.history.
_AMOUNT_MAX = 2**63 - 1


WindowKey = tuple[str, str, int]
"""Scope, window kind and start."""


class _Series:
    """One shard of one scope: three columns in the order of their starts."""

    __slots__ = ("costs", "starts", "tags")

    def __init__(self) -> None:
        self.starts = array("q")
        self.tags = array("q")
        self.costs = array("q")

    def put(self, start_ms: int, tag: int, cost: int) -> bool:
        """Store a value; False if a newer one is stored."""
        cost = max(-_AMOUNT_MAX, min(cost, _AMOUNT_MAX))
        position = bisect_left(self.starts, start_ms)
        if position < len(self.starts) and self.starts[position] == start_ms:
            if tag <= self.tags[position]:
                return False
            self.tags[position] = tag
            self.costs[position] = cost
            return True
        self.starts.insert(position, start_ms)
        self.tags.insert(position, tag)
        self.costs.insert(position, cost)
        return True

    def cost(self, start_ms: int) -> int:
        """The value of one window; 0 if there is none."""
        position = bisect_left(self.starts, start_ms)
        if position < len(self.starts) and self.starts[position] == start_ms:
            return self.costs[position]
        return 0

    def drop_before(self, start_ms: int) -> None:
        """Forget older windows."""
        position = bisect_left(self.starts, start_ms)
        if position:
            del self.starts[:position]
            del self.tags[:position]
            del self.costs[:position]


class PastWindows:
    """The windows of one length, as far back as they are kept."""

    def __init__(self, length_ms: int, kept_ms: int) -> None:
        """Start with nothing."""
        self._length_ms = length_ms
        self._kept_ms = kept_ms
        self._horizon_ms = 0
        self._series: dict[str, dict[str, _Series]] = {}

    def apply(self, key: SnapshotKey, totals: Totals) -> bool:
        """Store one shard's value; whether it changed anything."""
        if key.start_ms < self._horizon_ms:
            return False
        shards = self._series.setdefault(key.scope, {})
        series = shards.get(key.shard)
        if series is None:
            series = shards[key.shard] = _Series()
        tag = (totals.epoch << _EPOCH_SHIFT) + totals.offset
        return series.put(key.start_ms, tag, totals.cost_nano_usd)

    def starts(self, scope: str) -> list[int]:
        """The windows in which a scope spent, oldest first."""
        shards = self._series.get(scope, {})
        return sorted({start for series in shards.values() for start in series.starts})

    def scopes(self) -> tuple[str, ...]:
        """The scopes that have spent."""
        return tuple(self._series)

    def all_starts(self) -> set[int]:
        """The windows in which any scope has spent."""
        return {
            start
            for shards in self._series.values()
            for series in shards.values()
            for start in series.starts
        }

    def sums(self, key: WindowKey) -> Iterator[SpendSum]:
        """The sum of one window; nothing if it is not held."""
        scope, kind, start_ms = key
        shards = self._series.get(scope)
        if shards is not None and start_ms >= self._horizon_ms:
            cost = sum(series.cost(start_ms) for series in shards.values())
            end_ms = start_ms + self._length_ms
            yield SpendSum(scope, WindowKind(kind), start_ms, end_ms, cost, 0)

    def drop_ended(self, now_ms: int) -> None:
        """Forget what is older than it is kept."""
        self._horizon_ms = max(self._horizon_ms, now_ms - self._kept_ms)
        for scope in list(self._series):
            shards = self._series[scope]
            for shard in list(shards):
                shards[shard].drop_before(self._horizon_ms)
                if not shards[shard].starts:
                    del shards[shard]
            if not shards:
                del self._series[scope]
