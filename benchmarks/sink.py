"""Sink: Kafka to ClickHouse, as a ratio to clickhouse-connect inserting the same columns.

Both sides run in turn in each round, against the same embedded ClickHouse. The events are like a
relay's: ids of 40 characters, 500 keys, 8 departments, 5 models, tags on every fifth event.

    python -m benchmarks.sink [--json]
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import clickhouse_connect
import msgspec

from benchmarks.report import Figure, Target, finish, json_argument
from meterline.app.telemetry import set_up_logging
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.producer import Producer
from meterline.embedded.broker import start_broker
from meterline.embedded.clickhouse import start_clickhouse
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.metrics import NoMeter
from meterline.schemas.topics import TOPICS, Topic
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.sinks.consumer import run_sink
from meterline.sinks.core.usage_rows import usage_block, usage_rows
from meterline.sinks.migrate import migrate
from meterline.sinks.settings import SinkSettings

ROUNDS = 3
EVENTS_PER_MESSAGE = 100
MESSAGES = 4_000
PARTITIONS = 4
START_MS = 1_793_000_000_000
APPENDED_MS = START_MS + 86_400_000
RATIO_MIN = 0.3
ROUND_SECONDS_MAX = 120.0
MODELS = ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2", "gpt-4.1-mini")


def event(number: int, source: random.Random) -> UsageEvent:
    """One event as a relay makes it."""
    key = min(int(source.paretovariate(0.8)), 500)
    tokens = int(source.lognormvariate(6.5, 1.2))
    return UsageEvent(
        id=f"req-{source.getrandbits(64):016x}{number:012x}-0",
        time_ms=START_MS + number * 3 + source.randrange(1_000),
        organisation="acme",
        department=f"department-{key % 8}",
        project=f"project-{key % 40}",
        user=f"user-{key % 150}",
        key=f"key-{key:04d}",
        model=source.choice(MODELS),
        input_tokens=tokens,
        cache_read_tokens=tokens // 3 if number % 3 == 0 else 0,
        output_tokens=int(source.lognormvariate(5, 1)),
        status="ok",
        http_status=200,
        stream=number % 2 == 0,
        latency_ms=int(source.lognormvariate(7, 0.8)),
        ttft_ms=int(source.lognormvariate(5, 0.8)),
        relay=f"relay-{key % 3}",
        tags={"feature": f"f{key % 9}"} if number % 5 == 0 else {},
    )


def messages(round_number: int) -> list[bytes]:
    """The values of one round's messages."""
    source = random.Random(round_number)
    first = round_number * MESSAGES * EVENTS_PER_MESSAGE
    return [
        msgspec.json.encode(
            UsageBatch(
                lane=f"bench/{round_number}/{message % PARTITIONS}",
                seq=message // PARTITIONS + 1,
                events=tuple(
                    event(first + message * EVENTS_PER_MESSAGE + index, source)
                    for index in range(EVENTS_PER_MESSAGE)
                ),
            )
        )
        for message in range(MESSAGES)
    ]


def send(kafka: KafkaConfig, values: list[bytes]) -> None:
    """Put messages into the topic, spread over its partitions."""
    producer = Producer(kafka)
    for number, value in enumerate(values):
        producer.send(Topic.USAGE_EVENTS.value, None, value, partition=number % PARTITIONS)
    producer.flush(60)
    producer.close()


class Taken(NamedTuple):
    """What storing a round's rows took."""

    seconds: float
    """From the first row to the last."""
    cpu_seconds: float
    """Of this process, in which the sink runs: reading, decoding, rating, inserting."""


def sink_seconds(kafka: KafkaConfig, config: ClickHouseConfig, expected: int) -> Taken:
    """How long a sink takes for `expected` rows."""
    stop = threading.Event()
    rate = load_catalogue(()).rate
    worker = threading.Thread(
        target=run_sink,
        args=(SinkSettings(), kafka, lambda: Client(config), rate, int, NoMeter(), stop),
    )
    reader = Client(config)

    def rows() -> int:
        return int(reader.query("SELECT count() FROM usage_events")[0][0])

    before = rows()
    began, cpu_began = time.perf_counter(), time.process_time()
    deadline = began + ROUND_SECONDS_MAX
    worker.start()
    joined, first_rows = 0.0, 0
    seen = before
    while seen < before + expected and time.perf_counter() < deadline:
        # Each look is a query that the sink has to wait for as well.
        time.sleep(0.1)
        seen = rows()
        if not joined and seen > before:
            # Joining the group is no part of the speed; the rows that came with it are.
            joined, first_rows = time.perf_counter(), seen - before
    ended, cpu_ended = time.perf_counter(), time.process_time()
    stop.set()
    worker.join()
    reader.close()
    assert seen >= before + expected, f"{seen - before} of {expected} rows"
    seconds = (ended - joined) * expected / (expected - first_rows)
    return Taken(seconds, cpu_ended - cpu_began)


def direct_seconds(config: ClickHouseConfig, values: list[bytes]) -> float:
    """How long clickhouse-connect takes for the same columns, prepared beforehand."""
    rate = load_catalogue(()).rate
    prepared = [usage_rows(value, APPENDED_MS, 0, at, 1, rate) for at, value in enumerate(values)]
    rows = [each for each in prepared if each is not None]
    step = SinkSettings().policies[Topic.USAGE_EVENTS].rows_max // EVENTS_PER_MESSAGE
    blocks = [usage_block(rows[at : at + step]) for at in range(0, len(rows), step)]
    client = clickhouse_connect.get_client(
        host=config.host, port=config.port, compress=False, autogenerate_session_id=False
    )
    began = time.perf_counter()
    for block in blocks:
        client.insert(
            "usage_events_direct",
            block.data,
            column_names=[column.name for column in block.columns],
            column_type_names=[column.type for column in block.columns],
            column_oriented=True,
        )
    seconds = time.perf_counter() - began
    client.close()
    return seconds


@contextmanager
def servers() -> Iterator[tuple[KafkaConfig, ClickHouseConfig]]:
    """Broker and ClickHouse with topics and tables."""
    with tempfile.TemporaryDirectory() as directory:
        store = start_clickhouse(Path(directory))
        broker = start_broker()
        try:
            kafka = embedded_kafka(broker.address)
            admin = Admin(kafka)
            admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
            admin.close()
            config = ClickHouseConfig(port=store.port)
            client = Client(config)
            migrate(client)
            client.command("CREATE TABLE usage_events_direct AS usage_events")
            client.close()
            yield kafka, config
        finally:
            broker.stop()
            store.stop()


def bytes_per_event(config: ClickHouseConfig) -> tuple[float, float]:
    """Compressed size of a row after the merges: all of it, and without the event's id.

    The id here has 64 random bits, which no codec can shorten: 8 bytes of every row at least.
    """
    client = Client(config)
    client.command("OPTIMIZE TABLE usage_events FINAL")
    [(size, rows)] = client.query(
        "SELECT sum(data_compressed_bytes), sum(rows) FROM system.parts "
        "WHERE table = 'usage_events' AND active AND database = currentDatabase()"
    )
    [(ids,)] = client.query(
        "SELECT sum(column_data_compressed_bytes) FROM system.parts_columns WHERE active "
        "AND table = 'usage_events' AND column = 'event_id' AND database = currentDatabase()"
    )
    client.close()
    return float(size) / float(rows), float(size - ids) / float(rows)


def main() -> None:
    """Run the rounds and print."""
    set_up_logging("sink", "error")
    json_flag = json_argument(__doc__)
    rows = MESSAGES * EVENTS_PER_MESSAGE
    sink: list[float] = []
    direct: list[float] = []
    cpu: list[float] = []
    with servers() as (kafka, config):
        for round_number in range(ROUNDS):
            values = messages(round_number)
            send(kafka, values)
            taken = sink_seconds(kafka, config, rows)
            sink.append(rows / taken.seconds)
            cpu.append(taken.cpu_seconds * 1e6 / rows)
            direct.append(rows / direct_seconds(config, values))
        size, size_without_id = bytes_per_event(config)
    ratios = [ours / theirs for ours, theirs in zip(sink, direct, strict=True)]
    finish(
        "sink",
        [
            Figure("sink_rows_per_second", sink, "rows/s"),
            Figure("clickhouse_connect_rows_per_second", direct, "rows/s"),
            Figure("ratio", ratios, ""),
            Figure("sink_cpu_seconds_per_million", cpu, "s"),
            Figure("bytes_per_event", [size], "bytes"),
            Figure("bytes_per_event_without_id", [size_without_id], "bytes"),
        ],
        [Target("ratio", ">=", RATIO_MIN)],
        json_flag=json_flag,
    )


if __name__ == "__main__":
    main()
