"""`meterline deliveries`: who was told what, and telling them again."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import duration_ms
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings, secret
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.operations.redeliver import Replayed, Target, alerts_of, ask_again, send_to
from meterline.reports.deliveries import (
    FAILED,
    DeliveryHistory,
    DeliveryRow,
    NewestDeliveries,
    delivery_rows,
)
from meterline.reports.totals import Question
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.errors import UserError
from meterline.schemas.periods import rfc3339

_out = Console(highlight=False)
_COLOURS = {"delivered": "green", "retry": "yellow", "pending": "yellow", "muted": "dim"}
_GROUPS = {"failed": FAILED, "waiting": ("retry", "pending")}
# Eight digits tell the messages of a day apart; more does not fit beside the rest into 80 columns.
ID_LENGTH_SHOWN = 8
deliveries = typer.Typer(help="Who was told what; telling them again.", no_args_is_help=True)

Since = Annotated[str, typer.Option("--since", help="How far back: 30m, 24h, 7d.")]
ChannelName = Annotated[str, typer.Option("--channel", help="Only of this channel.")]
MessageIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids, or their beginnings.")
]


@deliveries.command("list")
def deliveries_list(
    outcome: Annotated[
        str,
        typer.Option(help="failed, waiting, or one outcome: delivered, retry, muted, gone, ..."),
    ] = "",
    channel: ChannelName = "",
    since: Since = "24h",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """List the newest attempt of every message, newest first."""
    known = {*(each.value for each in DeliveryOutcome), *_GROUPS}
    if outcome and outcome not in known:
        message = f"--outcome: {outcome!r} is none of {', '.join(sorted(known))}"
        raise UserError(message)
    wanted = _GROUPS.get(outcome, (outcome,) if outcome else ())
    since_ms = now_ms() - duration_ms(since)
    rows = _ask(load_settings(data), NewestDeliveries(since_ms, wanted, channel, limit))
    if json_output:
        print_json({"deliveries": [_as_json(row) for row in rows]})
        return
    if not rows:
        _out.print(f"no deliveries in the last {since}")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("when (UTC)", "message", "channel", "try", "outcome"):
        table.add_column(name, justify="right" if name == "try" else "left", no_wrap=True)
    table.add_column("about", overflow="fold")
    for row in rows:
        about = row.error or row.dedup_key
        table.add_row(
            rfc3339(row.at_ms)[5:16].replace("T", " "),
            row.message_id.removeprefix("msg_")[:ID_LENGTH_SHOWN],
            row.channel,
            str(row.attempt),
            _coloured(row.outcome),
            escape(about),
        )
    _out.print(table)


@deliveries.command("show")
def deliveries_show(
    message: Annotated[str, typer.Argument(metavar="ID", help="A message id, or its beginning.")],
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Show every attempt of one message, and what it told."""
    rows = _history(load_settings(data), message)
    if json_output:
        print_json({"attempts": [_as_json(row) for row in rows]})
        return
    _out.print(f"[bold]{rows[0].message_id}[/]")
    if rows[-1].alerts:
        for alert in alerts_of(rows[-1]):
            _out.print(f"  {alert.summary}", soft_wrap=True, markup=False)
    if rows[-1].route:
        _out.print(f"  by route {rows[-1].route}", markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("when (UTC)", "channel", "try", "outcome", "status", "ms"):
        right = name in {"try", "status", "ms"}
        table.add_column(name, justify="right" if right else "left")
    table.add_column("says", overflow="fold")
    for row in rows:
        says = row.error
        if row.next_attempt_ms and row.outcome == DeliveryOutcome.RETRY:
            says += f"; again {rfc3339(row.next_attempt_ms)[5:19].replace('T', ' ')}"
        table.add_row(
            rfc3339(row.at_ms)[5:19].replace("T", " "),
            row.channel,
            str(row.attempt),
            _coloured(row.outcome),
            str(row.http_status or "-"),
            f"{row.duration_ms:,}",
            escape(says),
        )
    _out.print(table)


@deliveries.command("replay")
def deliveries_replay(
    ids: MessageIds = None,
    channel: ChannelName = "",
    since: Since = "24h",
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="Send there instead, now, as signed webhook.")
    ] = "",
    secret_env: Annotated[
        str, typer.Option(help="With --to: variable that holds the whsec_ secret.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that nobody was told by their channel.")
    ] = False,
    allow_private_address: Annotated[
        bool, typer.Option(help="With --to: the URL may lead into our own network.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Send messages again, under the ids they had; receivers that know them drop them."""
    settings = load_settings(data)
    rows = _chosen(settings, ids or [], channel, since, failed=failed)
    config = kafka_config(settings, "replay")
    actor = getpass.getuser()
    if to:
        target = Target(to, _secret(secret_env), allow_private_address)
        replayed = send_to(config, rows, target, actor, now_ms)
    else:
        replayed = ask_again(config, rows, actor, now_ms())
    _tell(replayed, json_output=json_output, asked=not to)


def _chosen(
    settings: Settings, ids: list[str], channel: str, since: str, *, failed: bool
) -> list[DeliveryRow]:
    if bool(ids) == failed:
        message = "say which: message ids, or --failed for all that failed"
        raise UserError(message)
    if failed:
        question = NewestDeliveries(now_ms() - duration_ms(since), FAILED, channel, 10_000)
        rows = _ask(settings, question)
    else:
        newest: dict[tuple[str, str], DeliveryRow] = {}
        for each in ids:
            for row in _history(settings, each):
                if channel in {"", row.channel} and not row.channel.startswith("replay:"):
                    newest[row.message_id, row.channel] = row
        rows = list(newest.values())
    rows = [row for row in rows if row.channel != "log" and not row.channel.startswith("replay:")]
    if not rows:
        message = "nothing to send again: see `meterline deliveries list`"
        raise UserError(message)
    return rows


def _tell(replayed: list[Replayed], *, json_output: bool, asked: bool) -> None:
    bad = [one for one in replayed if not asked and one.outcome != DeliveryOutcome.DELIVERED]
    if json_output:
        keys = ("message_id", "channel", "outcome", "error")
        print_json({"replayed": [{key: getattr(one, key) for key in keys} for one in replayed]})
    else:
        for one in replayed:
            what = "asked for" if asked else one.outcome
            _out.print(
                f"{one.message_id[: ID_LENGTH_SHOWN + 4]}  {one.channel}  {what} {one.error}",
                markup=False,
            )
    raise typer.Exit(1 if bad else 0)


def _secret(name: str) -> str:
    if not name:
        return ""
    value = secret(name)
    if not value:
        message = f"--secret-env: {name} is not set"
        raise UserError(message)
    return value


def _history(settings: Settings, message_id: str) -> list[DeliveryRow]:
    prefix = message_id if message_id.startswith("msg_") else f"msg_{message_id}"
    rows = _ask(settings, DeliveryHistory(prefix))
    if not rows:
        message = f"there is no message {message_id!r}: see `meterline deliveries list`"
        raise UserError(message)
    if len({row.message_id for row in rows}) > 1:
        message = f"{message_id!r} begins several ids: write more of it"
        raise UserError(message)
    return rows


def _ask(settings: Settings, question: Question) -> list[DeliveryRow]:
    client = Client(clickhouse_config(settings))
    try:
        return delivery_rows(client.query(*question.build()))
    finally:
        client.close()


def _as_json(row: DeliveryRow) -> dict[str, object]:
    return {**row._asdict(), "alerts": [json.loads(text) for text in row.alerts]}


def _coloured(outcome: str) -> str:
    colour = _COLOURS.get(outcome, "red")
    return f"[{colour}]{outcome}[/]"
