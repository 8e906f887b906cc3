"""`meterline status`: the pipeline on one screen."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.text import Text

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import ago
from meterline.app.local.processes import worker_lines
from meterline.app.printable import markup
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import pipeline
from meterline.app.workers.table import WORKERS, groups_of
from meterline.operations.status import BudgetLine, PipelineStatus, gather
from meterline.schemas.money import usd_display
from meterline.schemas.periods import rfc3339
from meterline.schemas.throttle import BreakerState

_out = Console(highlight=False)
# Twelve cells show 8 % steps, and the departments still fit into 80 columns.
BAR_CELLS = 12
MEGABYTE = 1_000_000
_COLOURS = {
    BreakerState.CLOSED: "green",
    BreakerState.THROTTLED: "yellow",
    BreakerState.HALF_OPEN: "dark_orange",
    BreakerState.OPEN: "red",
}


def status(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Show workers, consumer lag, last event, spend against budget, and breaker states."""
    settings = load_settings(data)
    overview = gather(
        pipeline(settings), worker_lines(settings.data_dir), now_ms(), groups_of(WORKERS)
    )
    if json_output:
        print_json(overview.as_json())
    else:
        show_status(_out, overview, now_ms())
    raise typer.Exit(1 if overview.faults else 0)


def show_status(out: Console, overview: PipelineStatus, at_ms: int) -> None:
    """Print an overview for an operator."""
    if overview.workers:
        out.print(workers_table(overview))
    last = "none yet"
    if overview.last_event_ms:
        age = ago(overview.last_event_ms, at_ms)
        last = f"{rfc3339(overview.last_event_ms)} ({age})"
    behind = ", ".join(
        f"{name} {'not started' if lag is None else f'{lag:,}'}"
        for name, lag in overview.lag.items()
    )
    out.print(f"last event  {last}")
    out.print(f"lag         {behind or 'unknown'} messages")
    out.print(departments_table(overview))
    for fault in overview.faults:
        out.print(markup("[red]✗[/] {fault}", fault=fault), soft_wrap=True)


def workers_table(overview: PipelineStatus) -> TerminalTable:
    """The processes that `meterline up` watches."""
    table = TerminalTable(
        [
            tables.name("worker"),
            tables.fact("status"),
            tables.measure("pid", 1),
            tables.measure("restarts", 3),
            tables.measure("memory", 2),
        ]
    )
    for worker in overview.workers:
        colour = "green" if worker.status == "running" else "yellow"
        memory = "" if worker.rss_bytes is None else f"{worker.rss_bytes // MEGABYTE:,} MB"
        table.add(
            worker.name,
            styled(worker.status, colour),
            str(worker.pid or ""),
            str(worker.restarts),
            memory,
        )
    return table


def departments_table(overview: PipelineStatus) -> TerminalTable:
    """Spend against budget, fullest first."""
    table = TerminalTable(
        [
            tables.name("department"),
            tables.money("spent"),
            tables.money("budget"),
            tables.measure("used", 3),
            tables.fact("", 1),
            tables.measure("requests", 2),
            tables.fact("breaker"),
        ],
        title=f"departments, {overview.period}",
    )
    for line in overview.departments:
        used = "" if line.percent is None else f"{line.percent} %"
        budget = "" if line.budget_nano_usd is None else usd_display(line.budget_nano_usd)
        table.add(
            line.scope.partition(":")[2],
            usd_display(line.spent_nano_usd),
            budget,
            used,
            _bar(line),
            f"{line.events:,}",
            styled(line.breaker.value, _COLOURS[line.breaker]),
        )
    return table


def _bar(line: BudgetLine) -> Text:
    if line.percent is None:
        return Text()
    filled = min(BAR_CELLS, line.percent * BAR_CELLS // 100)
    bar = Text("█" * filled, _COLOURS[line.breaker])
    return bar.append("·" * (BAR_CELLS - filled), "dim")
