"""The sink worker's process: topics into ClickHouse, and the maintenance of the roll-up beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from meterline.app.clock import now_ms
from meterline.app.settings import Settings
from meterline.app.telemetry import PrometheusMeter
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config, stop_on_signals
from meterline.backends.clickhouse.client import Client
from meterline.pricing.catalogue_reader import catalogue_files
from meterline.reports.audit.store import seal
from meterline.reports.repricing.catalogue_archive import archive_catalogue
from meterline.schemas.clock import Clock
from meterline.sinks.consumer import run_sink
from meterline.sinks.rollup import run_rollup
from meterline.sinks.settings import SinkSettings


class SinkMaintenance:
    """Seals administrative actions, and archives the price catalogue that this sink rates with.

    Done in every round of the roll-up; all of it may be repeated.
    """

    def __init__(self, files: Sequence[tuple[str, bytes]], clock: Clock) -> None:
        """Remember the catalogue's files; the first call writes them."""
        self._files = files
        self._clock = clock
        self._archived = False

    def __call__(self, client: Client) -> None:
        """Run one round.

        Raises:
            ClickHouseError: the next round does what is missing.
        """
        seal(client)
        if not self._archived:
            archive_catalogue(client, self._files, self._clock())
            self._archived = True


def start(settings: Settings, meter: PrometheusMeter) -> int:
    """Store topics until SIGTERM, and keep day roll-up and audit chain up to date beside it."""
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
            SinkMaintenance(catalogue_files(settings.catalogues), now_ms),
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
