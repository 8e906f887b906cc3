"""Outages: a broker that stops answering, a ClickHouse that dies, a disk that is full.

    python -m benchmarks.outages [--seconds N] [--rate EVENTS_PER_SECOND] [--json]

Each outage lasts `--seconds`, with a relay emitting at a steady rate before, during and after it.

broker      SIGSTOP: the spool fills; emit() must be as quick as before; afterwards everything is on
            the topic, each batch once.
clickhouse  SIGKILL, started again on the same data after the outage: the sink holds and goes on.
disk        the spool's file system (a tmpfs of 256 KiB; needs root) is full while the broker is away:
            what does not fit is refused and counted, and what was accepted arrives.

Memory is the peak of the process that has to hold on (relay or sink) beyond what it had before.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from typing_extensions import override

from app.clock import now_ms
from app.telemetry import set_up_logging
from backends.clickhouse import ClickHouseConfig, ClickHouseError, Client
from backends.kafka import Admin, LogReader
from benchmarks.report import Figure, Target, finish
from embedded.broker import start_broker
from embedded.clickhouse import start_clickhouse
from relay.emitter import EmitOutcome, Emitter
from relay.settings import EmitterSettings
from schemas.codec import decode_usage
from schemas.metrics import NoMeter
from schemas.topics import TOPICS, Topic
from sinks.migrate import migrate
from tests.relays import embedded_kafka, relay_settings, usage_event
from tests.sink_process import start_sink

PARTITIONS = 4
CALM_SECONDS = 3.0
RECOVERY_SECONDS_MAX = 180.0
TMPFS_BYTES = 256 << 10
# A relay's request must not feel the outage: a tenth of a millisecond is noise on any network.
EMIT_P99_MS_MAX = 1.0
DISK_FULL_KIB = 16  # less than the next batch
RELAY_GROWTH_MIB_MAX = 64.0
SINK_GROWTH_MIB_MAX = 256.0
MEBIBYTE = 1 << 20


class Peak(threading.Thread):
    """The greatest resident memory of a process, sampled."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.before = self.peak = self._process.memory_info().rss

    @override
    def run(self) -> None:
        """Sample until `stop`."""
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def stop(self) -> float:
        """Growth in MiB."""
        self._over.set()
        self.join()
        return (self.peak - self.before) / MEBIBYTE


class Load:
    """Emits at a steady rate and times every call."""

    def __init__(self, emitter: Emitter, per_second: float) -> None:
        self._emitter = emitter
        self._per_second = per_second
        self.accepted: list[str] = []
        self.refused = 0
        self._number = 0

    def run(self, seconds: float) -> list[float]:
        """Milliseconds of each emit()."""
        took = []
        begun, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begun) < seconds:
            while sent < elapsed * self._per_second:
                event = usage_event(self._number, time_ms=now_ms())
                at = time.perf_counter()
                outcome = self._emitter.emit(event)
                took.append((time.perf_counter() - at) * 1000)
                if outcome is EmitOutcome.ACCEPTED:
                    self.accepted.append(event.id)
                else:
                    self.refused += 1
                self._number += 1
                sent += 1
            time.sleep(0.002)
        return took


def p99(values: list[float]) -> float:
    """Nearest rank."""
    return sorted(values)[int(0.99 * len(values))]


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of TMPFS_BYTES."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "meterline-outage", folder],
            check=True,
        )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def stored_ids(bootstrap: str) -> Counter[str]:
    """How often each event id stands on the topic, a batch that was sent again counted once."""
    seen: set[tuple[str, int]] = set()
    found: Counter[str] = Counter()
    with closing(LogReader(embedded_kafka(bootstrap), [Topic.USAGE_EVENTS])) as reader:
        for record in reader.read_to_end(60):
            message = decode_usage(record.value, record.timestamp_ms)
            if (message.lane, message.seq) not in seen:
                seen.add((message.lane, message.seq))
                found.update(event.id for event in message.events)
    return found


def relay_outage(name: str, spool: Path, seconds: float, rate: float) -> list[Figure]:
    """The broker stops answering for so long."""
    server = start_broker()
    with closing(Admin(embedded_kafka(server.address))) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    emitter = Emitter(
        relay_settings(spool, server.address, emitter=EmitterSettings()), now_ms, NoMeter()
    )
    try:
        emitter.start()
        load = Load(emitter, rate)
        calm = load.run(CALM_SECONDS)
        memory = Peak(os.getpid())
        memory.start()
        os.kill(server.pid, signal.SIGSTOP)
        during = load.run(seconds)
        backlog = emitter.backlog_batches
        disk = os.statvfs(spool)
        os.kill(server.pid, signal.SIGCONT)
        begun = time.monotonic()
        drained = emitter.flush(RECOVERY_SECONDS_MAX)
        drain_seconds = time.monotonic() - begun
        assert drained, f"not drained within {RECOVERY_SECONDS_MAX:g} s"
        found = stored_ids(server.address)
        wrong = sum((found - Counter(load.accepted)).values()) + sum(
            (Counter(load.accepted) - found).values()
        )
        return [
            Figure(f"{name}_emit_calm_p99_ms", [p99(calm)], "ms"),
            Figure(f"{name}_emit_p99_ms", [p99(during)], "ms"),
            Figure(f"{name}_emit_median_ms", [statistics.median(during)], "ms"),
            Figure(f"{name}_backlog_batches", [backlog], ""),
            Figure(f"{name}_free_kib", [disk.f_bavail * disk.f_frsize / 1024], "KiB"),
            Figure(f"{name}_drain_seconds", [drain_seconds], "s"),
            Figure(f"{name}_accepted", [len(load.accepted)], ""),
            Figure(f"{name}_refused", [load.refused], ""),
            Figure(f"{name}_lost_or_doubled", [wrong], ""),
            Figure(f"{name}_memory_growth_mib", [memory.stop()], "MiB"),
        ]
    finally:
        os.kill(server.pid, signal.SIGCONT)
        emitter.close(1)
        server.stop()


def clickhouse_outage(folder: Path, seconds: float, rate: float) -> list[Figure]:
    """ClickHouse is dead for so long, while the relay goes on."""
    broker, store = start_broker(), start_clickhouse(folder / "clickhouse")
    port = store.port
    with closing(Admin(embedded_kafka(broker.address))) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    with closing(Client(ClickHouseConfig(port=port))) as client:
        migrate(client)
    sink = start_sink(broker.address, port)
    emitter = Emitter(relay_settings(folder / "spool", broker.address), now_ms, NoMeter())
    try:
        emitter.start()
        load = Load(emitter, rate)
        load.run(CALM_SECONDS)
        assert emitter.flush(60)
        wait_rows(port, load, lambda found, sent: found >= sent)
        memory = Peak(sink.pid)
        memory.start()
        store.kill()
        load.run(seconds)
        store = start_clickhouse(folder / "clickhouse", port)
        begun = time.monotonic()
        assert emitter.flush(60)
        rows = wait_rows(port, load, lambda found, sent: found >= sent)
        return [
            Figure("clickhouse_recovery_seconds", [time.monotonic() - begun], "s"),
            Figure("clickhouse_events", [len(load.accepted)], ""),
            Figure("clickhouse_lost_or_doubled", [abs(rows - len(load.accepted))], ""),
            Figure("clickhouse_sink_growth_mib", [memory.stop()], "MiB"),
        ]
    finally:
        emitter.close(1)
        sink.terminate()
        sink.wait(30)
        store.stop()
        broker.stop()


def wait_rows(port: int, load: Load, enough: Callable[[int, int], bool]) -> int:
    """Rows in ClickHouse, once there are enough or the time is over."""
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    with closing(Client(ClickHouseConfig(port=port))) as client:
        while True:
            try:
                rows = int(client.query("SELECT count() FROM usage_events FINAL")[0][0])
            except ClickHouseError:
                rows = 0
            if enough(rows, len(load.accepted)) or time.monotonic() > deadline:
                return rows
            time.sleep(0.2)


def measure(seconds: float, rate: float) -> tuple[list[Figure], list[Target]]:
    """All outages; the full disk only for root."""
    figures, targets = [], []
    with tempfile.TemporaryDirectory() as folder:
        figures += relay_outage("broker", Path(folder) / "spool", seconds, rate)
        figures += clickhouse_outage(Path(folder), seconds, rate)
    targets += [
        Target("broker_emit_p99_ms", "<", EMIT_P99_MS_MAX),
        Target("broker_lost_or_doubled", "==", 0),
        Target("broker_refused", "==", 0),
        Target("broker_memory_growth_mib", "<", RELAY_GROWTH_MIB_MAX),
        Target("clickhouse_lost_or_doubled", "==", 0),
        Target("clickhouse_sink_growth_mib", "<", SINK_GROWTH_MIB_MAX),
    ]
    if os.geteuid() == 0:
        with small_disk() as disk:
            figures += relay_outage("disk", disk / "spool", seconds, rate)
        targets += [
            # Otherwise the disk was not full, and nothing was shown.
            Target("disk_free_kib", "<", DISK_FULL_KIB),
            Target("disk_lost_or_doubled", "==", 0),
            Target("disk_memory_growth_mib", "<", 2 * RELAY_GROWTH_MIB_MAX),
        ]
    return figures, targets


def main() -> None:
    """Run, print, exit with 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1_000.0)
    arguments = parser.parse_args()
    set_up_logging("outages", "critical")
    figures, targets = measure(arguments.seconds, arguments.rate)
    finish("outages", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
