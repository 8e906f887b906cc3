"""The emitter: takes usage events from a relay's requests and brings them into the log.

`emit` only encodes the event and puts it into a bounded queue. Behind it one thread seals batches
into the spool and another sends them (`relay.sender` numbers the effects).

What is promised of an event that was ACCEPTED:
    sealed                      it reaches the log exactly once as far as totals are concerned,
                                through kill -9, broker outages and restarts
    not sealed yet              lost by kill -9: at most `linger_ms` of events (`backlog_linger_ms`
                                during an outage), or the queue if the spool is full
    power cut                   as kill -9, plus what was sealed in the last `fsync_interval_ms`
                                and not acknowledged by the broker
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from functools import partial

import structlog

from meterline.relay.lanes import FRAME_BYTES_MAX, LaneBuffer, lane_id
from meterline.relay.partitioning import Partitioner
from meterline.relay.sender import Connection, KafkaConnection, Parcel, Sender
from meterline.relay.settings import RelaySettings
from meterline.relay.spool import SealedBatch, Spool, SpooledBatch, SpoolFullError, SpoolWriteError
from meterline.schemas.clock import Clock
from meterline.schemas.codec import encode
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.usage import UsageEvent

log = structlog.get_logger("relay.emitter")

# From this many batches on, a partition counts as behind and is spooled in larger batches.
BACKLOG_BATCHES = 10
# After an unexpected failure the sealer waits this long before it continues.
FAILURE_PAUSE_SECONDS = 1.0
_SEGMENT_OF_MEMORY = -1
# Room of a closed emitter: no event is small enough.
_CLOSED_ROOM = -(1 << 62)


class EmitOutcome(StrEnum):
    """What became of one event."""

    ACCEPTED = "accepted"
    QUEUE_FULL = "queue_full"
    """Rejected: more events than the queue holds came faster than they could be sealed."""
    SPOOL_FULL = "spool_full"
    """Rejected: the spool (and then the queue) is full, because the broker is away too long or the
    disk is full."""
    OVERSIZE = "oversize"
    """Rejected: the event alone is larger than a message may be."""
    INVALID = "invalid"
    """Rejected: a field holds what JSON cannot say. Other faults are not checked here: the
    streams write dead letters of them, where they can be seen and repaired."""
    CLOSED = "closed"
    """Rejected: the emitter is closed or was not started."""


_ACCEPTED = EmitOutcome.ACCEPTED


class Emitter:
    """One per process; `emit` may be called from any thread and from asyncio.

    Start it after a fork, not before: threads do not survive one.
    """

    def __init__(
        self,
        settings: RelaySettings,
        clock: Clock,
        meter: Meter,
        *,
        connect: Callable[[], Connection] | None = None,
        spool: Spool | None = None,
    ) -> None:
        """Open the spool; nothing is sent before `start`.

        Args:
            settings: queue, batches, spool and cluster of this relay.
            clock: used once, for the boot id.
            meter: where EMITTED and DROPPED are counted.
            connect: makes the connection; by default to `settings.kafka`.
            spool: by default the one of `settings.spool`.

        Raises:
            SpoolInUseError: another emitter has the directory.
            SpoolUnusableError: the directory cannot be used.
        """
        self._settings = settings
        self._limits = settings.emitter
        self._meter = meter
        self._spool = spool if spool is not None else Spool(settings.spool)
        self._sender = Sender(
            connect or partial(KafkaConnection, settings.kafka), self._spool, meter
        )
        # A clock that was set back cannot repeat a boot id: the random part differs.
        self._boot = f"{clock():x}-{secrets.token_hex(4)}"
        self._event_bytes_max = self._limits.batch_bytes_max - FRAME_BYTES_MAX
        # One number for both bounds of the queue: an event takes its bytes, and at least its part
        # of the room, so that neither too many nor too large ones fit.
        self._event_cost_min = self._limits.queue_bytes_max // self._limits.queue_events_max
        # Held for a microsecond at a time, so that the bound is exact with many threads.
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._room = _CLOSED_ROOM
        self._stuck = False
        self._stopping = False
        self._wake = threading.Event()
        self._flushes_asked = 0
        self._flushes_done = 0
        self._flushed = threading.Condition()
        # Of the sealing thread alone:
        self._taken: deque[tuple[str, bytes]] = deque()
        self._lanes: dict[int, LaneBuffer] = {}
        self._synced_at = 0.0
        self._thread = threading.Thread(target=self._run, name="meterline-sealer", daemon=True)

    def start(self) -> None:
        """Start the threads; batches of earlier processes are sent first."""
        self._room = self._limits.queue_bytes_max
        self._sender.start()
        self._thread.start()

    def emit(self, event: UsageEvent) -> EmitOutcome:
        """Take one event; returns within microseconds and never raises."""
        try:
            body = encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._reject(EmitOutcome.INVALID)
        size = len(body)
        if size > self._event_bytes_max:
            return self._reject(EmitOutcome.OVERSIZE)
        cost = max(size, self._event_cost_min)
        with self._lock:
            if cost <= self._room:
                self._room -= cost
                self._queue.append((event.key, body))
                return _ACCEPTED
        return self._reject(self._why_no_room())

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until the broker has every event accepted before this call.

        Returns:
            False if it has not within the time; nothing is lost by that.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._flush_to_spool(timeout_seconds):
            return False
        return self._sender.wait(self._sender.positions(), max(0.0, deadline - time.monotonic()))

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Take no more events, drain, stop the threads, release the spool.

        Returns:
            Whether the broker has everything; if not, the next process sends the rest.
        """
        with self._lock:
            was_open = not self._closed()
            # Room that is given back from now on opens nothing: it is far below zero.
            self._room += _CLOSED_ROOM if was_open else 0
        drained = self.flush(timeout_seconds) if was_open else False
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sender.stop()
        self._spool.close()
        lost = self._unsealed_events() + self._sender.unspooled_events()
        if lost:
            # Only a spool that is full or broken to the end leads here.
            self._meter.count(Metric.DROPPED, lost, reason=EmitOutcome.SPOOL_FULL)
            log.error("emitter.events_lost_at_close", events=lost)
        return drained

    @property
    def backlog_batches(self) -> int:
        """Sealed batches that the broker does not have yet."""
        return self._spool.batches_waiting

    @property
    def boot(self) -> str:
        """This process's part of its lanes' names."""
        return self._boot

    def _closed(self) -> bool:
        return self._room < _CLOSED_ROOM // 2

    def _why_no_room(self) -> EmitOutcome:
        if self._closed():
            return EmitOutcome.CLOSED
        return EmitOutcome.SPOOL_FULL if self._stuck else EmitOutcome.QUEUE_FULL

    def _unsealed_events(self) -> int:
        """Once the sealing thread has ended: what it could not seal."""
        in_lanes = sum(len(lane.bodies) for lane in self._lanes.values())
        return len(self._queue) + len(self._taken) + in_lanes

    def _reject(self, outcome: EmitOutcome) -> EmitOutcome:
        self._meter.count(Metric.DROPPED, reason=outcome.value)
        return outcome

    def _flush_to_spool(self, timeout_seconds: float) -> bool:
        with self._flushed:
            self._flushes_asked += 1
            own = self._flushes_asked
            self._wake.set()
            return self._flushed.wait_for(lambda: self._flushes_done >= own, timeout_seconds)

    def _run(self) -> None:
        partitioner = Partitioner(self._await_partitions())
        # An event waits half its time for the thread to look and half for company.
        tick_seconds = self._limits.linger_ms / 2000
        while not self._stopping:
            self._wake.wait(tick_seconds)
            self._wake.clear()
            self._step_or_log(partitioner, time.monotonic())
        # However short the time for closing was: what was accepted goes to the disk.
        with self._flushed:
            self._flushes_asked += 1
        self._step_or_log(partitioner, time.monotonic())

    def _step_or_log(self, partitioner: Partitioner, now: float) -> None:
        try:
            self._step(partitioner, now)
        except Exception:
            # A bug must cost a second, not the relay's whole accounting.
            log.exception("emitter.step_failed")
            time.sleep(FAILURE_PAUSE_SECONDS)

    def _await_partitions(self) -> int:
        """The topic's partitions, or the configured number if the broker does not answer."""
        known = self._sender.partitions_known
        deadline = time.monotonic() + self._limits.partitions_wait_seconds
        while not self._stopping and time.monotonic() < deadline:
            if known.wait(self._limits.linger_ms / 1000):
                return self._sender.partitions
        log.warning("emitter.partitions_assumed", partitions=self._limits.usage_partitions)
        return self._limits.usage_partitions

    def _step(self, partitioner: Partitioner, now: float) -> None:
        asked = self._flushes_asked
        room = self._take_and_place(partitioner, now)
        # One lane that cannot be sealed keeps no other from it.
        room = self._seal_due(now, everything=False) and room
        if self._flushes_done < asked and room and self._seal_due(now, everything=True):
            with self._flushed:
                self._flushes_done = asked
                self._flushed.notify_all()
        self._log_stuck(stuck=not room)
        if now - self._synced_at >= self._settings.spool.fsync_interval_ms / 1000:
            self._synced_at = now
            self._spool.sync()

    def _take_and_place(self, partitioner: Partitioner, now: float) -> bool:
        """Empty the queue into the lanes; False if an event does not fit and cannot be sealed."""
        if not self._place_taken(partitioner, now):
            return False
        with self._lock:
            self._taken, self._queue = self._queue, self._taken
        return self._place_taken(partitioner, now)

    def _place_taken(self, partitioner: Partitioner, now: float) -> bool:
        """Put events into their lanes; False if one does not fit and cannot be sealed."""
        while self._taken:
            key, body = self._taken[0]
            partition = partitioner.partition_of(str(key))
            lane = self._lanes.get(partition) or self._new_lane(partition)
            if not lane.has_room(body) and not self._seal(lane):
                return False
            lane.add(body, now)
            self._taken.popleft()
        return True

    def _new_lane(self, partition: int) -> LaneBuffer:
        name = lane_id(self._settings.relay_id, self._boot, partition)
        limits = self._limits
        lane = LaneBuffer(name, partition, limits.batch_events_max, limits.batch_bytes_max)
        self._lanes[partition] = lane
        return lane

    def _seal_due(self, now: float, *, everything: bool) -> bool:
        """Seal what is full or old enough; False if something that is due cannot be sealed."""
        sealed = True
        for lane in self._lanes.values():
            if lane.bodies and (everything or lane.full() or self._is_old(lane, now)):
                sealed = self._seal(lane) and sealed
        return sealed

    def _is_old(self, lane: LaneBuffer, now: float) -> bool:
        behind = self._sender.backlog(lane.partition) > BACKLOG_BATCHES
        linger_ms = self._limits.backlog_linger_ms if behind else self._limits.linger_ms
        return now - lane.oldest_at >= linger_ms / 2000

    def _seal(self, lane: LaneBuffer) -> bool:
        """Effect (1): once the batch is in the spool it has its seq and will be sent."""
        batch = lane.batch()
        try:
            parcel = Parcel(self._spool.append(batch))
            if not self._settings.spool.fsync_interval_ms:
                self._spool.sync()
        except SpoolFullError:
            return False
        except SpoolWriteError:
            # The disk refuses, but the broker may well be there. One batch per partition goes
            # without the spool: a crash may lose it, waiting for the disk would surely lose more.
            if self._sender.backlog(lane.partition):
                return False
            parcel = Parcel(_in_memory(batch), batch.value)
        cost_min = self._event_cost_min
        cost = sum(max(len(body), cost_min) for body in lane.bodies)
        lane.sealed()
        with self._lock:
            self._room += cost
        self._meter.count(Metric.EMITTED, batch.events)
        self._sender.add(parcel)
        return True

    def _log_stuck(self, *, stuck: bool) -> None:
        """One line per change of state."""
        if stuck == self._stuck:
            return
        self._stuck = stuck
        if stuck:
            log.error(
                "emitter.spool_full",
                bytes_used=self._spool.bytes_used,
                batches=self._spool.batches_waiting,
                effect="new events are dropped when the queue is full",
            )
        else:
            log.info("emitter.spool_has_room")


def _in_memory(batch: SealedBatch) -> SpooledBatch:
    return SpooledBatch(
        batch.lane, batch.partition, batch.seq, batch.events, _SEGMENT_OF_MEMORY, 0, 0
    )
