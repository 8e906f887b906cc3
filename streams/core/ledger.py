"""The ledger of one source partition: exact counting, without Faust, clock or I/O.

    message ──apply──► id index, lanes ──► cells (scope set, minute) ──roll up──► entries ──► records

Every entry holds the sum of all accepted events of this partition up to its tag, the source offset
`entry.offset`, and nothing else. Hence any older record of an entry is merely old, never wrong, and
a message is added to an entry exactly if its offset is above the tag.

- In normal running cells gather many messages and are rolled up once per flush; the tag becomes the
  offset of the newest message applied.
- After a crash the log may hold entries newer than the state record (a torn flush). Until the
  offset of the newest of them is passed, each message is rolled up by itself, so that the tags
  can tell which entries already have it.

What is decided about a message depends only on the state at the state record's offset and on the
messages since, in their order: a replay decides as the first run did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import NamedTuple, TypeAlias

import msgspec

from meterline.schemas.codec import UsageMessage
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import HOUR_MS, MINUTE_MS, Calendar, WindowKind
from meterline.schemas.reasons import Notice
from meterline.schemas.scopes import scopes_of
from meterline.schemas.spend import SnapshotKey, encode_key
from meterline.schemas.usage import UsageEvent
from meterline.streams.core.dead_letters import MessageSource
from meterline.streams.core.entries import (
    CELL_SUMS,
    Cell,
    EntryKey,
    LedgerEntry,
    Range,
    Retention,
    add_cell,
    add_to_entry,
    encode_entry,
    encode_entry_key,
    kind_of,
)
from meterline.streams.core.identity import IdIndex, IdRow, digests, slots_for
from meterline.streams.core.lanes import Lanes, LaneState, SequenceCheck

Rate: TypeAlias = Callable[[UsageEvent], tuple[int, bool]]
"""Gives (cost_nano_usd, priced) of an event."""
Record: TypeAlias = tuple[bytes, bytes | None]
"""Key and value of one changelog record; None is a tombstone."""
CellKey: TypeAlias = tuple[str, str, str, str, str, int]

STATE_SCOPE = "~state"
IDS_SCOPE = "~ids"
LATE_GRACE_MS = MINUTE_MS
"""An event is late if the hour it belongs to had ended this long before its message."""
# Expiry looks at one bucket of entries at a time: an hour's precision is enough for a retention of
# hours to months, and few buckets are kept.
_BUCKET_MS = HOUR_MS
# 2,000 tombstones take 20 ms: a bucket of 30,000 minute entries is dropped over 15 flushes.
EXPIRED_PER_FLUSH_MAX = 2_000


class LedgerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings shared by all partitions of a worker."""

    epoch: int = 0
    """Generation of the Kafka log."""
    source_topic: str
    ids_horizon: int = 100_000
    pending_events_max: int = 50_000
    """Bound of events applied but not yet flushed; the caller enforces it."""
    retention: Retention = Retention()


class StateRecord(msgspec.Struct, array_like=True):
    """The last record of every flush: the durable offset, and the state of decisions."""

    epoch: int
    offset: int
    watermark_ms: int
    """Newest Kafka timestamp seen."""
    slot: int
    open_rows: int
    closed_ms: list[int]
    """Per window kind, minute to month: end of the latest window that was dropped."""
    evicted_ms: int
    lanes: dict[str, LaneState]


_state_decoder = msgspec.json.Decoder(StateRecord)


def decode_state(value: bytes) -> StateRecord:
    """Decode a state record.

    Raises:
        msgspec.MsgspecError: not a state record.
    """
    return _state_decoder.decode(value)


class LedgerOutcome(NamedTuple):
    """The effects of one message."""

    accepted: int
    notices: list[tuple[Notice, int]]
    dead_letters: list[DeadLetter]


class FlushRecords(NamedTuple):
    """The records that a flush makes durable, in this order."""

    entries: list[Record]
    """Snapshots, tombstones and id slots."""
    state: tuple[bytes, bytes]
    """The state record, which says that the others are durable: last, by itself."""
    snapshots: int
    """Number of snapshots among the entries."""
    ids: list[tuple[int, bytes]]
    """The id slots among the entries: slot and value."""


class Recovered(NamedTuple):
    """The state and the ids of one partition, read from the changelog."""

    state: StateRecord | None
    rows: list[IdRow]
    """Durable id rows, in the order of the log, each once."""


class PartitionLedger:
    """Counts the messages of one partition; the only writer of its entries."""

    def __init__(
        self,
        partition: int,
        policy: LedgerPolicy,
        calendar: Calendar,
        rate: Rate,
        entries: MutableMapping[EntryKey, LedgerEntry],
    ) -> None:
        """Create an empty ledger; call `restore` before the first message if there is a changelog.

        Args:
            partition: the source partition.
            policy: limits and epoch.
            calendar: the windows of the billing time zone.
            rate: prices an event.
            entries: the table, shared by the partitions of a worker.
        """
        self.partition = partition
        self.offset = -1
        """Newest source offset applied."""
        self.watermark_ms = 0
        self.newest_event_ms = 0
        self._shard = str(partition)
        self._policy = policy
        self._calendar = calendar
        self._rate = rate
        self._entries = entries
        self._lanes = Lanes()
        self._ids = self._new_index()
        self._cells: dict[CellKey, Cell] = {}
        self._dirty: dict[EntryKey, None] = {}
        self._tombstones: list[EntryKey] = []
        self._due: dict[int, list[EntryKey]] = {}
        # Entries that were added to after their window had ended; their retention begins again.
        self._late: set[EntryKey] = set()
        self._closed_ms = [0] * len(WindowKind)
        self._replay_until = -1
        self._skipped_windows = 0
        self._changed = False

    def _new_index(self) -> IdIndex:
        slots = slots_for(self._policy.ids_horizon, self._policy.pending_events_max)
        return IdIndex(self._policy.ids_horizon, slots, self._lanes.forget)

    def restore(self, recovered: Recovered, own_keys: Iterable[EntryKey]) -> None:
        """Continue from the changelog; `own_keys` are the table's entries of this partition."""
        state = recovered.state
        if state is not None:
            if state.epoch == self._policy.epoch:
                self.offset = state.offset
            self.watermark_ms = state.watermark_ms
            self._closed_ms = list(state.closed_ms)
            self._lanes = Lanes(state.lanes, state.evicted_ms)
            self._ids = self._new_index()
            self._ids.restore(recovered.rows, state.slot, state.open_rows)
        self._replay_until = self.offset
        for key in own_keys:
            entry = self._entries[key]
            if entry.epoch == self._policy.epoch:
                self._replay_until = max(self._replay_until, entry.offset)
            self._schedule(key, entry)

    def rewrite(self, key: EntryKey) -> None:
        """Write this entry again at the next flush: the log's last record of it is superseded."""
        self._dirty[key] = None
        self._changed = True

    def unflushed(self) -> Iterable[EntryKey]:
        """Entries that were changed and not yet taken by a flush."""
        return tuple(self._dirty)

    # -- applying messages

    def apply(self, message: UsageMessage, offset: int, timestamp_ms: int) -> LedgerOutcome:
        """Count one message; its effects are in the records of the next flush.

        Args:
            message: the decoded message, its rejects included.
            offset: its source offset; one that was applied before changes nothing.
            timestamp_ms: its Kafka timestamp.
        """
        if offset <= self.offset:
            return self.replayed()
        self.watermark_ms = max(self.watermark_ms, timestamp_ms)
        notices: list[tuple[Notice, int]] = []
        dead_letters: list[DeadLetter] = []
        source = MessageSource(
            self._policy.source_topic, self.partition, offset, timestamp_ms, message
        )
        check = SequenceCheck.NEXT
        if message.lane:
            check = self._lanes.observe(message.lane, message.seq, timestamp_ms)
        if check is SequenceCheck.DUPLICATE:
            accepted = 0
            self._check_resend(source, notices, dead_letters)
        else:
            if check is SequenceCheck.GAP:
                notices.append((Notice.LANE_GAP, 1))
            elif check is SequenceCheck.UNKNOWN:
                notices.append((Notice.UNKNOWN_LANE, 1))
            dead_letters.extend(source.rejects())
            accepted = self._count(source, notices, dead_letters)
        self.offset = offset
        self._changed = True
        if offset <= self._replay_until:
            self._roll_up()
        return LedgerOutcome(accepted, notices, dead_letters)

    def replayed(self) -> LedgerOutcome:
        """The outcome of a message at or below `offset`: no effect but a notice."""
        return LedgerOutcome(0, [(Notice.REPLAYED_MESSAGE, 1)], [])

    def _count(
        self,
        source: MessageSource,
        notices: list[tuple[Notice, int]],
        dead_letters: list[DeadLetter],
    ) -> int:
        """Add the events that are new to the cells; returns their number."""
        events = source.message.events
        pairs: list[bytes] = []
        fresh: list[UsageEvent] = []
        known = self._ids.known
        duplicates = 0
        for position, event in enumerate(events):
            key, body = digests(event)
            before = known.get(key)
            if before is None:
                known[key] = body
                pairs += (key, body)
                fresh.append(event)
            elif before == body:
                duplicates += 1
            else:
                dead_letters.append(source.conflict(position))
        if duplicates:
            notices.append((Notice.DUPLICATE_EVENT, duplicates))
        if fresh:
            newest_ms = self._add_events(fresh, source.timestamp_ms, notices)
            message = source.message
            self._ids.add(IdRow(source.offset, message.lane, message.seq, newest_ms, pairs))
            self.newest_event_ms = max(self.newest_event_ms, newest_ms)
        return len(fresh)

    def _add_events(
        self, events: list[UsageEvent], timestamp_ms: int, notices: list[tuple[Notice, int]]
    ) -> int:
        """Add events to the cells; returns the newest event time. The hot loop."""
        rate, cells = self._rate, self._cells
        late_before_ms = self._calendar.windows(timestamp_ms - LATE_GRACE_MS)[_HOUR].start_ms
        unpriced = unassigned = late = 0
        for event in events:
            cost_nano_usd, priced = rate(event)
            time_ms = event.time_ms
            cell_key = (
                event.organisation,
                event.department,
                event.project,
                event.user,
                event.key,
                time_ms // MINUTE_MS,
            )
            cell = cells.get(cell_key)
            if cell is None:
                cell = cells[cell_key] = [0] * CELL_SUMS
            cell[0] += cost_nano_usd
            cell[1] += event.input_tokens
            cell[2] += event.output_tokens
            cell[3] += event.cache_read_tokens
            cell[4] += event.cache_write_tokens + event.cache_write_1h_tokens
            cell[5] += event.reasoning_tokens
            cell[6] += 1
            if time_ms > cell[8]:  # noqa: PLR1730 - max() costs five times as much
                cell[8] = time_ms
            if not priced:
                cell[7] += 1
                unpriced += 1
            if not event.department:
                unassigned += 1
            if time_ms < late_before_ms:
                late += 1
        tally = ((Notice.UNPRICED, unpriced), (Notice.UNASSIGNED, unassigned), (Notice.LATE, late))
        notices.extend((notice, count) for notice, count in tally if count)
        return max(event.time_ms for event in events)

    def _check_resend(
        self,
        source: MessageSource,
        notices: list[tuple[Notice, int]],
        dead_letters: list[DeadLetter],
    ) -> None:
        """A batch whose number was seen before: count nothing, reject what is new in it."""
        message = source.message
        restarted = 0
        for position, event in enumerate(message.events):
            key, body = digests(event)
            before = self._ids.known.get(key)
            if before is not None:
                if before != body:
                    dead_letters.append(source.conflict(position))
            elif self._lanes.provably_new(message.lane, message.seq, event.time_ms):
                dead_letters.append(source.restarted(position))
                restarted += 1
        if restarted or not message.events:
            # Not (only) what was handled before, so its rejects were not reported before either.
            dead_letters.extend(source.rejects())
        notices.append((Notice.RESENT_BATCH, 1))

    # -- rolling up and flushing

    def _roll_up(self) -> None:
        """Add the cells to the entries of all their windows, and tag these with the offset."""
        cells, self._cells = self._cells, {}
        minutes: dict[int, dict[str, Cell]] = {}
        for (organisation, department, project, user, key, minute), cell in cells.items():
            scopes = minutes.get(minute)
            if scopes is None:
                scopes = minutes[minute] = {}
            for scope in scopes_of(organisation, department, project, user, key):
                total = scopes.get(scope)
                if total is None:
                    scopes[scope] = cell.copy()
                else:
                    add_cell(total, cell)
        for window, sums in self._by_window(minutes).items():
            self._add(window, sums)

    def _by_window(self, minutes: dict[int, dict[str, Cell]]) -> dict[Range, dict[str, Cell]]:
        """Sum minutes up to their windows: a roll-up changes an entry once, as its tag demands."""
        windows: dict[Range, dict[str, Cell]] = {}
        copied: set[Range] = set()
        for minute, scopes in minutes.items():
            for kind in self._calendar.windows(minute * MINUTE_MS):
                window = (kind.start_ms, kind.end_ms)
                sums = windows.get(window)
                if sums is None:
                    # One minute in a flush is the rule: then all four share its sums.
                    windows[window] = scopes
                    continue
                if window not in copied:
                    copied.add(window)
                    sums = windows[window] = {scope: sums[scope].copy() for scope in sums}
                for scope, cell in scopes.items():
                    total = sums.get(scope)
                    if total is None:
                        sums[scope] = cell.copy()
                    else:
                        add_cell(total, cell)
        return windows

    def _add(self, window: Range, sums: dict[str, Cell]) -> None:
        entries, dirty, partition = self._entries, self._dirty, self.partition
        epoch, offset = self._policy.epoch, self.offset
        closed = window[1] <= self._closed_ms[_POSITIONS[kind_of(window)]]
        ended = window[1] <= self.watermark_ms
        for scope, cell in sums.items():
            key = ((scope, partition), window)
            entry = entries.get(key)
            if entry is None:
                if closed:
                    self._skipped_windows += 1
                    continue
                entries[key] = LedgerEntry(epoch, offset, window[1], *cell)
                self._schedule(key, entries[key])
            elif entry.offset < offset or entry.epoch < epoch:
                add_to_entry(entry, cell)
                entry.epoch = epoch
                entry.offset = offset
                if ended:
                    self._late.add(key)
            else:
                continue
            dirty[key] = None

    def take_flush(self) -> FlushRecords | None:
        """Encode all that changed since the last call, as of now; None if nothing did."""
        if not self._changed:
            return None
        self._changed = False
        self._roll_up()
        dirty, self._dirty = self._dirty, {}
        tombstones, self._tombstones = self._tombstones, []
        epoch, offset = self._policy.epoch, self.offset
        entries = self._entries
        records: list[Record] = [
            (encode_entry_key(key), encode_entry(entries[key])) for key in dirty if key in entries
        ]
        snapshots = len(records)
        # Windows that were dropped before the last durable state; some may be in use again.
        records.extend((encode_entry_key(key), None) for key in tombstones if key not in entries)
        ids = self._ids.take_records(epoch, offset)
        for slot, value in ids:
            records.append((encode_key(SnapshotKey(IDS_SCOPE, "", slot, self._shard)), value))
        # After the snapshot of all else: a window closed here is in this state record, and its
        # tombstone in the next flush, when the state is durable.
        self._expire()
        state = (self.state_key(), msgspec.json.encode(self.state()))
        return FlushRecords(records, state, snapshots, ids)

    def state_key(self) -> bytes:
        """The key of the state record."""
        return encode_key(SnapshotKey(STATE_SCOPE, "", 0, self._shard))

    def state(self) -> StateRecord:
        """The state record as of now; only true of the entries right after a roll-up."""
        return StateRecord(
            self._policy.epoch,
            self.offset,
            self.watermark_ms,
            self._ids.slot,
            self._ids.open_rows,
            list(self._closed_ms),
            self._lanes.evicted_ms,
            self._lanes.by_name,
        )

    def take_skipped_windows(self) -> int:
        """Number of additions skipped since the last call, because their window had expired."""
        skipped, self._skipped_windows = self._skipped_windows, 0
        return skipped

    # -- expiry

    @property
    def scheduled(self) -> int:
        """Number of entries that wait for their expiry: each entry of this partition, once."""
        return sum(len(bucket) for bucket in self._due.values())

    def _schedule(self, key: EntryKey, entry: LedgerEntry) -> None:
        kept_ms = self._policy.retention.of(kind_of(key[1]))
        due = (max(entry.end_ms, self.watermark_ms) + kept_ms) // _BUCKET_MS + 1
        bucket = self._due.get(due)
        if bucket is None:
            bucket = self._due[due] = []
        bucket.append(key)

    def _expire(self) -> None:
        """Drop entries whose retention has ended and that were not added to meanwhile."""
        now = self.watermark_ms // _BUCKET_MS
        room = EXPIRED_PER_FLUSH_MAX
        for due in [due for due in self._due if due <= now]:
            bucket = self._due[due]
            while bucket and room:
                room -= 1
                self._expire_one(bucket.pop())
            if not bucket:
                del self._due[due]

    def _expire_one(self, key: EntryKey) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if key in self._late:
            self._late.discard(key)
            self._schedule(key, entry)
            return
        del self._entries[key]
        self._tombstones.append(key)
        position = _POSITIONS[kind_of(key[1])]
        self._closed_ms[position] = max(self._closed_ms[position], entry.end_ms)
        # The tombstone goes out with the next flush, which need not wait for a message.
        self._changed = True


_POSITIONS = {kind: position for position, kind in enumerate(WindowKind)}
_HOUR = _POSITIONS[WindowKind.HOUR]
