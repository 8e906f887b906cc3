"""Lanes, batches and partitions."""

from __future__ import annotations

import msgspec
import pytest

from meterline.relay.lanes import FRAME_BYTES_MAX, LaneBuffer, encode_batch, lane_id
from meterline.relay.partitioning import CACHED_KEYS_MAX, Partitioner, murmur2
from meterline.schemas.codec import decode_usage, encode
from meterline.schemas.usage import UsageEvent


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    """Our hash equals the values in Apache Kafka's own tests (UtilsTest)."""
    assert murmur2(data) == signed & 0xFFFFFFFF


def test_partition_is_stable_and_in_range() -> None:
    """A key has one partition, within the topic, also after the cache was cleared."""
    partitioner = Partitioner(12)
    first = partitioner.partition_of("key-0")
    seen = {partitioner.partition_of(f"key-{number}") for number in range(CACHED_KEYS_MAX + 10)}
    assert seen == set(range(12))
    assert partitioner.partition_of("key-0") == first == (murmur2(b"key-0") & 0x7FFFFFFF) % 12


def event(number: int, user_agent: str = "") -> UsageEvent:
    return UsageEvent(
        id=f"e{number}",
        time_ms=1_763_700_000_000,
        organisation="acme",
        key="k",
        model="m",
        user_agent=user_agent,
    )


def test_batch_is_what_the_decoder_reads() -> None:
    """A sealed batch is a UsageBatch for the shared decoder, whatever stands in the relay's name."""
    lane = lane_id('rel"ay\\ü', "boot", 7)
    events = [event(1), event(2, user_agent='"\n'), event(3)]
    value = encode_batch(lane, 5, [encode(each) for each in events])
    message = decode_usage(value, 1_763_700_000_000)
    assert (message.lane, message.seq, message.rejects) == (lane, 5, ())
    assert list(message.events) == events


def test_lane_counts_only_what_was_sealed() -> None:
    """A batch that found no place keeps its number for the next attempt."""
    lane = LaneBuffer("r/b/0", 0, 500, 900_000)
    lane.add(encode(event(1)), 0.0)
    assert lane.batch().seq == 1
    lane.add(encode(event(2)), 0.0)
    again = lane.batch()
    assert (again.seq, again.events) == (1, 2)
    lane.sealed()
    lane.add(encode(event(3)), 0.0)
    assert (lane.batch().seq, lane.batch().events) == (2, 1)


def test_lane_bounds_events_and_bytes() -> None:
    """A batch never has more events than allowed, nor more bytes, except for one event alone."""
    lane = LaneBuffer("r/b/0", 0, 3, 10_000)
    for _ in range(3):
        assert lane.has_room(b"{}")
        lane.add(b"{}", 0.0)
    assert lane.full()
    assert not lane.has_room(b"{}")
    lane = LaneBuffer("r/b/0", 0, 500, 10_000)
    big = b'"%b"' % (b"x" * 4_000)
    assert lane.has_room(b"x" * 50_000)
    lane.add(big, 0.0)
    assert lane.has_room(big)
    lane.add(big, 0.0)
    assert not lane.has_room(big)
    assert len(lane.batch().value) <= 10_000
    assert msgspec.json.decode(lane.batch().value)["events"] == ["x" * 4_000] * 2


def test_frame_bound_covers_the_longest_lane() -> None:
    """What stands around the events never exceeds the bytes kept free for it."""
    lane = "\x01" * 200
    assert len(encode_batch(lane, 2**53, [])) <= FRAME_BYTES_MAX
