"""`meterline rebuild`: restore the state of a lost log from ClickHouse."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.operations.rebuild import RebuildReport
from meterline.operations.rebuild import rebuild as run

_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)


def rebuild(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Restore totals, lanes, policy, commands and alerts of a lost log; workers stopped."""
    settings = load_settings(data)
    client = Client(clickhouse_config(settings))
    try:
        report = run(settings, client, now_ms(), lambda line: _progress.print(f"[dim]{line}[/]"))
    finally:
        client.close()
    if json_output:
        print_json(report.as_json())
        return
    _out.print(_table(report))


def _table(report: RebuildReport) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "log epoch": f"{report.epoch}",
        "events": f"{report.events:,}",
        "spent, USD": report.spent_usd,
        "totals restored": f"{report.totals:,}",
        "totals set to zero": f"{report.zeroed:,}",
        "ids": f"{report.ids:,}",
        "lanes": f"{report.lanes:,}",
        **{topic: f"{count:,}" for topic, count in report.records.items()},
        "seconds": f"{report.seconds:.1f}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
