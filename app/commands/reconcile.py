"""`meterline reconcile`: stream totals, stored totals and raw events, side by side."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable
from meterline.app.wiring import pipeline
from meterline.operations.drift_alert import publish_drift_alert
from meterline.operations.reconcile import ReconcileReport, month_window
from meterline.operations.reconcile import reconcile as run

_out = Console(highlight=False)
WAIT_SECONDS = 30.0


def reconcile(
    period: Annotated[
        str, typer.Option(help="Month to compare, such as 2026-10; default: the current one.")
    ] = "",
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the sink to catch up.")
    ] = WAIT_SECONDS,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Replace totals that differ from the raw events.")
    ] = False,
    alert: Annotated[
        bool, typer.Option("--alert", help="Publish or resolve the alert reconcile.drift.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Compare stream totals, stored totals and raw events; find lost batches.

    Exit code 1 on drift.
    """
    compared = pipeline(load_settings(data))
    at_ms = now_ms()
    month = month_window(compared.calendar, period, at_ms)
    report = run(compared, month, at_ms, wait_seconds=wait, repair=repair)
    if alert:
        publish_drift_alert(compared.kafka("drift"), report, at_ms)
    if json_output:
        print_json(report.as_json())
    else:
        show_report(_out, report)
    raise typer.Exit(0 if report.exact or report.repaired else 1)


def show_report(out: Console, report: ReconcileReport) -> None:
    """Print a report for an operator."""
    out.print(
        f"{report.period}: {report.totals:,} totals of {report.events:,} events, "
        f"USD {report.spent_usd}, in {report.seconds:.1f} s"
    )
    if report.exact:
        out.print("[green]equal[/] to the nano-dollar: streams, stored totals, events")
    else:
        out.print(
            f"[red]{report.drift_windows:,} totals differ[/], "
            f"{report.drift_nano_usd:,} nano-dollars and {report.drift_events:,} events in all"
        )
        out.print(differences_table(report))
    if report.repaired:
        out.print(f"[green]repaired[/] {report.repaired:,} totals; each has an audit entry")
    if report.missing_batches:
        out.print(
            f"[yellow]{report.missing_batches:,} batches[/] of {report.lanes_with_gaps:,} lanes "
            "are missing, though later ones arrived:"
        )
        for gap in report.gaps:
            out.print(
                f"  {visible(gap.lane)} #{gap.first} to #{gap.last}", markup=False, emoji=False
            )
    else:
        out.print("no batch is missing in any lane")


def differences_table(report: ReconcileReport) -> TerminalTable:
    """The totals that differ."""
    table = TerminalTable(
        [
            tables.fact("side"),
            tables.name("scope"),
            tables.fact("period"),
            tables.money("expected, USD"),
            tables.money("found, USD"),
            tables.measure("events", 1),
        ]
    )
    for one in report.differences:
        events = f"{one.found_events - one.expected_events:+,}"
        table.add(one.where, one.scope, one.period, one.expected_usd, one.found_usd, events)
    return table
