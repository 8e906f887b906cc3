"""`meterline where`: the trace of one event."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from meterline.app import tables
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.operations.event_trace import EventTrace, read_event_trace
from meterline.reports.core.arrivals import ArrivalOutcome
from meterline.schemas.periods import Calendar, rfc3339

_out = Console(highlight=False)
_COLOURS = {
    ArrivalOutcome.COUNTED: "green",
    ArrivalOutcome.DUPLICATE: "yellow",
    ArrivalOutcome.REFUSED: "red",
}


def where(
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT_ID", help="Event id, as the relay made it.")
    ],
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Trace one event: arrivals, outcome, price, and the totals it is in.

    Exit code 1 if no such event is stored.
    """
    settings = load_settings(data)
    client = Client(clickhouse_config(settings))
    try:
        trace = read_event_trace(client, event_id, Calendar(settings.time_zone))
    finally:
        client.close()
    if json_output:
        print_json(trace.as_json())
    else:
        show_trace(_out, trace)
    raise typer.Exit(1 if trace.status == "unknown" else 0)


def show_trace(out: Console, trace: EventTrace) -> None:
    """Print the trace of an event for an operator."""
    if trace.status == "unknown":
        out.print(
            f"{visible(trace.event_id)}: neither an event nor a dead letter of this id is "
            "stored; what was sent in the last second may still be on its way",
            soft_wrap=True,
            markup=False,
            emoji=False,
        )
        return
    head = markup("[bold]{status}[/]  {id}", status=trace.status, id=trace.event_id)
    out.print(head, soft_wrap=True)
    if trace.status == "counted":
        price = f"prices {trace.price_version}" if trace.priced else "no price: unpriced"
        counted = f"{trace.event_time}  {trace.model}  USD {trace.cost_usd}  ({price})"
        out.print(Text(visible(counted)))
    out.print(arrivals_table(trace))
    if trace.windows:
        out.print(windows_table(trace))
    for alert in trace.alerts:
        out.print(
            markup(
                "alert {at} [bold]{severity}[/] {summary}",
                at=alert.starts_at,
                severity=alert.severity,
                summary=alert.summary,
            )
        )


def arrivals_table(trace: EventTrace) -> TerminalTable:
    """Every time the event arrived, and what became of it."""
    table = TerminalTable(
        [
            tables.text("arrival"),
            tables.fact("received", 1),
            tables.fact("place"),
            tables.name("lane, batch"),
        ],
        caption="place: log epoch / partition / offset / index in the message",
    )
    for one in trace.arrivals:
        arrival = styled(one.outcome.value, _COLOURS[one.outcome])
        place = f"{one.place.epoch}/{one.partition}/{one.place.offset}/{one.place.event}"
        table.add(
            # A style of its own only for the outcome.
            Text.assemble(arrival, f" {visible(one.reason)}" if one.reason else ""),
            rfc3339(one.received_ms)[:19],
            place,
            f"{one.lane} #{one.seq}" if one.lane else "single event",
        )
    return table


def windows_table(trace: EventTrace) -> TerminalTable:
    """The totals that the event belongs to."""
    table = TerminalTable(
        [
            tables.name("scope"),
            tables.fact("window"),
            tables.fact("counted"),
            tables.money("total, USD"),
            tables.measure("events", 1),
        ]
    )
    for line in trace.windows:
        counted = styled("yes", "green") if line.included else styled("no", "yellow")
        table.add(line.scope, line.period, counted, line.spent_usd, f"{line.events:,}")
    return table
