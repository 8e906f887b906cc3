"""`meterline alerts backtest` and `alerts test`: what rules would have said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from meterline.alerting.core.backtest import Backtest
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import time_ms
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import catalogue, clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.operations import backtest
from meterline.operations import chart as picture
from meterline.schemas.alert import AlertStatus
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display
from meterline.schemas.periods import rfc3339

_out = Console(highlight=False)
EXIT_DIFFERS = 1
Rules = Annotated[Path, typer.Option("--rules", metavar="FILE", help="A policy file (YAML).")]


def alerts_backtest(
    rules: Rules,
    start: Annotated[str, typer.Option("--from", help="2026-11-01T00:00Z")],
    end: Annotated[str, typer.Option("--to", help="2026-11-21T00:00Z")],
    picture_file: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw it: .svg or .png.")
    ] = None,
    scope: Annotated[
        str, typer.Option(help="Whom the picture shows; default: who spent most.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    from_events: Annotated[
        bool, typer.Option("--from-events", help="Read raw events, not the window rows.")
    ] = False,
    json_output: Json = False,
) -> None:
    """What a policy file's rules would have said of stored spend, and what throttles had saved."""
    if picture_file is not None:
        picture.check_format(picture_file)
    start_ms, end_ms = time_ms(start), time_ms(end)
    if end_ms <= start_ms:
        message = "--to must be after --from"
        raise UserError(message)
    given = backtest.read_rules(rules)
    client = Client(clickhouse_config(load_settings(data)))
    try:
        done = backtest.run_stored(client, given, start_ms, end_ms, from_events=from_events)
    finally:
        client.close()
    _show(done, json_output=json_output)
    if picture_file is not None:
        picture.draw(backtest.scene(done, scope, end_ms), picture_file)


def alerts_test(
    rules: Rules,
    events: Annotated[
        Path, typer.Option("--events", metavar="FILE", help="Usage events, one JSON per line.")
    ],
    expect: Annotated[
        Path | None,
        typer.Option("--expect", metavar="FILE", help='JSON: [{"rule", "scope", "threshold"}].'),
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Run rules over a file of events; exit code 1 if the alerts are not the expected ones."""
    given = backtest.read_rules(rules)
    expected = None if expect is None else backtest.read_expected(expect)
    done = backtest.run_file(events, given, catalogue(load_settings(data)))
    _show(done, json_output=json_output)
    if expected is None:
        return
    faults = backtest.compare(done, expected)
    for fault in faults:
        Console(stderr=True, highlight=False).print(f"[red]✗[/] {fault}", soft_wrap=True)
    if faults:
        raise typer.Exit(EXIT_DIFFERS)
    if not json_output:
        _out.print(f"[green]✓[/] {len(expected)} alerts as expected")


def _show(done: Backtest, *, json_output: bool) -> None:
    if json_output:
        print_json(backtest.answer(done))
        return
    firings = [told for told in done.told if told.alert.status is AlertStatus.FIRING]
    if firings:
        table = Table(box=None, pad_edge=False)
        table.add_column("at (UTC)", no_wrap=True)
        table.add_column("severity")
        table.add_column("alert")
        for told in firings:
            at = rfc3339(told.at_ms)[:16].replace("T", " ")
            table.add_row(at, told.alert.severity.value, told.alert.summary)
        _out.print(table)
    for each in done.commanded:
        at = rfc3339(each.at_ms)[:16].replace("T", " ")
        _out.print(f"{at}  {each.command.state.value}: {each.command.scope}", markup=False)
    totals = Table(box=None, pad_edge=False)
    for name in ("scope", "spent", "would have been refused"):
        totals.add_column(name, justify="left" if name == "scope" else "right")
    for scope, spent in sorted(done.spent_nano_usd.items(), key=lambda each: -each[1]):
        refused = done.refused_nano_usd.get(scope, 0)
        totals.add_row(scope, usd_display(spent), usd_display(refused))
    _out.print(totals)
    _out.print(f"{len(firings)} alerts, {len(done.commanded)} changes of a throttle")
