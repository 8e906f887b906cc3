"""Comparison of the truth with what the pipeline says."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from meterline.operations.replay.truth import (
    RunFacts,
    Truth,
    TruthBuilder,
    TruthSums,
    WindowKey,
    event_id,
)
from meterline.operations.verify import ObservedTotals, VerifyReport, compare_totals
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.periods import Calendar, WindowKind, parse_rfc3339
from meterline.schemas.usage import UsageEvent

NOON = parse_rfc3339("2026-10-31T12:00:30Z")
HOUR_MS = 3_600_000
OTHER = TruthSums(7, 6, 5, 4)


def truth() -> Truth:
    builder = TruthBuilder(load_catalogue(), Calendar())
    for number, (department, ago_ms) in enumerate(
        [("research", 0), ("research", 60_000), ("legal", 5 * HOUR_MS)]
    ):
        sent = UsageEvent(
            id=event_id("r", number),
            time_ms=NOON - ago_ms,
            organisation="acme",
            department=department,
            key=f"k-{number}",
            model="gpt-4.1",
            input_tokens=10,
            output_tokens=number,
        )
        builder.add(sent, number)
    facts = RunFacts(
        "r", 1, NOON, NOON, complete=True, duplicates=0, late=0, malformed=0, invalid=0
    )
    return builder.truth(facts)


def seen(reference: Truth) -> ObservedTotals:
    totals = dict(reference.windows())
    return ObservedTotals(totals, {}, totals, totals, missing=0, extra=0)


def report(observed: ObservedTotals, reference: Truth | None = None) -> VerifyReport:
    return compare_totals(reference or truth(), observed, NOON)


A_MONTH = next(
    key
    for key, _ in truth().windows()
    if key.kind is WindowKind.MONTH and key.scope == "department:acme/research"
)


def test_equal_pipelines_are_equal() -> None:
    """Where all totals agree, every difference is zero."""
    found = report(seen(truth()))
    assert found.equal
    assert found.differences == ()
    assert found.events == 3


def test_other_traffic_is_taken_into_account() -> None:
    """Spend of other events in the same windows is expected of the streams as well."""
    base = seen(truth())
    more = base.streams[A_MONTH].plus(OTHER)
    both = {**base.streams, A_MONTH: more}
    found = report(replace(base, others={A_MONTH: OTHER}, streams=both, windows=both))
    assert found.equal
    # Counted by the streams and unknown to ClickHouse: a difference.
    assert report(replace(base, streams=both, windows=both)).streams_diff_nano_usd == 7


def test_each_path_is_distinguished() -> None:
    """A nano-dollar, a token or an event wrong in one path shows in that path's fields only."""
    base = seen(truth())
    for change, fields in (
        (TruthSums(1, 0, 0, 0), {"diff_nano_usd": 1, "diff_tokens": 0, "diff_events": 0}),
        (TruthSums(0, -2, 1, 0), {"diff_nano_usd": 0, "diff_tokens": 3, "diff_events": 0}),
        (TruthSums(0, 0, 0, -1), {"diff_nano_usd": 0, "diff_tokens": 0, "diff_events": 1}),
    ):
        wrong = {**base.own, A_MONTH: base.own[A_MONTH].plus(change)}
        in_clickhouse = report(replace(base, own=wrong))
        in_streams = report(replace(base, streams=wrong, windows=wrong))
        for name, amount in fields.items():
            assert getattr(in_clickhouse, f"clickhouse_{name}") == amount
            assert getattr(in_streams, f"streams_{name}") == amount
        assert in_clickhouse.streams_diff_nano_usd == in_streams.clickhouse_diff_nano_usd == 0
        assert not in_clickhouse.equal
        assert not in_streams.equal


def test_opposite_differences_do_not_cancel() -> None:
    """Too much in one scope and as much too little in another is twice the difference."""
    base = seen(truth())
    other = A_MONTH._replace(scope="department:acme/legal")
    wrong = {
        **base.streams,
        A_MONTH: base.streams[A_MONTH].plus(TruthSums(5, 0, 0, 0)),
        other: base.streams[other].plus(TruthSums(-5, 0, 0, 0)),
    }
    assert report(replace(base, streams=wrong, windows=wrong)).streams_diff_nano_usd == 10


def test_the_copy_is_compared_with_the_streams() -> None:
    """A snapshot that has not reached ClickHouse is a difference of its own."""
    base = seen(truth())
    behind = {key: sums for key, sums in base.windows.items() if key != A_MONTH}
    found = report(replace(base, windows=behind))
    assert found.windows_diff_events == 2
    assert (found.streams_diff_nano_usd, found.clickhouse_diff_nano_usd) == (0, 0)
    assert not found.equal


def test_windows_that_only_clickhouse_has_are_differences() -> None:
    """Events of the run in a window where the truth has none are found."""
    base = seen(truth())
    stray = WindowKey("key:acme/k-9", WindowKind.DAY, A_MONTH.start_ms)
    found = report(replace(base, own={**base.own, stray: TruthSums(3, 0, 0, 1)}))
    assert (found.clickhouse_diff_nano_usd, found.clickhouse_diff_events) == (3, 1)


def test_expired_minutes_are_compared_in_clickhouse_only() -> None:
    """A minute that the streams keep no longer is not asked of them, but still of ClickHouse."""
    reference = truth()
    base = seen(reference)
    old = {
        key
        for key in base.streams
        if key.kind is WindowKind.MINUTE and key.start_ms < NOON - 4 * HOUR_MS
    }
    assert len(old) == 3
    kept = {key: sums for key, sums in base.streams.items() if key not in old}
    found = report(replace(base, streams=kept, windows=kept))
    assert found.equal
    assert found.expired_totals == 3
    lost = {key: sums for key, sums in base.own.items() if key not in old}
    assert not report(replace(base, own=lost)).equal


def test_missing_and_extra_ids_are_not_equal() -> None:
    """Equal sums of unequal events are no success."""
    base = seen(truth())
    assert not report(replace(base, missing=1, extra=1)).equal


def test_an_empty_truth_is_equal_to_nothing() -> None:
    """A replay stopped before its first event verifies."""
    empty = msgspec.structs.replace(truth(), events=0, numbers=(), ids_xor=0, totals={})
    assert report(ObservedTotals({}, {}, {}, {}, 0, 0), empty).equal


def test_differences_are_described_and_bounded() -> None:
    """At most ten differences are described, in words of the documentation."""
    found = report(replace(seen(truth()), own={}))
    assert len(found.differences) == 10
    one = next(each for each in found.differences if each.where == "clickhouse")
    assert one.expected_events > one.found_events == 0
    assert one.period.startswith("2026-10")
