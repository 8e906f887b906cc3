"""`meterline explain`: why a scope is throttled, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import minute_text, short_minute_text, time_ms
from meterline.app.printable import markup
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, labelled_lines
from meterline.app.wiring import pipeline
from meterline.operations.explain import ScopeExplanation, explain_scopes, explanation_json
from meterline.reports.decisions import StoredAlert

_out = Console(highlight=False)


def explain(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="Scope, such as key:acme/k-17.")],
    at: Annotated[str, typer.Option(help="Time to explain: 2026-11-21T12:00Z; default: now.")] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Explain a scope's throttle state: rule, evidence, since, until, and how to lift it.

    The scopes above it are explained too: a request is decided by all of them.
    """
    at_ms = time_ms(at) if at else now_ms()
    found = explain_scopes(pipeline(load_settings(data)), scope, at_ms, past=bool(at))
    if json_output:
        print_json(explanation_json(at_ms, found.scopes, found.alerts))
        return
    for one in found.scopes:
        show_scope(_out, one)
    if found.alerts:
        _out.print("[bold]alerts[/], the newest first")
        _out.print(alerts_table(found.alerts))


def show_scope(out: Console, one: ScopeExplanation) -> None:
    """Print one scope for an operator."""
    out.print(markup("[bold]{scope}[/]  {state}", scope=one.scope, state=one.state.value))
    out.print(scope_table(one))


def scope_table(one: ScopeExplanation) -> TerminalTable:
    """Why a scope is in its state."""
    lines = [
        ("rule", one.rule),
        ("why", one.reason),
        ("since", f"{minute_text(one.since_ms)} UTC" if one.since_ms else ""),
        ("until", f"{minute_text(one.until_ms)} UTC" if one.until_ms else ""),
        ("lifted by", one.lift),
        *(("order", order) for order in one.orders),
        ("command", one.version),
    ]
    return labelled_lines((name, text) for name, text in lines if text)


def alerts_table(alerts: Sequence[StoredAlert]) -> TerminalTable:
    """Alerts of a scope and of those above it."""
    table = TerminalTable(
        [tables.fact("when (UTC)"), tables.fact("status"), tables.text("alert")],
        heading=False,
        indent=2,
    )
    for each in alerts:
        table.add(
            short_minute_text(max(each.starts_at_ms, each.ends_at_ms)),
            each.status,
            # The status already says that it is resolved.
            each.summary.removeprefix("Resolved: "),
        )
    return table
