"""`meterline policy ...`: plan shows the difference, apply publishes it with audit entries."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import markup
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import kafka_config, pipeline
from meterline.control.policy.plan import PolicyChange
from meterline.control.store import publish
from meterline.operations.policy import planned_by_file

_out = Console(highlight=False)
policy = typer.Typer(
    help="Policy as code: budgets, limits, rules and channels.", no_args_is_help=True
)
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Policy file (YAML).")]


def _show(changes: tuple[PolicyChange, ...], *, json_output: bool) -> None:
    if json_output:
        print_json({"changes": [str(change) for change in changes]})
        return
    show_changes(_out, changes)


def show_changes(out: Console, changes: Sequence[PolicyChange]) -> None:
    """One line per object and never folded, for grep: + created, ~ changed, - deleted, and what."""
    for change in changes:
        out.print(markup("{change}", change=change), soft_wrap=True)
    out.print(f"{len(changes)} changes" if changes else "nothing to change")


@policy.command("plan")
def policy_plan(
    file: PolicyFile, data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False
) -> None:
    """Show what `apply` would change.

    Exit code 2 if there are changes.
    """
    changes = planned_by_file(pipeline(load_settings(data)), file)
    _show(changes, json_output=json_output)
    raise typer.Exit(2 if changes else 0)


@policy.command("apply")
def policy_apply(
    file: PolicyFile,
    actor: Annotated[
        str, typer.Option(help="Actor for the audit log; default: your user name.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Reason, for the audit log.")] = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Publish without asking.")] = False,
    json_output: Json = False,
) -> None:
    """Publish a policy file; every change gets an audit entry."""
    settings = load_settings(data)
    changes = planned_by_file(pipeline(settings), file)
    _show(changes, json_output=json_output)
    if not changes:
        return
    if not yes and not typer.confirm("Publish these changes?"):
        raise typer.Exit(1)
    publish(
        kafka_config(settings, "policy"),
        changes,
        actor=actor or getpass.getuser(),
        reason=reason,
        at_ms=now_ms(),
    )
    if not json_output:
        _out.print("[green]published[/]")
