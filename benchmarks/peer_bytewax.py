"""The peers benchmark's job with bytewax: its own windows, with its recovery store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.peer_job import SUMS, WINDOW_SECONDS, Progress, fold

ALIGNED = datetime(2025, 1, 1, tzinfo=UTC)
# As often as quixstreams commits.
EPOCH_INTERVAL = timedelta(seconds=5)


def add(total: list[int], record: dict[str, Any]) -> list[int]:
    """Add one record's sums."""
    for position, name in enumerate(SUMS):
        total[position] += record[name]
    return total


def merge(left: list[int], right: list[int]) -> list[int]:
    """Add two totals."""
    return [one + other for one, other in zip(left, right, strict=True)]


def flow(bootstrap: str) -> Dataflow:
    """The job."""
    progress = Progress()

    def records(message: Any) -> list[tuple[str, dict[str, Any]]]:
        return [(record["scope"], record) for record in fold(orjson.loads(message.value))]

    def add_and_note(total: list[int], record: dict[str, Any]) -> list[int]:
        progress.note(record)
        return add(total, record)

    dataflow = Dataflow("spend")
    usage = kop.input(
        "usage",
        dataflow,
        brokers=[bootstrap],
        topics=["usage.events"],
        tail=True,
        add_config={"fetch.wait.max.ms": "10"},
    )
    keyed = op.flat_map("records", usage.oks, records)
    clock: EventClock[dict[str, Any]] = EventClock(
        ts_getter=lambda record: datetime.fromtimestamp(record["time_ms"] / 1000, UTC),
        wait_for_system_duration=timedelta(seconds=30),
    )
    for seconds in WINDOW_SECONDS:
        window = TumblingWindower(length=timedelta(seconds=seconds), align_to=ALIGNED)
        name = f"window-{seconds}"
        # The steps of a flow queue between each other: done is what came to the last window.
        folder = add_and_note if seconds == WINDOW_SECONDS[-1] else add
        totals = fold_window(
            name,
            keyed,
            clock,
            window,
            lambda: [0] * len(SUMS),
            folder,
            merge,
            # Sums need no order; with it every record would wait for the clock first.
            ordered=False,
        )
        op.inspect(f"{name}-closed", totals.down, lambda *_: None)
    return dataflow


def run(bootstrap: str, directory: str, _kind: str) -> None:
    """Count until SIGTERM."""
    store = Path(directory)
    init_db_dir(store, 1)
    cli_main(
        flow(bootstrap),
        recovery_config=RecoveryConfig(str(store)),
        epoch_interval=EPOCH_INTERVAL,
    )


if __name__ == "__main__":
    run(*sys.argv[2:])
