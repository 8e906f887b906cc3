"""The Faust app: one agent decodes messages, applies them to the ledger, and notes the effects."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import faust
import structlog
from faust.streams import Stream
from faust.types import Message, StreamT
from typing_extensions import override
from yarl import URL

from meterline.backends.failpoints import Failpoints, StreamsFailpoint
from meterline.schemas.clock import Clock
from meterline.schemas.codec import decode_usage
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.periods import Calendar
from meterline.streams._driver_patches import set_recovery
from meterline.streams.core.changelog import LedgerFactory
from meterline.streams.core.ledger import LedgerOutcome, PartitionLedger, Rate
from meterline.streams.flusher import FAILED_STATUS, Flusher, end_process
from meterline.streams.recovery import BulkRecovery
from meterline.streams.settings import KafkaSecurity, StreamsSettings
from meterline.streams.tables import SpendTable
from meterline.streams.transport import SpendTransport
from meterline.streams.windows import SpendWindows

log = structlog.get_logger()

# Batches of the changelog: 256 kB hold about 1,700 snapshots, and one id slot fits in any case.
PRODUCER_BATCH_BYTES = 256 * 1024
# Messages read ahead per partition: at 100 events each about as many as one flush may hold.
BUFFERED_MESSAGES_MAX = 512


class SpendApp(faust.App):
    """A Faust app with the transport of `streams.transport`."""

    def __init__(self, settings: StreamsSettings, **options: Any) -> None:
        """Take the worker's settings besides Faust's options."""
        self.streams_settings = settings
        super().__init__(settings.app_id, **options)

    def _spend_transport(self, urls: list[URL]) -> SpendTransport:
        settings = self.streams_settings
        return SpendTransport(
            urls,
            self,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            idempotent=settings.idempotent,
            refetch_gaps=settings.refetch_gaps,
        )

    @override
    def _new_transport(self) -> SpendTransport:
        return self._spend_transport(self.conf.broker_consumer)

    @override
    def _new_producer_transport(self) -> SpendTransport:
        return self._spend_transport(self.conf.broker_producer)


@dataclass(frozen=True, slots=True)
class Streams:
    """The parts of a streams worker, not started."""

    app: SpendApp
    table: SpendTable
    flusher: Flusher


def build_streams(settings: StreamsSettings, rate: Rate, clock: Clock, meter: Meter) -> Streams:
    """Build a worker without starting it.

    Args:
        settings: the worker's settings.
        rate: prices an event.
        clock: current time, for the metric of the last flush only.
        meter: receives the metrics.

    Raises:
        UnknownFailpointError: `settings.crash_at` names no failpoint.
    """
    app = SpendApp(settings, **_faust_options(settings))
    calendar = Calendar(settings.time_zone)
    table = app.Table(
        "spend",
        partitions=settings.partitions,
        key_type=bytes,
        value_type=bytes,
        new_ledger=LedgerFactory(settings.ledger_policy(), calendar, rate),
        snapshot_topic=settings.snapshot_topic,
    )
    assert isinstance(table, SpendTable)
    table.using_window(SpendWindows(calendar))
    recovery = BulkRecovery(
        app,
        table=table,
        stall_ms=settings.recovery_stall_ms,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
    )
    set_recovery(app.tables, recovery)
    failpoints = Failpoints(settings.crash_at, StreamsFailpoint)
    flusher = Flusher(settings, table.replica, clock, meter, failpoints)
    _add_agent(app, table, flusher, settings)
    _follow_rebalances(table, flusher, meter)
    return Streams(app, table, flusher)


def _faust_options(settings: StreamsSettings) -> dict[str, Any]:
    session = settings.session_timeout_ms / 1000
    return {
        "broker": [URL(f"kafka://{server.strip()}") for server in settings.bootstrap.split(",")],
        "broker_credentials": _credentials(settings.security),
        "broker_session_timeout": session,
        # A third of the session is the rule; a sixth notices a rebalance sooner.
        "broker_heartbeat_interval": session / 6,
        "broker_commit_interval": settings.commit_interval_ms / 1000,
        "consumer_auto_offset_reset": "earliest",
        "datadir": settings.data_dir / "faust",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "producer_max_batch_size": PRODUCER_BATCH_BYTES,
        # Faust's default of 20 minutes would let a lost worker write long after its successor.
        "producer_request_timeout": settings.flush_timeout_ms / 1000,
        "store": "memory://",
        "stream_buffer_maxsize": BUFFERED_MESSAGES_MAX,
        # A rebalance waits until what was applied is flushed and committed.
        "stream_wait_empty": True,
        "Table": SpendTable,
        # Standbys of a memory store bring no speed, and stock ones no merge by tag.
        "table_standby_replicas": 0,
        # `meterline topics apply` creates the topics, with the registry's settings.
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "topic_partitions": settings.partitions,
        "web_enabled": False,
    }


def _credentials(security: KafkaSecurity) -> faust.SASLCredentials | faust.SSLCredentials | None:
    protocol = security.security_protocol
    context = None
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=security.ssl_cafile or None)
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=security.sasl_username,
            password=security.sasl_password,
            mechanism=security.sasl_mechanism or None,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def _add_agent(
    app: SpendApp, table: SpendTable, flusher: Flusher, settings: StreamsSettings
) -> None:
    source = app.topic(
        settings.source_topic,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        # A tombstone is bad input like any other: it must reach the ledger.
        allow_empty=True,
        internal=True,
    )

    # One agent, one stream: messages of a partition are applied in the order of the log.
    async def meter_usage(stream: StreamT[Any]) -> None:
        assert isinstance(stream, Stream)
        async for event in stream.noack().events():
            try:
                message = event.message
                ledger = table.replica.ledgers.get(message.partition)
                if ledger is None or message.generation_id != app.consumer_generation_id:
                    # Read before a rebalance: it is redelivered to its partition's owner.
                    continue
                flusher.taken(event, _apply(ledger, message))
                await flusher.wait_for_room()
            except Exception:
                # Faust would skip the message and continue.
                end_process(FAILED_STATUS, "agent.failed")

    app.agent(source, concurrency=1, name="meter_usage")(meter_usage)


def _apply(ledger: PartitionLedger, message: Message) -> LedgerOutcome:
    """Decode and count; a message that was applied before is not even decoded."""
    if message.offset <= ledger.offset:
        return ledger.replayed()
    if message.offset > ledger.offset + 1 and ledger.offset >= 0:
        # Retention has deleted what was not read yet; it cannot be recovered, but must be visible.
        log.warning(
            "source.gap",
            partition=message.partition,
            after=ledger.offset,
            next=message.offset,
        )
    # Faust made seconds of the record's milliseconds; rounding gives them back exactly. The record
    # format always has a timestamp (-1 if the producer gave none).
    timestamp_ms = round(message.timestamp * 1000)
    usage = decode_usage(message.value, timestamp_ms)
    return ledger.apply(usage, message.offset, timestamp_ms)


def _follow_rebalances(table: SpendTable, flusher: Flusher, meter: Meter) -> None:
    def forgotten() -> None:
        flusher.forget_pending()
        meter.gauge(Metric.READY, 0)

    async def recovered() -> None:
        meter.gauge(Metric.READY, 1)
        meter.gauge(Metric.ENTRIES, len(table.replica.entries))

    table.on_forget = forgotten
    table.on_recover(recovered)
