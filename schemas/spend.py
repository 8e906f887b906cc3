"""Spend snapshots: absolute totals of one scope, window and shard.

The topic `spend.snapshots` is the changelog of the streams' table, and at the same time the feed of
alerting, sinks and status. A shard is one source partition: it has one writer and one ordered
source, so its totals only grow with `offset` (a grow-only counter). The total of a scope is the sum of its
shards. A reader keeps, per key, the value with the highest (epoch, offset); a repeat changes
nothing, which is why no reader needs exactly-once delivery.

Key on the wire:   ["department:acme/research","month",1761955200000,"3"]
Value on the wire: the fields of Totals as a JSON array, in their order here.
Keys whose scope begins with "~" are the streams' own bookkeeping and are skipped by readers.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from meterline.schemas.errors import MeterlineError
from meterline.schemas.measures import Sums
from meterline.schemas.periods import WindowKind

INTERNAL_PREFIX = "~"
REPAIR_SHARD = "repair"
"""A shard of no partition: the difference that reconciliation found, written by `--repair` only."""


class SnapshotKey(NamedTuple):
    """The identity of a total: scope, window and shard."""

    scope: str
    kind: str
    start_ms: int
    shard: str


class Totals(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Totals of one scope, window and shard, up to and including source offset `offset`."""

    epoch: int
    """Generation of the log: rises when a broker lost its data, so that old offsets lose."""
    offset: int
    end_ms: int
    """End of the window, exclusive."""
    cost_nano_usd: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    events: int
    unpriced_events: int
    last_event_ms: int
    """Newest event time counted here."""


assert Totals.__struct_fields__[3:] == (*Sums._fields, "last_event_ms"), "Totals hold all sums"

# A tuple of all sums at once: a reconciliation takes them of every shard.
_sums: Any = attrgetter(*Sums._fields)


def sums_of(totals: Totals) -> Sums:
    """The sums of a shard's totals."""
    return Sums(*_sums(totals))


def merged(left: Totals, right: Totals) -> Totals:
    """The totals of two shards as one, with the tag and the window's end of `left`."""
    sums = sums_of(left).plus(sums_of(right))
    newest_ms = max(left.last_event_ms, right.last_event_ms)
    return Totals(left.epoch, left.offset, left.end_ms, *sums, last_event_ms=newest_ms)


class LaneSeen(msgspec.Struct, array_like=True, frozen=True):
    """A relay's lane in the streams' state record; more fields may follow."""

    seq: int
    last_ms: int
    """Kafka timestamp of its last batch."""


class StreamState(msgspec.Struct, array_like=True, frozen=True):
    """The public fields of the streams' state record, one per shard; more fields may follow."""

    epoch: int
    offset: int
    """Last source offset that is durable."""
    watermark_ms: int
    slot: int
    open_rows: int
    closed_ms: list[int]
    evicted_ms: int
    lanes: dict[str, LaneSeen]


class SpendSnapshot(NamedTuple):
    """One record of spend.snapshots, decoded. `totals` is None when the window was expired."""

    key: SnapshotKey
    totals: Totals | None


class SnapshotError(MeterlineError, ValueError):
    """A record of spend.snapshots that Meterline did not write."""


_key_decoder = msgspec.json.Decoder(tuple[str, str, int, str])
_totals_decoder = msgspec.json.Decoder(Totals)
_state_decoder = msgspec.json.Decoder(StreamState)
_STATE_KEY = b'["~state",'
_encode = msgspec.json.encode
_KINDS = frozenset(kind.value for kind in WindowKind)


def encode_key(key: SnapshotKey) -> bytes:
    """The record key; equal keys give equal bytes, as compaction needs."""
    return _encode((key.scope, key.kind, key.start_ms, key.shard))


def encode_totals(totals: Totals) -> bytes:
    """The record value."""
    return _encode(totals)


def decode_snapshot(key: bytes | None, value: bytes | None) -> SpendSnapshot | None:
    """Read one record; None for the streams' own bookkeeping.

    Raises:
        SnapshotError: not a record of this topic.
    """
    try:
        scope, kind, start_ms, shard = _key_decoder.decode(key or b"")
        if scope.startswith(INTERNAL_PREFIX):
            return None
        totals = _totals_decoder.decode(value) if value else None
    except msgspec.MsgspecError as error:
        message = f"not a spend snapshot: {error}"
        raise SnapshotError(message) from error
    if kind not in _KINDS:
        message = f"not a spend snapshot: unknown window kind {kind!r}"
        raise SnapshotError(message)
    return SpendSnapshot(SnapshotKey(scope, kind, start_ms, shard), totals)


def state_shard(key: bytes | None) -> str:
    """The shard whose state record this is the key of; empty if it is another record's."""
    if key is None or not key.startswith(_STATE_KEY):
        return ""
    try:
        return _key_decoder.decode(key)[3]
    except msgspec.MsgspecError:
        return ""


def decode_stream_state(value: bytes) -> StreamState:
    """Read a state record.

    Raises:
        SnapshotError: not a state record.
    """
    try:
        return _state_decoder.decode(value)
    except msgspec.MsgspecError as error:
        message = f"not a state record of streams: {error}"
        raise SnapshotError(message) from error


def newer(left: Totals, right: Totals) -> bool:
    """Whether `left` supersedes `right` for the same key."""
    return (left.epoch, left.offset) > (right.epoch, right.offset)
