"""What became of each arrival of an event."""

from __future__ import annotations

from meterline.reports.core.arrivals import (
    ArrivalOutcome,
    BatchRow,
    DeadLetterRow,
    EventRow,
    LogPosition,
    arrivals,
)

FIRST, SECOND, THIRD = (LogPosition(1, offset, 0) for offset in (10, 20, 30))
IDENTITY = ("acme", "research", "2026-10-01", "k-1")


def row(
    place: LogPosition, *, deleted: bool = False, identity: tuple[str, ...] = IDENTITY
) -> EventRow:
    version = 1_000 - place.offset
    return EventRow(
        place, 0, deleted, identity, version, 5, place.offset, ("a",), 7, True, "v", "m"
    )


def batch(place: LogPosition, seq: int) -> BatchRow:
    return BatchRow("lane", seq, 0, place, 1_000 - place.offset, place.offset)


def test_the_first_place_is_counted_and_later_ones_are_duplicates() -> None:
    """Whatever order the rows come in."""
    found = arrivals([row(SECOND), row(FIRST)], [], [batch(FIRST, 1), batch(SECOND, 2)])
    assert [(one.outcome, one.place, one.seq) for one in found] == [
        (ArrivalOutcome.COUNTED, FIRST, 1),
        (ArrivalOutcome.DUPLICATE, SECOND, 2),
    ]


def test_a_refused_row_is_refused_with_its_reason() -> None:
    """The dead letter speaks, whether or not row and retraction are merged away."""
    letter = DeadLetterRow(SECOND, 0, "conflict", "other body", "lane", 2, 20)
    other = ("acme", "sales", "2026-10-01", "k-1")
    rows = [row(FIRST), row(SECOND, identity=other), row(SECOND, deleted=True, identity=other)]
    for given in (rows, rows[:1]):
        found = arrivals(given, [letter], [])
        assert [(one.outcome, one.reason) for one in found] == [
            (ArrivalOutcome.COUNTED, ""),
            (ArrivalOutcome.REFUSED, "conflict"),
        ]


def test_a_batch_that_came_again_brought_the_event_again() -> None:
    """Also when its row was merged away."""
    found = arrivals([row(FIRST)], [], [batch(FIRST, 1), batch(THIRD, 1)])
    assert [(one.outcome, one.reason) for one in found] == [
        (ArrivalOutcome.COUNTED, ""),
        (ArrivalOutcome.DUPLICATE, "resent_batch"),
    ]
