"""Every arrival of one event, and what became of each: counted, duplicate or refused."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.money import NanoUsd


class LogPosition(NamedTuple):
    """A position in the log; positions of one partition are ordered."""

    epoch: int
    offset: int
    event: int
    """Index of the event in its message."""


class EventRow(NamedTuple):
    """One stored row of the event."""

    place: LogPosition
    partition: int
    is_deleted: bool
    identity: tuple[str, ...]
    """The sorting key of the table besides the id."""
    batch_version: int
    """The key of its batch in usage_batches."""
    time_ms: int
    received_ms: int
    scopes: tuple[str, ...]
    cost_nano_usd: NanoUsd
    priced: bool
    price_version: str
    model: str


class DeadLetterRow(NamedTuple):
    """One dead letter that names the event."""

    place: LogPosition
    partition: int
    reason: str
    detail: str
    lane: str
    seq: int
    received_ms: int


class BatchRow(NamedTuple):
    """One arrival of a batch."""

    lane: str
    seq: int
    partition: int
    place: LogPosition
    """Of its first event."""
    version: int
    received_ms: int


class ArrivalOutcome(StrEnum):
    """What became of one arrival."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    """Same id and same body as the counted one."""
    REFUSED = "refused"
    """A dead letter says why."""


class Arrival(NamedTuple):
    """One time that the event came in."""

    outcome: ArrivalOutcome
    partition: int
    place: LogPosition
    received_ms: int
    lane: str
    seq: int
    reason: str = ""
    detail: str = ""


def arrivals(
    rows: Sequence[EventRow], dead_letters: Sequence[DeadLetterRow], batches: Sequence[BatchRow]
) -> list[Arrival]:
    """Every known arrival of the event, in the order of receipt.

    Of the rows that were not refused, the first position of each identity is counted, as under FINAL;
    the others are duplicates of it. A batch that came again brought the event again, though its row
    may have been merged away.
    """
    refused = {
        (dead_letter.partition, dead_letter.place): dead_letter for dead_letter in dead_letters
    }
    by_place = {(batch.partition, batch.version): batch for batch in batches}
    found: dict[tuple[int, LogPosition], Arrival] = {
        at: Arrival(
            ArrivalOutcome.REFUSED,
            dead_letter.partition,
            dead_letter.place,
            dead_letter.received_ms,
            dead_letter.lane,
            dead_letter.seq,
            dead_letter.reason,
            dead_letter.detail,
        )
        for at, dead_letter in refused.items()
    }
    counted: set[tuple[str, ...]] = set()
    taken_back = {(row.partition, row.place) for row in rows if row.is_deleted}
    for row in sorted(rows, key=lambda row: row.place):
        at = (row.partition, row.place)
        if row.is_deleted or at in refused or at in taken_back or at in found:
            continue
        outcome = ArrivalOutcome.DUPLICATE if row.identity in counted else ArrivalOutcome.COUNTED
        counted.add(row.identity)
        batch = by_place.get((row.partition, row.batch_version))
        lane, seq = (batch.lane, batch.seq) if batch else ("", 0)
        found[at] = Arrival(outcome, row.partition, row.place, row.received_ms, lane, seq)
    known = {(partition, place.epoch, place.offset) for partition, place in found}
    for batch in batches:
        if (batch.partition, batch.place.epoch, batch.place.offset) not in known:
            at = (batch.partition, batch.place)
            found[at] = Arrival(
                ArrivalOutcome.DUPLICATE,
                batch.partition,
                batch.place,
                batch.received_ms,
                batch.lane,
                batch.seq,
                "resent_batch",
                "its batch was sent again",
            )
    return sorted(found.values(), key=lambda arrival: (arrival.received_ms, arrival.place))
