"""Settings of the streams worker, with the reason of every default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from meterline.backends.kafka.config import embedded_kafka
from meterline.schemas.groups import Group
from meterline.schemas.topics import Topic
from meterline.streams.core.entries import Retention
from meterline.streams.core.ledger import LedgerPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """Connection security; the defaults are those of a plain listener."""

    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsSettings:
    """Settings of one streams worker."""

    bootstrap: str
    """HOST:PORT, several separated by commas."""
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    app_id: str = Group.STREAMS.value
    """Consumer group, shared by all streams workers of a pipeline."""
    partitions: int = 4
    """Partitions of usage.events, and so of spend.snapshots."""
    source_topic: str = Topic.USAGE_EVENTS.value
    snapshot_topic: str = Topic.SPEND_SNAPSHOTS.value
    dead_letter_topic: str = Topic.DEAD_LETTERS.value
    time_zone: str = "UTC"
    """Billing time zone of the calendar windows."""
    epoch: int = 0
    """Generation of the Kafka log: one more each time a broker lost its data."""
    data_dir: Path = Path(".meterline")
    """Where Faust may keep files; nothing that counts is there."""

    # The interval of snapshots: a tenth of a second keeps the sum of emit, count and decide below
    # half a second.
    flush_interval_ms: int = 100
    # A broker that does not acknowledge for this long ends the worker; its successor reads the log.
    # Brokers of a cluster that change leaders take a few seconds.
    flush_timeout_ms: int = 30_000
    # Commits only shorten the replay after a crash (the table's tags decide what is counted).
    commit_interval_ms: int = 1_000
    # Group coordination: 10 s rides out a pause of the broker. The embedded broker takes half a
    # session to let a member join, so 3 s there.
    session_timeout_ms: int = 10_000
    # A broker that answers a fetch as soon as there is data can be asked to wait long; the
    # embedded one does not: `backends.kafka.config.EMBEDDED_FETCH_WAIT_MS`.
    fetch_max_wait_ms: int = 500
    # Needs InitProducerId, which the embedded broker lacks.
    idempotent: bool = True
    # The embedded broker's fetch may overtake an append (see `backends.kafka.gaps`).
    refetch_gaps: bool = False
    # Time for a drain after SIGTERM; a supervisor kills after more than this.
    stop_timeout_ms: int = 8_000
    # Longest time for reading a changelog without progress: then the broker is unreachable.
    recovery_stall_ms: int = 30_000

    ids_horizon: int = 100_000
    """Number of newest event ids that a partition keeps; change it only after a clean stop."""
    # Half a second of a fast worker: above it the worker reads no further until a flush ends.
    pending_events_max: int = 50_000
    # Dead letters carry up to 86 kB each; above this the worker waits for the flush as well.
    pending_dead_letters_max: int = 2_000
    retention: Retention = field(default_factory=Retention)

    crash_at: str = ""
    """Test only: a `StreamsFailpoint`, or `NAME:N`, at which the process kills itself."""

    def ledger_policy(self) -> LedgerPolicy:
        """The settings of the ledgers."""
        return LedgerPolicy(
            epoch=self.epoch,
            source_topic=self.source_topic,
            ids_horizon=self.ids_horizon,
            pending_events_max=self.pending_events_max,
            retention=self.retention,
        )


def embedded_settings(bootstrap: str, **more: object) -> StreamsSettings:
    """Settings for the embedded broker (see `docs/decisions`)."""
    broker = embedded_kafka(bootstrap)
    base: dict[str, object] = {
        "session_timeout_ms": broker.session_timeout_ms,
        "fetch_max_wait_ms": broker.fetch_max_wait_ms,
        "idempotent": broker.idempotent,
        "refetch_gaps": broker.refetch_gaps,
    }
    return StreamsSettings(bootstrap=bootstrap, **{**base, **more})  # type: ignore[arg-type]
