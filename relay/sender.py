"""Sends spooled batches to the broker: in order, repeatedly until it has them.

Per partition one queue, in which the batches of earlier processes come before those of this one,
and at most one batch of it is on its way. Even an idempotent producer gives up after a time and
lets later batches pass; then the earlier batch, sent again, would be taken for a repetition and its
events would be lost. One in flight per partition rules that out and costs little: a batch holds up
to 500 events, and the partitions go in parallel.

    (1) sealed and spooled     by the emitter: the batch survives this process
    (2) send                   same bytes, same partition, every time
    (3) broker acknowledges    from all replicas: the batch survives the broker
    (4) drop from the spool    after a crash between 3 and 4 the batch is sent once more, and its
                               lane and seq identify it to the streams as a repetition
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import structlog

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.errors import KafkaClientError, MessageRefusedError
from meterline.backends.kafka.producer import Producer
from meterline.relay.spool import Spool, SpooledBatch, SpoolUnusableError
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.topics import Topic

log = structlog.get_logger("relay.sender")

# How long the driver tries by itself; afterwards the batch is sent again, without end.
DELIVERY_SECONDS_MAX = 10.0
# Connecting happens beside the relay's work; a shorter time only makes more attempts.
CONNECT_SECONDS_MAX = 5.0
# Between attempts: doubling, so that a broker that comes back is not met by a storm, and bounded,
# so that it is found again soon. No end: the spool's bound is the end.
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 2.0
# The thread looks after its queues at least this often even if nothing wakes it.
IDLE_SECONDS_MAX = 1.0
# Refused batches are kept as files for the operator to inspect, up to this many.
REFUSED_FILES_MAX = 100
CLOSE_SECONDS_MAX = 2.0
# Closing a connection takes that long at most. A thread that is still looking for a broker is not
# waited for: it holds nothing of the spool and ends by itself.
STOP_SECONDS_MAX = CLOSE_SECONDS_MAX + 1.0

OnDone = Callable[[KafkaClientError | None], None]


class Parcel(NamedTuple):
    """One batch to send: on disk, or in memory while the disk refuses to take it."""

    place: SpooledBatch
    value: bytes | None = None


class Connection(Protocol):
    """What the sender needs of a broker; tests wrap the real one with a fault-injecting one."""

    @property
    def partitions(self) -> int:
        """How many partitions usage.events has."""

    def send(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        """Hand a message over; KafkaClientError or `on_done`, exactly one of both."""

    def close(self) -> None:
        """Close."""


class KafkaConnection:
    """The real connection."""

    def __init__(self, config: KafkaConfig) -> None:
        """Connect and ask for the partitions; KafkaClientError when that fails."""
        admin = Admin(config, bootstrap_seconds=CONNECT_SECONDS_MAX)
        try:
            self.partitions = admin.partitions(Topic.USAGE_EVENTS)
        finally:
            admin.close()
        # No linger: the emitter has lingered already.
        self._producer = Producer(config, linger_ms=0, delivery_seconds=DELIVERY_SECONDS_MAX)

    def send(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        """Hand a message over."""
        self._producer.send(Topic.USAGE_EVENTS, key, value, partition=partition, on_done=on_done)

    def close(self) -> None:
        """Close the driver; what is in flight stays in the spool."""
        self._producer.close(timeout_seconds=CLOSE_SECONDS_MAX)


class _Queue:
    """One partition's parcels, oldest first."""

    __slots__ = ("acknowledged", "added", "failures", "in_flight", "parcels", "retry_at")

    def __init__(self) -> None:
        self.parcels: deque[Parcel] = deque()
        self.in_flight = False
        self.retry_at = 0.0
        self.failures = 0
        self.added = 0
        self.acknowledged = 0  # or given up; with `added` it gives a flush its progress


class Sender:
    """The thread that sends."""

    def __init__(self, connect: Callable[[], Connection], spool: Spool, meter: Meter) -> None:
        """Take over what the spool holds; nothing happens before `start`."""
        self._connect = connect
        self._spool = spool
        self._meter = meter
        self._queues: dict[int, _Queue] = {}
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._answers: deque[tuple[int, Parcel, KafkaClientError | None]] = deque()
        self._connection: Connection | None = None
        self._connect_failures = 0
        self._connect_at = 0.0
        self._stopping = False
        self._failing = False
        self._refused_files = 0
        self.partitions_known = threading.Event()
        self.partitions = 0
        self._thread = threading.Thread(target=self._run, name="meterline-sender", daemon=True)
        for place in spool.leftover:
            self.add(Parcel(place))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, parcel: Parcel) -> None:
        """Queue a batch behind the others of its partition."""
        with self._changed:
            queue = self._queues.setdefault(parcel.place.partition, _Queue())
            queue.parcels.append(parcel)
            queue.added += 1
        self._wake.set()

    def backlog(self, partition: int) -> int:
        """Batches of one partition that the broker does not have yet."""
        queue = self._queues.get(partition)
        return len(queue.parcels) if queue is not None else 0

    def positions(self) -> Mapping[int, int]:
        """A point in every queue, for `wait`: everything added so far."""
        with self._changed:
            return {partition: queue.added for partition, queue in self._queues.items()}

    def wait(self, positions: Mapping[int, int], timeout_seconds: float) -> bool:
        """Wait until the broker has everything up to the positions; False if the time is over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(
                    self._queues[partition].acknowledged >= position
                    for partition, position in positions.items()
                ),
                timeout_seconds,
            )

    def unspooled_events(self) -> int:
        """Events that are queued here and on no disk."""
        with self._changed:
            return sum(
                parcel.place.events
                for queue in self._queues.values()
                for parcel in queue.parcels
                if parcel.value is not None
            )

    def stop(self) -> None:
        """End the thread and the connection; what is unsent stays in the spool."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping:
            pause = IDLE_SECONDS_MAX
            try:
                pause = self._step(time.monotonic())
            except Exception:
                # A bug must cost a second, not the relay's whole accounting.
                log.exception("sender.step_failed")
                time.sleep(IDLE_SECONDS_MAX)
            self._wake.wait(pause)
            self._wake.clear()
        self._disconnect()

    def _step(self, now: float) -> float:
        """Handle what was answered, send what may be sent; seconds until there is more to do."""
        while self._answers:
            self._settle(*self._answers.popleft())
        if self._connection is None:
            return self._try_to_connect(now)
        waiting = IDLE_SECONDS_MAX
        with self._changed:
            ready = [
                (partition, queue, queue.parcels[0])
                for partition, queue in self._queues.items()
                if queue.parcels and not queue.in_flight
            ]
        for partition, queue, parcel in ready:
            if self._stopping:
                break
            if queue.retry_at > now:
                waiting = min(waiting, queue.retry_at - now)
            else:
                self._send(partition, queue, parcel)
        return 0.0 if self._answers else waiting

    def _try_to_connect(self, now: float) -> float:
        if now < self._connect_at:
            return self._connect_at - now
        try:
            self._connection = self._connect()
        except KafkaClientError as error:
            self._connect_failures += 1
            self._connect_at = time.monotonic() + _backoff(self._connect_failures)
            self._log_failing(error)
            return _backoff(self._connect_failures)
        self._connect_failures = 0
        self.partitions = self._connection.partitions
        self.partitions_known.set()
        return 0.0

    def _send(self, partition: int, queue: _Queue, parcel: Parcel) -> None:
        connection, place = self._connection, parcel.place
        assert connection is not None
        try:
            value = parcel.value if parcel.value is not None else self._spool.read(place)
        except SpoolUnusableError as error:
            log.error("sender.batch_lost", error=str(error), events=place.events)  # noqa: TRY400 - the disk's word is enough
            self._give_up(queue, parcel, "spool_damaged")
            return
        queue.in_flight = True

        def on_done(error: KafkaClientError | None) -> None:
            self._answers.append((partition, parcel, error))
            self._wake.set()

        # A batch sealed while the count was only configured may name a partition that is not there.
        target = partition if partition < self.partitions else partition % self.partitions
        try:
            connection.send(place.lane.encode(), value, target, on_done)  # (2)
        except KafkaClientError as error:
            self._answers.append((partition, parcel, error))

    def _settle(self, partition: int, parcel: Parcel, error: KafkaClientError | None) -> None:
        queue = self._queues[partition]
        queue.in_flight = False
        if error is None:  # (3)
            if self._failing:
                self._failing = False
                log.info("sender.recovered")
            queue.failures = 0
            self._forget(queue, parcel)
        elif isinstance(error, MessageRefusedError):
            log.error("sender.batch_refused", error=str(error), lane=parcel.place.lane)
            self._keep_refused(parcel)
            self._give_up(queue, parcel, "refused")
        else:
            # Whatever else it is (no broker, no topic, no right): an operator may repair it, and
            # until then the spool keeps the events.
            queue.failures += 1
            queue.retry_at = time.monotonic() + _backoff(queue.failures)
            self._log_failing(error)

    def _give_up(self, queue: _Queue, parcel: Parcel, reason: str) -> None:
        self._meter.count(Metric.DROPPED, parcel.place.events, reason=reason)
        self._forget(queue, parcel)

    def _forget(self, queue: _Queue, parcel: Parcel) -> None:
        if parcel.value is None:
            self._spool.drop(parcel.place)  # (4)
        with self._changed:
            queue.parcels.popleft()
            queue.acknowledged += 1
            self._changed.notify_all()

    def _keep_refused(self, parcel: Parcel) -> None:
        """A batch that no broker will take is put aside, so that the ones behind it can go."""
        if self._refused_files >= REFUSED_FILES_MAX:
            return
        self._refused_files += 1
        place = parcel.place
        directory = self._spool.directory / "refused"
        name = f"{place.lane.replace('/', '-')}-{place.seq}.json"
        try:
            directory.mkdir(exist_ok=True)
            (directory / name).write_bytes(parcel.value or self._spool.read(place))
        except (OSError, SpoolUnusableError) as error:
            log.warning("sender.refused_batch_not_kept", error=str(error))

    def _log_failing(self, error: KafkaClientError) -> None:
        """One line per outage, not per attempt."""
        if not self._failing:
            self._failing = True
            log.error("sender.failing", error=str(error), waiting=self._spool.batches_waiting)

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.close()
        except KafkaClientError as error:
            log.warning("sender.close_failed", error=str(error))
        while self._answers:
            self._settle(*self._answers.popleft())


def _backoff(failures: int) -> float:
    return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 10))
