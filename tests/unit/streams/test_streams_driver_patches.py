"""What Faust, mode and aiokafka do by themselves, and what `streams._driver_patches` makes of it.

Tests named `*_upstream_*` use the bare libraries and fail when they no longer need the patch.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as faust_driver
from mode.threads import ServiceThread

from meterline.schemas.metrics import NoMeter
from meterline.streams._driver_patches import (
    known_positions,
    own_thread_loop,
    set_fetch_wait,
    set_recovery,
)
from meterline.streams.agents import Streams, build_streams
from meterline.streams.recovery import BulkRecovery
from meterline.streams.settings import StreamsSettings
from meterline.streams.transport import SpendConsumer
from tests.streams_model import rate

FETCH_WAIT_MS = 40
FETCH_SECONDS_MAX = 5
"""A fetch that waits for the position of a partition without a broker never ends."""
PARTITION = TopicPartition("t", 0)


@pytest.fixture(name="streams")
def fixture_streams(tmp_path: Path) -> Streams:
    """A worker that is not started."""
    settings = StreamsSettings(
        bootstrap="127.0.0.1:1",
        data_dir=tmp_path,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        refetch_gaps=True,
    )
    return build_streams(settings, rate, lambda: 0, NoMeter())


def unstarted(**options: Any) -> AIOKafkaConsumer:
    """A consumer without a broker, which there is nothing to close of."""
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", **options)
    consumer._closed = True
    return consumer


def consumer_thread(streams: Streams) -> Any:
    """The thread of the worker's Faust consumer, not started."""
    consumer = streams.app.consumer
    assert isinstance(consumer, SpendConsumer)
    return consumer._thread


def driver_consumer(thread: Any) -> AIOKafkaConsumer:
    """The driver's consumer as a consumer thread makes it, which there is nothing to close of."""
    consumer = thread._create_worker_consumer(thread.transport)
    consumer._closed = True
    return consumer


class NoRecords:
    """A fetcher of the driver that has no records and notes which partitions it was asked for."""

    _closed = False

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._subscriptions = consumer._subscription
        self.asked: list[set[TopicPartition]] = []

    async def fetched_records(
        self, partitions: set[TopicPartition], **_options: Any
    ) -> dict[TopicPartition, list[Any]]:
        """No records of these partitions."""
        self.asked.append(set(partitions))
        return {}


def loop_is_closed_after_a_thread(*, patched: bool) -> bool:
    """Whether a loop that a thread was given is closed when the thread has ended."""
    loop = asyncio.new_event_loop()

    async def run() -> None:
        thread = ServiceThread(thread_loop=loop)
        if patched:
            own_thread_loop(thread)
        await thread.start()
        await thread.stop()

    asyncio.run(run())
    closed = loop.is_closed()
    loop.close()
    return closed


def test_upstream_leaves_the_loop_that_a_thread_was_given_open() -> None:
    """mode leaves it to its caller: else drop `own_thread_loop`."""
    assert not loop_is_closed_after_a_thread(patched=False)


def test_the_loop_that_a_thread_was_given_is_closed_with_it() -> None:
    """A consumer thread that is replaced leaves no loop behind."""
    assert loop_is_closed_after_a_thread(patched=True)


def test_the_loop_of_the_workers_consumer_thread_is_closed_with_it(streams: Streams) -> None:
    """The thread that the worker's consumer makes closes the loop that it was given."""

    async def run() -> bool:
        made = consumer_thread(streams)

        class WithoutBroker(type(made)):  # type: ignore[misc] # the class is the worker's choice
            """Its service starts no consumer."""

            async def on_start(self) -> None:
                """Leave."""

            async def on_thread_stop(self) -> None:
                """Leave."""

        made.__class__ = WithoutBroker
        await made.start()
        await made.stop()
        return bool(made.thread_loop.is_closed())

    assert asyncio.run(run())


def test_upstream_writes_its_fetch_wait_into_the_call() -> None:
    """Faust has no setting for it: else drop `set_fetch_wait`.

    The symptom, messages of a quiet partition that arrive 1.5 s late, takes a broker that holds
    fetches back; the text of the call takes none.
    """
    call = inspect.getsource(faust_driver.AIOKafkaConsumerThread._create_worker_consumer)
    assert "fetch_max_wait_ms=1500" in call


def test_a_fetch_waits_as_long_as_it_was_set_to() -> None:
    """The consumer hands the wait that was set to its fetcher when it starts."""

    async def run() -> int:
        consumer = unstarted(fetch_max_wait_ms=1500)
        set_fetch_wait(consumer, FETCH_WAIT_MS)
        started = inspect.getsource(AIOKafkaConsumer.start)
        assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in started
        return int(consumer._fetch_max_wait_ms)

    assert asyncio.run(run()) == FETCH_WAIT_MS


def test_the_workers_consumer_waits_as_long_as_its_settings_say(streams: Streams) -> None:
    """The consumer that Faust's thread makes has the wait of the settings, not Faust's."""

    async def run() -> int:
        thread = consumer_thread(streams)
        thread.thread_loop.close()
        return int(driver_consumer(thread)._fetch_max_wait_ms)

    assert asyncio.run(run()) == FETCH_WAIT_MS


def test_the_worker_fetches_only_where_a_position_is_known(streams: Streams) -> None:
    """A partition whose position is still asked for holds up no fetch of the others."""
    other = TopicPartition("t", 1)

    async def run() -> list[set[TopicPartition]]:
        thread = consumer_thread(streams)
        thread.thread_loop.close()
        consumer = driver_consumer(thread)
        consumer._fetcher = NoRecords(consumer)
        consumer.assign([PARTITION, other])
        async with asyncio.timeout(FETCH_SECONDS_MAX):
            await thread._fetch_records(consumer, {PARTITION, other})
            assert not consumer._fetcher.asked
            consumer._subscription.subscription.assignment.state_value(PARTITION).reset_to(7)
            consumer._closed = False
            await thread._fetch_records(consumer, {PARTITION, other})
        consumer._closed = True
        asked: list[set[TopicPartition]] = consumer._fetcher.asked
        return asked

    assert asyncio.run(run()) == [{PARTITION}]


def test_only_positions_that_are_known_are_named() -> None:
    """A partition whose first position is still asked for is left out; nothing is waited for."""

    async def run() -> tuple[dict[Any, int], ...]:
        consumer = unstarted()
        unassigned = known_positions(consumer)
        consumer.assign([PARTITION, TopicPartition("t", 1)])
        unknown = known_positions(consumer)
        state = consumer._subscription.subscription.assignment.state_value(PARTITION)
        state.reset_to(7)
        return unassigned, unknown, known_positions(consumer)

    assert asyncio.run(run()) == ({}, {}, {PARTITION: 7})


def test_upstream_waits_for_a_position_that_is_not_known() -> None:
    """aiokafka's `position` has no way to answer "not yet": else drop `known_positions`."""
    public = inspect.getsource(AIOKafkaConsumer.position)
    assert "wait_for_position()" in public
    assert list(inspect.signature(AIOKafkaConsumer.position).parameters) == ["self", "partition"]


def test_the_worker_recovers_in_bulk(streams: Streams) -> None:
    """Faust asks the recovery that was put in place, not one of its own."""
    manager: Any = streams.app.tables
    assert isinstance(manager.recovery, BulkRecovery)


def test_upstream_makes_its_own_recovery_unless_there_is_one(streams: Streams) -> None:
    """The bare manager reads record by record: else drop `set_recovery`."""
    manager: Any = streams.app.tables
    set_recovery(manager, None)
    assert type(manager.recovery) is Recovery
