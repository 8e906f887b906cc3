"""What must be counted, in plain dictionaries, and what the workers may write about it.

Every usage log is added up as it is written, one prefix sum per offset. Hence each single record
of the changelog can be judged at the moment it is written: its value must be the prefix sum at
its own tag, whichever worker wrote it. A state record says more: that everything up to its offset is there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import NamedTuple

from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import WindowKind
from meterline.schemas.reasons import RejectReason
from meterline.schemas.scopes import scopes_of
from meterline.schemas.spend import SnapshotKey, Totals
from meterline.schemas.usage import FUTURE_TOLERANCE_MS, UsageEvent
from meterline.streams.core.entries import Retention
from tests.streams_model import CALENDAR, rate


class AuditError(AssertionError):
    """The system did what it promises never to do."""


class Parcel(NamedTuple):
    """A message as its producer knows it: the auditor decodes nothing."""

    partition: int
    lane: str
    seq: int
    events: tuple[UsageEvent, ...]
    """Empty for rubbish."""
    value: bytes


Sums = tuple[int, int, int, int, int]
"""Cost in nano-USD, input tokens, output tokens, events, unpriced events."""
WindowKey = tuple[int, str, str, int]
"""Partition, scope, window kind, window start."""
NOTHING: Sums = (0, 0, 0, 0, 0)


class LedgerAudit:
    """The truth about counting."""

    def __init__(self) -> None:
        self.owed: set[str] = set()
        """Ids of events that a relay has in its spool or has sent."""
        self.counted: set[str] = set()
        self.in_order: dict[int, list[UsageEvent]] = defaultdict(list)
        """The counted events of each partition, in the order of its log."""
        self.dead_letters: set[tuple[int, int, int, str]] = set()
        """Dead letters that must be there: partition, offset, index, reason."""
        self.written_dead_letters: set[tuple[int, int, int, str]] = set()
        self.best: dict[SnapshotKey, Totals] = {}
        """The newest snapshot of each key by its tag, as any reader has it."""
        self._bodies: dict[tuple[int, str], UsageEvent] = {}
        self._had: dict[str, set[int]] = defaultdict(set)
        self._offsets: dict[WindowKey, list[int]] = defaultdict(list)
        self._prefixes: dict[WindowKey, list[Sums]] = defaultdict(list)
        self._changes: dict[int, list[tuple[int, WindowKey]]] = defaultdict(list)
        self._covered: dict[int, int] = defaultdict(int)
        self._watermark_ms: dict[int, int] = defaultdict(int)
        self._loose: set[WindowKey] = set()
        """Windows whose retention may be over: they may be dropped, and late events with them."""
        self.durable: dict[int, int] = defaultdict(lambda: -1)
        """Per partition the greatest offset that a state record says is durable."""

    # -- the truth

    def appended(self, parcel: Parcel, offset: int, timestamp_ms: int) -> None:
        """A message got its place in the log."""
        partition = parcel.partition
        self._watermark_ms[partition] = max(self._watermark_ms[partition], timestamp_ms)
        if not parcel.events:
            self._expect(parcel, offset, -1, RejectReason.MALFORMED_JSON)
            return
        if parcel.lane:
            had = self._had[parcel.lane]
            if parcel.seq in had:
                return
            had.add(parcel.seq)
        for index, event in enumerate(parcel.events):
            if event.time_ms > timestamp_ms + FUTURE_TOLERANCE_MS:
                self._expect(parcel, offset, -1, RejectReason.FUTURE_TIME)
                continue
            before = self._bodies.get((partition, event.id))
            if before is None:
                self._bodies[partition, event.id] = event
                self.counted.add(event.id)
                self.in_order[partition].append(event)
                self._add(partition, offset, event)
            elif before != event:
                self._expect(parcel, offset, index if parcel.lane else -1, RejectReason.CONFLICT)

    def _expect(self, parcel: Parcel, offset: int, index: int, reason: RejectReason) -> None:
        self.dead_letters.add((parcel.partition, offset, index, reason.value))

    def _add(self, partition: int, offset: int, event: UsageEvent) -> None:
        cost, priced = rate(event)
        retention = Retention()
        names = (event.organisation, event.department, event.project, event.user, event.key)
        for window in CALENDAR.windows(event.time_ms):
            over_ms = window.end_ms + retention.of(window.kind)
            for scope in scopes_of(*names):
                key = (partition, scope, window.kind.value, window.start_ms)
                had = self.sums(key)
                now = (
                    had[0] + cost,
                    had[1] + event.input_tokens,
                    had[2] + event.output_tokens,
                    had[3] + 1,
                    had[4] + (not priced),
                )
                if over_ms <= self._watermark_ms[partition]:
                    self._loose.add(key)
                offsets, prefixes = self._offsets[key], self._prefixes[key]
                if offsets and offsets[-1] == offset:
                    prefixes[-1] = now
                else:
                    offsets.append(offset)
                    prefixes.append(now)
                    self._changes[partition].append((offset, key))

    def sums(self, key: WindowKey) -> Sums:
        """All that was counted in one shard's window."""
        prefixes = self._prefixes.get(key)
        return prefixes[-1] if prefixes else NOTHING

    def total(self, scope: str, kind: WindowKind, start_ms: int, partitions: int) -> Sums:
        """All that was counted in a window, over all partitions."""
        shards = [self.sums((part, scope, kind.value, start_ms)) for part in range(partitions)]
        return tuple(map(sum, zip(*shards, strict=True)))  # type: ignore[return-value]

    # -- what workers write

    def snapshot_written(self, key: SnapshotKey, totals: Totals | None) -> None:
        """A value must be the prefix sum at its own tag, a tombstone that of an old window."""
        name = (int(key.shard), key.scope, key.kind, key.start_ms)
        if totals is None:
            self._tombstone(name)
            self.best.pop(key, None)
            return
        known = self.best.get(key)
        if known is None or (totals.epoch, totals.offset) > (known.epoch, known.offset):
            self.best[key] = totals
        if name in self._loose:
            return
        at = bisect_right(self._offsets.get(name, []), totals.offset)
        wanted = self._prefixes[name][at - 1] if at else NOTHING
        if (found := _sums(totals)) != wanted:
            raise AuditError(f"{name} at offset {totals.offset}: written {found}, true {wanted}")

    def _tombstone(self, name: WindowKey) -> None:
        partition, _, kind, start_ms = name
        window = CALENDAR.window(WindowKind(kind), start_ms)
        kept_ms = Retention().of(window.kind)
        if self._watermark_ms[partition] < window.end_ms + kept_ms:
            raise AuditError(f"{name} was dropped before its retention was over")
        self._loose.add(name)

    def state_written(self, partition: int, offset: int) -> None:
        """Everything up to the state's offset must be in the changelog already."""
        changes = self._changes[partition]
        at = self._covered[partition]
        while at < len(changes) and changes[at][0] <= offset:
            changed, name = changes[at]
            _, scope, kind, start_ms = name
            written = self.best.get(SnapshotKey(scope, kind, start_ms, str(partition)))
            if name not in self._loose and (written is None or written.offset < changed):
                raise AuditError(f"state says {offset} is durable, {name} at {changed} is not")
            at += 1
        self._covered[partition] = at
        self.durable[partition] = max(self.durable[partition], offset)

    def committed(self, partition: int, offset: int) -> None:
        """Only what is durable may be committed; `offset` is the next one to read."""
        if offset - 1 > self.durable[partition]:
            raise AuditError(f"offset {offset} of {partition} committed, not durable")

    def dead_letter_written(self, letter: DeadLetter) -> None:
        """A dead letter must be one of the truth's."""
        # A message that is no batch is refused as a whole: its index is not compared.
        index = letter.index if letter.lane else -1
        name = (letter.partition, letter.offset, index, letter.reason.value)
        if name not in self.dead_letters:
            raise AuditError(f"dead letter {name} ({letter.detail}) has no source")
        self.written_dead_letters.add(name)

    # -- after everything was drained

    def settled(self, owed_now: set[str]) -> None:
        """Nothing is missing: events, totals, dead letters.

        Args:
            owed_now: ids of events that wait in spools.
        """
        missing = self.owed - self.counted - owed_now
        if missing:
            raise AuditError(f"events never counted: {sorted(missing)[:3]}")
        if missing_dead_letters := self.dead_letters - self.written_dead_letters:
            raise AuditError(f"dead letters never written: {sorted(missing_dead_letters)[:3]}")
        self.compare(self.best, "readers of the snapshots have")

    def compare(self, found: dict[SnapshotKey, Totals], who: str) -> None:
        """Every window of the truth, and no other, with its exact sums."""
        for key, prefixes in self._prefixes.items():
            partition, scope, kind, start_ms = key
            totals = found.get(SnapshotKey(scope, kind, start_ms, str(partition)))
            if key in self._loose:
                continue
            if totals is None or _sums(totals) != prefixes[-1]:
                has = None if totals is None else _sums(totals)
                raise AuditError(f"{who} {has} of {key}, true is {prefixes[-1]}")
        for one in found:
            if (int(one.shard), one.scope, one.kind, one.start_ms) not in self._prefixes:
                raise AuditError(f"{who} {one}, which was not spent")


def _sums(totals: Totals) -> Sums:
    return (
        totals.cost_nano_usd,
        totals.input_tokens,
        totals.output_tokens,
        totals.events,
        totals.unpriced_events,
    )
