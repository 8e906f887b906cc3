"""A sink as a process of its own, for tests that kill it: `python -m tests.sink_process JSON`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.config import embedded_kafka
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.metrics import NoMeter
from meterline.sinks.consumer import run_sink
from meterline.sinks.settings import SinkSettings


def start_sink(
    bootstrap: str, clickhouse_port: int, *, crash_at: str = "", epoch: int = 0
) -> subprocess.Popen[bytes]:
    """Start it; it ends by itself at `crash_at`, or on SIGTERM."""
    arguments = {
        "bootstrap": bootstrap,
        "clickhouse_port": clickhouse_port,
        "crash_at": crash_at,
        "epoch": epoch,
    }
    return subprocess.Popen([sys.executable, "-m", __name__, json.dumps(arguments)])


def main() -> None:
    """Run until SIGTERM or the failpoint."""
    arguments = json.loads(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    kafka = embedded_kafka(arguments["bootstrap"])
    settings = SinkSettings(epoch=arguments["epoch"], crash_at=arguments["crash_at"])
    store = ClickHouseConfig(port=arguments["clickhouse_port"])
    rate = load_catalogue(()).rate
    sys.exit(
        run_sink(
            settings,
            kafka,
            lambda: Client(store),
            rate,
            lambda: time.time_ns() // 1_000_000,
            NoMeter(),
            stop,
        )
    )


if __name__ == "__main__":
    main()
