"""The changelog of the partitions that a worker owns, merged: pure, without Faust.

Records are merged by their tag (epoch, offset), whichever order they come in, because the last
record of a key in the log may be an old one: a worker that was paused past its session can still
write after its successor. Such a key is remembered as stale and written again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from meterline.schemas.errors import MeterlineError
from meterline.schemas.periods import Calendar, WindowKind
from meterline.schemas.spend import SnapshotError
from meterline.streams.core.entries import EntryKey, LedgerEntry, Range, decode_entry
from meterline.streams.core.identity import decode_ring_record, durable_rows
from meterline.streams.core.ledger import (
    IDS_SCOPE,
    STATE_SCOPE,
    FlushRecords,
    LedgerPolicy,
    PartitionLedger,
    Rate,
    Recovered,
    decode_state,
)

_key_decoder = msgspec.json.Decoder(tuple[str, str, int, str])


class _Tag(msgspec.Struct, array_like=True, frozen=True):
    """The first fields of every value of the changelog."""

    epoch: int
    offset: int


_tag_decoder = msgspec.json.Decoder(_Tag)


class EpochError(MeterlineError, RuntimeError):
    """The changelog is of a later generation of the log than this worker's setting."""


class RawRecord(Protocol):
    """A changelog record, as both consumers return it."""

    @property
    def partition(self) -> int:
        """Of the changelog, and so of the source."""

    @property
    def key(self) -> bytes | None:
        """See `schemas.spend`."""

    @property
    def value(self) -> bytes | None:
        """None is a tombstone."""


@dataclass(frozen=True, slots=True)
class LedgerFactory:
    """Makes the ledger of one partition."""

    policy: LedgerPolicy
    calendar: Calendar
    rate: Rate

    def __call__(self, partition: int, entries: dict[EntryKey, LedgerEntry]) -> PartitionLedger:
        """An empty ledger on the table's entries."""
        return PartitionLedger(partition, self.policy, self.calendar, self.rate, entries)


class Replica:
    """The merged changelog of some partitions, and the ledgers built on it."""

    def __init__(self, entries: dict[EntryKey, LedgerEntry], new_ledger: LedgerFactory) -> None:
        """Fill `entries`, the table's own dictionary."""
        self.entries = entries
        self.ledgers: dict[int, PartitionLedger] = {}
        """The partitions that this worker owns and has recovered."""
        self._new_ledger = new_ledger
        self._states: dict[int, bytes] = {}
        self._rings: dict[int, dict[int, bytes]] = {}
        self._stale: dict[EntryKey, None] = {}

    # -- reading the changelog

    def load(self, records: Iterable[RawRecord]) -> None:
        """Merge changelog records; keys of shards that are no partition's are left alone.

        Raises:
            SnapshotError: a record that Meterline did not write.
            EpochError: a record of a later epoch than the settings'.
        """
        for record in records:
            try:
                scope, kind, start_ms, shard = _key_decoder.decode(record.key or b"")
            except msgspec.MsgspecError as error:
                message = f"not a key of spend.snapshots: {error}"
                raise SnapshotError(message) from error
            if shard != str(record.partition):
                # A repair or the like: its own writer maintains it.
                continue
            if scope == STATE_SCOPE:
                self._load_state(record)
            elif scope == IDS_SCOPE:
                self._load_ring(record, start_ms)
            else:
                self._load_entry(record, scope, kind, start_ms)

    def _load_state(self, record: RawRecord) -> None:
        value = record.value
        if not value:
            return
        epoch, expected = _tag_decoder.decode(value).epoch, self._new_ledger.policy.epoch
        if epoch > expected:
            message = (
                f"spend.snapshots is of log epoch {epoch}, this worker's setting is {expected}: "
                "set METERLINE_LOG_EPOCH to the pipeline's"
            )
            raise EpochError(message)
        if not _older(value, self._states.get(record.partition)):
            self._states[record.partition] = value

    def _load_ring(self, record: RawRecord, slot: int) -> None:
        ring = self._rings.setdefault(record.partition, {})
        if record.value and not _older(record.value, ring.get(slot)):
            ring[slot] = record.value

    def _load_entry(self, record: RawRecord, scope: str, kind: str, start_ms: int) -> None:
        if not record.value:
            key = ((scope, record.partition), self._range(kind, start_ms))
            self.entries.pop(key, None)
            self._stale.pop(key, None)
            return
        entry = decode_entry(record.value)
        key = ((scope, record.partition), (start_ms, entry.end_ms))
        present = self.entries.get(key)
        if present is not None and (entry.epoch, entry.offset) < (present.epoch, present.offset):
            # The log's last record of this key is superseded: write the newest again.
            self._stale[key] = None
            return
        self.entries[key] = entry
        self._stale.pop(key, None)

    def _range(self, kind: str, start_ms: int) -> Range:
        """A tombstone holds the window's start only; the calendar gives its end."""
        window = self._new_ledger.calendar.window(WindowKind(kind), start_ms)
        return (window.start_ms, window.end_ms)

    # -- rebalancing

    def forget(self, kept: set[int]) -> None:
        """Drop other partitions, and of the kept ones everything that is not durable.

        Of the kept ones too, because another worker may have owned them in between.
        """
        # What was rolled up but not flushed must still be written, or a replay would find it done.
        for ledger in self.ledgers.values():
            self._stale.update(dict.fromkeys(ledger.unflushed()))
        self.ledgers.clear()
        for key in [key for key in self.entries if key[0][1] not in kept]:
            del self.entries[key]
        for key in [key for key in self._stale if key not in self.entries]:
            del self._stale[key]
        for partition in [partition for partition in self._states if partition not in kept]:
            del self._states[partition]
        for partition in [partition for partition in self._rings if partition not in kept]:
            del self._rings[partition]

    def recover(self, partitions: set[int]) -> int:
        """Build the ledgers of `partitions` on what was loaded.

        Returns:
            Number of entries that the next flush writes again.
        """
        by_partition: dict[int, list[EntryKey]] = {partition: [] for partition in partitions}
        for key in self.entries:
            keys = by_partition.get(key[0][1])
            if keys is not None:
                keys.append(key)
        for partition, keys in by_partition.items():
            ledger = self._new_ledger(partition, self.entries)
            ledger.restore(self._recovered(partition), keys)
            self.ledgers[partition] = ledger
        rewritten = 0
        for key in self._stale:
            owner = self.ledgers.get(key[0][1])
            if owner is not None:
                owner.rewrite(key)
                rewritten += 1
        self._stale.clear()
        return rewritten

    def _recovered(self, partition: int) -> Recovered:
        value = self._states.get(partition)
        if value is None:
            return Recovered(None, [])
        state = decode_state(value)
        records = [decode_ring_record(ring) for ring in self._rings.get(partition, {}).values()]
        epoch = self._new_ledger.policy.epoch
        return Recovered(state, durable_rows(records, epoch, state.epoch, state.offset))

    # -- flushing

    def take_flush(self) -> dict[int, FlushRecords]:
        """The records of every partition with changes, as of now."""
        taken: dict[int, FlushRecords] = {}
        for partition, ledger in self.ledgers.items():
            records = ledger.take_flush()
            if records is not None:
                taken[partition] = records
                # As if they had been read back: a rebalance rebuilds the ledgers.
                self._states[partition] = records.state[1]
                self._rings.setdefault(partition, {}).update(records.ids)
        return taken


def newest_states(records: Iterable[RawRecord]) -> dict[int, tuple[int, int]]:
    """By partition, the newest tag (epoch, offset) that a state record of it has.

    Raises:
        SnapshotError: a record that Meterline did not write.
    """
    found: dict[int, tuple[int, int]] = {}
    for record in records:
        try:
            scope, _, _, shard = _key_decoder.decode(record.key or b"")
            if scope != STATE_SCOPE or shard != str(record.partition) or not record.value:
                continue
            tag = _tag_decoder.decode(record.value)
        except msgspec.MsgspecError as error:
            message = f"not a record of spend.snapshots: {error}"
            raise SnapshotError(message) from error
        present = found.get(record.partition, (tag.epoch, tag.offset))
        found[record.partition] = max(present, (tag.epoch, tag.offset))
    return found


def _older(value: bytes, present: bytes | None) -> bool:
    if present is None:
        return False
    new, old = _tag_decoder.decode(value), _tag_decoder.decode(present)
    return (new.epoch, new.offset) < (old.epoch, old.offset)
