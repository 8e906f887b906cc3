"""`meterline alerts backtest` and `alerts test`: the alerts that rules would have raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.alerting.core.backtest import Backtest
from meterline.app import tables
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import minute_text, time_ms
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable
from meterline.app.wiring import catalogue, clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.operations import backtest, chart
from meterline.schemas.alert import AlertStatus
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display

_out = Console(highlight=False)
EXIT_DIFFERS = 1
Rules = Annotated[
    Path, typer.Option("--rules", metavar="FILE", help="Policy file (YAML) with the rules.")
]


def alerts_backtest(
    rules: Rules,
    start: Annotated[str, typer.Option("--from", help="Start of the period: 2026-11-01T00:00Z.")],
    end: Annotated[
        str, typer.Option("--to", help="End of the period, exclusive: 2026-11-21T00:00Z.")
    ],
    picture_file: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw a chart into this .svg or .png file."),
    ] = None,
    scope: Annotated[
        str, typer.Option(help="Scope of the chart; default: the one that spent most.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    from_events: Annotated[
        bool, typer.Option("--from-events", help="Read raw events instead of stored totals.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Back-test a policy file on stored spend: alerts, throttles, and the spend they had refused."""
    if picture_file is not None:
        chart.check_format(picture_file)
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
        chart.draw(backtest.chart_data(done, scope, end_ms), picture_file)


def alerts_test(
    rules: Rules,
    events: Annotated[
        Path,
        typer.Option("--events", metavar="FILE", help="Usage events, one JSON object per line."),
    ],
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FILE",
            help='Expected alerts, JSON: [{"rule", "scope", "threshold"}].',
        ),
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Run rules over a file of events.

    Exit code 1 if the alerts differ from the expected.
    """
    given = backtest.read_rules(rules)
    expected = None if expect is None else backtest.read_expected(expect)
    done = backtest.run_file(events, given, catalogue(load_settings(data)))
    _show(done, json_output=json_output)
    if expected is None:
        return
    faults = backtest.check_expected(done, expected)
    for fault in faults:
        text = markup("[red]✗[/] {fault}", fault=fault)
        Console(stderr=True, highlight=False).print(text, soft_wrap=True)
    if faults:
        raise typer.Exit(EXIT_DIFFERS)
    if not json_output:
        _out.print(f"[green]✓[/] {len(expected)} alerts as expected")


def _show(done: Backtest, *, json_output: bool) -> None:
    if json_output:
        print_json(backtest.backtest_json(done))
        return
    firings = [each for each in done.alerts if each.alert.status is AlertStatus.FIRING]
    if firings:
        _out.print(
            firings_table(
                (each.at_ms, each.alert.severity.value, each.alert.summary) for each in firings
            )
        )
    for each in done.commands:
        scope = visible(each.command.scope)
        text = f"{minute_text(each.at_ms)}  {each.command.state.value}: {scope}"
        _out.print(text, markup=False, emoji=False)
    _out.print(spend_table(done.spent_nano_usd, done.refused_nano_usd))
    _out.print(f"{len(firings)} alerts, {len(done.commands)} changes of a throttle")


def firings_table(firings: Iterable[tuple[int, str, str]]) -> TerminalTable:
    """The alerts that would have fired: (UTC ms, severity, summary), in the order of time."""
    table = TerminalTable([tables.fact("at (UTC)"), tables.fact("severity"), tables.text("alert")])
    for at_ms, severity, summary in firings:
        table.add(minute_text(at_ms), severity, summary)
    return table


def spend_table(
    spent_nano_usd: Mapping[str, int], refused_nano_usd: Mapping[str, int]
) -> TerminalTable:
    """What each scope spent, and what of it would have been refused; the largest first."""
    table = TerminalTable(
        [tables.name("scope"), tables.money("spent"), tables.money("would have been refused")]
    )
    for scope, spent in sorted(spent_nano_usd.items(), key=lambda each: -each[1]):
        refused = refused_nano_usd.get(scope, 0)
        table.add(scope, usd_display(spent), usd_display(refused))
    return table
