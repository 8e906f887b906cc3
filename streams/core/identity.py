"""The ids of counted events: the most recent of one partition, with a fingerprint of each body.

Same id and same body is a duplicate, same id and another body a conflict. The index holds the
newest `horizon` ids and evicts whole messages from the oldest on: what it knows at an offset is a
function of the log alone, so a replay after a crash decides as the first run did.

Durable form: a ring of records `["~ids","",slot,shard]`, each a list of rows (one per source
message) and the packed digests. A record is rewritten while it is small, then the next slot is
used. A slot comes round again only when more than `horizon` newer ids are durable in others, so a
flush torn by a crash cannot overwrite an id that is still needed. Rows of an offset above the state
record's are ignored at recovery: their message will be read again.
"""

from __future__ import annotations

import binascii
from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import xxhash

from meterline.schemas.scopes import UNASSIGNED
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX, UsageEvent

ID_BYTES = 16
FINGERPRINT_BYTES = 8
_PAIR_BYTES = ID_BYTES + FINGERPRINT_BYTES
# A record is rewritten at each flush until it holds this many ids: fewer would make many small
# records at low rates, more would make a flush of one event write much.
SLOT_IDS_MIN = 256
# 4,096 ids are 131 kB in base64: far below a broker's message limit of 1 MB.
SLOT_IDS_MAX = 4_096

_body = msgspec.json.Encoder(order="deterministic").encode
_id_digest = xxhash.xxh3_128_digest
_body_digest = xxhash.xxh3_64_digest


def digests(event: UsageEvent) -> tuple[bytes, bytes]:
    """The index key of an event's id, and the fingerprint of its body.

    The body is every field of the schema, in a fixed order: 0.6 us for an event of 250 bytes. To
    name the department `unassigned` is the same as to name none: both are stored alike.
    """
    if event.department == UNASSIGNED:
        event = msgspec.structs.replace(event, department="")
    return _id_digest(event.id.encode()), _body_digest(_body(event))


class IdRow(msgspec.Struct, gc=False):
    """The accepted ids of one source message."""

    offset: int
    lane: str
    seq: int
    newest_ms: int
    """Newest event time among them."""
    pairs: list[bytes]
    """id, fingerprint, id, fingerprint, ..."""

    @property
    def count(self) -> int:
        """Number of ids."""
        return len(self.pairs) // 2


class RingRecord(msgspec.Struct, array_like=True, frozen=True):
    """One slot of the ring as it is stored."""

    epoch: int
    offset: int
    rows: list[tuple[int, str, int, int, int]]
    """offset, lane, seq, newest_ms, count: as in `IdRow`."""
    packed: str


_ring_decoder = msgspec.json.Decoder(RingRecord)


def decode_ring_record(value: bytes) -> RingRecord:
    """Decode one slot.

    Raises:
        msgspec.MsgspecError: not a slot.
    """
    return _ring_decoder.decode(value)


def unpack(record: RingRecord) -> list[IdRow]:
    """The rows of a slot."""
    packed = binascii.a2b_base64(record.packed)
    rows: list[IdRow] = []
    at = 0
    for offset, lane, seq, newest_ms, count in record.rows:
        pairs: list[bytes] = []
        for start in range(at, at + count * _PAIR_BYTES, _PAIR_BYTES):
            pairs.append(packed[start : start + ID_BYTES])
            pairs.append(packed[start + ID_BYTES : start + _PAIR_BYTES])
        rows.append(IdRow(offset, lane, seq, newest_ms, pairs))
        at += count * _PAIR_BYTES
    return rows


def durable_rows(
    records: Iterable[RingRecord], epoch: int, state_epoch: int, state_offset: int
) -> list[IdRow]:
    """The rows that a state record covers, in the order of the log, each once.

    Args:
        records: all slots of one partition.
        epoch: the current generation of the log; rows of earlier ones get the offset -1.
        state_epoch: epoch of the state record.
        state_offset: its offset; later rows belong to messages that will be read again.
    """
    kept: dict[tuple[int, bytes], IdRow] = {}
    for record in sorted(records, key=lambda record: (record.epoch, record.offset)):
        for row in unpack(record):
            if record.epoch == state_epoch and row.offset > state_offset:
                continue
            if record.epoch != epoch:
                row.offset = -1
            kept.setdefault((row.offset, row.pairs[0]), row)
    return sorted(kept.values(), key=lambda row: row.offset)


def _pack(epoch: int, offset: int, rows: list[IdRow]) -> bytes:
    packed = b"".join(part for row in rows for part in row.pairs)
    heads = [(row.offset, row.lane, row.seq, row.newest_ms, row.count) for row in rows]
    text = binascii.b2a_base64(packed, newline=False).decode("ascii")
    return msgspec.json.encode(RingRecord(epoch, offset, heads, text))


def slots_for(horizon: int, pending_events_max: int) -> int:
    """Number of slots that the ring needs so that none is reused while its ids are needed."""
    undurable = pending_events_max + EVENTS_PER_BATCH_MAX
    return (horizon + EVENTS_PER_BATCH_MAX + undurable) // SLOT_IDS_MIN + 2


class IdIndex:
    """The newest `horizon` accepted ids of one partition."""

    def __init__(self, horizon: int, slots: int, on_evict: Callable[[IdRow], None]) -> None:
        """Create an empty index; `on_evict` is called for each message whose ids are evicted."""
        self.known: dict[bytes, bytes] = {}
        self.slot = 0
        self._horizon = horizon
        self._slots = slots
        self._on_evict = on_evict
        self._rows: deque[IdRow] = deque()
        self._open: list[IdRow] = []
        self._open_count = 0
        self._fresh: list[IdRow] = []

    @property
    def open_rows(self) -> int:
        """Number of the newest rows that are in the slot still being filled."""
        return len(self._open)

    def add(self, row: IdRow) -> None:
        """Keep the ids of a message (they are in `known` already) and evict the oldest."""
        if not row.pairs:
            return
        self._rows.append(row)
        self._fresh.append(row)
        self._evict()

    def _evict(self) -> None:
        while len(self.known) - self._rows[0].count >= self._horizon:
            oldest = self._rows.popleft()
            for key in oldest.pairs[::2]:
                del self.known[key]
            self._on_evict(oldest)

    def take_records(self, epoch: int, offset: int) -> list[tuple[int, bytes]]:
        """The slots to write for what was added since the last call: (slot, value)."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return []
        records: list[tuple[int, bytes]] = []
        for row in fresh:
            if self._open_count and self._open_count + row.count > SLOT_IDS_MAX:
                records.append((self.slot, _pack(epoch, offset, self._open)))
                self._close()
            self._open.append(row)
            self._open_count += row.count
        records.append((self.slot, _pack(epoch, offset, self._open)))
        if self._open_count >= SLOT_IDS_MIN:
            self._close()
        return records

    def _close(self) -> None:
        self.slot = (self.slot + 1) % self._slots
        self._open = []
        self._open_count = 0

    def restore(self, rows: Iterable[IdRow], slot: int, open_rows: int) -> None:
        """Continue where a state record left off.

        Args:
            rows: all durable rows up to that state, in the order of the log, each once.
            slot: the slot that was being filled.
            open_rows: number of the newest rows that it held.
        """
        ordered = list(rows)
        total = sum(row.count for row in ordered)
        # Older rows first: an id may be in one that was evicted, and again in a later one. The lanes
        # of the state record know of these evictions already.
        self._rows = deque(ordered)
        while self._rows and total - self._rows[0].count >= self._horizon:
            total -= self._rows.popleft().count
        for row in self._rows:
            self.known.update(zip(row.pairs[::2], row.pairs[1::2], strict=True))
        self.slot = slot % self._slots
        self._open = ordered[len(ordered) - open_rows :] if open_rows else []
        self._open_count = sum(row.count for row in self._open)
