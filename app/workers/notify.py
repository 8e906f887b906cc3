"""The notify worker's process: deliveries to the channels of the policy."""

from __future__ import annotations

from meterline.alerting.notify.worker import run_notify
from meterline.alerting.settings import NotifySettings
from meterline.app.clock import now_ms
from meterline.app.settings import Settings, secret
from meterline.app.telemetry import PrometheusMeter
from meterline.app.wiring import kafka_config, stop_on_signals


def start(settings: Settings, meter: PrometheusMeter) -> int:
    """Deliver alerts until SIGTERM."""
    return run_notify(
        NotifySettings(ca_file=settings.notify_ca_file, crash_at=settings.crash_at),
        kafka_config(settings, "notify"),
        secret,
        now_ms,
        meter,
        stop_on_signals(),
    )
