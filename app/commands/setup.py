"""`meterline check-config`, `topics` and `migrate`: what a worker needs before it starts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import markup
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import catalogue, pipeline
from meterline.operations.asyncapi import asyncapi_document
from meterline.operations.policy import read_policy_file
from meterline.operations.setup import apply_migrations, apply_topics
from meterline.schemas.errors import collecting

_out = Console(highlight=False)
topics = typer.Typer(help="Kafka topics: create, adjust, describe.", no_args_is_help=True)


def check_config(
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file to check too.")
    ] = None,
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Check settings, rate cards and a policy file; report every fault at once."""
    faults: list[str] = []
    time_zone = ""
    with collecting(faults):
        settings = load_settings(data)
        time_zone = settings.time_zone
        catalogue(settings)
    if policy is not None:
        with collecting(faults):
            document = read_policy_file(policy)
            if time_zone and document.time_zone != time_zone:
                faults.append(
                    f"{policy}: time_zone {document.time_zone} is not METERLINE_TIME_ZONE "
                    f"{time_zone}: spend would be counted in other windows than rules evaluate"
                )
    if json_output:
        print_json({"ok": not faults, "faults": faults})
    elif not faults:
        _out.print("[green]configuration is valid[/]")
    else:
        for fault in faults:
            _out.print(markup("[red]✗[/] {fault}", fault=fault), soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


@topics.command("describe")
def topics_describe() -> None:
    """Print the wire contract for relays in any language, an AsyncAPI document."""
    typer.echo(json.dumps(asyncapi_document(version("meterline")), indent=2, ensure_ascii=False))


@topics.command("apply")
def topics_apply(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Create missing topics and adjust those that differ; safe to repeat."""
    changes = apply_topics(pipeline(load_settings(data)))
    if json_output:
        print_json({"changes": changes})
        return
    for change in changes:
        _out.print(change)
    if not changes:
        _out.print("topics are up to date")


def migrate(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Migrate the ClickHouse tables to this version; safe to repeat."""
    applied = apply_migrations(pipeline(load_settings(data)))
    if json_output:
        print_json({"applied": applied})
        return
    for name in applied:
        _out.print(f"applied {name}")
    if not applied:
        _out.print("tables are up to date")
