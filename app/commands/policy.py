"""`meterline policy ...`: plan shows the difference, apply publishes it with audit entries."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.clock import now_ms
from meterline.app.commands import tables
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.setup import read_text
from meterline.app.commands.tables import TerminalTable
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings
from meterline.app.wiring import kafka_config
from meterline.control.policy.plan import PolicyChange, plan
from meterline.control.store import publish, read_policies
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.errors import UserError

_out = Console(highlight=False)
# A policy topic holds one record per object: a minute reads millions.
READ_TIMEOUT_SECONDS = 60
policy = typer.Typer(
    help="Policy as code: budgets, limits, rules and channels.", no_args_is_help=True
)
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Policy file (YAML).")]


def planned(settings: Settings, path: Path) -> tuple[PolicyChange, ...]:
    """The changes that a file would make to what is published now."""
    document = parse_policy(read_text(path), str(path))
    if document.time_zone != settings.time_zone:
        message = (
            f"{path}: time_zone is {document.time_zone}, but this pipeline counts in "
            f"{settings.time_zone} (METERLINE_TIME_ZONE): use the same for both"
        )
        raise UserError(message)
    current = read_policies(kafka_config(settings, "policy"), READ_TIMEOUT_SECONDS)
    return plan(current, compile_policy(document))


def _show(changes: tuple[PolicyChange, ...], *, json_output: bool) -> None:
    if json_output:
        print_json({"changes": [str(change) for change in changes]})
        return
    if changes:
        _out.print(changes_table(changes))
    _out.print(f"{len(changes)} changes" if changes else "nothing to change")


def changes_table(changes: Sequence[PolicyChange]) -> TerminalTable:
    """One line per object: + created, ~ changed, - deleted, and what differs."""
    table = TerminalTable(
        [tables.fact("sign"), tables.name("object"), tables.text("change")], heading=False
    )
    for change in changes:
        sign, _, text = str(change).partition(" ")
        table.add(sign, change.object_id, text.removeprefix(change.object_id).strip())
    return table


@policy.command("plan")
def policy_plan(
    file: PolicyFile, data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False
) -> None:
    """Show what `apply` would change. Exit code 2 if anything."""
    changes = planned(load_settings(data), file)
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
    changes = planned(settings, file)
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
