"""The peers benchmark's job with quixstreams: windowed aggregation, RocksDB state, changelogs."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Sum

from benchmarks.peer_job import SUMS, WINDOW_SECONDS, Progress, fold

# Events of a relay come within seconds; a minute's window is kept open this long.
GRACE = timedelta(seconds=30)


def run(bootstrap: str, directory: str, kind: str) -> None:
    """Count until SIGTERM."""
    # The embedded broker has no idempotent producers.
    extra = {} if kind == "apache" else {"enable.idempotence": False}
    app = Application(
        broker_address=bootstrap,
        consumer_group="quixstreams",
        auto_offset_reset="earliest",
        state_dir=directory,
        consumer_extra_config={"session.timeout.ms": 6_000, "fetch.wait.max.ms": 10},
        producer_extra_config=extra,
        consumer_poll_timeout=0.1,
        loglevel="ERROR",
    )
    progress = Progress()
    usage = app.dataframe(app.topic("usage.events", value_deserializer="json"))
    records = usage.apply(fold, expand=True)
    records = records.set_timestamp(lambda record, *_: record["time_ms"])
    records = records.group_by("scope").update(progress.note)
    sums: dict[str, Any] = {name: Sum(name) for name in SUMS}
    for seconds in WINDOW_SECONDS:
        window = records.tumbling_window(timedelta(seconds=seconds), grace_ms=GRACE)
        window.agg(**sums).current()
    app.run()


if __name__ == "__main__":
    run(*sys.argv[2:])
