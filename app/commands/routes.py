"""`meterline alerts route`: which channels an alert would reach, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.alerting.notify.core.decide import NotifyDecision, decide
from meterline.alerting.notify.core.labels import labels_of
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import time_ms
from meterline.app.printable import markup, visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import labelled_lines
from meterline.app.wiring import kafka_config
from meterline.operations.policy import compile_policy, read_policy_file
from meterline.operations.route_trace import (
    published_routing_context,
    routing_context,
    sample_alert,
)
from meterline.schemas.alert import Severity

_out = Console(highlight=False)


def alerts_route(
    scope: Annotated[
        str, typer.Argument(help="Scope of the alert, such as department:acme/research.")
    ],
    rule: Annotated[str, typer.Option(help="Rule that raises the alert.")] = "budget_month",
    severity: Annotated[Severity, typer.Option(help="Severity of the alert.")] = Severity.WARNING,
    window: Annotated[str, typer.Option(help="Window of the rule: hour, day or month.")] = "month",
    at: Annotated[
        str, typer.Option("--at", help="Time of the alert: 2026-10-31T12:00:00Z; default: now.")
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="FILE", help="Use this policy file instead of the published policy."
        ),
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Show which channels an alert would reach, and why; send nothing."""
    at_ms = time_ms(at) if at else now_ms()
    alert = sample_alert(scope, rule, severity, window, at_ms)
    if file is not None:
        objects = compile_policy(read_policy_file(file))
        context = routing_context(objects, at_ms)
    else:
        context = published_routing_context(kafka_config(load_settings(data), "route"), at_ms)
    decision = decide(alert, context, at_ms)
    labels = {name: text for name, text in labels_of(alert, context.parents).items() if text}
    if json_output:
        print_json(_as_json(labels, decision))
        return
    named = " ".join(f"{name}={text}" for name, text in labels.items())
    _out.print(visible(named), style="dim", markup=False, emoji=False)
    _out.print(labelled_lines((step.what, step.answer) for step in decision.steps))
    channels = ", ".join(recipient.channel for recipient in decision.recipients)
    if decision.muted_by:
        _out.print("[yellow]log only[/]: the other channels are notified when what mutes it ends")
    else:
        _out.print(markup("[green]notified[/]: {channels}", channels=channels))


def _as_json(labels: dict[str, str], decision: NotifyDecision) -> dict[str, object]:
    return {
        "labels": labels,
        "channels": [
            {"channel": recipient.channel, "route": recipient.route.id if recipient.route else ""}
            for recipient in decision.recipients
        ],
        "muted_by": decision.muted_by,
        "steps": [{"what": step.what, "answer": step.answer} for step in decision.steps],
    }
