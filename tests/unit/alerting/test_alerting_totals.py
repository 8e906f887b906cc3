"""Sums over shards."""

from __future__ import annotations

from meterline.alerting.core.totals import KEPT_AFTER_END_MS, MINUTES_KEPT_MS, SpendTotals
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.spend import SnapshotKey, SpendSnapshot, Totals

SCOPE = "department:acme/research"


def snapshot(
    cost: int,
    *,
    offset: int = 1,
    epoch: int = 0,
    shard: str = "0",
    kind: str = "hour",
    start: int = 0,
) -> SpendSnapshot:
    """A shard's total in one hour."""
    totals = Totals(
        epoch, offset, start + HOUR_MS, cost, 2 * cost, cost, 0, 0, 0, 1, 0, start + offset
    )
    return SpendSnapshot(SnapshotKey(SCOPE, kind, start, shard), totals)


def test_the_sum_is_over_shards() -> None:
    """Each shard counts once, with its newest value."""
    totals = SpendTotals()
    key = totals.apply(snapshot(10, shard="0"))
    totals.apply(snapshot(5, shard="1", offset=7))
    totals.apply(snapshot(12, shard="0", offset=2))
    assert key is not None
    (total,) = totals.sums([key])
    assert (total.cost_nano_usd, total.tokens) == (17, 51)
    assert total.source == (("0", 2), ("1", 7))


def test_an_older_or_repeated_value_changes_nothing() -> None:
    """A stopped worker's late write and a redelivery are not news."""
    totals = SpendTotals()
    key = totals.apply(snapshot(12, offset=2))
    assert key is not None
    assert totals.apply(snapshot(10, offset=1)) is None
    assert totals.apply(snapshot(12, offset=2)) is None
    assert next(totals.sums([key])).cost_nano_usd == 12


def test_a_newer_epoch_wins_over_any_offset() -> None:
    """After a lost log offsets begin at zero again, and must still win."""
    totals = SpendTotals()
    totals.apply(snapshot(12, offset=900))
    key = totals.apply(snapshot(13, offset=0, epoch=1))
    assert key is not None
    assert next(totals.sums([key])).cost_nano_usd == 13


def test_minutes_of_the_last_hours_are_summed_over_shards() -> None:
    """Burn rates look at minutes; a shard's newest value counts, and old minutes go."""
    totals = SpendTotals()
    totals.apply(snapshot(1, kind="minute"))
    totals.apply(snapshot(5, kind="minute", shard="1"))
    key = totals.apply(snapshot(3, kind="minute", offset=2))
    assert key == (SCOPE, "minute", 0)
    assert totals.apply(snapshot(2, kind="minute", offset=1)) is None
    assert [found.cost_nano_usd for found in totals.sums([key])] == [8]
    totals.drop_ended(MINUTES_KEPT_MS + 60_000)
    assert totals.apply(snapshot(9, kind="minute", offset=9)) is None
    assert list(totals.sums([key])) == []


def test_ended_windows_are_dropped_and_stay_dropped() -> None:
    """A late record of a dropped window must not make a sum of one shard only."""
    totals = SpendTotals()
    totals.apply(snapshot(1, kind="month"))
    totals.apply(snapshot(2, kind="month", start=10 * HOUR_MS))
    assert totals.drop_ended(HOUR_MS + KEPT_AFTER_END_MS - 1) == 0
    assert totals.drop_ended(HOUR_MS + KEPT_AFTER_END_MS) == 1
    assert totals.apply(snapshot(9, offset=9, shard="1", kind="month")) is None
    assert [total.cost_nano_usd for total in totals.of(SCOPE)] == [2]


def test_a_deleted_entry_is_ignored() -> None:
    """Streams delete expired windows only."""
    totals = SpendTotals()
    assert totals.apply(SpendSnapshot(SnapshotKey(SCOPE, "hour", 0, "0"), None)) is None


def test_all_of_a_scope_is_found() -> None:
    """A new policy comes with all that is known of its scope."""
    totals = SpendTotals()
    totals.apply(snapshot(1))
    totals.apply(snapshot(2, kind="day"))
    assert {total.kind for total in totals.of(SCOPE)} == {"hour", "day"}
    assert totals.of("department:acme/other") == ()
