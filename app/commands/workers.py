"""The command of each worker: what production and docker-compose run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer

from meterline.app.commands.lazy import Lazy, lazy_group
from meterline.app.settings import Settings, load_settings
from meterline.app.telemetry import MetricsServer, PrometheusMeter, set_up_logging
from meterline.app.workers.table import Worker

# Commands under a worker's name that run something else.
SUBCOMMANDS: Mapping[str, Mapping[str, Lazy]] = {
    "alerts": {
        "route": Lazy("meterline.app.commands.routes", "alerts_route"),
        "backtest": Lazy("meterline.app.commands.backtest", "alerts_backtest"),
        "test": Lazy("meterline.app.commands.backtest", "alerts_test"),
    }
}


def worker_command(worker: Worker) -> Callable[[], None] | typer.Typer:
    """The command that runs a worker; a group if other commands share its name."""

    def run() -> None:
        with _process(worker.name) as (settings, meter):
            code = worker.load()(settings, meter)
        raise typer.Exit(code)

    run.__doc__ = worker.help
    if worker.name not in SUBCOMMANDS:
        return run
    group = typer.Typer(cls=lazy_group(SUBCOMMANDS[worker.name]), help=worker.help)

    @group.callback(invoke_without_command=True)
    def run_without_subcommand(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            run()

    return group


@contextmanager
def _process(name: str) -> Iterator[tuple[Settings, PrometheusMeter]]:
    """Settings, logs and metrics of one worker process."""
    settings = load_settings()
    set_up_logging(name, settings.log_level, settings.log_format, drivers=True)
    meter = PrometheusMeter(name)
    if not settings.metrics_port:
        yield settings, meter
        return
    server = MetricsServer(meter, settings.metrics_host, settings.metrics_port)
    server.start()
    try:
        yield settings, meter
    finally:
        server.stop()
