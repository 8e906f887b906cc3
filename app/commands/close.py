"""`meterline close`, `meterline reopen` and `meterline periods`: the monthly close."""

from __future__ import annotations

import getpass
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import minute_text
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings, secret
from meterline.app.tables import TerminalTable
from meterline.app.wiring import clickhouse_config, pipeline
from meterline.backends.clickhouse.client import Client
from meterline.operations.close import close_dependencies
from meterline.operations.push import push_due
from meterline.reports.booking.core.inputs import MANIFEST
from meterline.reports.booking.core.ledger import PeriodHistory
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.close.close import (
    CloseDependencies,
    CloseOutcome,
    CloseResult,
    close_month,
    reopen_month,
)
from meterline.schemas.money import nano_from_usd, usd_display

_out = Console(highlight=False, soft_wrap=True)
EXIT_REFUSED = 3
_COLOURS = {
    CloseOutcome.CLOSED: "green",
    CloseOutcome.ALREADY: "green",
    CloseOutcome.DRAFT: "yellow",
    CloseOutcome.REFUSED: "red",
}
PeriodArgument = Annotated[str, typer.Argument(help="Month, such as 2026-10.")]
Actor = Annotated[str, typer.Option(help="Actor for the audit log; default: your user name.")]


def close(
    period: PeriodArgument,
    data: DataDir = DEFAULT_DATA_DIR,
    actor: Actor = "",
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write draft files, even if the close would be refused."),
    ] = False,
    early: Annotated[
        bool,
        typer.Option("--early", help="Do not wait for the cut-off; the month must have ended."),
    ] = False,
    json_output: Json = False,
) -> None:
    """Close a month: bills, journals, FOCUS file, manifest.

    Exit code 3 if refused.
    """
    with _dependencies(data, quiet=json_output) as dependencies:
        result = close_month(
            dependencies, period, now_ms(), actor=actor or _user(), dry_run=dry_run, early=early
        )
    if json_output:
        print_json(_as_json(result))
    else:
        show_result(_out, result)
    raise typer.Exit(EXIT_REFUSED if result.outcome is CloseOutcome.REFUSED else 0)


def reopen(
    period: PeriodArgument,
    reason: Annotated[str, typer.Option(help="Reason, for the audit log.")],
    data: DataDir = DEFAULT_DATA_DIR,
    actor: Actor = "",
) -> None:
    """Reopen a closed month.

    Its next close is a revision that books only the differences.
    """
    with _dependencies(data, quiet=True) as dependencies:
        entry = reopen_month(dependencies, period, now_ms(), actor=actor or _user(), reason=reason)
    _out.print(f"{period} is reopened; `meterline close {period}` makes revision {entry.revision}")


def push(
    period: PeriodArgument, data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False
) -> None:
    """Push a closed month to the ERP, refused entries included.

    Exit code 3 unless everything was delivered.
    """
    wait = threading.Event().wait  # nothing ends it early
    report = push_due(pipeline(load_settings(data)), secret, now_ms, wait, period)
    if json_output:
        print_json(asdict(report))
    else:
        _out.print(
            f"{period}: {report.delivered} delivered, {report.before} delivered before, "
            f"{report.refused} refused, {report.waiting} waiting"
        )
    raise typer.Exit(EXIT_REFUSED if report.refused or report.waiting else 0)


def periods(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """List months that were closed, refused or reopened."""
    client = Client(clickhouse_config(load_settings(data)))
    try:
        ledger = read_ledger(client)
    finally:
        client.close()
    months = [ledger.months[name] for name in sorted(ledger.months)]
    if json_output:
        print_json([_month_json(each) for each in months])
        return
    if not months:
        _out.print("no month has been closed: run `meterline close 2026-10`")
        return
    _out.print(periods_table(months))


def periods_table(months: Sequence[PeriodHistory]) -> TerminalTable:
    """The last state of each month."""
    table = TerminalTable(
        [
            tables.fact("month"),
            tables.fact("state"),
            tables.measure("rev", 1),
            tables.fact("since (UTC)"),
            tables.name("by"),
            tables.text("reason"),
        ]
    )
    for each in months:
        last = each.entries[-1]
        table.add(
            each.period,
            last.state.value,
            str(last.revision),
            minute_text(last.at_ms),
            last.actor,
            last.reason,
        )
    return table


def show_result(out: Console, result: CloseResult) -> None:
    """Print a result for an operator."""
    colour = _COLOURS[result.outcome]
    head = f"[bold {colour}]{result.outcome.value}[/] {result.period}"
    if result.outcome is CloseOutcome.ALREADY:
        # Nothing was done: one line.
        out.print(
            markup(f"{head} revision {result.revision}: {{directory}}", directory=result.directory)
        )
        return
    if result.outcome is CloseOutcome.REFUSED:
        out.print(f"{head}: the month stays open")
    else:
        out.print(f"{head} revision {result.revision}  manifest {result.manifest_sha256[:16]}")
    for blocker in result.blockers:
        out.print(markup("  [red]✗[/] {blocker}", blocker=blocker))
    if result.outcome is CloseOutcome.DRAFT and not result.blockers:
        out.print("  ready to close")
    if result.directory is not None:
        for line in _bill_lines(result.directory):
            out.print(f"  {visible(line)}", markup=False, emoji=False)
        out.print(f"  {visible(str(result.directory))}", markup=False, emoji=False)


def _bill_lines(directory: Path) -> Iterator[str]:
    """What each organisation is billed, as the manifest says."""
    manifest = json.loads((directory / MANIFEST).read_bytes())
    for each in manifest["files"]:
        organisation, _, name = each["path"].partition("/")
        if name == "bill.json":
            sums, count = each["sums"], each["rows"]
            cost = usd_display(nano_from_usd(sums["cost_usd"]))
            billed = f"{sums['amount']} {manifest['currency']}"
            exact = "" if manifest["currency"] == "USD" else f" ({cost})"
            departments = "department" if count == 1 else "departments"
            yield f"{unquote(organisation)}: {billed}{exact}, {count} {departments}"


def _as_json(result: CloseResult) -> dict[str, object]:
    return {
        "period": result.period,
        "outcome": result.outcome.value,
        "revision": result.revision,
        "blockers": [{"kind": each.kind.value, "detail": each.detail} for each in result.blockers],
        "directory": None if result.directory is None else str(result.directory),
        "manifest_sha256": result.manifest_sha256,
    }


def _month_json(history: PeriodHistory) -> dict[str, object]:
    last = history.entries[-1]
    return {
        "period": history.period,
        "state": last.state.value,
        "revision": last.revision,
        "at_ms": last.at_ms,
        "actor": last.actor,
        "reason": last.reason,
    }


@contextmanager
def _dependencies(data: Path, *, quiet: bool) -> Iterator[CloseDependencies]:
    def step(name: str) -> None:
        if not quiet:
            _out.print(f"[dim]{name}[/]")

    with close_dependencies(pipeline(load_settings(data)), step) as dependencies:
        yield dependencies


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
