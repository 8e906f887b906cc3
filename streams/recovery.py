"""Recovery of the spend table: the changelog read in bulk, to its true end.

Faust reads a changelog record by record through a queue: 3,700 records a second, where a flush
writes up to 38,000. This one reads with a consumer of its own (210,000 a second) before Faust looks
whether anything is left, and goes to the high watermark of the fetch replies, because
`ListOffsets` of the embedded broker stops short of the last batch's end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from faust.app import App
from faust.tables.recovery import Recovery, ServiceStopped
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list
from faust.types import TP, ConsumerT
from mode import Seconds
from mode.services import WaitArgT
from typing_extensions import override

from meterline.schemas.errors import MeterlineError
from meterline.streams.tables import SpendTable

log = structlog.get_logger()

# The event loop runs other tasks (heartbeats, self-fence) after this many records, about 25 ms.
RECORDS_PER_POLL_MAX = 5_000
POLL_TIMEOUT_MS = 50
FETCH_BYTES_MAX = 4 * 1024 * 1024
STEP_SECONDS_MAX = 900.0
"""The longest step of a recovery. Ten million entries load in less on a quiet machine; a broker
that sends nothing ends it sooner, by the stall. Beyond it the worker ends, its successor tries."""


class RecoveryStalledError(MeterlineError, RuntimeError):
    """The broker sent no changelog records for too long, or a step took too long."""


class BulkRecovery(Recovery):
    """Loads the changelog by itself when Faust asks for the offsets to start from."""

    def __init__(
        self, app: App, *, table: SpendTable, stall_ms: int, fetch_max_wait_ms: int
    ) -> None:
        """Recover `table`; fail after `stall_ms` without progress."""
        super().__init__(app, app.tables, beacon=app.tables.beacon)
        self._table = table
        self._stall_seconds = stall_ms / 1000
        self._fetch_max_wait_ms = fetch_max_wait_ms

    @override
    async def _wait(self, coro: WaitArgT, timeout: Seconds | None = None) -> None:
        """Wait for one step.

        Faust bounds most steps by the broker's request timeout (90 s), this load of the table among
        them, and takes the end of that time for a stop of the service: recovery ends without an
        error, and the worker keeps its partitions indefinitely and counts nothing. Here a step has
        a bound that fits a large table, and too long a step is an error.

        Raises:
            RecoveryStalledError: the step is not done within STEP_SECONDS_MAX.
        """
        try:
            await super()._wait(coro, None if timeout is None else STEP_SECONDS_MAX)
        except ServiceStopped:
            if self.should_stop:
                raise
            message = f"a step of the recovery took more than {STEP_SECONDS_MAX:g} s"
            raise RecoveryStalledError(message) from None

    @override
    async def _build_offsets(
        self, consumer: ConsumerT, tps: set[TP], destination: Any, title: str
    ) -> None:
        await super()._build_offsets(consumer, tps, destination, title)
        if title != "active" or not tps:
            return
        ends = await self._load(tps, destination)
        for tp, end in ends.items():
            highwater = self.active_highwaters.get(tp)
            destination[tp] = end if highwater is None else min(end, highwater)

    async def _load(self, tps: Iterable[TP], begin: dict[TP, int | None]) -> dict[TP, int]:
        started = time.monotonic()
        consumer = self._new_consumer()
        await consumer.start()
        try:
            left = {TopicPartition(tp.topic, tp.partition): tp for tp in tps}
            consumer.assign(list(left))
            for partition, tp in left.items():
                last = begin[tp]
                consumer.seek(partition, 0 if last is None else last + 1)
            ends, count = await self._read(consumer, left)
        finally:
            await consumer.stop()
        log.info(
            "recovery.loaded",
            records=count,
            partitions=len(ends),
            seconds=round(time.monotonic() - started, 2),
        )
        return ends

    async def _read(
        self, consumer: AIOKafkaConsumer, left: dict[TopicPartition, TP]
    ) -> tuple[dict[TP, int], int]:
        ends: dict[TP, int] = {}
        count = 0
        progress = time.monotonic()
        while left:
            fetched = await consumer.getmany(
                *left, timeout_ms=POLL_TIMEOUT_MS, max_records=RECORDS_PER_POLL_MAX
            )
            for records in fetched.values():
                self._table.replica.load(records)
                count += len(records)
            done = [part for part in left if await _at_end(consumer, part)]
            for part in done:
                ends[left.pop(part)] = await consumer.position(part) - 1
            if fetched or done:
                progress = time.monotonic()
            elif time.monotonic() - progress > self._stall_seconds:
                message = f"no changelog records of {len(left)} partitions for too long"
                raise RecoveryStalledError(message)
        return ends, count

    def _new_consumer(self) -> AIOKafkaConsumer:
        conf = self.app.conf
        transport: Any = self.app.transport
        return AIOKafkaConsumer(
            bootstrap_servers=server_list(transport.url, transport.default_port),
            client_id=f"{conf.broker_client_id}-recovery",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._fetch_max_wait_ms,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            **credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )


async def _at_end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> bool:
    highwater = consumer.highwater(partition)
    if highwater is None:
        return False
    return bool(await consumer.position(partition) >= highwater)
