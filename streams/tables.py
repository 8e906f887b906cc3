"""The spend table: a Faust windowed table whose changelog is spend.snapshots.

Faust owns its place in the group (assignment, recovery, the memory store); the ledgers own its
content. Records are merged by their tag (epoch, offset), whichever order they come in, because the
last record of a key in the log may be an old one: a worker that was paused past its session can
still write after its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import faust
import msgspec
import structlog
from faust.types import TP, EventT
from typing_extensions import override

from schemas.periods import Calendar, WindowKind
from schemas.spend import SnapshotError
from streams.entries import Entry, EntryKey, decode_entry
from streams.identity import decode_ring_record, durable_rows
from streams.ledger import (
    IDS_SCOPE,
    STATE_SCOPE,
    FlushRecords,
    LedgerPolicy,
    PartitionLedger,
    Recovered,
    decode_state,
)

log = structlog.get_logger()
_key_decoder = msgspec.json.Decoder(tuple[str, str, int, str])


class _Tag(msgspec.Struct, array_like=True, frozen=True):
    """What all our values begin with."""

    epoch: int
    offset: int


_tag_decoder = msgspec.json.Decoder(_Tag)


class EpochError(RuntimeError):
    """The changelog is of a later generation of the log than this worker was told."""


class RawRecord(Protocol):
    """A changelog record as the consumers give it."""

    partition: int
    key: bytes | None
    value: bytes | None


class LedgerFactory(Protocol):
    """Makes the ledger of one partition on this table's entries."""

    policy: LedgerPolicy
    calendar: Calendar
    snapshot_topic: str

    def __call__(self, partition: int, entries: dict[EntryKey, Entry]) -> PartitionLedger:
        """An empty ledger."""


class SpendTable(faust.Table):  # type: ignore[type-arg]
    """Entries of all partitions that this worker owns, and their ledgers."""

    def __init__(self, *args: Any, new_ledger: LedgerFactory, **options: Any) -> None:
        """Take Faust's arguments and the maker of ledgers."""
        super().__init__(*args, **options)
        self.ledgers: dict[int, PartitionLedger] = {}
        """The partitions we own and have recovered."""
        self.on_forget: Callable[[], None] = _nothing
        """Called together with the loss of all ledgers: what was not flushed is forgotten."""
        self._new_ledger = new_ledger
        self._states: dict[int, bytes] = {}
        self._rings: dict[int, dict[int, bytes]] = {}
        self._stale: dict[EntryKey, None] = {}

    @override
    def info(self) -> Any:
        """What a clone needs."""
        return {**super().info(), "new_ledger": self._new_ledger}

    @override
    def _changelog_topic_name(self) -> str:
        """The changelog is the product: the snapshots that everybody reads."""
        return self._new_ledger.snapshot_topic

    @property
    def entries(self) -> dict[EntryKey, Entry]:
        """The memory store's dictionary."""
        store: dict[EntryKey, Entry] = self.data.data
        return store

    # -- reading the changelog

    @override
    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Stock recovery: whatever the bulk load left for it."""
        self.load(_as_records(batch))

    def load(self, records: Iterable[RawRecord]) -> None:
        """Merge changelog records; keys of shards that are no partition's are left alone.

        Raises:
            SnapshotError: a record that is none of ours.
            EpochError: a record of a later epoch than the settings'.
        """
        for record in records:
            try:
                scope, kind, start_ms, shard = _key_decoder.decode(record.key or b"")
            except msgspec.MsgspecError as error:
                message = f"not a key of spend.snapshots: {error}"
                raise SnapshotError(message) from error
            if shard != str(record.partition):
                # An opening balance or the like: its writer looks after it.
                continue
            if scope == STATE_SCOPE:
                self._load_state(record)
            elif scope == IDS_SCOPE:
                self._load_ring(record, start_ms)
            elif kind:
                self._load_entry(record, scope, kind, start_ms)

    def _load_state(self, record: RawRecord) -> None:
        if record.value and not _older(record.value, self._states.get(record.partition)):
            self._check_epoch(record.value)
            self._states[record.partition] = record.value

    def _load_ring(self, record: RawRecord, slot: int) -> None:
        ring = self._rings.setdefault(record.partition, {})
        if record.value and not _older(record.value, ring.get(slot)):
            ring[slot] = record.value

    def _load_entry(self, record: RawRecord, scope: str, kind: str, start_ms: int) -> None:
        entries = self.entries
        if not record.value:
            # A tombstone tells the window's start only; the calendar knows its end.
            window = self._new_ledger.calendar.window(WindowKind(kind), start_ms)
            key = ((scope, record.partition), (window.start_ms, window.end_ms))
            entries.pop(key, None)
            self._stale.pop(key, None)
            return
        entry = decode_entry(record.value)
        key = ((scope, record.partition), (start_ms, entry.end_ms))
        present = entries.get(key)
        if present is not None and (entry.epoch, entry.offset) < (present.epoch, present.offset):
            # The log's last word on this key is an old one: say it again.
            self._stale[key] = None
            return
        entries[key] = entry
        self._stale.pop(key, None)

    def _check_epoch(self, value: bytes) -> None:
        epoch, ours = _tag_decoder.decode(value).epoch, self._new_ledger.policy.epoch
        if epoch > ours:
            message = (
                f"spend.snapshots is of log epoch {epoch}, this worker's setting is {ours}: "
                "set METERLINE_LOG_EPOCH to the pipeline's"
            )
            raise EpochError(message)

    # -- rebalancing

    @override
    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],
        newly_assigned: set[TP],
        generation_id: int = 0,
    ) -> None:
        """Forget what is no longer ours, and everything that is not durable."""
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        kept = {tp.partition for tp in assigned if tp.topic == self.changelog_topic_name}
        # Also of partitions we keep: another worker may have owned them in between. What was
        # rolled up but not flushed must still be written, or a replay would find it done.
        for ledger in self.ledgers.values():
            self._stale.update(dict.fromkeys(ledger.unflushed()))
        self.ledgers.clear()
        self.on_forget()
        entries = self.entries
        for key in [key for key in entries if key[0][1] not in kept]:
            del entries[key]
        for key in [key for key in self._stale if key not in entries]:
            del self._stale[key]
        for owned in (self._states, self._rings):
            for partition in [partition for partition in owned if partition not in kept]:
                del owned[partition]

    @override
    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Build the ledgers of our partitions on what the changelog held.

        Not Faust's own: it would drop entries it has not loaded itself.
        """
        by_partition: dict[int, list[EntryKey]] = {tp.partition: [] for tp in active_tps}
        for key in self.entries:
            keys = by_partition.get(key[0][1])
            if keys is not None:
                keys.append(key)
        for partition, keys in by_partition.items():
            ledger = self._new_ledger(partition, self.entries)
            ledger.restore(self._recovered(partition), keys)
            self.ledgers[partition] = ledger
        for key in self._stale:
            if key[0][1] in self.ledgers:
                self.ledgers[key[0][1]].heal(key)
        healed = len(self._stale)
        self._stale.clear()
        log.info(
            "table.recovered",
            partitions=sorted(by_partition),
            entries=len(self.entries),
            healed=healed,
        )
        await self.call_recover_callbacks()

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
                self._remember(partition, records)
        return taken

    def _remember(self, partition: int, records: FlushRecords) -> None:
        """Keep our own bookkeeping as if we had read it: a rebalance rebuilds the ledgers."""
        self._states[partition] = records.state[1]
        ring = self._rings.setdefault(partition, {})
        for slot, value in records.ids:
            ring[slot] = value


def _nothing() -> None:
    """Nobody listens."""


def _older(value: bytes, present: bytes | None) -> bool:
    if present is None:
        return False
    new, old = _tag_decoder.decode(value), _tag_decoder.decode(present)
    return (new.epoch, new.offset) < (old.epoch, old.offset)


def _as_records(batch: Iterable[EventT[Any]]) -> Iterator[RawRecord]:
    for event in batch:
        yield event.message  # type: ignore[misc] # partition, key and value are bytes here
