"""Reconciliation: the streams' totals, their copy in the store, and the raw events, window by window.

    streams    the newest record of every shard on spend.snapshots
    windows    spend_windows, the sink's copy of them
    events     sums of usage_events under FINAL: what invoices are made of

The streams' totals hold all events up to their applied offset; the events are summed up to the same
offset, so a running pipeline is compared exactly, without waiting for it to be idle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from meterline.reports.core.event_sums import AppliedOffset
from meterline.reports.core.totals import WindowScope
from meterline.schemas.measures import Sums
from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import REPAIR_SHARD, SnapshotKey, Totals, sums_of


class Side(StrEnum):
    """Which copy differs."""

    STREAMS = "streams"
    """The streams' totals from the events."""
    WINDOWS = "windows"
    """The stored totals from the streams', or from the events where the streams keep none."""


class Drift(NamedTuple):
    """One total that is not what it should be."""

    side: Side
    key: WindowScope
    end_ms: int
    expected: Sums
    found: Sums

    @property
    def nano_usd(self) -> int:
        """How far apart, without sign."""
        return abs(self.expected.cost_nano_usd - self.found.cost_nano_usd)


class LaneGap(NamedTuple):
    """Batches of a lane that never came, though later ones did."""

    lane: str
    first: int
    last: int

    @property
    def batches(self) -> int:
        """How many."""
        return self.last - self.first + 1


Shards = Mapping[SnapshotKey, Totals]


@dataclass(frozen=True, slots=True)
class TotalsBySource:
    """What is laid side by side."""

    streams: Shards
    windows: Shards
    events: Mapping[WindowScope, Sums]
    ends: Mapping[WindowScope, int]
    """End of each window."""
    kept: Collection[WindowScope]
    """Those that the streams still keep."""
    cuts: Sequence[AppliedOffset]
    """By partition."""


def find_drift(sides: TotalsBySource) -> list[Drift]:
    """Every total that differs, the streams' own first. Pure."""
    streams, windows = by_window(sides.streams), by_window(sides.windows)
    found: list[Drift] = []
    nothing = Sums()
    for key in sorted(sides.events.keys() | streams.keys() | windows.keys()):
        expected = sides.events.get(key, nothing)
        end_ms = sides.ends[key]
        if key in sides.kept:
            counted = streams.get(key, nothing)
            if counted != expected:
                found.append(Drift(Side.STREAMS, key, end_ms, expected, counted))
        elif windows.get(key, nothing) != expected:
            found.append(Drift(Side.WINDOWS, key, end_ms, expected, windows.get(key, nothing)))
    stale = {window_of(key) for key in [*behind(sides), *left_over(sides)]}
    found += [
        Drift(
            Side.WINDOWS,
            key,
            sides.ends[key],
            streams.get(key, nothing),
            windows.get(key, nothing),
        )
        for key in sorted(stale & set(sides.kept))
    ]
    return found


def left_over(sides: TotalsBySource) -> list[SnapshotKey]:
    """Stored totals that the streams, as far as they were read, do not have."""
    return [
        key
        for key, copy in sides.windows.items()
        if key not in sides.streams
        and any(sums_of(copy))
        and not (
            key.shard.isdigit()
            and int(key.shard) < len(sides.cuts)
            and (copy.epoch, copy.offset) > sides.cuts[int(key.shard)]
        )
        and window_of(key) in sides.kept
    ]


def behind(sides: TotalsBySource) -> list[SnapshotKey]:
    """The streams' totals whose copy is older, missing, or of the same age and different."""
    late = []
    for key, totals in sides.streams.items():
        copy = sides.windows.get(key)
        age = (totals.epoch, totals.offset)
        if (
            copy is None
            or (copy.epoch, copy.offset) < age
            or ((copy.epoch, copy.offset) == age and sums_of(copy) != sums_of(totals))
        ):
            late.append(key)
    return late


def by_window(shards: Shards) -> dict[WindowScope, Sums]:
    """The sums over the shards."""
    found: defaultdict[WindowScope, Sums] = defaultdict(Sums)
    for key, totals in shards.items():
        window = window_of(key)
        found[window] = found[window].plus(sums_of(totals))
    return dict(found)


def repair_record(
    drift: Drift, shards: Shards, epoch: int, at_ms: int
) -> tuple[SnapshotKey, Totals]:
    """The record that makes a total right: the difference, as a shard of its own. Pure.

    The difference is absolute and replaces the one of an earlier repair, so repairing twice
    changes nothing; `at_ms` orders them, as offsets order the records of other shards.
    """
    own = by_window(
        {key: totals for key, totals in shards.items() if key.shard != REPAIR_SHARD}
    ).get(drift.key, Sums())
    kind, start_ms, scope = drift.key
    key = SnapshotKey(scope, kind.value, start_ms, REPAIR_SHARD)
    missing = drift.expected.minus(own)
    return key, Totals(epoch, at_ms, drift.end_ms, *missing, last_event_ms=start_ms)


def window_of(key: SnapshotKey) -> WindowScope:
    """The total that a shard's record is part of."""
    return WindowScope(WindowKind(key.kind), key.start_ms, key.scope)


def missing_batches(gaps: Iterable[LaneGap]) -> int:
    """How many in all."""
    return sum(gap.batches for gap in gaps)
