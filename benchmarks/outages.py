"""Outages: what is promised while a broker, ClickHouse, a disk or a receiver is away.

    python -m benchmarks.outages [--seconds N] [--rate EVENTS_PER_SECOND] [--only NAME ...] [--json]

Each outage lasts `--seconds`, with a steady load before, during and after it.

broker            SIGSTOP: the spool fills; emit() must be as quick as before; afterwards everything
                  is on the topic, each batch once.
broker_killed     SIGKILL, Apache Kafka started again on the same data: the same promises.
spool_disk        the spool's file system (a tmpfs of 256 KiB) is full while the broker is silent:
                  what does not fit is refused and counted, and what was accepted arrives.
clickhouse        SIGKILL, started again on the same data: the sink holds and goes on.
clickhouse_disk   the file system under ClickHouse (a tmpfs) is full: the same promises.
webhook           a receiver takes requests and never answers: throttle commands and the other
                  channel are as quick as before; when it answers again, it gets every alert.

The two disks need root, which mounts them; `broker_killed` needs Java and Apache Kafka's jars
(`python -m meterline.embedded.kafka` gets them). Memory is the peak of the process that has to hold on
(relay, sink, notify worker) beyond what it had before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.outages_suite.broker import (
    broker_outage,
    broker_targets,
    killed_broker,
    silent_broker,
    spool_targets,
)
from benchmarks.outages_suite.load import small_disk
from benchmarks.outages_suite.store import (
    STORE_DISK_BYTES,
    running_store,
    store_outage,
    store_targets,
)
from benchmarks.outages_suite.webhook import webhook_outage, webhook_targets
from benchmarks.report import Figure, Target, finish
from meterline.app.telemetry import set_up_logging
from meterline.embedded.apache_kafka.jars import java_program, resolved_jars
from meterline.embedded.errors import ServerMissingError

SPOOL_DISK_BYTES = 256 << 10
Measured = tuple[list[Figure], list[Target]]
Outage = Callable[[Path, float, float], Measured]


def _broker(folder: Path, seconds: float, rate: float) -> Measured:
    with silent_broker() as broker:
        figures = broker_outage("broker", broker, folder / "spool", seconds, rate)
    return figures, broker_targets("broker")


def _broker_killed(folder: Path, seconds: float, rate: float) -> Measured:
    with killed_broker(folder / "kafka") as broker:
        figures = broker_outage("broker_killed", broker, folder / "spool", seconds, rate)
    return figures, broker_targets("broker_killed")


def _spool_disk(_: Path, seconds: float, rate: float) -> Measured:
    with small_disk(SPOOL_DISK_BYTES) as disk, silent_broker() as broker:
        figures = broker_outage("spool_disk", broker, disk / "spool", seconds, rate)
    return figures, spool_targets("spool_disk")


def _clickhouse(folder: Path, seconds: float, rate: float) -> Measured:
    with running_store(folder) as store:
        figures = store_outage(
            "clickhouse", store, folder / "spool", seconds, rate, (store.kill, store.start_again)
        )
    return figures, store_targets("clickhouse")


def _clickhouse_disk(folder: Path, seconds: float, rate: float) -> Measured:
    with small_disk(STORE_DISK_BYTES) as disk, running_store(disk) as store:
        wrong = (store.fill_disk, store.free_disk)
        figures = store_outage("clickhouse_disk", store, folder / "spool", seconds, rate, wrong)
    return figures, store_targets("clickhouse_disk")


def _webhook(_: Path, seconds: float, __: float) -> Measured:
    return webhook_outage(seconds), webhook_targets()


OUTAGES: Mapping[str, Outage] = {
    "broker": _broker,
    "broker_killed": _broker_killed,
    "spool_disk": _spool_disk,
    "clickhouse": _clickhouse,
    "clickhouse_disk": _clickhouse_disk,
    "webhook": _webhook,
}


def why_not(name: str) -> str:
    """What this machine lacks for an outage; empty if nothing."""
    if name in {"spool_disk", "clickhouse_disk"} and os.geteuid() != 0:
        return "only root may mount a small disk"
    if name == "broker_killed":
        try:
            java_program()
            resolved_jars()
        except ServerMissingError as error:
            return str(error)
    return ""


def measure(name: str, seconds: float, rate: float) -> Measured:
    """One outage, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="meterline-outage-") as folder:
        return OUTAGES[name](Path(folder), seconds, rate)


def main() -> None:
    """Run, print, exit with 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--only", nargs="+", choices=tuple(OUTAGES), default=tuple(OUTAGES))
    arguments = parser.parse_args()
    set_up_logging("outages", "critical")
    figures, targets = [], []
    for name in arguments.only:
        if lacking := why_not(name):
            parser.exit(2, f"{name}: {lacking}; leave it out with --only\n")
        measured, wanted = measure(name, arguments.seconds, arguments.rate)
        figures += measured
        targets += wanted
    finish("outages", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
