"""Writes one batch: ClickHouse first, then dead letters; retries until both have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import structlog

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.backends.clickhouse.errors import ClickHouseRefusedError, ClickHouseUnavailableError
from meterline.backends.failpoints import Failpoints, SinkFailpoint
from meterline.backends.kafka.config import Record
from meterline.backends.kafka.errors import BrokerUnavailableError, MessageRefusedError
from meterline.backends.kafka.producer import Producer
from meterline.schemas.dead_letter import DeadLetter, encode_dead_letter, encode_original
from meterline.schemas.errors import MeterlineError
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.reasons import RejectReason
from meterline.schemas.topics import Topic
from meterline.sinks.core.batch import (
    Poison,
    SinkBatch,
    SinkBatchEntry,
    TooManyRefusedError,
    dedup_token,
    insert_bisecting,
)
from meterline.sinks.core.handlers import DeadLetterHandler, TopicHandler
from meterline.sinks.settings import SinkSettings

_log = structlog.get_logger("sink")

Hold: TypeAlias = Callable[[float], None]
"""Wait for that many seconds; raises StoppedError when the sink is asked to stop."""

# A dead letter's acknowledgement by a live broker takes milliseconds.
DEAD_LETTER_FLUSH_SECONDS_MAX = 10.0


class SinkError(MeterlineError):
    """The sink cannot continue; the message names the remedy."""


class Backoff:
    """Waits that double between two bounds."""

    def __init__(self, settings: SinkSettings) -> None:
        """Start with the shortest wait."""
        self._settings = settings
        self._next_ms = settings.retry_ms_min

    def next_seconds(self) -> float:
        """Seconds to wait before the next attempt."""
        wait_ms = self._next_ms
        self._next_ms = min(wait_ms * 2, self._settings.retry_ms_max)
        return wait_ms / 1000


class BatchWriter:
    """Stores batches; used by one thread."""

    def __init__(
        self,
        settings: SinkSettings,
        client: Client,
        producer: Callable[[], Producer],
        meter: Meter,
        failpoints: Failpoints[SinkFailpoint],
    ) -> None:
        """Create a writer; the broker is connected when the first dead letter needs it.

        Args:
            settings: bounds and waits.
            client: the store.
            producer: opens the producer of dead letters, when the first is needed.
            meter: where rows and retries are counted.
            failpoints: test only.
        """
        self._settings = settings
        self._client = client
        self._open_producer = producer
        self._producer: Producer | None = None
        self._meter = meter
        self._failpoints = failpoints

    def write(self, batch: SinkBatch, handler: TopicHandler, hold: Hold) -> None:
        """Store a batch; when it returns, its offsets may be committed.

        Steps, each repeated until it succeeds:

        1. Insert all entries. Repeats are harmless: a token recognises the same insert, and where
           the batches are cut differently after a crash, equal rows replace each other.
           Messages that ClickHouse refuses are found by bisecting; the others are stored.
        2. Dead letters for what cannot be stored, acknowledged by the broker. Their key is the
           source position, so a repeat is recognisable.

        Raises:
            SinkError: ClickHouse refuses more messages than `refused_messages_max`.
            ClickHouseError, KafkaClientError: an error that no retry helps against.
        """
        self._failpoints.hit(SinkFailpoint.BEFORE_INSERT)
        entries = list(batch.entries.values())
        poison = list(batch.poison)
        if entries:
            poison += self._insert(entries, handler, hold)
        if isinstance(handler, DeadLetterHandler):
            self._log_unreadable(handler)
        self._failpoints.hit(SinkFailpoint.AFTER_INSERT)
        if poison:
            self._send_dead_letters(poison, hold)
            self._failpoints.hit(SinkFailpoint.AFTER_DEAD_LETTERS)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._producer is not None:
            self._producer.close()

    def _insert(
        self, entries: Sequence[SinkBatchEntry], handler: TopicHandler, hold: Hold
    ) -> list[Poison]:
        try:
            refusals = insert_bisecting(
                entries,
                lambda part: self._insert_part(part, handler, hold),
                self._settings.refused_messages_max,
            )
        except TooManyRefusedError as error:
            message = (
                f"ClickHouse refuses more than {self._settings.refused_messages_max} messages of "
                f"one batch: {error}; check the tables with `meterline migrate`, then restart"
            )
            raise SinkError(message) from error
        return [Poison(each.entry.record, -1, each.detail) for each in refusals]

    def _insert_part(
        self, part: Sequence[SinkBatchEntry], handler: TopicHandler, hold: Hold
    ) -> str | None:
        token = dedup_token(self._settings.epoch, part)
        try:
            blocks = handler.blocks(part)
            for table, block in blocks:
                columns = [InsertColumn(*column) for column in block.columns]

                def insert(
                    table: str = table,
                    columns: list[InsertColumn] = columns,
                    data: Sequence[Sequence[object]] = block.data,
                ) -> None:
                    self._client.insert(table, columns, data, token)

                self._until_available(insert, hold)
                self._meter.count(Metric.ROWS, block.rows, reason=table)
        except ClickHouseRefusedError as error:
            return str(error)
        return None

    def _until_available(self, effect: Callable[[], None], hold: Hold) -> None:
        backoff = Backoff(self._settings)
        waited = False
        while True:
            try:
                effect()
            except (ClickHouseUnavailableError, BrokerUnavailableError) as error:
                if not waited:
                    _log.warning("sink.waiting", reason=str(error))
                waited = True
                self._meter.count(Metric.INSERT_RETRIES)
                hold(backoff.next_seconds())
            else:
                if waited:
                    _log.info("sink.resumed")
                return

    def _send_dead_letters(self, poison: Sequence[Poison], hold: Hold) -> None:
        def send() -> None:
            if self._producer is None:
                self._producer = self._open_producer()
            for each in poison:
                self._send(self._producer, dead_letter_of(each))
            self._producer.flush(DEAD_LETTER_FLUSH_SECONDS_MAX)

        self._until_available(send, hold)
        for each in poison:
            position = f"{each.record.topic}-{each.record.partition}-{each.record.offset}"
            _log.error("sink.refused", position=position, index=each.index, detail=each.detail)
        self._meter.count(Metric.REJECTS, len(poison), reason=RejectReason.NOT_STORABLE.value)

    def _send(self, producer: Producer, letter: DeadLetter) -> None:
        try:
            producer.send(
                Topic.DEAD_LETTERS.value, letter.key().encode(), encode_dead_letter(letter)
            )
        except MessageRefusedError as error:
            # ORIGINAL_BYTES_MAX keeps dead letters far below the broker's limit.
            message = f"the broker refuses a dead letter: {error}; run `meterline topics apply`"
            raise SinkError(message) from error

    def _log_unreadable(self, handler: DeadLetterHandler) -> None:
        # One by one: the sink's thread adds to it meanwhile.
        while handler.unreadable:
            _log.error("sink.retraction_unreadable", dead_letter=handler.unreadable.pop())


def dead_letter_of(poison: Poison) -> DeadLetter:
    """The dead letter of what cannot be stored."""
    record: Record = poison.record
    original = record.value or b"" if poison.original is None else poison.original
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        index=poison.index,
        reason=RejectReason.NOT_STORABLE,
        detail=poison.detail,
        event_id=poison.event_id,
        timestamp_ms=record.timestamp_ms,
        original_base64=encode_original(original),
    )
