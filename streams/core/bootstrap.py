"""Bootstrap of a new log: one partition's state made from the store, not from messages. Pure.

When the broker's data was lost, the totals, ids and lanes of a partition are read back from the
store and written to spend.snapshots as a flush at offset -1 of the new epoch would have written
them. The worker recovers from that as from any changelog, and continues adding to the same entries:

    epoch N - 1   ... 4711 | lost |
    epoch N                       | -1: bootstrap | 0, 1, 2, ... the messages of the new log

Every bootstrap record has the tag (N, -1), so it wins over the old log's records and loses to what
is counted afterwards; writing it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX, UsageEvent
from meterline.streams.core.entries import Retention
from meterline.streams.core.identity import IdIndex, IdRow, digests, slots_for
from meterline.streams.core.lanes import GAPS_MAX, LANES_MAX, LaneState
from meterline.streams.core.ledger import (
    IDS_SCOPE,
    STATE_SCOPE,
    FlushRecords,
    LedgerPolicy,
    Record,
    StateRecord,
)

BOOTSTRAP_OFFSET = -1
"""Before the first message of a log."""


class StoredLane(NamedTuple):
    """One lane as the store has it."""

    name: str
    seq: int
    """Greatest number stored."""
    last_ms: int
    """Append time of its last batch."""
    missing: tuple[tuple[int, int], ...]
    """Ranges of numbers below `seq` that were not stored, first and last, in order."""


@dataclass(frozen=True, slots=True)
class BootstrapPolicy:
    """The values shared by all partitions."""

    ledger: LedgerPolicy
    watermark_ms: int
    """Newest append time in the store: retention counts from here."""
    newest_event_ms: int
    """Newest event time in the store."""


@dataclass(frozen=True, slots=True)
class PartitionBootstrap:
    """What the store holds for one partition."""

    partition: int
    totals: Iterable[tuple[SnapshotKey, Totals]]
    """Of the windows that are kept; see `closed_before_ms`."""
    events: Sequence[UsageEvent]
    """The newest events, in the order of the log."""
    lanes: Sequence[StoredLane]


def closed_before_ms(retention: Retention, kind: WindowKind, watermark_ms: int) -> int:
    """Windows that end at or before this are not kept any more."""
    return max(0, watermark_ms - retention.of(kind))


def bootstrap_totals(epoch: int, end_ms: int, sums: Sequence[int]) -> Totals:
    """Totals at the bootstrap offset; `sums` are the fields of Totals from `cost_nano_usd` on."""
    return Totals(epoch, BOOTSTRAP_OFFSET, end_ms, *sums)


def bootstrap_records(policy: BootstrapPolicy, bootstrap: PartitionBootstrap) -> FlushRecords:
    """The records that a flush at offset -1 would have written."""
    shard = str(bootstrap.partition)
    entries: list[Record] = [
        (encode_key(key), encode_totals(totals)) for key, totals in bootstrap.totals
    ]
    snapshots = len(entries)
    index = _index(policy, bootstrap.events)
    ids = index.take_records(policy.ledger.epoch, BOOTSTRAP_OFFSET)
    for slot, value in ids:
        entries.append((encode_key(SnapshotKey(IDS_SCOPE, "", slot, shard)), value))
    state = StateRecord(
        epoch=policy.ledger.epoch,
        offset=BOOTSTRAP_OFFSET,
        watermark_ms=policy.watermark_ms,
        slot=index.slot,
        open_rows=index.open_rows,
        closed_ms=[
            closed_before_ms(policy.ledger.retention, kind, policy.watermark_ms)
            for kind in WindowKind
        ],
        # Of events older than the ids below nothing is known: all may have been counted.
        evicted_ms=policy.newest_event_ms,
        lanes=_lanes(policy, bootstrap.lanes),
    )
    key = encode_key(SnapshotKey(STATE_SCOPE, "", 0, shard))
    return FlushRecords(entries, (key, msgspec.json.encode(state)), snapshots, ids)


def _index(policy: BootstrapPolicy, events: Iterable[UsageEvent]) -> IdIndex:
    """The ids, in rows as large as a message's, so that they are evicted in the same steps."""
    horizon = policy.ledger.ids_horizon
    index = IdIndex(horizon, slots_for(horizon, policy.ledger.pending_events_max), _forgotten)
    pairs: list[bytes] = []
    newest_ms = 0
    rows: list[tuple[list[bytes], int]] = []
    for event in events:
        key, body = digests(event)
        if key in index.known:
            continue
        index.known[key] = body
        pairs += (key, body)
        newest_ms = max(newest_ms, event.time_ms)
        if len(pairs) == 2 * EVENTS_PER_BATCH_MAX:
            rows.append((pairs, newest_ms))
            pairs, newest_ms = [], 0
    if pairs:
        rows.append((pairs, newest_ms))
    # Offsets below that of the state keep the rows in order, and covered by it.
    for number, (row, newest) in enumerate(rows):
        index.add(IdRow(BOOTSTRAP_OFFSET - len(rows) + number, "", 0, newest, row))
    return index


def _lanes(policy: BootstrapPolicy, lanes: Sequence[StoredLane]) -> dict[str, LaneState]:
    """The lanes, least recently active first, as a worker keeps them."""
    newest = sorted(lanes, key=lambda lane: lane.last_ms)[-LANES_MAX:]
    return {
        lane.name: LaneState(
            seq=lane.seq,
            last_ms=lane.last_ms,
            known_from_seq=lane.seq + 1,
            evicted_ms=policy.newest_event_ms,
            missing=list(lane.missing[-GAPS_MAX:]),
        )
        for lane in newest
    }


def _forgotten(_: IdRow) -> None:
    """No-op: every lane is created with nothing known before the bootstrap."""
