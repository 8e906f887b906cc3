"""`meterline where`: the receipt of one event."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import clickhouse_config
from meterline.backends.clickhouse.client import Client
from meterline.operations.event_trace import Receipt, read_receipt
from meterline.reports.event_trace import ArrivalOutcome
from meterline.schemas.periods import Calendar, rfc3339

_out = Console(highlight=False)
_COLOURS = {
    ArrivalOutcome.COUNTED: "green",
    ArrivalOutcome.DUPLICATE: "yellow",
    ArrivalOutcome.REFUSED: "red",
}


def where(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="As the relay made it.")],
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Say where an event came in, whether it was counted, at what price, and in what."""
    settings = load_settings(data)
    client = Client(clickhouse_config(settings))
    try:
        receipt = read_receipt(client, event_id, Calendar(settings.time_zone))
    finally:
        client.close()
    if json_output:
        print_json(receipt.as_json())
    else:
        show(_out, receipt)
    raise typer.Exit(1 if receipt.status == "unknown" else 0)


def show(out: Console, receipt: Receipt) -> None:
    """Print a receipt for people."""
    if receipt.status == "unknown":
        out.print(
            f"{receipt.event_id}: neither an event nor a dead letter of this id is stored; "
            "what was sent in the last second may still be on its way",
            soft_wrap=True,
            markup=False,
        )
        return
    out.print(f"[bold]{receipt.status}[/]  {_plain(receipt.event_id)}", soft_wrap=True)
    if receipt.status == "counted":
        price = f"prices {receipt.price_version}" if receipt.priced else "no price: unpriced"
        out.print(f"{receipt.event_time}  {receipt.model}  USD {receipt.cost_usd}  ({price})")
    out.print(_arrivals(receipt))
    if receipt.windows:
        out.print(_windows(receipt))
    for alert in receipt.alerts:
        out.print(f"alert {alert.starts_at} [bold]{alert.severity}[/] {_plain(alert.summary)}")


def _arrivals(receipt: Receipt) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("arrival", "received", "place", "lane, batch"):
        table.add_column(name, overflow="fold")
    for one in receipt.arrivals:
        what = f"[{_COLOURS[one.outcome]}]{one.outcome.value}[/]"
        if one.reason:
            what += f" {one.reason}"
        place = f"{one.place.epoch}/{one.partition}/{one.place.offset}/{one.place.event}"
        lane = f"{_plain(one.lane)} #{one.seq}" if one.lane else "single event"
        table.add_row(what, rfc3339(one.received_ms)[:19], place, lane)
    table.caption = "place: log epoch / partition / offset / index in the message"
    table.caption_justify = "left"
    return table


def _windows(receipt: Receipt) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("scope", "window", "counted", "total, USD", "events"):
        side = "right" if name in {"total, USD", "events"} else "left"
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    for line in receipt.windows:
        mark = "[green]yes[/]" if line.included else "[yellow]no[/]"
        table.add_row(_plain(line.scope), line.period, mark, line.spent_usd, f"{line.events:,}")
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
