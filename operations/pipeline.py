"""The pipeline as use cases see it: values, made once of the settings by `app.wiring.pipeline`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.kafka.config import KafkaConfig
from meterline.schemas.periods import Calendar
from meterline.streams.core.ledger import LedgerPolicy


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where a pipeline's topics and tables are, and what all of its processes agree on."""

    kafka: Callable[[str], KafkaConfig]
    """The cluster, for one client: its role, such as `close`, is part of the client id."""
    clickhouse: ClickHouseConfig
    time_zone: str
    """Billing time zone of all calendar windows."""
    partitions: int
    """Partitions of usage.events, and so shards of every total."""
    ledger: LedgerPolicy
    """How the streams count: log epoch, retention of each window kind, ids remembered."""
    closes: Path
    """Directory of the closed months."""
    catalogues: tuple[Path, ...] = ()
    """Rate card files over the shipped ones, later ones override."""
    replication_factor: int = 1
    """Copies of every partition, for topics that are created."""
    cluster: str = ""
    """ClickHouse cluster that migrations run on; empty on a single server."""

    @property
    def log_epoch(self) -> int:
        """Generation of the Kafka log: one more each time a broker lost its data."""
        return self.ledger.epoch

    @property
    def calendar(self) -> Calendar:
        """Windows in the billing time zone."""
        return Calendar(self.time_zone)
