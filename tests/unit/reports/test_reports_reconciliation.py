"""Sides of a reconciliation, compared without servers."""

from __future__ import annotations

from meterline.reports.core.event_sums import AppliedOffset
from meterline.reports.core.reconciliation import (
    LaneGap,
    Side,
    TotalsBySource,
    find_drift,
    missing_batches,
    repair_record,
)
from meterline.reports.core.totals import WindowScope
from meterline.schemas.measures import Sums
from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import REPAIR_SHARD, SnapshotKey, Totals, sums_of

END_MS = 100
SCOPE = "department:acme/research"
WINDOW = WindowScope(WindowKind.DAY, 0, SCOPE)


def key(shard: str) -> SnapshotKey:
    return SnapshotKey(SCOPE, "day", 0, shard)


def totals(cost: int, offset: int = 5, epoch: int = 1) -> Totals:
    return Totals(epoch, offset, END_MS, cost, 0, 0, 0, 0, 0, 1, 0, 9)


def sides(
    streams: dict[SnapshotKey, Totals],
    windows: dict[SnapshotKey, Totals],
    expected: int | None,
    *,
    kept: bool = True,
) -> TotalsBySource:
    shards = len(streams) or len(windows)
    events = {} if expected is None else {WINDOW: Sums(expected, events=shards)}
    cuts = [AppliedOffset(1, 5), AppliedOffset(1, 5)]
    return TotalsBySource(
        streams, windows, events, {WINDOW: END_MS}, {WINDOW} if kept else set(), cuts
    )


def test_equal_sides_have_no_drift() -> None:
    """Two shards that add up to the events, and their copies."""
    both = {key("0"): totals(3), key("1"): totals(4)}
    assert find_drift(sides(both, both, 7)) == []


def test_a_wrong_total_of_the_streams_is_found_and_made_right() -> None:
    """The repair is the difference; after it, nothing differs, and repairing again is the same."""
    both = {key("0"): totals(3), key("1"): totals(4)}
    (drift,) = find_drift(sides(both, both, 9))
    assert (drift.side, drift.nano_usd) == (Side.STREAMS, 2)
    where, what = repair_record(drift, both, 1, 1_000)
    assert (where.shard, what.cost_nano_usd, what.events) == (REPAIR_SHARD, 2, 0)
    repaired = {**both, where: what}
    again, same = repair_record(drift, repaired, 1, 2_000)
    assert (again, sums_of(same)) == (where, sums_of(what))
    right = TotalsBySource(
        repaired,
        repaired,
        {WINDOW: Sums(9, events=2)},
        {WINDOW: END_MS},
        {WINDOW},
        [AppliedOffset(1, 5)],
    )
    assert find_drift(right) == []


def test_a_copy_that_is_older_or_other_is_found() -> None:
    """Of the same age it must be equal; a newer one has only moved on."""
    streams = {key("0"): totals(3)}
    for copy, found in ((totals(2, offset=4), 1), (totals(2), 1), (totals(9, offset=6), 0)):
        drifts = find_drift(sides(streams, {key("0"): copy}, 3))
        assert [drift.side for drift in drifts] == [Side.WINDOWS] * found
    assert len(find_drift(sides(streams, {}, 3))) == 1


def test_what_only_the_copy_has_is_drift_unless_it_is_newer() -> None:
    """A leftover of an old log counts; a total that came after the cut does not."""
    assert len(find_drift(sides({}, {key("0"): totals(3, epoch=0)}, None))) == 1
    assert find_drift(sides({}, {key("0"): totals(3, offset=6)}, None)) == []


def test_windows_the_streams_dropped_are_compared_in_the_store() -> None:
    """The stored total against the events."""
    assert find_drift(sides({}, {key("0"): totals(3)}, 3, kept=False)) == []
    (drift,) = find_drift(sides({}, {key("0"): totals(3)}, 4, kept=False))
    assert (drift.side, drift.nano_usd) == (Side.WINDOWS, 1)


def test_gaps_count_batches() -> None:
    """A range of numbers is as many batches."""
    assert missing_batches([LaneGap("a", 3, 4), LaneGap("b", 9, 9)]) == 3
