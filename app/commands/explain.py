"""`meterline explain`: why a scope is where it is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json, side_by_side
from meterline.app.commands.times import time_ms
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.control import manual as manual_control
from meterline.operations.explain import Explained, answer, chain_of, explain_scope, past_objects
from meterline.reports.decisions import StoredAlert, read_alerts, read_commands, read_objects
from meterline.schemas.periods import rfc3339

_out = Console(highlight=False)


def explain(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="key:acme/k-17, ...")],
    at: Annotated[str, typer.Option(help="When: 2026-11-21T12:00Z; default: now.")] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """State, rule, evidence, since and until when, and who can lift it; also of what is above."""
    settings = load_settings(data)
    at_ms = time_ms(at) if at else now_ms()
    client = Client(clickhouse_config(settings))
    try:
        # The topic knows only what is published now; the audit log every change.
        policies = (
            past_objects(scope, lambda names: read_objects(client, names, at_ms))
            if at
            else manual_control.read(kafka_config(settings, "explain"))
        )
        scopes = chain_of(scope, policies)
        explained = [
            explain_scope(each, read_commands(client, each, at_ms), policies, at_ms)
            for each in scopes
        ]
        alerts = read_alerts(client, scopes, at_ms)
    finally:
        client.close()
    if json_output:
        print_json(answer(at_ms, explained, alerts))
        return
    for one in explained:
        _show(one)
    _show_alerts(alerts)


def _show(one: Explained) -> None:
    _out.print(f"[bold]{one.scope}[/]  {one.state.value}")
    lines = [
        ("rule", one.rule),
        ("why", one.reason),
        ("since", _minute(one.since_ms) if one.since_ms else ""),
        ("until", _minute(one.until_ms) if one.until_ms else ""),
        ("lifted by", one.lift),
        *(("order", order) for order in one.orders),
        ("command", one.version),
    ]
    _out.print(side_by_side((name, text) for name, text in lines if text))


def _show_alerts(alerts: list[StoredAlert]) -> None:
    if not alerts:
        return
    _out.print("[bold]alerts[/], the newest first")
    _out.print(
        side_by_side(
            (
                rfc3339(max(each.starts_at_ms, each.ends_at_ms))[5:16].replace("T", " "),
                each.status,
                # The column before says it already.
                each.summary.removeprefix("Resolved: "),
            )
            for each in alerts
        )
    )


def _minute(at_ms: int) -> str:
    return f"{rfc3339(at_ms)[:16].replace('T', ' ')} UTC"
