"""Entries of the spend table: one running total per scope, shard and window.

An entry is a mutable `schemas.spend.Totals`: the same fields in the same order, so that
its encoding is the snapshot. Its key in the table is that of a Faust windowed table,
`((scope, partition), (start_ms, end_ms))`.

Retention counts from the window's end or the last addition, whichever is later, in the time of the
partition itself (its newest Kafka timestamp): two replays of one log expire alike, and a backlog
is never expired away before it is read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import msgspec

from meterline.schemas.periods import DAY_MS, HOUR_MS, MINUTE_MS, WindowKind
from meterline.schemas.spend import SnapshotError, SnapshotKey, Totals, encode_key

Range: TypeAlias = tuple[int, int]
"""`[start_ms, end_ms)`, as Faust's windows have it."""
EntryKey: TypeAlias = tuple[tuple[str, int], Range]
"""((scope, source partition), range)."""

# A day is at most 25 hours where daylight saving ends; the shortest month has 28 days.
_LONGEST_DAY_MS = 25 * HOUR_MS


class LedgerEntry(msgspec.Struct, array_like=True, gc=False):
    """Totals that are still being added to; fields as in `schemas.spend.Totals`."""

    epoch: int
    offset: int
    end_ms: int
    cost_nano_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    events: int = 0
    unpriced_events: int = 0
    last_event_ms: int = 0


Cell: TypeAlias = list[int]
"""What one flush adds to a scope in one minute: Totals from `cost_nano_usd` on, in their order."""

CELL_SUMS = 9


def add_cell(total: Cell, cell: Cell) -> None:
    """Add `cell` to `total` in place."""
    total[0] += cell[0]
    total[1] += cell[1]
    total[2] += cell[2]
    total[3] += cell[3]
    total[4] += cell[4]
    total[5] += cell[5]
    total[6] += cell[6]
    total[7] += cell[7]
    if cell[8] > total[8]:  # noqa: PLR1730 - max() costs five times as much
        total[8] = cell[8]


def add_to_entry(entry: LedgerEntry, cell: Cell) -> None:
    """Add `cell` to a table entry in place; the caller sets the entry's tag."""
    entry.cost_nano_usd += cell[0]
    entry.input_tokens += cell[1]
    entry.output_tokens += cell[2]
    entry.cache_read_tokens += cell[3]
    entry.cache_write_tokens += cell[4]
    entry.reasoning_tokens += cell[5]
    entry.events += cell[6]
    entry.unpriced_events += cell[7]
    if cell[8] > entry.last_event_ms:  # noqa: PLR1730 - max() costs five times as much
        entry.last_event_ms = cell[8]


def kind_of(window: Range) -> WindowKind:
    """The granularity of a range; no two have a length in common."""
    length_ms = window[1] - window[0]
    if length_ms == MINUTE_MS:
        return WindowKind.MINUTE
    if length_ms == HOUR_MS:
        return WindowKind.HOUR
    return WindowKind.DAY if length_ms <= _LONGEST_DAY_MS else WindowKind.MONTH


encode_entry = msgspec.json.Encoder().encode
_entry_decoder = msgspec.json.Decoder(LedgerEntry)


def encode_entry_key(key: EntryKey) -> bytes:
    """The record key of an entry: that of its snapshot."""
    (scope, partition), window = key
    return _key_head(scope) + _key_tail(window, partition)


# The key's JSON in two halves, because a flush writes the same scopes and windows over and over:
# 0.2 us a key instead of 0.5. As many scopes as `schemas.scopes` remembers events' identities; a
# head takes 100 bytes.
@lru_cache(maxsize=65_536)
def _key_head(scope: str) -> bytes:
    """`["department:acme/research"`."""
    return msgspec.json.encode([scope])[:-1]


# The windows of half an hour's minutes on 32 partitions.
@lru_cache(maxsize=4_096)
def _key_tail(window: Range, partition: int) -> bytes:
    """`,"month",1761955200000,"3"]`."""
    whole = encode_key(SnapshotKey("", kind_of(window).value, window[0], str(partition)))
    return whole[len('[""') :]


def decode_entry(value: bytes) -> LedgerEntry:
    """Decode an entry.

    Raises:
        SnapshotError: not an entry that Meterline wrote.
    """
    try:
        return _entry_decoder.decode(value)
    except msgspec.MsgspecError as error:
        message = f"not a spend snapshot: {error}"
        raise SnapshotError(message) from error


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long an entry is kept after its window's end or its last addition, per kind, in ms.

    An event that arrives later is counted in the wider windows only: its entry was dropped and must
    not start again from zero.
    """

    # Burn-rate rules look back minutes; 500 keys make 90,000 minute entries in three hours.
    minute_ms: int = 3 * HOUR_MS
    # Deviation rules compare with the same hours of the nine days before, whole days of them; and a
    # relay that was cut off over a long weekend still finds its hours.
    hour_ms: int = 10 * DAY_MS
    # Longer than a month, so that a month's days are all there when it is closed.
    day_ms: int = 45 * DAY_MS
    month_ms: int = 400 * DAY_MS

    def of(self, kind: WindowKind) -> int:
        """The retention of one kind."""
        match kind:
            case WindowKind.MINUTE:
                return self.minute_ms
            case WindowKind.HOUR:
                return self.hour_ms
            case WindowKind.DAY:
                return self.day_ms
            case WindowKind.MONTH:
                return self.month_ms


assert LedgerEntry.__struct_fields__ == Totals.__struct_fields__, "an entry is a snapshot"
