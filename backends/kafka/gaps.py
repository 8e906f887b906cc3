"""Offsets that a fetch left out, for brokers whose fetch may overtake an append.

Two producers append to one partition at once; the embedded broker may answer a fetch with the
later batch before the earlier one can be seen. A consumer that accepts what it was given
continues after both, and never reads the earlier one. Here the position goes back to the offset that is missing.

On Apache Kafka a fetch ends at the high watermark, and gaps are what compaction, retention and
transactions leave: there this is switched off.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Any

# An append that is under way becomes visible within milliseconds. What is missing for longer was
# never appended, or was lost, and must not hold up the partition.
PATIENCE_SECONDS = 2.0


class GapWatch:
    """Decides how much of a fetch may be taken. Not thread-safe."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Accept a gap that is still there after `patience_seconds`."""
        self._patience_seconds = patience_seconds
        self._since: dict[Hashable, tuple[int, float]] = {}

    def admit(self, partition: Hashable, position: int, records: list[Any]) -> int | None:
        """Cut off the records that came too early; answer from which offset to read again, if any.

        Args:
            partition: whose.
            position: the next offset to read, before the fetch.
            records: the fetched records in order, each with its `offset`; shortened in place.

        Returns:
            None where nothing was missing.
        """
        taken = self.admitted(partition, position, [each.offset for each in records])
        if taken == len(records):
            return None
        again: int = records[taken - 1].offset + 1 if taken else position
        del records[taken:]
        return again

    def admitted(self, partition: Hashable, position: int, offsets: Sequence[int]) -> int:
        """The number of a partition's fetched records that may be accepted.

        Args:
            partition: whose.
            position: the next offset to read, before the fetch.
            offsets: of the fetched records, rising.

        Returns:
            The number of records to take. Fewer than all: read again from the offset after the
            last one taken (`position` if it is 0).
        """
        start = next((n for n, offset in enumerate(offsets) if offset >= position), len(offsets))
        if not offsets[start:] or self._follow(position, offsets[start:]):
            self._since.pop(partition, None)
            return len(offsets)
        taken = start
        missing = position
        while offsets[taken] == missing:
            taken += 1
            missing += 1
        known, since = self._since.get(partition, (-1, 0.0))
        now = time.monotonic()
        if known != missing:
            self._since[partition] = (missing, now)
        elif now - since > self._patience_seconds:
            del self._since[partition]
            return len(offsets)
        return taken

    @staticmethod
    def _follow(position: int, offsets: Sequence[int]) -> bool:
        return offsets[0] == position and offsets[-1] - position == len(offsets) - 1
