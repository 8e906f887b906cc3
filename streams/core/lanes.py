"""Lanes: the sequence of batches of each relay stream in one partition.

A lane's `seq` rises without gaps. A batch at a new offset whose seq is not above the last one is
late if its seq is one that was missing. Otherwise it is a re-send: its events were counted, or
another relay uses the same lane id. The id index tells which, as far back as it reaches;
`known_from_seq` and `evicted_ms` say how far that is for this lane.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from meterline.streams.core.identity import IdRow

# 2,000 relay streams in one partition; at 200 characters each the state record stays below 0.5 MB.
LANES_MAX = 2_000
# Past the retention of usage.events a lane cannot be replayed any more.
LANE_IDLE_MS = 7 * 86_400_000
# A relay that lost its broker leaves one gap; past this many the oldest is dropped, and a batch
# that fills it becomes a dead letter.
GAPS_MAX = 32


class LaneState(msgspec.Struct, array_like=True, gc=False):
    """One lane, as it is stored in the state record."""

    seq: int
    """Sequence number of the last batch applied."""
    last_ms: int
    """Kafka timestamp of the last batch."""
    known_from_seq: int
    """Ids of all batches from here on are in the index."""
    evicted_ms: int = 0
    """Newest event time among the batches whose ids were evicted."""
    missing: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """Ranges of sequence numbers that were skipped, first and last, oldest gap first."""


class SequenceCheck(Enum):
    """How a batch's sequence number relates to its lane."""

    NEXT = auto()
    GAP = auto()
    """Batches are missing before it."""
    UNKNOWN = auto()
    """The lane is new here, but this is not its first batch."""
    LATE = auto()
    """Fills a gap: an earlier batch that had not arrived."""
    DUPLICATE = auto()
    """At or below the last sequence number, and not missing."""


class Lanes:
    """The lanes of one partition, least recently active first; bounded in number and idle time."""

    def __init__(self, lanes: dict[str, LaneState] | None = None, evicted_ms: int = 0) -> None:
        """Continue with the lanes of a state record, in its order."""
        self.by_name: dict[str, LaneState] = lanes if lanes is not None else {}
        self.evicted_ms = evicted_ms
        """Newest event time among all ids that were ever evicted in this partition."""

    def observe(self, name: str, seq: int, timestamp_ms: int) -> SequenceCheck:
        """Check the number of a batch and note it as the lane's last, unless it is a duplicate."""
        lane = self.by_name.pop(name, None)
        if lane is None:
            self._make_room(timestamp_ms)
            if seq == 1:
                self.by_name[name] = LaneState(seq, timestamp_ms, seq)
                return SequenceCheck.NEXT
            # It may have been known before and dropped: then its earlier ids were evicted too.
            self.by_name[name] = LaneState(seq, timestamp_ms, seq, self.evicted_ms)
            return SequenceCheck.UNKNOWN
        self.by_name[name] = lane
        lane.last_ms = max(lane.last_ms, timestamp_ms)
        if seq <= lane.seq:
            return (
                SequenceCheck.LATE
                if lane.missing and _fill(lane.missing, seq)
                else SequenceCheck.DUPLICATE
            )
        check = SequenceCheck.NEXT
        if seq > lane.seq + 1:
            check = SequenceCheck.GAP
            lane.missing.append((lane.seq + 1, seq - 1))
            del lane.missing[:-GAPS_MAX]
        lane.seq = seq
        return check

    def _make_room(self, timestamp_ms: int) -> None:
        while self.by_name:
            name, oldest = next(iter(self.by_name.items()))
            if len(self.by_name) < LANES_MAX and oldest.last_ms + LANE_IDLE_MS >= timestamp_ms:
                return
            del self.by_name[name]

    def forget(self, row: IdRow) -> None:
        """Note that the index has evicted the ids of a batch."""
        self.evicted_ms = max(self.evicted_ms, row.newest_ms)
        lane = self.by_name.get(row.lane)
        if lane is not None:
            lane.known_from_seq = max(lane.known_from_seq, row.seq + 1)
            lane.evicted_ms = max(lane.evicted_ms, row.newest_ms)

    def provably_new(self, name: str, seq: int, time_ms: int) -> bool:
        """Whether an event of a re-sent batch that the index does not know was never counted.

        It was never counted if the index still holds every batch from `seq` on, or if the event
        happened after everything that was evicted. Otherwise it is most likely an old re-send.
        """
        lane = self.by_name[name]
        return seq >= lane.known_from_seq or time_ms > lane.evicted_ms


def _fill(missing: list[tuple[int, int]], seq: int) -> bool:
    """Take `seq` out of the missing ranges; False if it was not missing."""
    for position, (first, last) in enumerate(missing):
        if first <= seq <= last:
            rest = [(first, seq - 1), (seq + 1, last)]
            missing[position : position + 1] = [gap for gap in rest if gap[0] <= gap[1]]
            return True
    return False
