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
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import msgspec

from benchmarks.report import Figure, Target, finish, json_argument
from benchmarks.usage_traffic import (
    EVENTS_PER_MESSAGE,
    PARTITIONS,
    batches,
    events,
    fill,
    scattered,
)
from benchmarks.worker_process import Round, our_worker, round_of, run_worker, say
from meterline.app.telemetry import set_up_logging
from meterline.embedded.broker import start_broker
from meterline.schemas.topics import Topic
from meterline.streams.settings import embedded_settings

ROUNDS = 3
# Seven seconds of a fast worker: its first second (a cold start on a full topic) weighs little.
MESSAGES = 8_000
BASELINE_EVENTS = 1_500
EVENTS_PER_SECOND_MIN = 100_000.0
RATIO_MIN = 50.0
# The tumbling windows of the idiomatic worker, seconds; it knows no calendar.
BASELINE_WINDOWS = (60, 3_600, 86_400, 30 * 86_400)


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
            argv = ["-m", "benchmarks.streams", f"--worker={side}", broker.address, directory]
            return round_of(run_worker(argv, total))
    finally:
        broker.stop()


# -- the workers


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
        ours.append(run_round("ours", batches(number, MESSAGES), MESSAGES * EVENTS_PER_MESSAGE))
        spread.append(run_round("ours", scattered(number, MESSAGES), MESSAGES * EVENTS_PER_MESSAGE))
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
        return our_worker(embedded_settings(bootstrap, data_dir=Path(directory)))
    # Faust's complaints about a topic it did not make are no part of the comparison.
    logging.disable(logging.CRITICAL)
    return asyncio.run(idiomatic_worker(bootstrap, directory))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1].startswith("--worker="):
        sys.exit(worker_main(sys.argv[1].removeprefix("--worker="), *sys.argv[2:]))
    main()
