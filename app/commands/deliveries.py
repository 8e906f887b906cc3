"""`meterline deliveries`: the notification delivery log, and resending from it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import duration_ms, short_minute_text
from meterline.app.printable import visible
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings, secret
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.operations.redeliver import (
    Redelivery,
    RedeliveryTarget,
    alerts_of,
    deliver_to,
    request_redelivery,
)
from meterline.reports.core.deliveries import (
    FAILED,
    DeliveryHistory,
    DeliveryRow,
    NewestDeliveries,
    delivery_rows,
)
from meterline.reports.core.query import QueryBuilder
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.errors import UserError
from meterline.schemas.periods import rfc3339

_out = Console(highlight=False)
_COLOURS = {"delivered": "green", "retry": "yellow", "pending": "yellow", "muted": "dim"}
_GROUPS = {"failed": FAILED, "waiting": ("retry", "pending")}
# Eight digits distinguish the messages of a day; more does not fit beside the rest in 80 columns.
ID_LENGTH_SHOWN = 8
deliveries = typer.Typer(help="Notification delivery log; resend.", no_args_is_help=True)

Since = Annotated[str, typer.Option("--since", help="How far back to look: 30m, 24h, 7d.")]
ChannelName = Annotated[str, typer.Option("--channel", help="Only messages of this channel.")]
MessageIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Message ids, or unique prefixes of them."),
]


@deliveries.command("list")
def deliveries_list(
    outcome: Annotated[
        str,
        typer.Option(
            help="Only this outcome: failed, waiting, or one of delivered, retry, muted, gone, ..."
        ),
    ] = "",
    channel: ChannelName = "",
    since: Since = "24h",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 50,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """List the newest delivery attempt of every message, newest first."""
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
    _out.print(deliveries_table(rows))


def deliveries_table(rows: Sequence[DeliveryRow]) -> TerminalTable:
    """The newest attempt of each message."""
    table = TerminalTable(
        [
            tables.fact("when (UTC)"),
            tables.fact("message"),
            tables.name("channel"),
            tables.measure("try", 1),
            tables.fact("outcome"),
            tables.text("about"),
        ]
    )
    for row in rows:
        table.add(
            short_minute_text(row.at_ms),
            row.message_id.removeprefix("msg_")[:ID_LENGTH_SHOWN],
            row.channel,
            str(row.attempt),
            _coloured(row.outcome),
            row.error or row.dedup_key,
        )
    return table


@deliveries.command("show")
def deliveries_show(
    message: Annotated[
        str, typer.Argument(metavar="ID", help="Message id, or a unique prefix of it.")
    ],
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Show the alerts of one message and every attempt to deliver it."""
    rows = _history(load_settings(data), message)
    if json_output:
        print_json({"attempts": [_as_json(row) for row in rows]})
        return
    _out.print(f"[bold]{rows[0].message_id}[/]")
    if rows[-1].alerts:
        for alert in alerts_of(rows[-1]):
            _out.print(Text(f"  {visible(alert.summary)}"), soft_wrap=True)
    if rows[-1].route:
        _out.print(Text(f"  by route {visible(rows[-1].route)}"))
    _out.print(attempts_table(rows))


def attempts_table(rows: Sequence[DeliveryRow]) -> TerminalTable:
    """Every attempt to deliver one message, the oldest first."""
    table = TerminalTable(
        [
            tables.fact("when (UTC)"),
            tables.name("channel"),
            tables.measure("try", 3),
            tables.fact("outcome"),
            tables.measure("status", 2),
            tables.measure("ms", 1),
            tables.text("response"),
        ]
    )
    for row in rows:
        response = row.error
        if row.next_attempt_ms and row.outcome == DeliveryOutcome.RETRY:
            response += f"; next attempt {_second(row.next_attempt_ms)}"
        table.add(
            _second(row.at_ms),
            row.channel,
            str(row.attempt),
            _coloured(row.outcome),
            str(row.http_status or "-"),
            f"{row.duration_ms:,}",
            response,
        )
    return table


@deliveries.command("replay")
def deliveries_replay(
    ids: MessageIds = None,
    channel: ChannelName = "",
    since: Since = "24h",
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="Send to this URL instead, as a signed webhook."),
    ] = "",
    secret_env: Annotated[
        str, typer.Option(help="With --to: environment variable that holds the whsec_ secret.")
    ] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="Every message whose delivery finally failed.")
    ] = False,
    allow_private_address: Annotated[
        bool, typer.Option(help="With --to: allow a private network address.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Resend messages under their ids; receivers drop those that they already have."""
    settings = load_settings(data)
    rows = _chosen(settings, ids or [], channel, since, failed=failed)
    config = kafka_config(settings, "replay")
    actor = getpass.getuser()
    if to:
        target = RedeliveryTarget(to, _secret(secret_env), allow_private_address)
        replayed = deliver_to(config, rows, target, actor, now_ms)
    else:
        replayed = request_redelivery(config, rows, actor, now_ms())
    _print_replayed(replayed, json_output=json_output, requested=not to)


def _chosen(
    settings: Settings, ids: list[str], channel: str, since: str, *, failed: bool
) -> list[DeliveryRow]:
    if bool(ids) == failed:
        message = "name the messages: their ids, or --failed for all that failed"
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


def _print_replayed(replayed: list[Redelivery], *, json_output: bool, requested: bool) -> None:
    bad = [one for one in replayed if not requested and one.outcome != DeliveryOutcome.DELIVERED]
    if json_output:
        keys = ("message_id", "channel", "outcome", "error")
        print_json({"replayed": [{key: getattr(one, key) for key in keys} for one in replayed]})
    else:
        for one in replayed:
            outcome = "requested" if requested else one.outcome
            _out.print(
                Text(
                    visible(
                        f"{one.message_id[: ID_LENGTH_SHOWN + 4]}  {one.channel}  "
                        f"{outcome} {one.error}"
                    )
                )
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
        message = f"{message_id!r} is the prefix of several ids: write more of it"
        raise UserError(message)
    return rows


def _ask(settings: Settings, question: QueryBuilder) -> list[DeliveryRow]:
    client = Client(clickhouse_config(settings))
    try:
        return delivery_rows(client.query(*question.build()))
    finally:
        client.close()


def _as_json(row: DeliveryRow) -> dict[str, object]:
    return {**row._asdict(), "alerts": [json.loads(text) for text in row.alerts]}


def _coloured(outcome: str) -> Text:
    return styled(outcome, _COLOURS.get(outcome, "red"))


def _second(at_ms: int) -> str:
    return rfc3339(at_ms)[5:19].replace("T", " ")
