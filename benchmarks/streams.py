"""Streams: events per second of one worker, against the same work as idiomatic Faust.

Both sides run in turn in each round, each as one worker process on an embedded broker of its own:

- ours: 100 events per message, four scopes and four windows each, all sums, event ids remembered,
  changelog on, offsets committed only after it. Events come as our relay sends them, an API key in
  one partition; `scattered` is the same with every key in every partition, as from producers that
  choose none: four times as many totals.
- idiomatic: one event per message, a windowed table per granularity, `table[scope] += cost` for
  each scope. It adds the money only, and has no exactness: less work than ours.

The topic is filled first. Events per second are counted from the worker's first flush to its last,
so that its start does not count.

    python -m benchmarks.streams [--json]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faust
import msgspec

from app.clock import now_ms
from app.telemetry import set_up_logging
from app.worker import run_streams
from backends.kafka import Admin, KafkaConfig, Producer
from benchmarks.report import Figure, Target, finish, json_argument
from embedded.broker import start_broker
from pricing.catalogue import load_catalogue
from relay.partitioning import Partitioner
from schemas.metrics import Metric
from schemas.topics import TOPICS, Topic
from schemas.usage import UsageBatch, UsageEvent
from streams.settings import embedded_settings

ROUNDS = 3
EVENTS_PER_MESSAGE = 100
# Seven seconds of a fast worker: its first second (a cold start on a full topic) weighs little.
MESSAGES = 8_000
BASELINE_EVENTS = 1_500
PARTITIONS = 4
KEYS, DEPARTMENTS, PROJECTS = 500, 8, 20
EVENTS_PER_SECOND_MIN = 100_000.0
RATIO_MIN = 50.0
ROUND_SECONDS_MAX = 120.0
MODELS = (
    ("openai", "gpt-4.1"),
    ("anthropic", "claude-sonnet-4.5"),
    ("google", "gemini-2.5-flash"),
    ("deepseek", "deepseek-v3.2"),
    ("openai", "gpt-4.1-mini"),
)
# The tumbling windows of the idiomatic worker, seconds; it knows no calendar.
BASELINE_WINDOWS = (60, 3_600, 86_400, 30 * 86_400)


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


class Sample(NamedTuple):
    """What a worker says of itself, cumulative."""

    events: int
    seconds: float
    cpu_seconds: float
    rss_kib: int


def say(count: int) -> None:
    """Print one sample for the parent."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sample = Sample(count, time.monotonic(), time.process_time(), peak)
    print(json.dumps(sample), flush=True)


class Round(NamedTuple):
    """One side's figures in one round."""

    events_per_second: float
    cpu_seconds_per_million: float
    peak_rss_mib: float


def fill(bootstrap: str, values: Iterator[tuple[int, bytes]]) -> None:
    """Make the topics and put the messages in."""
    config = KafkaConfig(bootstrap, fetch_max_wait_ms=10, idempotent=False, refetch_gaps=True)
    with contextlib.closing(Admin(config)) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    with contextlib.closing(Producer(config, linger_ms=20)) as producer:
        for partition, value in values:
            producer.send(Topic.USAGE_EVENTS, b"lane", value, partition=partition)
        producer.flush(ROUND_SECONDS_MAX)


def batches(seed: int) -> Iterator[tuple[int, bytes]]:
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
            if sum(seqs) == MESSAGES:
                return
            rows.clear()


def scattered(seed: int) -> Iterator[tuple[int, bytes]]:
    """The same from producers that care about no key: every key is in every partition."""
    source = events(MESSAGES * EVENTS_PER_MESSAGE, seed)
    seqs = [0] * PARTITIONS
    for number in range(MESSAGES):
        rows = [next(source) for _ in range(EVENTS_PER_MESSAGE)]
        yield number % PARTITIONS, full_batch(number % PARTITIONS, seqs, rows)


def full_batch(partition: int, seqs: list[int], rows: list[UsageEvent]) -> bytes:
    """The next message of a partition's lane."""
    seqs[partition] += 1
    batch = UsageBatch(lane=f"relay-1/boot/{partition}", seq=seqs[partition], events=tuple(rows))
    return msgspec.json.encode(batch)


def singles(seed: int) -> Iterator[tuple[int, bytes]]:
    """Partition and bytes of one event each."""
    for number, event in enumerate(events(BASELINE_EVENTS, seed)):
        yield number % PARTITIONS, msgspec.json.encode(event)


def run_round(side: str, values: Iterator[tuple[int, bytes]], total: int) -> Round:
    """Fill a fresh broker's topic and let one worker read it."""
    broker = start_broker()
    try:
        fill(broker.address, values)
        with tempfile.TemporaryDirectory() as directory:
            samples = run_worker(side, broker.address, directory, total)
    finally:
        broker.stop()
    first, last = samples[0], samples[-1]
    counted = last.events - first.events
    return Round(
        counted / (last.seconds - first.seconds),
        (last.cpu_seconds - first.cpu_seconds) / counted * 1e6,
        last.rss_kib / 1024,
    )


def run_worker(side: str, bootstrap: str, directory: str, total: int) -> list[Sample]:
    """Run one worker until it has counted everything, then end it."""
    argv = [sys.executable, "-m", "benchmarks.streams", f"--worker={side}", bootstrap, directory]
    samples: list[Sample] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            samples.append(Sample(*json.loads(line)))
            if samples[-1].events >= total:
                break
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    assert samples[-1].events == total, f"{side}: {samples[-1].events} of {total} events"
    assert len(samples) > 1, f"{side}: too few events to measure"
    return samples


# -- the workers


class SayingMeter:
    """Prints a sample at each flush that counted something."""

    def __init__(self) -> None:
        self._events = 0

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:  # noqa: ARG002
        """Sum the events."""
        if metric is Metric.EVENTS:
            self._events += amount

    def gauge(self, metric: Metric, value: int) -> None:  # noqa: ARG002 - the Meter protocol
        """The last flush is durable."""
        if metric is Metric.LAST_FLUSH_MS and self._events:
            say(self._events)


def our_worker(bootstrap: str, directory: str) -> int:
    """The product's worker with the shipped prices."""
    settings = embedded_settings(bootstrap, data_dir=Path(directory))
    return run_streams(settings, load_catalogue().price, now_ms, SayingMeter())


class Usage(faust.Record, serializer="json"):
    """What the idiomatic worker takes of an event."""

    time_ms: int
    organisation: str
    department: str
    project: str
    key: str
    input_tokens: int
    output_tokens: int


def idiomatic_app(bootstrap: str, directory: str) -> faust.App:
    """A Faust app as its guide teaches to write one."""
    app = faust.App(
        "idiomatic",
        broker=f"kafka://{bootstrap}",
        datadir=directory,
        store="memory://",
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        web_enabled=False,
        broker_session_timeout=3,
        broker_heartbeat_interval=0.5,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(Topic.USAGE_EVENTS.value, value_type=Usage, key_type=bytes)
    tables: list[Any] = [
        app.Table(f"spend-{size}", default=int, partitions=PARTITIONS).tumbling(
            size, expires=size * 2
        )
        for size in BASELINE_WINDOWS
    ]
    counted = 0

    @app.agent(source)
    async def meter(stream: Any) -> None:
        nonlocal counted
        async for usage in stream:
            cost = usage.input_tokens * 2_000 + usage.output_tokens * 8_000
            for table in tables:
                table[f"organisation:{usage.organisation}"] += cost
                table[f"department:{usage.department}"] += cost
                table[f"project:{usage.project}"] += cost
                table[f"key:{usage.key}"] += cost
            counted += 1
            if counted % 100 == 0:
                say(counted)

    return app


async def idiomatic_worker(bootstrap: str, directory: str) -> int:
    """Run it until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = idiomatic_app(bootstrap, directory)
    app.finalize()
    await app.start()
    await stop.wait()
    await app.stop()
    return 0


def main() -> None:
    """Run the rounds."""
    json_flag = json_argument(__doc__)
    ours: list[Round] = []
    spread: list[Round] = []
    idiomatic: list[Round] = []
    for number in range(ROUNDS):
        ours.append(run_round("ours", batches(number), MESSAGES * EVENTS_PER_MESSAGE))
        spread.append(run_round("ours", scattered(number), MESSAGES * EVENTS_PER_MESSAGE))
        idiomatic.append(run_round("idiomatic", singles(number), BASELINE_EVENTS))
    ratios = [
        mine.events_per_second / theirs.events_per_second
        for mine, theirs in zip(ours, idiomatic, strict=True)
    ]
    figures = [
        Figure("events_per_second", [each.events_per_second for each in ours], "events/s"),
        Figure("idiomatic_per_second", [each.events_per_second for each in idiomatic], "events/s"),
        Figure("ratio", ratios, "times"),
        Figure("cpu_per_million", [each.cpu_seconds_per_million for each in ours], "s"),
        Figure("scattered_per_second", [each.events_per_second for each in spread], "events/s"),
        Figure("scattered_cpu_per_million", [each.cpu_seconds_per_million for each in spread], "s"),
        Figure(
            "idiomatic_cpu_per_million",
            [each.cpu_seconds_per_million for each in idiomatic],
            "s",
        ),
        Figure("peak_rss", [each.peak_rss_mib for each in ours], "MiB"),
    ]
    targets = [
        Target("events_per_second", ">", EVENTS_PER_SECOND_MIN),
        Target("ratio", ">=", RATIO_MIN),
    ]
    finish("streams", figures, targets, json_flag=json_flag)


def worker_main(side: str, bootstrap: str, directory: str) -> int:
    """Be one of the two workers."""
    set_up_logging("streams", level="error")
    if side == "ours":
        return our_worker(bootstrap, directory)
    # Faust's complaints about a topic it did not make are no part of the comparison.
    logging.disable(logging.CRITICAL)
    return asyncio.run(idiomatic_worker(bootstrap, directory))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1].startswith("--worker="):
        sys.exit(worker_main(sys.argv[1].removeprefix("--worker="), *sys.argv[2:]))
    main()
