"""Pure: what has been read and not yet written, and when a batch is due.

A batch holds whole Kafka messages of one topic. The offsets it covers may be committed when all of
its entries are in ClickHouse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import xxhash

from meterline.backends.kafka.config import Record, TopicPartition
from meterline.schemas.errors import MeterlineError


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Bounds of one batch; reaching any of them writes it."""

    rows_max: int
    bytes_max: int
    age_ms_max: int


class FlushReason(StrEnum):
    """Why a batch is written now, or NONE."""

    NONE = "none"
    ROWS = "rows"
    BYTES = "bytes"
    AGE = "age"
    SHUTDOWN = "shutdown"


class SinkBatchEntry(NamedTuple):
    """One Kafka message, decoded."""

    record: Record
    item: Any
    """The value that the topic's handler makes inserts of."""
    rows: int


@dataclass(frozen=True, slots=True)
class Poison:
    """A message, or one event of it, that cannot be stored."""

    record: Record
    index: int
    """Event inside the message; -1 for the whole message."""
    detail: str
    event_id: str = ""
    original: bytes | None = None
    """None: the record's value."""


class SinkBatch:
    """Entries of one topic, with the offsets they cover."""

    def __init__(self, topic: str) -> None:
        """Create an empty batch."""
        self.topic = topic
        self.entries: dict[Hashable, SinkBatchEntry] = {}
        self.poison: list[Poison] = []
        self.rows = 0
        self.bytes = 0
        self.began_ms = 0
        self._next: dict[TopicPartition, int] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to write or to commit."""
        return bool(self._next)

    def read(self, record: Record, now_ms: int) -> None:
        """Note that a message was read, whether it is stored or not."""
        if not self._next:
            self.began_ms = now_ms
        self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def add(self, entry: SinkBatchEntry, key: Hashable) -> None:
        """Add an entry; it replaces one with the same key."""
        old = self.entries.get(key)
        if old is not None:
            self.rows -= old.rows
            self.bytes -= _size(old.record)
        self.entries[key] = entry
        self.rows += entry.rows
        self.bytes += _size(entry.record)

    def refuse(self, poison: Poison) -> None:
        """Add a message that cannot be stored."""
        self.poison.append(poison)
        self.bytes += _size(poison.record)

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The next offset to read of each partition, once everything is written."""
        return dict(self._next)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drop the messages of partitions that another member owns now."""
        revoked = {each for each in partitions if each.topic == self.topic}
        if not revoked & self._next.keys():
            return
        self._next = {each: offset for each, offset in self._next.items() if each not in revoked}
        kept = {
            key: entry for key, entry in self.entries.items() if _partition(entry) not in revoked
        }
        self.poison = [each for each in self.poison if _partition(each) not in revoked]
        self.entries, self.rows, self.bytes = {}, 0, sum(_size(e.record) for e in self.poison)
        for key, entry in kept.items():
            self.add(entry, key)


def flush_reason(policy: FlushPolicy, batch: SinkBatch, now_ms: int) -> FlushReason:
    """Whether to write the batch now."""
    if not batch:
        return FlushReason.NONE
    if batch.rows >= policy.rows_max:
        return FlushReason.ROWS
    if batch.bytes >= policy.bytes_max:
        return FlushReason.BYTES
    if now_ms - batch.began_ms >= policy.age_ms_max:
        return FlushReason.AGE
    return FlushReason.NONE


def dedup_token(epoch: int, entries: Sequence[SinkBatchEntry]) -> str:
    """Name the content of an insert: topic, partitions with first and last offset, and a digest.

    The digest and the epoch are there because offsets begin again when a log is lost: without them
    ClickHouse would take new rows for a repetition of old ones and drop them.
    """
    ranges: dict[int, tuple[int, int]] = {}
    digest = xxhash.xxh3_128()
    for record, _, _ in entries:
        first, last = ranges.get(record.partition, (record.offset, record.offset))
        ranges[record.partition] = (min(first, record.offset), max(last, record.offset))
        digest.update(f"{record.partition}/{record.offset}/".encode())
        digest.update(record.value or b"")
    spans = ",".join(f"{each}:{first}-{last}" for each, (first, last) in sorted(ranges.items()))
    return f"{entries[0].record.topic}/{epoch}/{spans}/{digest.hexdigest()}"


class RefusedEntry(NamedTuple):
    """An entry that is refused even alone."""

    entry: SinkBatchEntry
    detail: str


def halves(
    entries: Sequence[SinkBatchEntry],
) -> tuple[Sequence[SinkBatchEntry], Sequence[SinkBatchEntry]]:
    """Split a refused batch to find the entry that is refused."""
    middle = len(entries) // 2
    return entries[:middle], entries[middle:]


Insert = Callable[[Sequence[SinkBatchEntry]], str | None]
"""Insert entries; None if they are stored, else why they are refused."""


class TooManyRefusedError(MeterlineError):
    """More messages are refused than poison messages explain: the tables are wrong."""


def insert_bisecting(
    entries: Sequence[SinkBatchEntry], insert: Insert, refused_max: int
) -> list[RefusedEntry]:
    """Insert everything that can be; the rest with reasons.

    A refused insert is split until the refused messages stand alone: one poison message among n
    costs about 2 log2(n) inserts.

    Raises:
        TooManyRefusedError: more than `refused_max`; its text is the last reason.
    """
    refusals: list[RefusedEntry] = []
    waiting = [entries]
    while waiting:
        part = waiting.pop()
        detail = insert(part)
        if detail is None:
            continue
        if len(part) == 1:
            refusals.append(RefusedEntry(part[0], detail))
            if len(refusals) > refused_max:
                raise TooManyRefusedError(detail)
            continue
        left, right = halves(part)
        # The left half first, so that messages are inserted in their order.
        waiting += [right, left]
    return refusals


def _partition(entry: SinkBatchEntry | Poison) -> TopicPartition:
    return TopicPartition(entry.record.topic, entry.record.partition)


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")
