"""The token bucket: integer arithmetic, no clock of its own, the same answers every time."""

from __future__ import annotations

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
# A charge is made after the response, so a bucket can go below zero. One enormous request must not
# block a scope for days: the debt is at most this many periods.
DEBT_PERIODS_MAX = 60


class Bucket:
    """`amount` units per period, at most `burst` of them at once; starts full.

    The level is kept in units times period milliseconds, so that one elapsed millisecond adds
    exactly `amount`.
    """

    __slots__ = ("_at_ms", "_capacity", "_level", "amount", "period_ms")

    def __init__(self, amount: int, burst: int, period_ms: int, now_ms: int) -> None:
        """Start full at `now_ms`."""
        self.amount = amount
        self.period_ms = period_ms
        self._capacity = burst * period_ms
        self._level = self._capacity
        self._at_ms = now_ms

    def reshape(self, amount: int, burst: int, now_ms: int) -> None:
        """Change the limit and keep the level: a new command is no present of a full bucket."""
        self._refill(now_ms)
        self.amount = amount
        self._capacity = burst * self.period_ms
        self._level = min(self._level, self._capacity)

    def wait_ms(self, now_ms: int, units: int) -> int:
        """How long until `units` are there; 0 if they are, a whole period if they never will be."""
        self._refill(now_ms)
        missing = units * self.period_ms - self._level
        if missing <= 0:
            return 0
        if not self.amount or units * self.period_ms > self._capacity:
            return self.period_ms
        return -(-missing // self.amount)

    def take(self, units: int) -> None:
        """Take units out, into debt if they are not there."""
        level = self._level - units * self.period_ms
        self._level = max(level, -DEBT_PERIODS_MAX * self.amount * self.period_ms)

    def charge(self, units: int, now_ms: int) -> None:
        """Take units out as of `now_ms`."""
        self._refill(now_ms)
        self.take(units)

    def _refill(self, now_ms: int) -> None:
        elapsed_ms = now_ms - self._at_ms
        # A clock that was set back adds nothing and takes nothing.
        if elapsed_ms > 0:
            self._level = min(self._capacity, self._level + elapsed_ms * self.amount)
        self._at_ms = now_ms
