"""Each worker wired to its doors; imported by the command that runs it, and only then."""

from __future__ import annotations

import threading

from meterline.app.clock import now_ms
from meterline.app.settings import Settings, secret
from meterline.app.telemetry import PrometheusMeter
from meterline.app.wiring import (
    catalogue,
    clickhouse_config,
    kafka_config,
    stop_on_signals,
    streams_settings,
)
from meterline.pricing.catalogue import catalogue_files


def start_streams(settings: Settings, meter: PrometheusMeter) -> int:
    """Fold usage into spend until SIGTERM."""
    from meterline.app.streams_worker import run_streams  # noqa: PLC0415 - loads Faust

    return run_streams(streams_settings(settings), catalogue(settings).price, now_ms, meter)


def start_sink(settings: Settings, meter: PrometheusMeter) -> int:
    """Store topics until SIGTERM, and keep day roll-up and audit chain up to date beside it."""
    from meterline.app.sink_maintenance import Upkeep  # noqa: PLC0415 - loads the driver
    from meterline.backends.clickhouse.client import Client  # noqa: PLC0415 - loads the driver
    from meterline.sinks.consumer import run_sink  # noqa: PLC0415 - loads the drivers
    from meterline.sinks.rollup import run_rollup  # noqa: PLC0415 - loads the driver
    from meterline.sinks.settings import SinkSettings  # noqa: PLC0415 - loads the drivers

    config = clickhouse_config(settings)
    stop = stop_on_signals()
    # A daemon: a count that the server is slow to answer must not hold up a stop; what it leaves
    # is stale and counted again.
    threading.Thread(
        target=run_rollup,
        args=(
            lambda: Client(config),
            settings.time_zone,
            now_ms,
            stop,
            settings.clickhouse.cluster,
            Upkeep(catalogue_files(settings.catalogues), now_ms),
        ),
        name="rollup",
        daemon=True,
    ).start()
    return run_sink(
        SinkSettings(epoch=settings.log_epoch, crash_at=settings.crash_at),
        kafka_config(settings, "sink"),
        lambda: Client(config),
        catalogue(settings).rate,
        now_ms,
        meter,
        stop,
    )


def start_alerts(settings: Settings, meter: PrometheusMeter) -> int:
    """Apply the rules until SIGTERM."""
    from meterline.alerting.consumer import run_alerts  # noqa: PLC0415 - loads the driver
    from meterline.alerting.settings import AlertingSettings  # noqa: PLC0415 - loads the driver
    from meterline.alerting.top_contributors import ClickHouseStore  # noqa: PLC0415 - loads the driver
    from meterline.backends.clickhouse.client import Client  # noqa: PLC0415 - loads the driver

    config = clickhouse_config(settings)
    store = ClickHouseStore(Client(config))
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


def start_reports(settings: Settings, meter: PrometheusMeter) -> int:
    """Close months and push them when they are due until SIGTERM; serve their files."""
    from meterline.app.reports_worker import run_reports  # noqa: PLC0415 - loads the scheduler

    return run_reports(settings, meter, stop_on_signals())


def start_notify(settings: Settings, meter: PrometheusMeter) -> int:
    """Deliver alerts until SIGTERM."""
    from meterline.alerting.notify.worker import run_notify  # noqa: PLC0415 - loads the driver
    from meterline.alerting.settings import NotifySettings  # noqa: PLC0415 - loads the driver

    return run_notify(
        NotifySettings(ca_file=settings.notify_ca_file, crash_at=settings.crash_at),
        kafka_config(settings, "notify"),
        secret,
        now_ms,
        meter,
        stop_on_signals(),
    )
