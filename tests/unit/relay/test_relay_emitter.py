"""The emitter between a caller that must not wait and a broker that may be anything."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.partitioning import murmur2
from meterline.relay.settings import (
    EmitterSettings,
    RelaySettings,
    RelaySettingsError,
    SpoolSettings,
)
from meterline.relay.spool import Spool
from meterline.schemas.metrics import Metric
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX, MESSAGE_BYTES_MAX, UsageEvent
from tests.relays import (
    DEADLINE_SECONDS,
    NOW,
    CountingMeter,
    ScriptedBroker,
    assert_lanes_gapless,
    eventually,
    relay_settings,
    usage_event,
)


@contextmanager
def running(
    settings: RelaySettings,
    broker: ScriptedBroker,
    meter: CountingMeter | None = None,
    spool: Spool | None = None,
) -> Iterator[Emitter]:
    emitter = Emitter(
        settings, lambda: NOW, meter or CountingMeter(), connect=broker.connect, spool=spool
    )
    emitter.start()
    try:
        yield emitter
    finally:
        broker.answer.set()
        emitter.close(0.2)


def emit_all(emitter: Emitter, numbers: range) -> None:
    for number in numbers:
        assert emitter.emit(usage_event(number)) is EmitOutcome.ACCEPTED


def ids(numbers: range) -> list[str]:
    return sorted(f"e{number}" for number in numbers)


def test_every_event_once_in_its_keys_partition(tmp_path: Path) -> None:
    """Each event arrives once, in its API key's partition, in lanes that count without gaps."""
    broker = ScriptedBroker()
    with running(relay_settings(tmp_path), broker) as emitter:
        emit_all(emitter, range(5_000))
        assert emitter.flush(DEADLINE_SECONDS)
        assert sorted(broker.events()) == ids(range(5_000))
        for partition in list(broker.log):
            messages = broker.messages(partition)
            assert_lanes_gapless(messages)
            assert {message.lane for message in messages} == {f"r1/{emitter.boot}/{partition}"}
            assert {key for key, _ in broker.log[partition]} == {messages[0].lane.encode()}
            keys = {event.key for message in messages for event in message.events}
            assert {(murmur2(key.encode()) & 0x7FFFFFFF) % 4 for key in keys} == {partition}
        assert emitter.backlog_batches == 0


def test_order_within_a_key_is_kept(tmp_path: Path) -> None:
    """Events of one key arrive in the order they were emitted."""
    broker = ScriptedBroker()
    with running(relay_settings(tmp_path), broker) as emitter:
        for number in range(3_000):
            emitter.emit(usage_event(number, key="one"))
        assert emitter.flush(DEADLINE_SECONDS)
        assert broker.events() == [f"e{number}" for number in range(3_000)]


def test_batches_are_bounded(tmp_path: Path) -> None:
    """No message has more events or more bytes than the settings allow."""
    broker = ScriptedBroker(1)
    settings = relay_settings(
        tmp_path, emitter=EmitterSettings(linger_ms=100, batch_bytes_max=100_000)
    )
    with running(settings, broker) as emitter:
        for number in range(1_200):
            emitter.emit(usage_event(number, user_agent="x" * (1_000 if number > 600 else 1)))
        assert emitter.flush(DEADLINE_SECONDS)
    sizes = [len(message.events) for message in broker.messages(0)]
    assert sum(sizes) == 1_200
    assert max(sizes) == EVENTS_PER_BATCH_MAX
    assert 80_000 < max(len(value) for _, value in broker.log[0]) <= 100_000


def test_linger_seals_a_lonely_event(tmp_path: Path) -> None:
    """One event alone is on its way without a flush."""
    broker = ScriptedBroker()
    with running(relay_settings(tmp_path), broker) as emitter:
        emit_all(emitter, range(1))
        eventually(lambda: broker.events() == ["e0"])


def test_outage_loses_nothing_and_keeps_emit_fast(tmp_path: Path) -> None:
    """While the broker is away events are spooled; when it is back all arrive, in order."""
    broker = ScriptedBroker()
    broker.up = False
    settings = relay_settings(
        tmp_path, emitter=EmitterSettings(linger_ms=5, partitions_wait_seconds=0.05)
    )
    with running(settings, broker) as emitter:
        slowest = 0.0
        for number in range(2_000):
            start = time.perf_counter()
            assert emitter.emit(usage_event(number)) is EmitOutcome.ACCEPTED
            slowest = max(slowest, time.perf_counter() - start)
        eventually(lambda: emitter.backlog_batches > 0)
        assert not emitter.flush(0.1)
        assert not broker.events()
        broker.up = True
        assert emitter.flush(DEADLINE_SECONDS)
        assert sorted(broker.events()) == ids(range(2_000))
        # 250 ms: a scheduler's hiccup on a busy machine, not a wait for a broker.
        assert slowest < 0.25


def test_lost_answer_repeats_the_same_bytes(tmp_path: Path) -> None:
    """When the broker has a batch and its answer is lost, the same bytes come again, before others."""
    broker = ScriptedBroker(1)
    broker.lose_answers = 2
    with running(relay_settings(tmp_path), broker) as emitter:
        for first in (0, 100, 200):
            emit_all(emitter, range(first, first + 100))
            assert emitter.flush(DEADLINE_SECONDS)
    values = [value for _, value in broker.log[0]]
    assert values[0] == values[1] == values[2]
    assert_lanes_gapless(broker.messages(0))
    assert broker.events() == [f"e{number}" for number in range(300)]


def test_refused_batch_is_put_aside(tmp_path: Path) -> None:
    """A batch that no broker will take is kept as a file and counted; those behind it go on."""
    broker, meter = ScriptedBroker(1), CountingMeter()
    broker.refuse_partition = 0
    with running(relay_settings(tmp_path), broker, meter) as emitter:
        emit_all(emitter, range(10))
        assert emitter.flush(DEADLINE_SECONDS)
        broker.refuse_partition = None
        emit_all(emitter, range(10, 20))
        assert emitter.flush(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(10, 20))
    assert meter.counts[Metric.DROPPED, "refused"] == 10
    assert len(list((tmp_path / "refused").iterdir())) >= 1


def test_damaged_batch_is_counted_and_passed(tmp_path: Path) -> None:
    """A batch that the disk destroyed is counted as lost; those behind it go on."""
    broker, meter = ScriptedBroker(1), CountingMeter()
    broker.up = False
    settings = relay_settings(
        tmp_path, emitter=EmitterSettings(linger_ms=2, partitions_wait_seconds=0.01)
    )
    with running(settings, broker, meter) as emitter:
        for number in range(3):
            emitter.emit(usage_event(number, key="one"))
            eventually(lambda waiting=number + 1: emitter.backlog_batches == waiting)  # type: ignore[misc]
        path = next(tmp_path.glob("*.segment"))
        content = bytearray(path.read_bytes())
        content[content.index(b'"e1"') + 1] ^= 1
        path.write_bytes(content)
        broker.up = True
        assert emitter.flush(DEADLINE_SECONDS)
    assert broker.events() == ["e0", "e2"]
    assert meter.counts[Metric.DROPPED, "spool_damaged"] == 1


def test_restart_sends_the_rest_first(tmp_path: Path) -> None:
    """What an earlier process left is sent by the next, same lanes, before that one's own batches."""
    broker = ScriptedBroker(2)
    with running(relay_settings(tmp_path), broker) as first:
        emit_all(first, range(50))
        assert first.flush(DEADLINE_SECONDS)
        broker.up = False
        emit_all(first, range(50, 150))
        assert not first.flush(0.2)
    broker.up = True
    with running(relay_settings(tmp_path), broker) as second:
        emit_all(second, range(150, 200))
        assert second.flush(DEADLINE_SECONDS)
    assert first.boot != second.boot
    assert sorted(broker.events()) == ids(range(200))
    for partition in (0, 1):
        messages = broker.messages(partition)
        assert_lanes_gapless(messages)
        boots = [message.lane.split("/")[1] for message in messages]
        assert boots == sorted(boots, key=[first.boot, second.boot].index)


def test_queue_bound(tmp_path: Path) -> None:
    """A full queue refuses at once, says so and counts; nothing accepted is lost by it."""
    broker, meter = ScriptedBroker(), CountingMeter()
    settings = relay_settings(
        tmp_path, emitter=EmitterSettings(queue_events_max=100, linger_ms=1_000)
    )
    with running(settings, broker, meter) as emitter:
        outcomes = [emitter.emit(usage_event(number)) for number in range(150)]
        assert outcomes[:100] == [EmitOutcome.ACCEPTED] * 100
        assert outcomes[100:] == [EmitOutcome.QUEUE_FULL] * 50
        assert emitter.flush(DEADLINE_SECONDS)
        assert sorted(broker.events()) == ids(range(100))
        assert emitter.emit(usage_event(1_000)) is EmitOutcome.ACCEPTED
    assert meter.counts[Metric.DROPPED, "queue_full"] == 50


def test_queue_bound_in_bytes(tmp_path: Path) -> None:
    """Few huge events fill the queue as many small ones do."""
    settings = relay_settings(
        tmp_path, emitter=EmitterSettings(queue_bytes_max=1_000_000, linger_ms=1_000)
    )
    with running(settings, ScriptedBroker()) as emitter:
        event = usage_event(1, user_agent="x" * 300_000)
        outcomes = [emitter.emit(event) for _ in range(5)]
        assert outcomes == [EmitOutcome.ACCEPTED] * 3 + [EmitOutcome.QUEUE_FULL] * 2


def test_spool_bound_keeps_the_oldest(tmp_path: Path) -> None:
    """With the spool full the oldest batches are kept, new events refused, and room resumes all."""
    broker, meter = ScriptedBroker(1), CountingMeter()
    broker.answer.clear()
    settings = relay_settings(
        tmp_path,
        emitter=EmitterSettings(queue_events_max=200, linger_ms=2, backlog_linger_ms=2),
        spool=SpoolSettings(tmp_path, batches_max=3),
    )
    with running(settings, broker, meter) as emitter:
        accepted: list[str] = []
        outcome = EmitOutcome.ACCEPTED
        number = 0
        deadline = time.monotonic() + DEADLINE_SECONDS
        while outcome is not EmitOutcome.SPOOL_FULL:
            assert time.monotonic() < deadline
            outcome = emitter.emit(usage_event(number))
            if outcome is EmitOutcome.ACCEPTED:
                accepted.append(f"e{number}")
            number += 1
            time.sleep(0.0005)
        assert emitter.backlog_batches == 3
        broker.answer.set()
        assert emitter.flush(DEADLINE_SECONDS)
        assert broker.events() == accepted
        assert emitter.emit(usage_event(number)) is EmitOutcome.ACCEPTED
    assert meter.counts[Metric.DROPPED, "spool_full"] >= 1
    assert_lanes_gapless(broker.messages(0))


class Disk:
    """os.pwrite until it is full."""

    def __init__(self) -> None:
        self.full = False

    def __call__(self, fd: int, data: bytes, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(fd, data, offset)


def test_full_disk_with_a_broker_loses_nothing(tmp_path: Path) -> None:
    """A full disk does not stop a relay whose broker is there: batches go without the spool."""
    disk, broker, meter = Disk(), ScriptedBroker(2), CountingMeter()
    settings = relay_settings(tmp_path)
    spool = Spool(settings.spool, write=disk)
    with running(settings, broker, meter, spool) as emitter:
        emit_all(emitter, range(100))
        assert emitter.flush(DEADLINE_SECONDS)
        disk.full = True
        emit_all(emitter, range(100, 2_000))
        assert emitter.flush(DEADLINE_SECONDS)
        disk.full = False
        emit_all(emitter, range(2_000, 2_100))
        assert emitter.flush(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(2_100))
    assert not [key for key in meter.counts if key[0] is Metric.DROPPED]
    for partition in (0, 1):
        assert_lanes_gapless(broker.messages(partition))


def test_full_disk_without_a_broker_refuses_and_never_raises(tmp_path: Path) -> None:
    """Disk full and broker away: the queue fills, emit refuses and counts, close counts the rest."""
    disk, broker, meter = Disk(), ScriptedBroker(1), CountingMeter()
    disk.full = True
    settings = relay_settings(tmp_path, emitter=EmitterSettings(queue_events_max=50, linger_ms=2))
    spool = Spool(settings.spool, write=disk)
    with running(settings, broker, meter, spool) as emitter:
        broker.answer.clear()
        accepted = 0
        outcome = EmitOutcome.ACCEPTED
        while outcome is not EmitOutcome.SPOOL_FULL:
            outcome = emitter.emit(usage_event(accepted))
            accepted += outcome is EmitOutcome.ACCEPTED
        broker.up = False
    emitted = meter.counts[Metric.EMITTED, ""]
    refused = meter.counts[Metric.DROPPED, "spool_full"]
    assert accepted > 0
    assert emitted > 0
    # Everything accepted is counted lost at close, besides what was refused before.
    assert refused > accepted


def test_bad_events_never_raise(tmp_path: Path) -> None:
    """What JSON cannot say and what no message can hold is refused with its own outcome."""
    meter = CountingMeter()
    with running(relay_settings(tmp_path), ScriptedBroker(), meter) as emitter:
        assert emitter.emit(usage_event(1, user_agent="\ud800")) is EmitOutcome.INVALID
        strange = UsageEvent(
            id="e",
            time_ms=NOW,
            organisation="a",
            key="k",
            model="m",
            tags={"x": object()},  # type: ignore[dict-item]
        )
        assert emitter.emit(strange) is EmitOutcome.INVALID
        huge = usage_event(2, user_agent="x" * MESSAGE_BYTES_MAX)
        assert emitter.emit(huge) is EmitOutcome.OVERSIZE
    assert meter.counts[Metric.DROPPED, "invalid"] == 2
    assert meter.counts[Metric.DROPPED, "oversize"] == 1


def test_large_event_goes_alone(tmp_path: Path) -> None:
    """An event that just fits into a message is sealed alone."""
    broker = ScriptedBroker(1)
    with running(relay_settings(tmp_path), broker) as emitter:
        for number, length in enumerate((1_000, 898_000, 1_000)):
            event = usage_event(number, user_agent="x" * length)
            assert emitter.emit(event) is EmitOutcome.ACCEPTED
        assert emitter.flush(DEADLINE_SECONDS)
    batches = [msgspec.json.decode(value)["events"] for _, value in broker.log[0]]
    assert [[event["id"] for event in batch] for batch in batches] == [["e0"], ["e1"], ["e2"]]
    assert max(len(value) for _, value in broker.log[0]) < MESSAGE_BYTES_MAX


def test_closed_emitter_refuses(tmp_path: Path) -> None:
    """Before the start and after the close emit refuses; close says that all is delivered."""
    broker = ScriptedBroker()
    emitter = Emitter(
        relay_settings(tmp_path), lambda: NOW, CountingMeter(), connect=broker.connect
    )
    assert emitter.emit(usage_event(1)) is EmitOutcome.CLOSED
    emitter.start()
    emit_all(emitter, range(10))
    assert emitter.close(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(10))
    assert emitter.emit(usage_event(1)) is EmitOutcome.CLOSED


def test_close_without_time_keeps_everything(tmp_path: Path) -> None:
    """A close that may not wait at all still brings every accepted event to the disk."""
    broker, meter = ScriptedBroker(2), CountingMeter()
    broker.up = False
    settings = relay_settings(tmp_path)
    first = Emitter(settings, lambda: NOW, meter, connect=broker.connect)
    first.start()
    emit_all(first, range(700))
    assert not first.close(0.0)
    assert meter.counts[Metric.EMITTED, ""] == 700
    broker.up = True
    with running(settings, broker) as second:
        assert second.flush(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(700))


def test_many_threads_and_asyncio(tmp_path: Path) -> None:
    """Threads and coroutines emit at once, and the count is exact."""
    broker, meter = ScriptedBroker(), CountingMeter()

    async def coroutine(first: int) -> None:
        for number in range(first, first + 250):
            assert emitter.emit(usage_event(number)) is EmitOutcome.ACCEPTED
            await asyncio.sleep(0)

    async def together(first: int) -> None:
        await asyncio.gather(coroutine(first), coroutine(first + 250))

    with running(relay_settings(tmp_path), broker, meter) as emitter:
        threads = [
            threading.Thread(target=emit_all, args=(emitter, range(first, first + 500)))
            for first in (0, 500, 1_000, 1_500)
        ]
        for thread in threads:
            thread.start()
        asyncio.run(together(2_000))
        for thread in threads:
            thread.join()
        assert emitter.flush(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(2_500))
    assert meter.counts[Metric.EMITTED, ""] == 2_500


def test_wrong_partition_count_is_repaired(tmp_path: Path) -> None:
    """Batches sealed for partitions that the topic does not have go to ones it has."""
    broker = ScriptedBroker(2)
    broker.up = False
    settings = relay_settings(
        tmp_path,
        emitter=EmitterSettings(linger_ms=2, usage_partitions=12, partitions_wait_seconds=0.01),
    )
    with running(settings, broker) as emitter:
        emit_all(emitter, range(200))
        eventually(lambda: emitter.backlog_batches >= 3)
        broker.up = True
        assert emitter.flush(DEADLINE_SECONDS)
    assert sorted(broker.events()) == ids(range(200))
    assert set(broker.log) == {0, 1}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("linger_ms", 0),
        ("batch_events_max", 501),
        ("batch_bytes_max", 1_000_000),
        ("queue_events_max", 0),
        ("usage_partitions", 0),
    ],
)
def test_settings_name_their_fault(tmp_path: Path, field: str, wrong: int) -> None:
    """A setting that cannot work is refused by name."""
    with pytest.raises(RelaySettingsError, match=field):
        relay_settings(tmp_path, emitter=EmitterSettings(**{field: wrong}))


def test_settings_name_all_faults(tmp_path: Path) -> None:
    """All faults are reported at once."""
    with pytest.raises(RelaySettingsError, match=r"relay_id.*linger_ms"):
        RelaySettings(
            "a/b",
            relay_settings(tmp_path).kafka,
            SpoolSettings(tmp_path),
            EmitterSettings(linger_ms=0),
        )
