"""The broker is away: silent, or killed and started again on its data; the relay spools."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.outages_suite.load import (
    CALM_SECONDS,
    PARTITIONS,
    RECOVERY_SECONDS_MAX,
    Load,
    Peak,
    p99,
)
from benchmarks.report import Figure, Target
from meterline.app.clock import now_ms
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.reader import TopicReader
from meterline.embedded.broker import start_broker
from meterline.embedded.kafka import start_kafka
from meterline.relay.emitter import Emitter
from meterline.schemas.codec import decode_usage
from meterline.schemas.metrics import NoMeter
from meterline.schemas.topics import TOPICS, Topic
from tests.relays import relay_settings

# A relay's request must not feel the outage: a tenth of a millisecond is noise on any network.
EMIT_P99_MS_MAX = 1.0
RELAY_GROWTH_MIB_MAX = 64.0
DISK_FULL_KIB = 16
"""Less than the next batch."""


@dataclass(frozen=True)
class Broker:
    """A broker that can be taken away and given back."""

    kafka: KafkaConfig
    leave: Callable[[], None]
    come_back: Callable[[], None]


@contextmanager
def silent_broker() -> Iterator[Broker]:
    """The embedded one, stopped by SIGSTOP: connections stay, and no answer comes."""
    server = start_broker()
    try:
        yield Broker(
            embedded_kafka(server.address),
            lambda: os.kill(server.pid, signal.SIGSTOP),
            lambda: os.kill(server.pid, signal.SIGCONT),
        )
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


@contextmanager
def killed_broker(folder: Path) -> Iterator[Broker]:
    """Apache Kafka, killed by SIGKILL and started again on the same data and port."""
    server = start_kafka(folder)
    port = server.port

    def leave() -> None:
        server.kill()

    def come_back() -> None:
        nonlocal server
        server = start_kafka(folder, port)

    try:
        yield Broker(KafkaConfig(server.address), leave, come_back)
    finally:
        if server.running():
            server.stop()


def stored_ids(kafka: KafkaConfig) -> Counter[str]:
    """How often each event id stands on the topic, a batch that was sent again counted once."""
    seen: set[tuple[str, int]] = set()
    found: Counter[str] = Counter()
    with closing(TopicReader(kafka, [Topic.USAGE_EVENTS])) as reader:
        for record in reader.read_to_end(60):
            message = decode_usage(record.value, record.timestamp_ms)
            if (message.lane, message.seq) not in seen:
                seen.add((message.lane, message.seq))
                found.update(event.id for event in message.events)
    return found


def broker_outage(
    name: str, broker: Broker, spool: Path, seconds: float, rate: float
) -> list[Figure]:
    """A relay emits while the broker is away for so long; then everything has to be on the topic.

    Returns:
        Figures whose names begin with `name`.
    """
    with closing(Admin(broker.kafka)) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    settings = replace(relay_settings(spool), kafka=broker.kafka)
    emitter = Emitter(settings, now_ms, NoMeter())
    try:
        emitter.start()
        load = Load(emitter, rate)
        calm = load.run(CALM_SECONDS)
        memory = Peak(os.getpid())
        memory.start()
        broker.leave()
        during = load.run(seconds)
        backlog = emitter.backlog_batches
        disk = os.statvfs(spool)
        broker.come_back()
        begun = time.monotonic()
        drained = emitter.flush(RECOVERY_SECONDS_MAX)
        drain_seconds = time.monotonic() - begun
        assert drained, f"not drained within {RECOVERY_SECONDS_MAX:g} s"
        growth = memory.stop()
        found, sent = stored_ids(broker.kafka), Counter(load.accepted)
        wrong = (found - sent).total() + (sent - found).total()
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
            Figure(f"{name}_memory_growth_mib", [growth], "MiB"),
        ]
    finally:
        emitter.close(1)


def broker_targets(name: str) -> list[Target]:
    """Nothing waits, nothing is refused, lost or doubled, and memory is bounded."""
    return [
        Target(f"{name}_emit_p99_ms", "<", EMIT_P99_MS_MAX),
        # Otherwise the broker was not away, and nothing was shown.
        Target(f"{name}_backlog_batches", ">", 0),
        Target(f"{name}_lost_or_doubled", "==", 0),
        Target(f"{name}_refused", "==", 0),
        Target(f"{name}_memory_growth_mib", "<", RELAY_GROWTH_MIB_MAX),
    ]


def spool_targets(name: str) -> list[Target]:
    """What the full disk refuses is counted; what was accepted arrives."""
    return [
        Target(f"{name}_free_kib", "<", DISK_FULL_KIB),
        Target(f"{name}_lost_or_doubled", "==", 0),
        Target(f"{name}_memory_growth_mib", "<", 2 * RELAY_GROWTH_MIB_MAX),
    ]
