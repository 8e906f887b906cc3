"""The streams worker as a process, on the embedded broker and on Apache Kafka."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.reasons import RejectReason
from meterline.schemas.spend import SnapshotKey, Totals, encode_key, encode_totals
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageBatch, UsageEvent
from tests.servers import require_apache, running_broker
from tests.streams_chaos import Rig, chaos, now_ms, rig_on
from tests.streams_model import batch, truth

pytestmark = [
    pytest.mark.functional,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("streams"),
]


@pytest.fixture(scope="module", params=["embedded", "apache"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    kind: str = request.param
    if kind == "apache":
        require_apache()
    with running_broker(kind, tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap, kind


@pytest.fixture
def rig(broker: tuple[str, str], tmp_path: Path) -> Iterator[Rig]:
    bootstrap, kind = broker
    with rig_on(bootstrap, kind, tmp_path) as rig:
        yield rig


def some_event(number: int, **fields: object) -> UsageEvent:
    common: dict[str, object] = {
        "id": f"request-{number}",
        "time_ms": now_ms() - 1_000,
        "organisation": "acme",
        "department": f"d-{number % 3}",
        "key": f"k-{number % 7}",
        "model": "gpt-4.1",
        "input_tokens": 1_000 + number,
        "output_tokens": 10,
    }
    return msgspec.convert({**common, **fields}, UsageEvent)


def send(rig: Rig, values: list[tuple[int, bytes | None]]) -> None:
    """Send to the source topic, each to its partition."""
    with contextlib.closing(Producer(rig.config, linger_ms=0)) as producer:
        for partition, value in values:
            topic = rig.topic(Topic.USAGE_EVENTS)
            producer.send(topic, b"k", value, partition=partition)
        producer.flush(20)


def test_snapshots_sum_to_what_was_sent(rig: Rig) -> None:
    """Batches, single events and CloudEvents of all partitions are counted, each once."""
    rig.start()
    events = [some_event(number) for number in range(400)]
    single, cloud = some_event(1_000), some_event(1_001)
    envelope = {
        "specversion": "1.0",
        "type": "relay.usage.recorded.v1",
        "source": "test",
        "id": cloud.id,
        "data": json.loads(msgspec.json.encode(cloud)),
    }
    values: list[tuple[int, bytes | None]] = [
        (number % 4, batch(f"lane-{number % 4}", number // 4 + 1, events[number * 20 :][:20]))
        for number in range(20)
    ]
    values += [(0, msgspec.json.encode(single)), (1, json.dumps(envelope).encode())]
    values += values[:3]
    send(rig, values)
    wanted = truth([*events, single, cloud])
    assert rig.wait_for(wanted) == wanted


def test_bad_input_becomes_dead_letters_and_the_rest_counts(rig: Rig) -> None:
    """Each kind of bad input gets its reason and position; its neighbours are counted."""
    rig.start()
    good = [some_event(number) for number in range(6)]
    negative = msgspec.structs.replace(some_event(100), input_tokens=-1)
    split = msgspec.structs.replace(some_event(101), cache_read_tokens=5_000)
    future = msgspec.structs.replace(some_event(102), time_ms=now_ms() + 3_600_000)
    conflict = msgspec.structs.replace(good[0], output_tokens=999)
    raw = msgspec.json.encode(good[3])
    many = UsageBatch(lane="big", seq=1, events=tuple(some_event(n) for n in range(501)))
    values: list[tuple[int, bytes | None]] = [
        (0, batch("lane", 1, [good[0], negative, good[1], split])),
        (0, b"{nope"),
        (0, None),
        (0, msgspec.json.encode(many)),
        (0, batch("lane", 2, [future, good[2], conflict])),
        (0, b'{"lane":"raw","seq":1,"events":[' + raw + b',{"id":"x"},{"id":7}]}'),
        (0, batch("lane", 1, [good[4]])),
        (0, b'{"specversion":"1.0","type":"other","id":"1","data":{}}'),
        (0, b" " * 1_000_001),
        (0, msgspec.json.encode(good[5])),
    ]
    send(rig, values)
    counted = [*good[:4], good[5]]
    wanted = truth(counted)
    assert rig.wait_for(wanted) == wanted
    found = {(letter.offset, letter.index): letter for letter in rig.letters()}
    assert {position: letter.reason for position, letter in found.items()} == {
        (0, 1): RejectReason.NEGATIVE_QUANTITY,
        (0, 3): RejectReason.PART_EXCEEDS_WHOLE,
        (1, -1): RejectReason.MALFORMED_JSON,
        (2, -1): RejectReason.TOMBSTONE,
        (3, -1): RejectReason.OVERSIZE_BATCH,
        (4, 0): RejectReason.FUTURE_TIME,
        (4, 2): RejectReason.CONFLICT,
        (5, 1): RejectReason.MISSING_FIELD,
        (5, 2): RejectReason.WRONG_TYPE,
        (6, 0): RejectReason.LANE_RESTARTED,
        (7, -1): RejectReason.UNKNOWN_ENVELOPE,
        (8, -1): RejectReason.OVERSIZE_MESSAGE,
    }
    assert found[1, -1].original() == b"{nope"
    assert found[4, 2].event_id == good[0].id


def test_a_drain_leaves_nothing_to_read_again(rig: Rig) -> None:
    """SIGTERM flushes, commits, leaves the group and ends with 0; the successor counts on."""
    worker = rig.start()
    first = [some_event(number) for number in range(50)]
    send(rig, [(0, batch("lane", 1, first))])
    assert rig.wait_for(truth(first)) == truth(first)
    started = time.monotonic()
    assert rig.stop(worker) == 0
    assert time.monotonic() - started < 6
    rig.start()
    second = [some_event(number) for number in range(50, 90)]
    send(rig, [(0, batch("lane", 2, second)), (0, batch("lane", 1, first))])
    wanted = truth([*first, *second])
    assert rig.wait_for(wanted) == wanted


def test_foreign_shards_are_left_alone(rig: Rig) -> None:
    """A balance that another writer keeps in the changelog survives recovery untouched."""
    key = SnapshotKey("organisation:acme", "month", 1_788_213_600_000, "base")
    value = Totals(0, 0, 1_790_805_600_000, 5, 1, 1, 0, 0, 0, 1, 0, 1)
    topic = rig.topic(Topic.SPEND_SNAPSHOTS)
    with contextlib.closing(Producer(rig.config, linger_ms=0)) as producer:
        producer.send(topic, encode_key(key), encode_totals(value), partition=0)
        producer.flush(20)
    worker = rig.start()
    events = [some_event(number) for number in range(10)]
    send(rig, [(0, batch("lane", 1, events))])
    wanted = truth(events)
    wanted["organisation:acme", "month", key.start_ms] = (0, 0, 0, 0)
    deadline = time.monotonic() + 40
    while len(rig.snapshots()) < len(truth(events)) + 1 and time.monotonic() < deadline:
        time.sleep(0.3)
    assert rig.stop(worker) == 0
    with contextlib.closing(TopicReader(rig.config, [topic])) as reader:
        ours = [record for record in reader.read_to_end(20) if record.key == encode_key(key)]
    assert [record.value for record in ours] == [encode_totals(value)]


def test_an_unknown_epoch_stops_the_worker(rig: Rig) -> None:
    """A worker set to an older log epoch than the changelog's ends instead of counting wrongly."""
    events = [some_event(number) for number in range(10)]
    worker = rig.start(epoch=1)
    send(rig, [(0, batch("lane", 1, events))])
    assert rig.wait_for(truth(events)) == truth(events)
    assert rig.stop(worker) == 0
    worker = rig.start(epoch=0)
    assert worker.wait(60) == 70
    rig.workers.remove(worker)


def test_totals_are_exact_after_kills(rig: Rig) -> None:
    """Kills, crashes inside the flush, drains and re-sends change no total by a nano-dollar."""
    report = chaos(rig, cycles=4, seed=3)
    assert (report.missing, report.extra) == (0, 0), report
    assert report.events > 5_000


def test_a_paused_worker_does_no_harm(rig: Rig) -> None:
    """A worker stopped past its session fences itself; its late writes never win."""
    events = [some_event(number) for number in range(600)]
    rig.start()
    paused = rig.start()
    for number in range(6):
        send(
            rig,
            [
                (part, batch(f"l-{part}", number + 1, events[number * 100 + part * 25 :][:25]))
                for part in range(4)
            ],
        )
        if number == 2:
            time.sleep(4)
            paused.send_signal(signal.SIGSTOP)
        if number == 4:
            time.sleep(float(str(rig.options["session_timeout_ms"])) / 1000 * 1.5)
            paused.send_signal(signal.SIGCONT)
    rig.workers.remove(paused)
    assert paused.wait(20) == 75
    wanted = truth(events)
    assert rig.wait_for(wanted) == wanted
