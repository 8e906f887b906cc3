"""check-config, topics, migrate: what must be right before a worker starts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.settings import DEFAULT_DATA_DIR, Settings, load_settings
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.operations.asyncapi import asyncapi_document
from meterline.operations.policy import parse_policy
from meterline.schemas.errors import UserError, collecting
from meterline.schemas.topics import TOPICS

_out = Console(highlight=False)
topics = typer.Typer(help="Kafka topics.", no_args_is_help=True)


def check_config(
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Check this policy file too.")
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
            document = parse_policy(read_text(policy), str(policy))
            if time_zone and document.time_zone != time_zone:
                faults.append(
                    f"{policy}: time_zone {document.time_zone} is not METERLINE_TIME_ZONE "
                    f"{time_zone}: spend would be counted in other windows than judged"
                )
    if json_output:
        print_json({"ok": not faults, "faults": faults})
    elif not faults:
        _out.print("[green]configuration is right[/]")
    else:
        for fault in faults:
            _out.print(f"[red]✗[/] {fault}", soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


def apply_topics(settings: Settings) -> list[str]:
    """Create or adjust every topic; one line per change."""
    admin = Admin(kafka_config(settings, "topics"))
    try:
        changes = admin.apply(
            TOPICS,
            usage_partitions=settings.kafka.usage_partitions,
            replication_factor=settings.kafka.replication_factor,
        )
    finally:
        admin.close()
    return [str(change) for change in changes]


@topics.command("describe")
def topics_describe() -> None:
    """Print the contract for relays in any language, an AsyncAPI document (docs/asyncapi.json)."""
    typer.echo(json.dumps(asyncapi_document(version("meterline")), indent=2, ensure_ascii=False))


@topics.command("apply")
def topics_apply(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Create missing topics and adjust those that differ; run it as often as you like."""
    changes = apply_topics(load_settings(data))
    if json_output:
        print_json({"changes": changes})
        return
    for change in changes:
        _out.print(change)
    if not changes:
        _out.print("topics are as they should be")


def apply_migrations(settings: Settings) -> list[str]:
    """Bring the tables up to date; names of the migrations applied."""
    from meterline.sinks.migrate import ClusterOptions  # noqa: PLC0415 - loads the driver
    from meterline.sinks.migrate import migrate as run  # noqa: PLC0415 - loads the driver

    client = Client(clickhouse_config(settings))
    cluster = ClusterOptions(settings.clickhouse.cluster) if settings.clickhouse.cluster else None
    try:
        return run(client, cluster=cluster)
    finally:
        client.close()


def migrate(data: DataDir = DEFAULT_DATA_DIR, *, json_output: Json = False) -> None:
    """Bring the ClickHouse tables up to date."""
    applied = apply_migrations(load_settings(data))
    if json_output:
        print_json({"applied": applied})
        return
    for name in applied:
        _out.print(f"applied {name}")
    if not applied:
        _out.print("tables are up to date")


def read_text(path: Path) -> str:
    """A file a person named; UserError when it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text"
        raise UserError(message) from error
