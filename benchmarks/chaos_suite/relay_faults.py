"""A relay that kills its process at a named effect: around the real spool, broker and gate."""

from __future__ import annotations

from typing_extensions import override

from benchmarks.chaos_suite.schedule import RelayFailpoint
from meterline.backends.failpoints import Failpoints
from meterline.backends.kafka.errors import KafkaClientError
from meterline.relay.client import RelayClient
from meterline.relay.emitter import Emitter
from meterline.relay.gate import Gate
from meterline.relay.sender import Connection, KafkaConnection, OnDone
from meterline.relay.settings import GateSettings, RelaySettings
from meterline.relay.spool import SealedBatch, Spool, SpooledBatch
from meterline.schemas.clock import Clock
from meterline.schemas.metrics import Meter
from meterline.schemas.throttle import Applied, ThrottleCommand


class CrashingSpool(Spool):
    """Effects 1 and 4."""

    def __init__(self, settings: RelaySettings, failpoints: Failpoints[RelayFailpoint]) -> None:
        super().__init__(settings.spool)
        self._failpoints = failpoints

    @override
    def append(self, batch: SealedBatch) -> SpooledBatch:
        self._failpoints.hit(RelayFailpoint.BEFORE_SPOOL)
        place = super().append(batch)
        self._failpoints.hit(RelayFailpoint.SPOOLED)
        return place

    @override
    def drop(self, place: SpooledBatch) -> None:
        super().drop(place)
        self._failpoints.hit(RelayFailpoint.DROPPED)


class CrashingConnection:
    """Effects 2 and 3."""

    def __init__(self, inner: KafkaConnection, failpoints: Failpoints[RelayFailpoint]) -> None:
        self._inner = inner
        self._failpoints = failpoints

    @property
    def partitions(self) -> int:
        """The real one's."""
        return self._inner.partitions

    def send(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        """Send as the real one does."""

        def done(error: KafkaClientError | None) -> None:
            if error is None:
                self._failpoints.hit(RelayFailpoint.ACKNOWLEDGED)
            on_done(error)

        self._failpoints.hit(RelayFailpoint.BEFORE_SEND)
        self._inner.send(key, value, partition, done)
        self._failpoints.hit(RelayFailpoint.SENT)

    def close(self) -> None:
        """Close the real one."""
        self._inner.close()


class CrashingGate(Gate):
    """The subscriber's effect; its acknowledgement comes right after."""

    def __init__(self, settings: GateSettings, failpoints: Failpoints[RelayFailpoint]) -> None:
        super().__init__(settings)
        self._failpoints = failpoints

    @override
    def apply(self, command: ThrottleCommand, now_ms: int) -> Applied:
        self._failpoints.hit(RelayFailpoint.BEFORE_APPLY)
        applied = super().apply(command, now_ms)
        self._failpoints.hit(RelayFailpoint.APPLIED)
        return applied


def crashing_client(
    settings: RelaySettings, clock: Clock, meter: Meter, crash_at: str
) -> RelayClient:
    """The real client around a spool, a connection and a gate that kill."""
    failpoints = Failpoints(crash_at, RelayFailpoint)

    def connect() -> Connection:
        return CrashingConnection(KafkaConnection(settings.kafka), failpoints)

    spool = CrashingSpool(settings, failpoints)
    emitter = Emitter(settings, clock, meter, connect=connect, spool=spool)
    gate = CrashingGate(settings.gate, failpoints)
    return RelayClient(settings, clock, meter, emitter=emitter, gate=gate)
