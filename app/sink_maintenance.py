"""What a sink does beside storing, in every round of its roll-up; all of it may be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from meterline.backends.clickhouse.client import Client
from meterline.reports.audit.store import seal
from meterline.reports.repricing.catalogue_archive import archive_catalogue
from meterline.schemas.clock import Clock


class Upkeep:
    """Seals administrative actions, and keeps the price catalogue that this sink rates with."""

    def __init__(self, catalogue_files: Sequence[tuple[str, bytes]], clock: Clock) -> None:
        """Nothing is written before the first call."""
        self._files: Sequence[tuple[str, bytes]] = catalogue_files
        self._clock = clock
        self._kept = False

    def __call__(self, client: Client) -> None:
        """One round; ClickHouseError: the next round does it."""
        seal(client)
        if not self._kept:
            archive_catalogue(client, self._files, self._clock())
            self._kept = True
