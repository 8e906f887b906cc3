"""Faust's Kafka transport with the four things it has no setting for.

- how long a fetch may wait at the broker (Faust: 1.5 s),
- an idempotent producer without transactions,
- a fetch that overtook an append is read again (`backends.kafka.gaps`),
- sending many records of one partition as batches: 8 us a record where `send` takes 150.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, gather
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]
from faust.transport.drivers import aiokafka as driver
from faust.types import AppT
from typing_extensions import override
from yarl import URL

from meterline.backends.kafka.gaps import GapWatch
from meterline.streams._driver_patches import (
    known_positions,
    own_thread_loop,
    set_fetch_wait,
)
from meterline.streams.core.ledger import Record

# The broker answers where a partition begins within milliseconds.
POSITION_WAIT_SECONDS = 0.01


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    _gaps: GapWatch | None = None

    @override
    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        assert isinstance(transport, SpendTransport)
        set_fetch_wait(consumer, transport.fetch_max_wait_ms)
        self._gaps = GapWatch() if transport.refetch_gaps else None
        return consumer

    @override
    async def _fetch_records(
        self, consumer: AIOKafkaConsumer, active_partitions: set[Any], *args: Any, **options: Any
    ) -> Any:
        """Fetch; without the records that overtook an append, which are then read again."""
        if self._gaps is None:
            return await super()._fetch_records(consumer, active_partitions, *args, **options)
        # What is missing follows only from the position before the fetch: a partition whose
        # position is not known yet is left to a later fetch.
        positions = known_positions(consumer)
        known = active_partitions & positions.keys()
        if not known:
            await asyncio.sleep(POSITION_WAIT_SECONDS)
            return {}
        fetched: Any = await super()._fetch_records(consumer, known, *args, **options)
        for partition, records in fetched.items():
            again = self._gaps.admit(partition, positions[partition], records)
            if again is not None:
                consumer.seek(partition, again)
        return {partition: records for partition, records in fetched.items() if records}


class SpendConsumer(driver.Consumer):
    """Faust's consumer with a fetch wait of its own and a faster event loop."""

    @override
    def _new_consumer_thread(self) -> _ConsumerThread:
        # Reading sockets takes a fifth of this thread under the standard loop, and it shares the
        # interpreter's lock with the counting.
        thread = _ConsumerThread(
            self, loop=self.loop, thread_loop=uvloop.new_event_loop(), beacon=self.beacon
        )
        own_thread_loop(thread)
        return thread


class SpendProducer(driver.Producer):
    """Faust's producer that can also send batches and wait until they are durable."""

    @override
    def _settings_extra(self) -> Mapping[str, Any]:
        transport = self.transport
        assert isinstance(transport, SpendTransport)
        return {"enable_idempotence": True} if transport.idempotent else {}

    async def write(self, topic: str, records: Mapping[int, Sequence[Record]]) -> None:
        """Write records to their partitions, in order; return when all are acknowledged.

        Raises:
            aiokafka.errors.KafkaError: the broker refused some, or did not answer in time.
        """
        await gather(*(self._write(topic, partition, rows) for partition, rows in records.items()))

    async def _write(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        producer = self._ensure_producer()
        sent: list[Future[Any]] = []
        batch = producer.create_batch()
        for key, value in records:
            if batch.append(key=key, value=value, timestamp=None) is None:
                sent.append(await _send(producer, batch, topic, partition))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        sent.append(await _send(producer, batch, topic, partition))
        for future in sent:
            await future

    async def write_keyed(self, topic: str, records: Sequence[Record]) -> None:
        """Write records to the partitions their keys choose; return when all are acknowledged.

        Raises:
            aiokafka.errors.KafkaError: as `write`.
        """
        producer = self._ensure_producer()
        sent = [await producer.send(topic, key=key, value=value) for key, value in records]
        for future in sent:
            await future


async def _send(producer: AIOKafkaProducer, batch: Any, topic: str, partition: int) -> Future[Any]:
    batch.close()
    future: Future[Any] = await producer.send_batch(batch, topic, partition=partition)
    return future


class SpendTransport(driver.Transport):
    """The transport of the streams app."""

    Consumer: ClassVar[type[SpendConsumer]] = SpendConsumer
    Producer: ClassVar[type[SpendProducer]] = SpendProducer

    def __init__(
        self,
        url: list[URL],
        app: AppT,
        *,
        fetch_max_wait_ms: int,
        idempotent: bool,
        refetch_gaps: bool,
    ) -> None:
        """Take the options that Faust's settings lack."""
        super().__init__(url, app)
        self.fetch_max_wait_ms = fetch_max_wait_ms
        self.idempotent = idempotent
        self.refetch_gaps = refetch_gaps
