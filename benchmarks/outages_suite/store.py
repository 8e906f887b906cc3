"""ClickHouse is away, or its disk is full: the sink holds, and goes on where it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.outages_suite.load import (
    CALM_SECONDS,
    MEBIBYTE,
    PARTITIONS,
    RECOVERY_SECONDS_MAX,
    Load,
    Peak,
)
from benchmarks.report import Figure, Target
from meterline.app.clock import now_ms
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.clickhouse.errors import ClickHouseError
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import embedded_kafka
from meterline.embedded.broker import start_broker
from meterline.embedded.clickhouse import start_clickhouse
from meterline.relay.emitter import Emitter
from meterline.schemas.metrics import NoMeter
from meterline.schemas.topics import TOPICS
from meterline.sinks.migrate import migrate
from tests.relays import relay_settings
from tests.sink_process import start_sink

SINK_GROWTH_MIB_MAX = 256.0
FLUSH_SECONDS_MAX = 60.0
POLL_SECONDS = 0.2
STORE_DISK_BYTES = 256 * MEBIBYTE
FILL_BYTES = (MEBIBYTE, 4096)
"""A disk is filled in large pieces, then in small ones."""


class Store:
    """A ClickHouse on a directory, to be taken away and given back."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._folder = folder
        self._data = folder / "clickhouse"
        self._server = start_clickhouse(self._data)
        self.port = self._server.port

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def start_again(self) -> None:
        """On the same data and port."""
        self._server = start_clickhouse(self._data, self.port)

    def fill_disk(self) -> None:
        """Leave no room beside its data."""
        with (self._folder / "filler").open("wb", buffering=0) as file:
            for size in FILL_BYTES:
                piece = bytes(size)
                try:
                    # A short write says that the disk is full as well as an error does.
                    while file.write(piece) == size:
                        pass
                except OSError:
                    continue

    def free_disk(self) -> None:
        """Give the room back."""
        (self._folder / "filler").unlink()

    def free_kib(self) -> float:
        """Room on its disk."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize / 1024

    def rows(self) -> int:
        """Events it has; 0 while it does not answer."""
        if not self._server.running():
            return 0
        with closing(Client(ClickHouseConfig(port=self.port))) as client:
            try:
                return int(client.query("SELECT count() FROM usage_events FINAL")[0][0])
            except ClickHouseError:
                return 0

    def close(self) -> None:
        """Stop it."""
        if self._server.running():
            self._server.stop()


@contextmanager
def running_store(folder: Path) -> Iterator[Store]:
    """A ClickHouse with our tables in it."""
    store = Store(folder)
    try:
        with closing(Client(ClickHouseConfig(port=store.port))) as client:
            migrate(client)
        yield store
    finally:
        store.close()


def store_outage(
    name: str,
    store: Store,
    spool: Path,
    seconds: float,
    rate: float,
    wrong: tuple[Callable[[], None], Callable[[], None]],
) -> list[Figure]:
    """A relay emits and the sink writes, during a fault of that many seconds; then it is repaired.

    Args:
        name: begins the figures' names.
        store: with our tables, and empty.
        spool: the relay's directory.
        seconds: how long it is wrong.
        rate: events per second.
        wrong: makes it wrong, mends it.
    """
    spoil, mend = wrong
    broker = start_broker()
    with closing(Admin(embedded_kafka(broker.address))) as admin:
        admin.apply(TOPICS, usage_partitions=PARTITIONS, replication_factor=1)
    sink = start_sink(broker.address, store.port)
    emitter = Emitter(relay_settings(spool, broker.address), now_ms, NoMeter())
    try:
        emitter.start()
        load = Load(emitter, rate)
        load.run(CALM_SECONDS)
        assert emitter.flush(FLUSH_SECONDS_MAX)
        _wait_rows(store, len(load.accepted))
        calm = len(load.accepted)
        memory = Peak(sink.pid)
        memory.start()
        spoil()
        load.run(seconds)
        free_kib = store.free_kib()
        held = len(load.accepted) - max(calm, store.rows())
        mend()
        begun = time.monotonic()
        assert emitter.flush(FLUSH_SECONDS_MAX)
        rows = _wait_rows(store, len(load.accepted))
        return [
            Figure(f"{name}_recovery_seconds", [time.monotonic() - begun], "s"),
            Figure(f"{name}_free_kib", [free_kib], "KiB"),
            Figure(f"{name}_events", [len(load.accepted)], ""),
            Figure(f"{name}_held", [held], ""),
            Figure(f"{name}_lost_or_doubled", [abs(rows - len(load.accepted))], ""),
            Figure(f"{name}_sink_growth_mib", [memory.stop()], "MiB"),
        ]
    finally:
        emitter.close(1)
        sink.terminate()
        sink.wait(30)
        broker.stop()


def _wait_rows(store: Store, wanted: int) -> int:
    """Rows in ClickHouse, once there are enough or the time is over."""
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while (rows := store.rows()) < wanted and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return rows


def store_targets(name: str) -> list[Target]:
    """Nothing is lost or doubled, and the sink's memory is bounded."""
    return [
        # Otherwise the sink went on writing, and nothing was shown.
        Target(f"{name}_held", ">", 0),
        Target(f"{name}_lost_or_doubled", "==", 0),
        Target(f"{name}_sink_growth_mib", "<", SINK_GROWTH_MIB_MAX),
    ]
