"""Pure topic handlers: how each topic's messages become batch entries, and those become inserts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from meterline.backends.kafka.config import Record
from meterline.schemas.spend import newer
from meterline.schemas.tables import CONTROL_RECORDS, PERSONS, USAGE_BATCHES, TableName
from meterline.schemas.topics import KEPT_TOPICS, Topic
from meterline.sinks.core.batch import Poison, SinkBatch, SinkBatchEntry
from meterline.sinks.core.control_rows import (
    ROW_TOPICS,
    DeadLetterRows,
    RecordError,
    Row,
    SpendWindow,
    TopicPosition,
    dead_letter,
    dead_letters_block,
    record_row,
    rows_block,
    spend_block,
    spend_window,
)
from meterline.sinks.core.personal_data import PersonalData, personal_data_rows
from meterline.sinks.core.rollup_invalidations import (
    RollupInvalidation,
    buckets_of,
    buckets_of_identities,
    invalidations_block,
)
from meterline.sinks.core.usage_rows import (
    Block,
    Rate,
    UsageRows,
    retraction_block,
    usage_block,
    usage_rows,
)
from meterline.sinks.core.versions import first_version


class TableBlock(NamedTuple):
    """One insert."""

    table: TableName
    block: Block


class TopicHandler(Protocol):
    """Turns the messages of one topic into inserts."""

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Add a message's entry, or its poison, to the batch."""

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """The inserts that store the entries, in order."""


def _position(record: Record) -> Hashable:
    return record.partition, record.offset


def _source(record: Record) -> str:
    return f"{record.topic}-{record.partition}"


@dataclass(frozen=True, slots=True)
class UsageHandler:
    """usage.events: up to 500 rows a message."""

    epoch: int
    rate: Rate

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Decode, check and rate the events of one message."""
        rows = usage_rows(
            record.value,
            record.timestamp_ms,
            record.partition,
            record.offset,
            self.epoch,
            self.rate,
        )
        if rows is None:
            return
        for each in rows.unstorable:
            detail = "its cost does not fit into the table"
            batch.refuse(Poison(record, each.index, detail, each.event_id, each.original))
        if rows.rows:
            batch.add(SinkBatchEntry(record, rows, rows.rows), _position(record))

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """Personal data, the events, the roll-up invalidations, then the batches.

        A stored batch has all its events, and a roll-up that has read an invalidation has read the
        rows. A crash in between commits nothing, so all are written again.
        """
        messages: list[UsageRows] = [entry.item for entry in entries]
        invalidations = invalidations_block(
            self.epoch,
            (
                RollupInvalidation(
                    buckets_of(entry.item), _source(entry.record), entry.record.offset
                )
                for entry in entries
            ),
        )
        blocks = [
            TableBlock(TableName.USAGE_EVENTS, usage_block(messages)),
            TableBlock(TableName.USAGE_CHANGES, invalidations),
        ]
        personal_data = frozenset[PersonalData]().union(
            *(message.personal_data for message in messages)
        )
        if personal_data:
            seen_ms = max(max(message.columns["event_time"]) for message in messages)
            rows = personal_data_rows(personal_data, seen_ms)
            blocks.insert(0, TableBlock(TableName.PERSONS, rows_block(PERSONS, rows)))
        batches = [batch_row(entry, self.epoch) for entry in entries if entry.item.lane]
        if batches:
            blocks.append(TableBlock(TableName.USAGE_BATCHES, rows_block(USAGE_BATCHES, batches)))
        return blocks


@dataclass(frozen=True, slots=True)
class SpendHandler:
    """spend.snapshots: absolute totals, of which only the newest of a key is stored."""

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Keep the newest per key."""
        try:
            window = spend_window(record.key, record.value)
        except RecordError as error:
            batch.refuse(Poison(record, -1, str(error)))
            return
        if window is None:
            return
        old = batch.entries.get(window.key)
        # A stopped worker's late write may follow the newer value.
        if old is None or newer(window.totals, old.item.totals):
            batch.add(SinkBatchEntry(record, window, 1), window.key)

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """One block of spend_windows."""
        windows: list[SpendWindow] = [entry.item for entry in entries]
        return [TableBlock(TableName.SPEND_WINDOWS, spend_block(windows))]


@dataclass(frozen=True, slots=True)
class RowHandler:
    """A topic in which one record is one row."""

    topic: Topic
    epoch: int

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Decode a record; one that cannot be decoded is poison."""
        try:
            row = record_row(self.topic, record.value, TopicPosition(self.epoch, record.offset))
        except RecordError as error:
            batch.refuse(Poison(record, -1, str(error)))
            return
        if row is not None:
            batch.add(SinkBatchEntry(record, row, 1), _position(record))

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """One block of the topic's table, and the records themselves if they are kept."""
        table = ROW_TOPICS[self.topic].table
        rows: list[Row] = [entry.item for entry in entries]
        blocks = [TableBlock(table.name, rows_block(table, rows))]
        if self.topic in KEPT_TOPICS:
            blocks.append(control_records_block(self.topic, entries, self.epoch))
        return blocks


@dataclass(frozen=True, slots=True)
class CompactedTopicHandler:
    """A topic of which only the newest record of each key is kept."""

    topic: Topic
    epoch: int

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Keep every record that has a key, tombstones included."""
        if record.key is None:
            batch.refuse(Poison(record, -1, "a record without a key"))
            return
        batch.add(SinkBatchEntry(record, None, 1), _position(record))

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """One block of control_records."""
        return [control_records_block(self.topic, entries, self.epoch)]


def control_records_block(
    topic: Topic, entries: Sequence[SinkBatchEntry], epoch: int
) -> TableBlock:
    """The records byte for byte, to be published again if the log is lost."""
    rows: list[Row] = [
        (
            topic.value,
            entry.record.key or b"",
            entry.record.value or b"",
            int(entry.record.value is None),
            entry.record.timestamp_ms,
            TopicPosition(epoch, entry.record.offset).version,
        )
        for entry in entries
    ]
    return TableBlock(TableName.CONTROL_RECORDS, rows_block(CONTROL_RECORDS, rows))


def batch_row(entry: SinkBatchEntry, epoch: int) -> Row:
    """A row of usage_batches."""
    record, item, rows = entry
    return (
        item.lane,
        item.seq,
        record.partition,
        record.timestamp_ms,
        rows,
        first_version(epoch, record.offset),
    )


@dataclass(slots=True)
class DeadLetterHandler:
    """usage.dead-letter: a row for operators, and for some reasons rows retracted."""

    epoch: int
    unreadable: list[str] = field(default_factory=list)
    """Source positions whose rows could not be retracted; the writer logs and removes them."""

    def take(self, batch: SinkBatch, record: Record) -> None:
        """Decode the dead letter, and the original where rows must be retracted."""
        try:
            rows = dead_letter(record.value, TopicPosition(self.epoch, record.offset))
        except RecordError as error:
            batch.refuse(Poison(record, -1, str(error)))
            return
        if rows is None:
            return
        if rows.unreadable:
            self.unreadable.append((record.key or b"").decode(errors="replace"))
        batch.add(SinkBatchEntry(record, rows, 1 + len(rows.retracted)), _position(record))

    def blocks(self, entries: Sequence[SinkBatchEntry]) -> list[TableBlock]:
        """Retractions and their invalidations first: a stored dead letter has taken effect."""
        dead_letters: list[DeadLetterRows] = [entry.item for entry in entries]
        identities = [each for rows in dead_letters for each in rows.retracted]
        blocks = []
        if identities:
            invalidations = invalidations_block(
                self.epoch,
                (
                    RollupInvalidation(
                        buckets_of_identities(entry.item.retracted),
                        _source(entry.record),
                        entry.record.offset,
                    )
                    for entry in entries
                    if entry.item.retracted
                ),
            )
            blocks.append(TableBlock(TableName.USAGE_EVENTS, retraction_block(identities)))
            blocks.append(TableBlock(TableName.USAGE_CHANGES, invalidations))
        return [*blocks, TableBlock(TableName.DEAD_LETTERS, dead_letters_block(dead_letters))]


def topic_handlers(epoch: int, rate: Rate) -> Mapping[Topic, TopicHandler]:
    """The handler of every topic that the sink reads."""
    return {
        Topic.USAGE_EVENTS: UsageHandler(epoch, rate),
        Topic.SPEND_SNAPSHOTS: SpendHandler(),
        Topic.DEAD_LETTERS: DeadLetterHandler(epoch),
        **{topic: RowHandler(topic, epoch) for topic in ROW_TOPICS},
        Topic.POLICIES: CompactedTopicHandler(Topic.POLICIES, epoch),
    }
