"""The usage that the benchmarks of counting read: events, and the messages they travel in."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import msgspec

from meterline.app.clock import now_ms
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.relay.partitioning import Partitioner
from meterline.schemas.topics import TOPICS, Topic
from meterline.schemas.usage import UsageBatch, UsageEvent

EVENTS_PER_MESSAGE = 100
PARTITIONS = 4
KEYS, DEPARTMENTS, PROJECTS = 500, 8, 20
FILL_SECONDS_MAX = 240.0
MODELS = (
    ("openai", "gpt-4.1"),
    ("anthropic", "claude-sonnet-4.5"),
    ("google", "gemini-2.5-flash"),
    ("deepseek", "deepseek-v3.2"),
    ("openai", "gpt-4.1-mini"),
)


def events(count: int, seed: int) -> Iterator[UsageEvent]:
    """Usage of the last few seconds, as a relay makes it."""
    source = random.Random(seed)
    now = now_ms()
    for _ in range(count):
        key = source.randrange(KEYS)
        provider, model = source.choice(MODELS)
        yield UsageEvent(
            id=f"req-{source.getrandbits(128):032x}-1",
            time_ms=now - source.randrange(5_000),
            organisation="acme",
            department=f"department-{key % DEPARTMENTS}",
            project=f"project-{key % PROJECTS}",
            key=f"key-{key:04d}",
            provider=provider,
            model=model,
            input_tokens=source.randrange(20, 4_000),
            output_tokens=source.randrange(5, 900),
            relay="relay-1",
        )


def batches(seed: int, messages: int) -> Iterator[tuple[int, bytes]]:
    """Partition and bytes of full messages as relays make them: a lane for each partition.

    An event goes to the partition of its API key, as `relay.lanes` has it.
    """
    partitioner = Partitioner(PARTITIONS)
    lanes: list[list[UsageEvent]] = [[] for _ in range(PARTITIONS)]
    seqs = [0] * PARTITIONS
    for event in events(2**62, seed):
        partition = partitioner.partition_of(event.key)
        rows = lanes[partition]
        rows.append(event)
        if len(rows) == EVENTS_PER_MESSAGE:
            yield partition, full_batch(partition, seqs, rows)
            if sum(seqs) == messages:
                return
            rows.clear()


def scattered(seed: int, messages: int) -> Iterator[tuple[int, bytes]]:
    """The same from producers that care about no key: every key is in every partition."""
    source = events(messages * EVENTS_PER_MESSAGE, seed)
    seqs = [0] * PARTITIONS
    for number in range(messages):
        rows = [next(source) for _ in range(EVENTS_PER_MESSAGE)]
        yield number % PARTITIONS, full_batch(number % PARTITIONS, seqs, rows)


def full_batch(partition: int, seqs: list[int], rows: list[UsageEvent]) -> bytes:
    """The next message of a partition's lane."""
    seqs[partition] += 1
    batch = UsageBatch(lane=f"relay-1/boot/{partition}", seq=seqs[partition], events=tuple(rows))
    return msgspec.json.encode(batch)


def fill(bootstrap: str, values: Iterator[tuple[int, bytes]]) -> None:
    """Make the topics and put the messages in."""
    config = embedded_kafka(bootstrap)
    with contextlib.closing(Admin(config)) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    with contextlib.closing(Producer(config, linger_ms=20)) as producer:
        for partition, value in values:
            producer.send(Topic.USAGE_EVENTS, b"lane", value, partition=partition)
        producer.flush(FILL_SECONDS_MAX)
