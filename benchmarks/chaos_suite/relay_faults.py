"""A relay that kills its process at a named effect: around the real spool, broker and gate."""

from __future__ import annotations

import os
import signal

from typing_extensions import override

from benchmarks.chaos_suite.schedule import RELAY_POINTS
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


class Crash:
    """SIGKILL of this process at the Nth pass of one point."""

    def __init__(self, crash_at: str) -> None:
        """Take `NAME:N`; empty for never."""
        self._name, _, times = crash_at.partition(":")
        assert not crash_at or self._name in RELAY_POINTS, crash_at
        self._left = int(times or 1)

    def reach(self, name: str) -> None:
        """Die here, if this is the place."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class CrashingSpool(Spool):
    """Effects 1 and 4."""

    def __init__(self, settings: RelaySettings, crash: Crash) -> None:
        super().__init__(settings.spool)
        self._crash = crash

    @override
    def append(self, batch: SealedBatch) -> SpooledBatch:
        self._crash.reach("relay.before_spool")
        place = super().append(batch)
        self._crash.reach("relay.spooled")
        return place

    @override
    def drop(self, place: SpooledBatch) -> None:
        super().drop(place)
        self._crash.reach("relay.dropped")


class CrashingConnection:
    """Effects 2 and 3."""

    def __init__(self, inner: KafkaConnection, crash: Crash) -> None:
        self._inner = inner
        self._crash = crash

    @property
    def partitions(self) -> int:
        """The real one's."""
        return self._inner.partitions

    def send(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        """Send as the real one does."""

        def done(error: KafkaClientError | None) -> None:
            if error is None:
                self._crash.reach("relay.acknowledged")
            on_done(error)

        self._crash.reach("relay.before_send")
        self._inner.send(key, value, partition, done)
        self._crash.reach("relay.sent")

    def close(self) -> None:
        """Close the real one."""
        self._inner.close()


class CrashingGate(Gate):
    """The subscriber's effect; its acknowledgement comes right after."""

    def __init__(self, settings: GateSettings, crash: Crash) -> None:
        super().__init__(settings)
        self._crash = crash

    @override
    def apply(self, command: ThrottleCommand, now_ms: int) -> Applied:
        self._crash.reach("relay.before_apply")
        applied = super().apply(command, now_ms)
        self._crash.reach("relay.applied")
        return applied


def crashing_client(
    settings: RelaySettings, clock: Clock, meter: Meter, crash_at: str
) -> RelayClient:
    """The real client around a spool, a connection and a gate that kill."""
    crash = Crash(crash_at)

    def connect() -> Connection:
        return CrashingConnection(KafkaConnection(settings.kafka), crash)

    spool = CrashingSpool(settings, crash)
    emitter = Emitter(settings, clock, meter, connect=connect, spool=spool)
    gate = CrashingGate(settings.gate, crash)
    return RelayClient(settings, clock, meter, emitter=emitter, gate=gate)
