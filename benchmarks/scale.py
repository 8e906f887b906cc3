"""Scale: two workers against one, recovery of a large table, memory, and three months of windows.

- two workers: a topic of four partitions is filled, then counted by one worker, and on another
  broker by two of one group; events per second of the two together while both count. On two cores
  that the broker shares, CPU seconds per million events say more than the clock: what they cost in
  pairs against alone is the scaling that further cores would give.
- recovery: a changelog of a million entries is written; the time from the start of the process
  until the worker has them all, Faust's start and the group's join included.
- memory: resident memory of that worker above an empty one's, for 100,000 scopes with their four
  open windows.
- three months: see `three_months.py`; memory at the end of each month.

    python -m benchmarks.scale [--json] [--entries N] [--messages N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from typing_extensions import override

from benchmarks.report import Figure, Target, finish
from benchmarks.three_months import DAYS, simulate
from benchmarks.usage_traffic import EVENTS_PER_MESSAGE, PARTITIONS, batches, fill
from benchmarks.worker_process import Sample, SayingMeter, our_worker
from meterline.app.clock import now_ms
from meterline.app.telemetry import set_up_logging
from meterline.app.workers.streams import run_streams
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.embedded.broker import start_broker
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.metrics import Metric
from meterline.schemas.periods import Calendar
from meterline.schemas.topics import TOPICS, Topic
from meterline.streams.core.entries import LedgerEntry, encode_entry, encode_entry_key
from meterline.streams.core.ledger import Record
from meterline.streams.settings import embedded_settings

WINDOWS_OPEN = 4
MEMORY_SCOPES = 100_000
TWO_WORKERS_TIMES_MIN = 1.6
RECOVERY_SECONDS_MAX = 60.0
# A machine full of other work needs minutes for what takes seconds alone.
GIVE_UP_SECONDS = 400
WRITE_BATCH_BYTES = 512 * 1024


def start(mode: str, bootstrap: str, directory: str) -> subprocess.Popen[str]:
    """One worker process that prints samples."""
    argv = [sys.executable, "-m", "benchmarks.scale", "--worker", mode, bootstrap, directory]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def stop(worker: subprocess.Popen[str]) -> None:
    """Drain it, or end it."""
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(60)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


@contextmanager
def broker() -> Iterator[str]:
    """A fresh broker."""
    server = start_broker()
    try:
        yield server.address
    finally:
        server.stop()


# -- two workers


class Group(NamedTuple):
    """What the workers of one group did while all of them counted."""

    events_per_second: float
    cpu_seconds_per_million: float


def count_with(workers: int, messages: int, seed: int) -> Group:
    """Fill a topic and let `workers` workers count it."""
    with broker() as bootstrap, tempfile.TemporaryDirectory() as folder:
        fill(bootstrap, batches(seed, messages))
        files = [Path(folder) / f"samples-{number}" for number in range(workers)]
        running: list[subprocess.Popen[bytes]] = []
        for number, file in enumerate(files):
            argv = [sys.executable, "-m", "benchmarks.scale", "--worker", "count", bootstrap]
            with file.open("w", encoding="utf-8") as out:
                running.append(subprocess.Popen([*argv, f"{folder}/{number}"], stdout=out))
        try:
            return group_of(wait_counted(files, messages * EVENTS_PER_MESSAGE))
        finally:
            for worker in running:
                worker.kill()
                worker.wait()


def wait_counted(files: Iterable[Path], total: int) -> list[list[Sample]]:
    """All samples, once the workers have counted everything between them."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.3)
        found = [samples_of(file) for file in files]
        if all(found) and sum(samples[-1].events for samples in found) >= total:
            return found
    message = "the workers did not count everything in time"
    raise TimeoutError(message)


def samples_of(file: Path) -> list[Sample]:
    """The whole lines so far."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [Sample(*json.loads(line)) for line in lines]


def group_of(found: list[list[Sample]]) -> Group:
    """Sum over the workers, between the last one's first sample and the first one's last."""
    begin = max(samples[0].seconds for samples in found)
    end = min(samples[-1].seconds for samples in found)
    counted, cpu = 0, 0.0
    for samples in found:
        inside = [one for one in samples if begin <= one.seconds <= end]
        counted += inside[-1].events - inside[0].events
        cpu += inside[-1].cpu_seconds - inside[0].cpu_seconds
    return Group(counted / (end - begin), cpu / counted * 1e6)


# -- recovery and memory


def changelog(entries: int, partition: int) -> Iterator[Record]:
    """Snapshots of one partition: scopes with their four open windows."""
    windows = Calendar("UTC").windows(now_ms())
    for number in range(entries // PARTITIONS // WINDOWS_OPEN):
        scope = f"key:acme/key-{partition}-{number:07d}"
        for window in windows:
            entry = LedgerEntry(
                0, 10, window.end_ms, 123_456_789_000, 45_678, 9_876, 0, 0, 0, 77, 0, 1
            )
            key = ((scope, partition), (window.start_ms, window.end_ms))
            yield encode_entry_key(key), encode_entry(entry)


async def write_changelog(bootstrap: str, entries: int) -> None:
    """Put the snapshots into their topic, in batches."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=WRITE_BATCH_BYTES, acks="all"
    )
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            batch = producer.create_batch()
            for key, value in changelog(entries, partition):
                if batch.append(key=key, value=value, timestamp=None) is None:
                    batch.close()
                    topic = Topic.SPEND_SNAPSHOTS.value
                    await (await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            batch.close()
            topic = Topic.SPEND_SNAPSHOTS.value
            await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()


def recover(entries: int) -> tuple[float, Sample]:
    """Seconds from the start of a worker until it has all entries, and its sample then."""
    with broker() as bootstrap, tempfile.TemporaryDirectory() as directory:
        config = embedded_kafka(bootstrap)
        with closing(Admin(config)) as admin:
            admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
        if entries:
            asyncio.run(write_changelog(bootstrap, entries))
        began = time.monotonic()
        worker = start("recover", bootstrap, directory)
        try:
            assert worker.stdout is not None
            for line in worker.stdout:
                sample = Sample(*json.loads(line))
                if sample.events >= entries:
                    return sample.seconds - began, sample
        finally:
            stop(worker)
    message = f"the worker ended before it had {entries} entries"
    raise AssertionError(message)


class RecoveryMeter(SayingMeter):
    """Prints a sample with the number of entries after each recovery."""

    @override
    def gauge(self, metric: Metric, value: int) -> None:
        """How many entries were found."""
        if metric is Metric.ENTRIES:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(
                json.dumps(Sample(value, time.monotonic(), time.process_time(), peak)), flush=True
            )


def three_months() -> list[float]:
    """Resident memory of this process, MiB, at the end of each month of the simulation."""
    pages: list[float] = []

    def note(day: int) -> None:
        if day in (31, 62, DAYS):
            fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
            pages.append(int(fields[1]) * resource.getpagesize() / 1024**2)

    report = simulate(report=note)
    assert report.wrong_months == 0, "a month's total is not the sum of what was sent"
    return pages


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    months = three_months()
    empty = recover(0)[1]
    recovered = [recover(options.entries) for _ in range(options.rounds)]
    one: list[Group] = []
    two: list[Group] = []
    for number in range(options.rounds):
        one.append(count_with(1, options.messages, number))
        two.append(count_with(2, options.messages, number))
    scopes = options.entries / WINDOWS_OPEN
    memory = [
        (sample.rss_kib - empty.rss_kib) / 1024 * MEMORY_SCOPES / scopes for _, sample in recovered
    ]
    pairs = list(zip(one, two, strict=True))
    figures = [
        Figure("one_worker_per_second", [each.events_per_second for each in one], "events/s"),
        Figure("two_workers_per_second", [each.events_per_second for each in two], "events/s"),
        Figure(
            "two_workers_times",
            [both.events_per_second / alone.events_per_second for alone, both in pairs],
            "times",
        ),
        Figure("one_cpu_per_million", [each.cpu_seconds_per_million for each in one], "s"),
        Figure("two_cpu_per_million", [each.cpu_seconds_per_million for each in two], "s"),
        Figure(
            "two_workers_times_by_cpu",
            [
                2 * alone.cpu_seconds_per_million / both.cpu_seconds_per_million
                for alone, both in pairs
            ],
            "times",
        ),
        Figure("recovery_seconds", [seconds for seconds, _ in recovered], "s"),
        Figure(
            "recovery_cpu_seconds",
            [sample.cpu_seconds - empty.cpu_seconds for _, sample in recovered],
            "s",
        ),
        Figure("mib_per_100000_scopes", memory, "MiB"),
        *(Figure(f"month_{n}_rss", [rss], "MiB") for n, rss in enumerate(months, 1)),
    ]
    targets = [
        Target("two_workers_times", ">=", TWO_WORKERS_TIMES_MIN),
        Target("recovery_seconds", "<", RECOVERY_SECONDS_MAX),
    ]
    finish("scale", figures, targets, json_flag=options.json)


def worker_main(mode: str, bootstrap: str, directory: str) -> int:
    """Be a worker."""
    set_up_logging("streams", level="error")
    settings = embedded_settings(bootstrap, data_dir=Path(directory))
    if mode == "recover":
        return run_streams(settings, load_catalogue().price, now_ms, RecoveryMeter())
    return our_worker(settings)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "--worker":
        sys.exit(worker_main(*sys.argv[2:]))
    main()
