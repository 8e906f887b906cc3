"""A worker of the tests: what the module of a new worker holds."""

from __future__ import annotations

import typer

from meterline.app.settings import Settings
from meterline.app.telemetry import PrometheusMeter
from meterline.schemas.metrics import Metric


def start(settings: Settings, meter: PrometheusMeter) -> int:
    """Say what it was given, become ready and end."""
    meter.gauge(Metric.READY, 1)
    typer.echo(f"echo of {settings.kafka.bootstrap} ready={meter.ready()}")
    return 7
