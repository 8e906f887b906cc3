"""The worker processes of a local pipeline, as their supervisor last saw them."""

from __future__ import annotations

from pathlib import Path

from meterline.app.settings import STATE_FILE
from meterline.embedded.statefile import read_report
from meterline.operations.status import WorkerLine


def worker_lines(data_dir: Path) -> list[WorkerLine]:
    """The processes of the pipeline that runs in a directory; none if no supervisor runs there."""
    report = read_report(data_dir / STATE_FILE)
    if report is None or not report.alive:
        return []
    return [
        WorkerLine(one.name, one.status.value, one.pid, one.restarts, one.rss_bytes)
        for one in report.workers
    ]
