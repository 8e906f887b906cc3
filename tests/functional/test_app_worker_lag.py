"""The lag rows of `meterline status`, made from the table of workers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from meterline.app.commands.status import show_status
from meterline.app.local.worker_specs import worker_processes
from meterline.app.settings import BrokerKind, ClickHouseSection, KafkaSection, Settings
from meterline.app.wiring import pipeline
from meterline.app.workers.table import WORKERS, Worker, groups_of
from meterline.embedded.processes import free_port
from meterline.operations.setup import apply_topics
from meterline.operations.status import WorkerLine, gather
from meterline.schemas.groups import Group
from tests.servers import running_broker

pytestmark = pytest.mark.functional

# It shares the sink's offsets, so that no group of the tests is in the product's registry.
ECHO = Worker("echo", "tests.unit.app.echo_worker:start", "Say what it was given.", Group.SINK)


def test_a_new_worker_has_its_rows_in_status(tmp_path: Path) -> None:
    """One line in the table shows the worker's process and its lag; nothing else is changed."""
    workers = (*WORKERS, ECHO)
    with running_broker() as bootstrap:
        settings = Settings(
            data_dir=tmp_path,
            kafka=KafkaSection(bootstrap=bootstrap, kind=BrokerKind.EMBEDDED),
            clickhouse=ClickHouseSection(port=free_port()),
        )
        apply_topics(pipeline(settings))
        lines = [WorkerLine(name, "running", 1, 0, None) for name in worker_processes(1, workers)]
        overview = gather(pipeline(settings), lines, 0, groups_of(workers))
    assert list(overview.lag) == ["streams", "sink", "echo"]
    assert [each.name for each in overview.workers][-1] == "echo"
    page = io.StringIO()
    show_status(Console(file=page, width=100), overview, 0)
    assert "streams not started, sink not started, echo not started messages" in page.getvalue()
    assert "\necho     running" in page.getvalue()
