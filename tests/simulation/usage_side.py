"""Relays that send and workers that count, around the real lanes, ledger and recovery."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from meterline.relay.lanes import LaneBuffer, lane_id
from meterline.schemas.codec import decode_usage
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import MINUTE_MS
from meterline.schemas.spend import SnapshotKey, SpendSnapshot, Totals, decode_snapshot
from meterline.schemas.usage import UsageEvent
from meterline.streams.core.changelog import LedgerFactory, Replica
from meterline.streams.core.ledger import FlushRecords, Record
from tests.simulation.ledger_audit import LedgerAudit, Parcel
from tests.streams_model import Changelog

LATE_MS_MAX = 90 * MINUTE_MS
BATCH_EVENTS_MAX = 6
PENDING_EVENTS_MAX = 20
"""As `LedgerPolicy.pending_events_max`: a worker holds its agent when as many are not flushed."""


class Stored(NamedTuple):
    """One record of a usage log."""

    parcel: Parcel
    timestamp_ms: int


class Logs:
    """The broker: usage logs, changelog, commits, each with the auditor's eye on it."""

    def __init__(self, partitions: int, audit: LedgerAudit) -> None:
        self.partitions = partitions
        self.audit = audit
        self.usage: list[list[Stored]] = [[] for _ in range(partitions)]
        self.changelog: list[list[Changelog | None]] = [[] for _ in range(partitions)]
        """A compacted record leaves a hole: offsets stay."""
        self.snapshots: list[list[SpendSnapshot | None]] = [[] for _ in range(partitions)]
        """The same records as their readers see them."""
        self.committed = [0] * partitions
        self.rewritten = [0] * partitions
        """Up to where compaction may go: an owner has read this far and repaired what it found."""

    def append_usage(self, parcel: Parcel, now_ms: int) -> None:
        """A producer's message is in the log."""
        log = self.usage[parcel.partition]
        self.audit.appended(parcel, len(log), now_ms)
        log.append(Stored(parcel, now_ms))

    def append_changes(self, partition: int, records: list[Record]) -> None:
        """A worker's records are in the changelog."""
        for key, value in records:
            snapshot = decode_snapshot(key, value)
            if snapshot is not None:
                self.audit.snapshot_written(snapshot.key, snapshot.totals)
            self.changelog[partition].append(Changelog(partition, key, value))
            self.snapshots[partition].append(snapshot)

    def commit(self, partition: int, offset: int) -> None:
        """A worker of the current generation commits."""
        self.audit.committed(partition, offset)
        self.committed[partition] = max(self.committed[partition], offset)

    def compact(self, partition: int) -> None:
        """Keep the last record of each key; what is younger than the last repair stays."""
        log = self.changelog[partition]
        rewritten = self.rewritten[partition]
        last = {record.key: at for at, record in enumerate(log[:rewritten]) if record is not None}
        for at in range(rewritten):
            record = log[at]
            if record is not None and last[record.key] != at:
                log[at] = self.snapshots[partition][at] = None

    def changes(self, partition: int, begin: int) -> Iterator[Changelog]:
        """What a recovery reads."""
        return (record for record in self.changelog[partition][begin:] if record is not None)


@dataclass
class Outbox:
    """A relay's lanes and spool: one queue per partition, the oldest batch first."""

    relay: str
    logs: Logs
    boot: int = 0
    lanes: dict[int, LaneBuffer] = field(default_factory=dict)
    queues: dict[int, deque[Parcel]] = field(default_factory=dict)
    unsealed: dict[int, list[UsageEvent]] = field(default_factory=dict)

    def emit(self, partition: int, event: UsageEvent) -> None:
        """An event of a request that ended."""
        waiting = self.unsealed.setdefault(partition, [])
        waiting.append(event)
        if len(waiting) >= BATCH_EVENTS_MAX:
            self.seal(partition)

    def seal(self, partition: int) -> None:
        """Give the waiting events a number and write them to the spool: from here on they count."""
        events = self.unsealed.pop(partition, [])
        if not events:
            return
        lane = self.lanes.get(partition)
        if lane is None:
            name = lane_id(self.relay, str(self.boot), partition)
            lane = self.lanes[partition] = LaneBuffer(name, partition, BATCH_EVENTS_MAX, 10**6)
        for event in events:
            lane.add(msgspec.json.encode(event), 0.0)
        batch = lane.batch()
        lane.sealed()
        parcel = Parcel(partition, batch.lane, batch.seq, tuple(events), batch.value)
        self.queues.setdefault(partition, deque()).append(parcel)
        self.logs.audit.owed.update(event.id for event in events)

    def send(self, partition: int, now_ms: int, *, acknowledged: bool = True) -> None:
        """Send the oldest batch; without an acknowledgement it stays and is sent again."""
        queue = self.queues.get(partition)
        if queue:
            self.logs.append_usage(queue[0], now_ms)
            if acknowledged:
                queue.popleft()

    def overtake(self, partition: int, now_ms: int) -> None:
        """The second batch passes the first, as with a client that keeps several on their way."""
        queue = self.queues.get(partition, deque())
        if len(queue) > 1 and queue[0].lane == queue[1].lane and queue[0].seq > 1:
            second = queue[1]
            self.logs.append_usage(second, now_ms)
            del queue[1]

    def restart(self) -> None:
        """Killed and started: what was not sealed is lost, the spool is not."""
        self.boot += 1
        self.lanes.clear()
        self.unsealed.clear()

    def waiting(self) -> set[str]:
        """Ids in the spool."""
        return {event.id for queue in self.queues.values() for one in queue for event in one.events}

    def drain(self, now_ms: int) -> None:
        """Send everything."""
        for partition in list(self.unsealed):
            self.seal(partition)
        for partition, queue in self.queues.items():
            while queue:
                self.send(partition, now_ms)


class Step(NamedTuple):
    """One effect of a flush that is still to be carried out."""

    what: str
    run: Callable[[], None]


class Worker:
    """A streams process: its replica, what it has read, and the flush that is under way."""

    state_first = False
    """A broken worker for the tests of the simulator: it writes the state before the entries."""

    def __init__(self, name: str, logs: Logs, new_ledger: LedgerFactory) -> None:
        self.name = name
        self.logs = logs
        self.replica = Replica({}, new_ledger)
        self.next: dict[int, int] = {}
        """Per owned partition the next offset to read."""
        self.steps: deque[Step] = deque()
        self._read: dict[int, int] = {}
        self._letters: list[DeadLetter] = []
        self._pending = 0
        self._generation = 0

    def assign(self, partitions: set[int], drawn: random.Random) -> None:
        """A rebalance: forget, load, recover, and read on from the committed offsets."""
        self._generation += 1
        self.replica.forget(partitions)
        self._letters.clear()
        self._pending = 0
        for partition in partitions:
            # What it has read before need not be read again, but may be.
            begin = drawn.randint(0, self._read.get(partition, 0))
            kept = partition in self.next
            self.replica.load(self.logs.changes(partition, begin if kept else 0))
            self._read[partition] = len(self.logs.changelog[partition])
        self.replica.recover(partitions)
        self.next = {partition: self.logs.committed[partition] for partition in partitions}

    def apply(self, partition: int, count: int) -> int:
        """Read up to `count` messages; how many there were."""
        log = self.logs.usage[partition]
        begin = self.next[partition]
        for offset in range(begin, min(begin + count, len(log))):
            if self._pending >= PENDING_EVENTS_MAX:
                break
            stored = log[offset]
            message = decode_usage(stored.parcel.value, stored.timestamp_ms)
            ledger = self.replica.ledgers[partition]
            outcome = ledger.apply(message, offset, stored.timestamp_ms)
            self._letters += outcome.dead_letters
            self._pending += outcome.accepted
            self.next[partition] = offset + 1
        return self.next[partition] - begin

    def begin_flush(self, drawn: random.Random) -> None:
        """Encode everything as of now; the steps are carried out one by one."""
        if self.steps:
            return
        letters, self._letters = self._letters, []
        self._pending = 0
        taken = self.replica.take_flush()
        if letters:
            self.steps.append(Step("letters", lambda: self._write_letters(letters)))
        entries: list[Step] = []
        states: list[Step] = []
        for partition, flush in taken.items():
            entries += self._entry_steps(partition, flush, drawn)
            states.append(self._state_step(partition, flush))
        self.steps += states + entries if self.state_first else entries + states
        generation, upto = self._generation, dict(self.next)
        self.steps.append(Step("commit", lambda: self._commit(generation, upto)))

    def _write_letters(self, letters: list[DeadLetter]) -> None:
        for letter in letters:
            self.logs.audit.dead_letter_written(letter)

    def _entry_steps(
        self, partition: int, flush: FlushRecords, drawn: random.Random
    ) -> Iterator[Step]:
        """The entries of one partition in two pieces: a crash may come between them.

        Often these are not a beginning and an end: the order within a flush must not matter.
        """
        rows = flush.entries
        cut = drawn.randint(0, len(rows))
        ordered, mixed = [rows[:cut], rows[cut:]], [rows[1::2], rows[::2]]
        pieces = drawn.choice((ordered, mixed, mixed[::-1]))
        for piece in pieces:
            if piece:
                yield Step("entries", partial(self.logs.append_changes, partition, piece))

    def _state_step(self, partition: int, flush: FlushRecords) -> Step:
        offset = self.replica.ledgers[partition].offset
        read = self._read[partition]

        def run() -> None:
            self.logs.append_changes(partition, [flush.state])
            self.logs.audit.state_written(partition, offset)
            self.logs.rewritten[partition] = max(self.logs.rewritten[partition], read)

        return Step("state", run)

    def _commit(self, generation: int, upto: dict[int, int]) -> None:
        """The broker refuses commits of an earlier generation."""
        if generation == self._generation:
            for partition, offset in upto.items():
                self.logs.commit(partition, offset)

    def step(self) -> str:
        """Carry out the next effect."""
        if not self.steps:
            return "nothing"
        what, run = self.steps.popleft()
        run()
        return what

    def lose_group(self) -> None:
        """Its session has expired, which it does not know: the broker refuses its commits."""
        self._generation += 1

    def drain(self, drawn: random.Random) -> None:
        """Count and flush everything there is."""
        more = True
        while more:
            while self.steps:
                self.step()
            self.begin_flush(drawn)
            while self.steps:
                self.step()
            more = sum(self.apply(partition, 1_000) for partition in self.next) > 0


def recovered_totals(logs: Logs, new_ledger: LedgerFactory) -> dict[SnapshotKey, Totals]:
    """What a worker that starts now finds in the changelog."""
    replica = Replica({}, new_ledger)
    for partition in range(logs.partitions):
        replica.load(logs.changes(partition, 0))
    replica.recover(set(range(logs.partitions)))
    return logs_last_records(logs, replica)


def logs_last_records(logs: Logs, repairer: Replica) -> dict[SnapshotKey, Totals]:
    """The last record of each key, after `repairer` has written again what was out of order."""
    found: dict[SnapshotKey, Totals] = {}
    flushes = repairer.take_flush()
    for partition in range(logs.partitions):
        records = [(record.key, record.value) for record in logs.changes(partition, 0)]
        if partition in flushes:
            records += flushes[partition].entries
        for key, value in records:
            snapshot = decode_snapshot(key, value)
            if snapshot is None:
                continue
            if snapshot.totals is None:
                found.pop(snapshot.key, None)
            else:
                found[snapshot.key] = snapshot.totals
    return found
