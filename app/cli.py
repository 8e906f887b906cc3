"""`meterline`: the command line, its commands by heading."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Annotated

import typer

from meterline.app.commands.lazy import Lazy, lazy_group
from meterline.app.errors import error_boundary
from meterline.app.telemetry import set_up_logging
from meterline.app.workers.table import WORKERS, Worker

_MACHINE = "One machine, no Docker"
_OPERATE = "Operate"
_FIXED = {
    "up": Lazy("meterline.app.commands.up", "up", _MACHINE),
    "demo": Lazy("meterline.app.commands.demo", "demo", _MACHINE),
    "replay": Lazy("meterline.app.commands.traffic", "replay", _MACHINE),
    "verify": Lazy("meterline.app.commands.traffic", "verify", _OPERATE),
    "reconcile": Lazy("meterline.app.commands.reconcile", "reconcile", _OPERATE),
    "rebuild": Lazy("meterline.app.commands.rebuild", "rebuild", _OPERATE),
    "where": Lazy("meterline.app.commands.where", "where", _OPERATE),
    "explain": Lazy("meterline.app.commands.explain", "explain", _OPERATE),
    "status": Lazy("meterline.app.commands.status", "status", _OPERATE),
    "check-config": Lazy("meterline.app.commands.setup", "check_config", _OPERATE),
    "migrate": Lazy("meterline.app.commands.setup", "migrate", _OPERATE),
    "close": Lazy("meterline.app.commands.close", "close", _OPERATE),
    "reopen": Lazy("meterline.app.commands.close", "reopen", _OPERATE),
    "push": Lazy("meterline.app.commands.close", "push", _OPERATE),
    "periods": Lazy("meterline.app.commands.close", "periods", _OPERATE),
    "rerate": Lazy("meterline.app.commands.repricing", "rerate", _OPERATE),
    "topics": Lazy("meterline.app.commands.setup", "topics", _OPERATE),
    "throttle": Lazy("meterline.app.commands.manual", "throttle", _OPERATE),
    "budget": Lazy("meterline.app.commands.manual", "budget", _OPERATE),
    "policy": Lazy("meterline.app.commands.policy", "policy", _OPERATE),
    "audit": Lazy("meterline.app.commands.audit", "audit", _OPERATE),
    "silence": Lazy("meterline.app.commands.silences", "silence", _OPERATE),
    "deliveries": Lazy("meterline.app.commands.deliveries", "deliveries", _OPERATE),
    "report": Lazy("meterline.app.commands.report", "report", _OPERATE),
    "provider": Lazy("meterline.app.commands.provider", "provider", _OPERATE),
    "rates": Lazy("meterline.app.commands.rates", "rates", _OPERATE),
}


def commands(workers: Iterable[Worker]) -> dict[str, Lazy]:
    """Every command, in the order of the help; the workers' last."""
    runs = {
        each.name: Lazy("meterline.app.commands.workers", "worker_command", each.panel, (each,))
        for each in workers
    }
    return {**_FIXED, **runs}


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        typer.echo(f"meterline {version('meterline')}")
        raise typer.Exit


def options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Exact usage metering, alerting and enforcement for AI-API relays."""


def make_cli(lazy: Mapping[str, Lazy]) -> typer.Typer:
    """The command line with these commands."""
    made = typer.Typer(
        name="meterline",
        cls=lazy_group(lazy),
        help="Exact usage metering, alerting and enforcement for AI-API relays.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(options)
    return made


COMMANDS = commands(WORKERS)
cli = make_cli(COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    set_up_logging("meterline", "error")
    try:
        with error_boundary():
            cli()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
