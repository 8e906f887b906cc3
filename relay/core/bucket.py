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

    __slots__ = ("amount", "at_ms", "capacity", "level", "period_ms")

    def __init__(self, amount: int, burst: int, period_ms: int, now_ms: int) -> None:
        """Start full at `now_ms`."""
        self.amount = amount
        self.period_ms = period_ms
        self.capacity = burst * period_ms
        self.level = self.capacity
        self.at_ms = now_ms

    def has_one(self, now_ms: int) -> bool:
        """Whether one unit is there."""
        return all_have_one((self,), now_ms)

    def take_one(self) -> None:
        """Take the unit that `has_one` found."""
        self.level -= self.period_ms

    def reshape(self, amount: int, burst: int, now_ms: int) -> None:
        """Change the limit and keep the level: a new command is no present of a full bucket."""
        self.has_one(now_ms)
        self.amount = amount
        self.capacity = burst * self.period_ms
        self.level = min(self.level, self.capacity)

    def wait_ms(self, now_ms: int) -> int:
        """How long until one unit is there; 0 if it is, a whole period if it never will be."""
        if self.has_one(now_ms):
            return 0
        if self.amount <= 0 or self.capacity < self.period_ms:
            return self.period_ms
        return -(-(self.period_ms - self.level) // self.amount)

    def charge(self, units: int, now_ms: int) -> None:
        """Take units out as of `now_ms`, into debt if they are not there."""
        self.has_one(now_ms)
        level = self.level - units * self.period_ms
        self.level = max(level, -DEBT_PERIODS_MAX * self.amount * self.period_ms)


def all_have_one(buckets: tuple[Bucket, ...], now_ms: int) -> bool:
    """Whether one unit is in each: what every request asks, hence one flat loop without calls."""
    for bucket in buckets:
        elapsed_ms = now_ms - bucket.at_ms
        if elapsed_ms > 0:
            level = bucket.level + elapsed_ms * bucket.amount
            capacity = bucket.capacity
            bucket.level = level if level < capacity else capacity  # noqa: FURB136 - min() is a call
        # A clock that was set back adds nothing and takes nothing.
        bucket.at_ms = now_ms
        if bucket.level < bucket.period_ms:
            return False
    return True
