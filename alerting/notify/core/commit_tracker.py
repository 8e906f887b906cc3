"""Commit tracker: which alert offsets may be committed. Pure.

    offset      40      41      42      43
    outstanding (none)  log     (none)  webhook
                                                  committed: 41, the first that is not recorded
An alert is recorded when each of its channels has a record in the delivery log, delivered or to be
tried again: from then on that log, and not the offset, remembers it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

Key = tuple[str, str]
"""Message and channel."""


class CommitTracker:
    """The alerts read since the last commit; bounded by the outbox's bound."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._read: dict[int, deque[tuple[int, set[Key]]]] = {}
        self._outstanding: dict[Key, list[set[Key]]] = {}

    def read(self, partition: int, offset: int, outstanding: Iterable[Key]) -> None:
        """An alert was read; its deliveries `outstanding` have no record yet."""
        keys = set(outstanding)
        self._read.setdefault(partition, deque()).append((offset, keys))
        for key in keys:
            self._outstanding.setdefault(key, []).append(keys)

    def recorded(self, key: Key) -> None:
        """A delivery has a durable record."""
        for keys in self._outstanding.pop(key, ()):
            keys.discard(key)

    def take_committable(self) -> dict[int, int]:
        """The next offset to read, of each partition where it moved since the last call."""
        moved = {}
        for partition, alerts in self._read.items():
            while alerts and not alerts[0][1]:
                offset, _ = alerts.popleft()
                moved[partition] = offset + 1
        return moved
