"""What one scope spent in its last hours and minutes: a ring of integers per granularity.

    hours     240 slots: today and nine days before it          1,920 bytes
    minutes   144 slots: two hours, and clocks that are ahead    1,152 bytes
A slot holds the absolute sum of its window in nano-USD, so writing one twice changes nothing. The
state of a scope is therefore of one size, whatever it spends, and is rebuilt from spend.snapshots
by writing the same sums again.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from meterline.schemas.periods import HOUR_MS, MINUTE_MS

HOURS_KEPT = 240
MINUTES_KEPT = 144
# Relays' clocks may be up to five minutes ahead, and what they spent then counts.
MINUTES_AHEAD_MAX = 6
# Nine billion dollars in one hour of one scope: beyond it a slot stays at this amount. Slots feed
# rules only; budgets and limits compare the exact sums.
AMOUNT_MAX = 2**63 - 1
OPEN_END = 2**40
"""The end of an incident that is not over, as a number of an hour."""


class Ring:
    """Amounts by the number of their slot; those that fell out, or never came, are zero."""

    __slots__ = ("_amounts", "_newest", "_size")

    def __init__(self, size: int) -> None:
        """Start empty."""
        self._size = size
        self._newest = -1
        self._amounts = array("q", bytes(8 * size))

    def put(self, number: int, amount: int) -> bool:
        """Write one slot; False if it is too old to be kept."""
        if number > self._newest:
            gone = min(number - self._newest - 1, self._size) if self._newest >= 0 else 0
            for skipped in range(number - gone, number):
                self._amounts[skipped % self._size] = 0
            self._newest = number
        elif number <= self._newest - self._size:
            return False
        self._amounts[number % self._size] = max(-AMOUNT_MAX, min(amount, AMOUNT_MAX))
        return True

    def get(self, number: int) -> int:
        """One slot."""
        if not self._newest - self._size < number <= self._newest:
            return 0
        return self._amounts[number % self._size]

    def sum(self, first: int, end: int) -> int:
        """Slots `first <= number < end` together."""
        first = max(first, self._newest - self._size + 1)
        end = min(end, self._newest + 1)
        if first >= end:
            return 0
        low, high = first % self._size, (end - 1) % self._size + 1
        if low < high:
            return sum(self._amounts[low:high])
        return sum(self._amounts[low:]) + sum(self._amounts[:high])

    def amounts(self, first: int, end: int) -> list[int]:
        """Slots `first <= number < end`, at most as many as are kept; zero where there is none."""
        begin = max(first, self._newest - self._size + 1)
        over = min(end, self._newest + 1)
        if begin >= over:
            return [0] * (end - first)
        low, high = begin % self._size, (over - 1) % self._size + 1
        held = self._amounts[low:high] if low < high else self._amounts[low:] + self._amounts[:high]
        return [0] * (begin - first) + held.tolist() + [0] * (end - over)

    def copy(self) -> Ring:
        """A ring that later writes do not touch."""
        copied = Ring(self._size)
        copied._newest = self._newest
        copied._amounts = self._amounts[:]
        return copied


@dataclass(slots=True)
class SpendHistory:
    """The spend of one scope as its rules of history know it."""

    hours: Ring = field(default_factory=lambda: Ring(HOURS_KEPT))
    minutes: Ring = field(default_factory=lambda: Ring(MINUTES_KEPT))
    first_hour: int = 0
    """Number of the first hour in which the scope is known to have spent; 0 for none yet."""
    incidents: tuple[tuple[int, int], ...] = ()
    """Hours `[first, end)` in which a deviation was firing: nothing is learnt there."""
    last_event_ms: int = 0
    """Newest event of the scope; 0 for none yet."""

    def put_hour(self, start_ms: int, amount: int) -> None:
        """One hour's sum."""
        number = start_ms // HOUR_MS
        if self.hours.put(number, amount):
            self.began(number)

    def put_minute(self, start_ms: int, amount: int) -> None:
        """One minute's sum."""
        self.minutes.put(start_ms // MINUTE_MS, amount)

    def began(self, hour: int) -> None:
        """The scope is known to have spent in an hour."""
        self.first_hour = min(self.first_hour, hour) if self.first_hour else hour

    def copy(self) -> SpendHistory:
        """A history that later observations do not touch."""
        return SpendHistory(
            self.hours.copy(),
            self.minutes.copy(),
            self.first_hour,
            self.incidents,
            self.last_event_ms,
        )


def frozen_hours(
    incidents: tuple[tuple[int, int], ...], hours_max: int
) -> tuple[tuple[int, int], ...]:
    """The part of each incident that is not learnt from: the first `hours_max` hours.

    Incidents less than a day apart are one: the same rise fires again every day, and after
    `hours_max` it is what the scope spends now.
    """
    frozen: list[tuple[int, int]] = []
    began = over = -24
    for first, end in sorted(incidents):
        if first - over >= 24:  # noqa: PLR2004 - hours of a day
            began = first
        over = max(over, end)
        last = min(end, began + hours_max)
        if first < last:
            frozen.append((first, last))
    return tuple(frozen)


class PastHours(NamedTuple):
    """A scope's hours as a deviation rule sees them."""

    history: SpendHistory
    hour: int
    """Number of the current hour: start_ms // HOUR_MS, also where hours begin at half past."""
    incidents: tuple[tuple[int, int], ...]
    """Hours `[first, end)` that are not learnt from."""
    days: tuple[int, ...]
    """Numbers of the first hours of today, yesterday, ..., in the billing time zone."""
    alive: set[int]
    """Hours in which anything at all was metered. One without may be an outage of the pipeline
    as well as a quiet hour: it is unknown, and neither zero nor normal."""

    def frozen(self, first: int, end: int) -> bool:
        """Whether an incident touches the hours `first <= number < end`."""
        return any(begin < end and first < over for begin, over in self.incidents)

    def unknown(self, first: int, end: int) -> list[int]:
        """The hours `first <= number < end` of which nothing can be said.

        Those before the scope's first spend, and those in which nothing at all was metered.
        """
        begun = self.history.first_hour or end
        before = range(first, min(begun, end))
        rest = range(max(first, begun), end)
        if self.alive.issuperset(rest):
            return [*before]
        return [*before, *(hour for hour in rest if hour not in self.alive)]

    def unlearnt(self, first: int, end: int) -> list[int]:
        """The hours `first <= number < end` that are not learnt from: unknown, or an incident."""
        incident = [
            hour
            for begin, over in self.incidents
            for hour in range(max(begin, first), min(over, end))
        ]
        return [*self.unknown(first, end), *incident]
