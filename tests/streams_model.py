"""One partition's log, worker processes and changelog in memory, for tests of exact counting.

A `Process` is a worker: it recovers from the changelog, applies messages and flushes; a crash is
to stop using it. `truth` recomputes with plain dictionaries what must come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from meterline.schemas.codec import UsageMessage, decode_usage
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import Calendar
from meterline.schemas.scopes import scopes_of
from meterline.schemas.spend import SnapshotKey, Totals, decode_snapshot, newer
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.streams.core.changelog import LedgerFactory, Replica
from meterline.streams.core.ledger import FlushRecords, LedgerOutcome, LedgerPolicy, Record

PARTITION = 3
T0 = 1_790_000_000_000
CALENDAR = Calendar("Europe/Berlin")


def rate(event: UsageEvent) -> tuple[int, bool]:
    """A price that no two events share, so that a wrong sum shows."""
    return event.input_tokens * 1_000_003 + event.output_tokens * 7, event.model != "unknown"


class Message(NamedTuple):
    """One record of the source log."""

    value: bytes | None
    timestamp_ms: int


class Changelog(NamedTuple):
    """One record of the changelog."""

    partition: int
    key: bytes
    value: bytes | None


def event(number: int, *, body: int = 0, **fields: object) -> UsageEvent:
    """Event `number`; another `body` makes it a conflict."""
    common: dict[str, object] = {
        "id": f"request-{number}-1",
        "time_ms": T0 + number * 1_000,
        "organisation": "acme",
        "department": f"d-{number % 2}",
        "key": f"k-{number % 3}",
        "model": "gpt-4.1",
        "input_tokens": number + 1,
        "output_tokens": body,
    }
    return msgspec.convert({**common, **fields}, UsageEvent)


def batch(lane: str, seq: int, events: list[UsageEvent]) -> bytes:
    """The bytes of a batch."""
    return msgspec.json.encode(UsageBatch(lane=lane, seq=seq, events=tuple(events)))


def factory(**policy: object) -> LedgerFactory:
    """Ledgers with this policy."""
    options = {"source_topic": "usage.events", **policy}
    return LedgerFactory(msgspec.convert(options, LedgerPolicy), CALENDAR, rate)


@dataclass
class Process:
    """A worker process that owns the partition."""

    changelog: list[Changelog]
    new_ledger: LedgerFactory
    letters: list[DeadLetter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replica = Replica({}, self.new_ledger)
        self.replica.load(self.changelog)
        self.read = len(self.changelog)
        """How far it has read the changelog."""
        self.replica.recover({PARTITION})
        self.ledger = self.replica.ledgers[PARTITION]

    def rebalance(self, begin: int) -> None:
        """The partition is assigned to us again; Faust reads on from where it was, or earlier."""
        self.replica.forget({PARTITION})
        self.replica.load(self.changelog[begin:])
        self.read = len(self.changelog)
        self.replica.recover({PARTITION})
        self.ledger = self.replica.ledgers[PARTITION]

    def apply(self, log: list[Message], offset: int) -> LedgerOutcome:
        """Read one message, decoded as the worker does."""
        value, timestamp_ms = log[offset]
        outcome = self.ledger.apply(decode_usage(value, timestamp_ms), offset, timestamp_ms)
        self.letters += outcome.dead_letters
        return outcome

    def take(self) -> FlushRecords | None:
        """Encode a flush without writing it."""
        return self.replica.take_flush().get(PARTITION)

    def write(self, flush: FlushRecords, *, count: int | None = None, state: bool = True) -> None:
        """Write the first `count` entries (all by default), then the state record."""
        self.append(flush.entries[:count])
        if state:
            self.append([flush.state])

    def append(self, records: list[Record]) -> None:
        """Write to the changelog."""
        self.changelog += [Changelog(PARTITION, key, value) for key, value in records]

    def flush(self) -> None:
        """A whole flush."""
        flush = self.take()
        if flush is not None:
            self.write(flush)


def compacted(changelog: list[Changelog]) -> list[Changelog]:
    """What Kafka's compaction leaves: the last record of each key, at its place."""
    last = {record.key: position for position, record in enumerate(changelog)}
    return [record for position, record in enumerate(changelog) if last[record.key] == position]


def snapshots(changelog: list[Changelog]) -> dict[SnapshotKey, Totals]:
    """What a reader of spend.snapshots ends with: the newest by tag of each key."""
    best: dict[SnapshotKey, Totals] = {}
    for record in changelog:
        snapshot = decode_snapshot(record.key, record.value)
        if snapshot is None or snapshot.totals is None:
            continue
        present = best.get(snapshot.key)
        if present is None or newer(snapshot.totals, present):
            best[snapshot.key] = snapshot.totals
    return best


Sums = dict[tuple[str, str, int], tuple[int, int, int, int]]


def sums(found: dict[SnapshotKey, Totals]) -> Sums:
    """Cost, input tokens, events and unpriced events of each scope and window."""
    return {
        (key.scope, key.kind, key.start_ms): (
            totals.cost_nano_usd,
            totals.input_tokens,
            totals.events,
            totals.unpriced_events,
        )
        for key, totals in found.items()
    }


def truth(events: list[UsageEvent]) -> Sums:
    """The sums of these events, by plain addition."""
    out: Sums = {}
    for one in events:
        cost, priced = rate(one)
        for scope in scopes_of(one.organisation, one.department, one.project, one.user, one.key):
            for window in CALENDAR.windows(one.time_ms):
                key = (scope, window.kind.value, window.start_ms)
                had = out.get(key, (0, 0, 0, 0))
                out[key] = (
                    had[0] + cost,
                    had[1] + one.input_tokens,
                    had[2] + 1,
                    had[3] + (not priced),
                )
    return out


def accepted(log: list[Message]) -> list[UsageEvent]:
    """What must be counted, by the rules in words: each id once, with the body that came first;
    nothing of a batch whose sequence number its lane had already had."""
    seen: set[str] = set()
    had: dict[str, set[int]] = {}
    first: dict[str, int] = {}
    kept: list[UsageEvent] = []
    for value, timestamp_ms in log:
        message: UsageMessage = decode_usage(value, timestamp_ms)
        if message.lane:
            numbers = had.setdefault(message.lane, set())
            known = message.seq in numbers or message.seq < first.setdefault(
                message.lane, message.seq
            )
            if known:
                continue
            numbers.add(message.seq)
        for one in message.events:
            if one.id not in seen:
                seen.add(one.id)
                kept.append(one)
    return kept
