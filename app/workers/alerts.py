"""The alerts worker's process: the rule engine on its topics and the stored history."""

from __future__ import annotations

from meterline.alerting.consumer import run_alerts
from meterline.alerting.settings import AlertingSettings
from meterline.alerting.top_contributors import ClickHouseStore
from meterline.app.clock import now_ms
from meterline.app.settings import Settings
from meterline.app.telemetry import PrometheusMeter
from meterline.app.wiring import clickhouse_config, kafka_config, stop_on_signals
from meterline.backends.clickhouse.client import Client


def start(settings: Settings, meter: PrometheusMeter) -> int:
    """Apply the rules until SIGTERM."""
    store = ClickHouseStore(Client(clickhouse_config(settings)))
    try:
        return run_alerts(
            AlertingSettings(crash_at=settings.crash_at),
            kafka_config(settings, "alerts"),
            now_ms,
            meter,
            stop_on_signals(),
            store,
        )
    finally:
        store.close()
