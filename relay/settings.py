"""What a relay can set, with the default of every value and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from meterline.backends.kafka.config import KafkaConfig
from meterline.schemas.errors import MeterlineError
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX, MESSAGE_BYTES_MAX

RELAY_ID_LENGTH_MAX = 100
"""A lane id is relay/boot/partition and has 200 characters at most."""


class RelaySettingsError(MeterlineError, ValueError):
    """A setting that cannot work; the message names it and says what to write instead."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """The emitter's disk spool."""

    directory: Path
    """Belongs to one emitter; a second one on the same directory is refused."""
    bytes_max: int = 1 << 30
    """1 GiB: about two million events, half an hour of a thousand per second. When it is full the
    oldest batches are kept and new events are dropped and counted."""
    batches_max: int = 500_000
    """Every batch on disk costs about 200 bytes of index in memory: 100 MB at this bound."""
    segment_bytes: int = 16 << 20
    """A file is deleted when all its batches are acknowledged: 64 files make the default bound."""
    fsync_interval_ms: int = 1_000
    """Each batch reaches the operating system before it is sent, which is what a killed process
    needs. Only a power cut needs fsync: it may take the last interval, since a file system's
    sync costs 1 to 20 ms and one per batch would cap the emitter at some fifty batches per
    second. 0 syncs every batch all the same, where that matters more."""


@dataclass(frozen=True, slots=True)
class EmitterSettings:
    """Queue, batches and sending."""

    queue_events_max: int = 50_000
    """Events in memory that are not sealed yet; a sealer that is half a second behind at 100,000
    per second still loses nothing. Beyond it new events are refused and counted."""
    queue_bytes_max: int = 64 << 20
    """The same bound for unusually large events."""
    linger_ms: int = 50
    """How long an event may wait for others of its batch: what SIGKILL can take from an accepted event."""
    backlog_linger_ms: int = 500
    """The same while a partition has BACKLOG_BATCHES waiting: an outage is spooled in fewer,
    larger batches."""
    batch_events_max: int = EVENTS_PER_BATCH_MAX
    batch_bytes_max: int = 900_000
    """Below the message's million with room for the record's frame."""
    usage_partitions: int = 12
    """Partitions of usage.events if the broker cannot be asked within `partitions_wait_seconds`
    of the start; otherwise the topic's own count is used."""
    partitions_wait_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class GateSettings:
    """The gate's own choices; everything else is policy."""

    fail_open: bool = True
    """Whether requests without any policy are admitted before the gate is ready."""
    relays: int = 1
    """Relay processes that share the traffic evenly: each enforces its part of every rate limit,
    since a gate decides alone."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """All settings of a relay."""

    relay_id: str
    """Names this relay in lanes and acknowledgements; stable over restarts, one per process."""
    kafka: KafkaConfig
    spool: SpoolSettings
    emitter: EmitterSettings = field(default_factory=EmitterSettings)
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        """Reject settings that cannot work; all faults in one message.

        Raises:
            RelaySettingsError: with every fault.
        """
        faults = [text for wrong, text in self._checks() if wrong]
        if faults:
            raise RelaySettingsError("; ".join(faults))

    def _checks(self) -> tuple[tuple[bool, str], ...]:
        emitter, spool = self.emitter, self.spool
        named = self.relay_id.isprintable() and not set(self.relay_id) & {"/", " "}
        return (
            (
                not named or not 1 <= len(self.relay_id) <= RELAY_ID_LENGTH_MAX,
                f"relay_id: 1 to {RELAY_ID_LENGTH_MAX} printable characters, no '/' or blank",
            ),
            (
                not 1 <= emitter.batch_events_max <= EVENTS_PER_BATCH_MAX,
                f"batch_events_max: 1 to {EVENTS_PER_BATCH_MAX}",
            ),
            (
                not 1 <= emitter.batch_bytes_max < MESSAGE_BYTES_MAX,
                f"batch_bytes_max: 1 to {MESSAGE_BYTES_MAX - 1}",
            ),
            (emitter.linger_ms < 1, "linger_ms: at least 1"),
            (emitter.queue_events_max < 1, "queue_events_max: at least 1"),
            (emitter.queue_bytes_max < 1, "queue_bytes_max: at least 1"),
            (emitter.usage_partitions < 1, "usage_partitions: at least 1"),
            (
                spool.bytes_max < 2 * MESSAGE_BYTES_MAX,
                f"spool bytes_max: at least {2 * MESSAGE_BYTES_MAX}",
            ),
            (spool.segment_bytes < 1, "spool segment_bytes: at least 1"),
            (self.gate.relays < 1, "relays: at least 1"),
        )
