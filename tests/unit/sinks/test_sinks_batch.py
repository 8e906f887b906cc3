"""Batches: bounds, coalescing, tokens, bisecting, rebalances."""

from collections.abc import Sequence

import pytest

from meterline.backends.kafka.config import Record, TopicPartition
from meterline.sinks.core.batch import (
    FlushPolicy,
    FlushReason,
    Poison,
    SinkBatch,
    SinkBatchEntry,
    TooManyRefusedError,
    dedup_token,
    flush_reason,
    insert_bisecting,
)

POLICY = FlushPolicy(rows_max=10, bytes_max=100, age_ms_max=500)


def record(offset: int, value: bytes = b"v", partition: int = 0) -> Record:
    return Record("t", partition, offset, 1_000, None, value)


def entry(offset: int, value: bytes = b"v", rows: int = 1, partition: int = 0) -> SinkBatchEntry:
    return SinkBatchEntry(record(offset, value, partition), None, rows)


def batch_of(*entries: SinkBatchEntry) -> SinkBatch:
    batch = SinkBatch("t")
    for each in entries:
        batch.read(each.record, 1_000)
        batch.add(each, (each.record.partition, each.record.offset))
    return batch


@pytest.mark.parametrize(
    ("batch", "now_ms", "reason"),
    [
        (SinkBatch("t"), 9_999_999, FlushReason.NONE),
        (batch_of(entry(0)), 1_499, FlushReason.NONE),
        (batch_of(entry(0)), 1_500, FlushReason.AGE),
        (batch_of(entry(0, rows=10)), 1_000, FlushReason.ROWS),
        (batch_of(entry(0, b"x" * 100)), 1_000, FlushReason.BYTES),
    ],
)
def test_flush_reason(batch: SinkBatch, now_ms: int, reason: FlushReason) -> None:
    """Each bound alone writes the batch, and an empty batch is never written."""
    assert flush_reason(POLICY, batch, now_ms) is reason


def test_offsets_cover_what_was_read() -> None:
    """A record without rows still moves the offset, so that it is committed and not read again."""
    batch = batch_of(entry(4), entry(7, partition=1))
    batch.read(record(9), 1_001)
    assert batch.offsets == {TopicPartition("t", 0): 10, TopicPartition("t", 1): 8}


def test_same_key_replaces() -> None:
    """The later entry of a key replaces the earlier one, and rows and bytes follow."""
    batch = SinkBatch("t")
    for offset, value in enumerate([b"long value", b"short"]):
        batch.read(record(offset, value), 1_000)
        batch.add(entry(offset, value), "key")
    assert [each.record.offset for each in batch.entries.values()] == [1]
    assert (batch.rows, batch.bytes) == (1, 5)


def test_forget_drops_only_revoked_partitions() -> None:
    """After a rebalance nothing of a lost partition is written or committed, the rest is kept."""
    batch = batch_of(entry(4), entry(7, b"abc", partition=1))
    batch.refuse(Poison(record(5), -1, "bad"))
    batch.forget([TopicPartition("t", 0), TopicPartition("other", 1)])
    assert batch.offsets == {TopicPartition("t", 1): 8}
    assert [each.record.offset for each in batch.entries.values()] == [7]
    assert (batch.poison, batch.rows, batch.bytes) == ([], 1, 3)


def test_forget_everything_makes_the_batch_empty() -> None:
    """A batch whose partitions are all gone has nothing to write."""
    batch = batch_of(entry(4))
    batch.forget([TopicPartition("t", 0)])
    assert not batch
    assert flush_reason(POLICY, batch, 9_999_999) is FlushReason.NONE


def test_token_names_place_and_content() -> None:
    """The same messages have the same token; another offset, value, partition or epoch has not."""
    base = dedup_token(0, [entry(1, b"a"), entry(2, b"b")])
    assert base == dedup_token(0, [entry(1, b"a"), entry(2, b"b")])
    assert base.startswith("t/0/0:1-2/")
    others = [
        dedup_token(1, [entry(1, b"a"), entry(2, b"b")]),
        dedup_token(0, [entry(1, b"a"), entry(2, b"c")]),
        dedup_token(0, [entry(1, b"a"), entry(3, b"b")]),
        dedup_token(0, [entry(1, b"a"), entry(2, b"b", partition=1)]),
        dedup_token(0, [entry(1, b"ab"), entry(2, b"")]),
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize("bad", [set(), {0}, {9}, {4, 5}, {0, 3, 9}, set(range(10))])
def test_bisecting_isolates_the_bad(bad: set[int]) -> None:
    """Exactly the bad messages are refused and every other one is inserted, in order."""
    stored: list[int] = []

    def insert(part: Sequence[SinkBatchEntry]) -> str | None:
        offsets = [each.record.offset for each in part]
        if bad & set(offsets):
            return "bad row"
        stored.extend(offsets)
        return None

    refusals = insert_bisecting([entry(offset) for offset in range(10)], insert, refused_max=10)
    assert {each.entry.record.offset for each in refusals} == bad
    assert stored == [offset for offset in range(10) if offset not in bad]


def test_bisecting_gives_up_when_all_is_refused() -> None:
    """A table that refuses everything stops the sink instead of dead-lettering the whole log."""
    with pytest.raises(TooManyRefusedError, match="no such column"):
        insert_bisecting([entry(n) for n in range(100)], lambda _: "no such column", refused_max=3)
