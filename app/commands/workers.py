"""The workers, one command each: what production and docker-compose run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from meterline.app.commands.lazy import Lazy, lazy_group
from meterline.app.settings import Settings, load_settings
from meterline.app.telemetry import MetricsServer, PrometheusMeter, set_up_logging


@contextmanager
def _worker(name: str) -> Iterator[tuple[Settings, PrometheusMeter]]:
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


def _run(name: str, start: Callable[[Settings, PrometheusMeter], int]) -> None:
    with _worker(name) as (settings, meter):
        code = start(settings, meter)
    raise typer.Exit(code)


def streams() -> None:
    """Fold usage events into spend per scope and window (Faust)."""
    from meterline.app.workers import start_streams  # noqa: PLC0415 - loads Faust

    _run("streams", start_streams)


def sink() -> None:
    """Store events, snapshots, alerts and commands in ClickHouse."""
    from meterline.app.workers import start_sink  # noqa: PLC0415 - loads the drivers

    _run("sink", start_sink)


alerts = typer.Typer(
    cls=lazy_group(
        {
            "route": Lazy("meterline.app.commands.routes", "alerts_route"),
            "backtest": Lazy("meterline.app.commands.backtest", "alerts_backtest"),
            "test": Lazy("meterline.app.commands.backtest", "alerts_test"),
        }
    ),
    help="Apply the rules (the worker); where alerts go; what rules would have said.",
)


@alerts.callback(invoke_without_command=True)
def alerts_worker(context: typer.Context) -> None:
    """Apply the rules, publish throttle commands and alerts; or ask about alerts."""
    from meterline.app.workers import start_alerts  # noqa: PLC0415 - loads the drivers

    if context.invoked_subcommand is None:
        _run("alerts", start_alerts)


def reports() -> None:
    """Close months at their cut-off, push them to the ERP, serve their files."""
    from meterline.app.workers import start_reports  # noqa: PLC0415 - loads the drivers

    _run("reports", start_reports)


def notify() -> None:
    """Deliver alerts to their receivers."""
    from meterline.app.workers import start_notify  # noqa: PLC0415 - loads the drivers

    _run("notify", start_notify)
