"""`meterline status`: the pipeline on one screen."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.operations.status import BudgetLine, Overview, gather
from meterline.schemas.money import usd_display
from meterline.schemas.periods import rfc3339
from meterline.schemas.throttle import BreakerState

_out = Console(highlight=False)
# With it the departments fit into 80 columns.
BAR_CELLS = 12
MEGABYTE = 1_000_000
_COLOURS = {
    BreakerState.CLOSED: "green",
    BreakerState.THROTTLED: "yellow",
    BreakerState.HALF_OPEN: "dark_orange",
    BreakerState.OPEN: "red",
}


def status(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Show workers, lag, last event, spend against budget and breaker states."""
    overview = gather(load_settings(data), now_ms())
    if json_output:
        print_json(overview.as_json())
    else:
        show(_out, overview, now_ms())
    raise typer.Exit(1 if overview.faults else 0)


def show(out: Console, overview: Overview, at_ms: int) -> None:
    """Print an overview for people."""
    if overview.workers:
        out.print(_workers(overview))
    last = "none yet"
    if overview.last_event_ms:
        age = max(0, at_ms - overview.last_event_ms) // 1000
        last = f"{rfc3339(overview.last_event_ms)} ({age} s ago)"
    behind = ", ".join(
        f"{name} {'not started' if lag is None else f'{lag:,}'}"
        for name, lag in overview.lag.items()
    )
    out.print(f"last event  {last}")
    out.print(f"lag         {behind or 'unknown'} messages")
    out.print(departments_table(overview))
    for fault in overview.faults:
        out.print(f"[red]✗[/] {fault}", soft_wrap=True)


def _workers(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, side in (("worker", "left"), ("status", "left"), ("pid", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("restarts", justify="right")
    table.add_column("memory", justify="right")
    for worker in overview.workers:
        colour = "green" if worker.status == "running" else "yellow"
        memory = "" if worker.rss_bytes is None else f"{worker.rss_bytes // MEGABYTE:,} MB"
        table.add_row(
            worker.name,
            f"[{colour}]{worker.status}[/]",
            str(worker.pid or ""),
            str(worker.restarts),
            memory,
        )
    return table


def departments_table(overview: Overview) -> Table:
    """Spend against budget, fullest first."""
    table = Table(title=f"departments, {overview.period}", title_justify="left", box=None)
    for name in ("department", "spent", "budget", "used", "", "requests", "breaker"):
        table.add_column(
            name,
            justify="right" if name in {"spent", "budget", "used", "requests"} else "left",
            no_wrap=name != "department",
        )
    for line in overview.departments:
        used = "" if line.percent is None else f"{line.percent} %"
        budget = "" if line.budget_nano_usd is None else usd_display(line.budget_nano_usd)
        table.add_row(
            line.scope.partition(":")[2],
            usd_display(line.spent_nano_usd),
            budget,
            used,
            _bar(line),
            f"{line.events:,}",
            f"[{_COLOURS[line.breaker]}]{line.breaker.value}[/]",
        )
    return table


def _bar(line: BudgetLine) -> str:
    if line.percent is None:
        return ""
    filled = min(BAR_CELLS, line.percent * BAR_CELLS // 100)
    return f"[{_COLOURS[line.breaker]}]{'█' * filled}[/][dim]{'·' * (BAR_CELLS - filled)}[/]"
