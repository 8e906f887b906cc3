"""`meterline rebuild`: restore the state of a lost log from ClickHouse."""

from __future__ import annotations

from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable
from meterline.app.wiring import pipeline
from meterline.operations.rebuild import RebuildReport
from meterline.operations.rebuild import rebuild as run

_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)


def rebuild(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Restore the state of a lost log from ClickHouse: totals, lanes, policy, commands, alerts.

    Stop the workers first.
    """
    report = run(
        pipeline(load_settings(data)), now_ms(), lambda line: _progress.print(f"[dim]{line}[/]")
    )
    if json_output:
        print_json(report.as_json())
        return
    _out.print(report_table(report))


def report_table(report: RebuildReport) -> TerminalTable:
    """What was restored."""
    table = TerminalTable([tables.name("what"), tables.money("restored")], heading=False)
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
        table.add(name, value)
    return table
