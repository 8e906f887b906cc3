"""Follows throttle commands and policies, gives them to the gate, acknowledges the commands.

    (1) read                   every record from the beginning of both topics
    (2) apply to the gate      by (epoch, seq): reading a record again changes nothing
    (3) acknowledge            after the gate has it; a lost acknowledgement is repeated when the
                               next command or the next start comes

Nothing is committed: every start reads from the beginning. When the broker goes away the gate
keeps what it has (leases end by themselves) and this thread tries to reconnect without end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Self

import structlog

from meterline.backends.kafka.config import KafkaConfig, Record
from meterline.backends.kafka.errors import KafkaClientError
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.relay.gate import Gate
from meterline.schemas.clock import Clock
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.policy import PolicyRecordError, ScopePolicy, decode_policy
from meterline.schemas.scopes import ScopeError
from meterline.schemas.throttle import (
    Applied,
    ThrottleAck,
    ThrottleCommand,
    ThrottleError,
    ack_key,
    decode_command,
    encode_ack,
)
from meterline.schemas.topics import Topic

log = structlog.get_logger("relay.subscriber")

# Both topics are compacted: even tens of thousands of scopes are read in seconds.
READ_TO_END_SECONDS_MAX = 60.0
# A poll returns as soon as there is data; this bounds how long a stop waits.
POLL_SECONDS_MAX = 0.2
# As the sender's: found again soon, without a storm; no end, because the gate depends on it.
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 2.0
ACK_CLOSE_SECONDS_MAX = 1.0
# A thread that is looking for a broker is not waited for longer; it ends by itself afterwards.
STOP_SECONDS_MAX = 2.0

MALFORMED_COMMAND = "malformed_command"
MALFORMED_POLICY = "malformed_policy"


class Subscriber:
    """The thread that keeps a gate up to date."""

    def __init__(
        self, kafka: KafkaConfig, relay_id: str, gate: Gate, clock: Clock, meter: Meter
    ) -> None:
        """Nothing happens before `start`.

        Args:
            kafka: the cluster.
            relay_id: named in acknowledgements.
            gate: is given policies and commands.
            clock: for leases and acknowledgements.
            meter: where malformed records are counted (REJECTS).
        """
        self._kafka = kafka
        self._relay_id = relay_id
        self._gate = gate
        self._clock = clock
        self._meter = meter
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="meterline-subscriber", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until both topics were read to their end; False if the time is over."""
        return self._ready.wait(timeout_seconds)

    def stop(self) -> None:
        """End the thread; the gate keeps what it has."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._follow()
            except KafkaClientError as error:
                self._log_failing(str(error))
            except Exception:
                # A bug must not leave the gate without its commands: start again.
                log.exception("subscriber.failed")
            # A connection that had worked starts the waiting from the beginning.
            failures = failures + 1 if self._failing else 1
            pause = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(failures, 10))
            self._stop.wait(pause)

    def _follow(self) -> None:
        """One connection's life: read to the end, then follow until it breaks or `stop`."""
        with _Connection(self._kafka) as connection:
            reader = connection.reader
            for record in reader.read_to_end(READ_TO_END_SECONDS_MAX):  # (1)
                self._take(record)  # (2)
            self._gate.set_ready()
            # One acknowledgement per scope, of the command in force; older commands need none.
            for command in self._gate.commands():
                self._acknowledge(connection.producer, command, Applied.ACCEPTED)  # (3)
            if self._failing:
                self._failing = False
                log.info("subscriber.recovered")
            self._ready.set()
            while not self._stop.is_set():
                for record in reader.poll(POLL_SECONDS_MAX):  # (1)
                    answer = self._take(record)  # (2)
                    if answer is not None:
                        self._acknowledge(connection.producer, *answer)  # (3)

    def _take(self, record: Record) -> tuple[ThrottleCommand, Applied] | None:
        """Give one record to the gate; a command with what became of it, or None."""
        now_ms = self._clock()
        if record.topic == Topic.POLICIES:
            self._take_policy(record, now_ms)
            return None
        if record.value is None:
            self._gate.release(_text(record.key), now_ms)
            return None
        try:
            command = decode_command(record.value)
        except ThrottleError as error:
            self._skip(record, MALFORMED_COMMAND, str(error))
            return None
        applied = self._gate.apply(command, now_ms)
        if applied is Applied.MALFORMED:
            self._skip(record, MALFORMED_COMMAND, "its scope is none")
        elif self._ready.is_set():
            log.info("gate.command", scope=command.scope, state=command.state, applied=applied)
        return command, applied

    def _take_policy(self, record: Record, now_ms: int) -> None:
        if record.value is None:
            self._gate.remove_policy(_text(record.key), now_ms)
            return
        try:
            policy = decode_policy(record.value)
            # Rules and channels are not the gate's business.
            if isinstance(policy, ScopePolicy):
                self._gate.apply_policy(policy, now_ms)
        except (PolicyRecordError, ScopeError) as error:
            self._skip(record, MALFORMED_POLICY, str(error))

    def _skip(self, record: Record, reason: str, detail: str) -> None:
        self._meter.count(Metric.REJECTS, reason=reason)
        log.warning(
            "subscriber.record_skipped",
            reason=reason,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            detail=detail,
        )

    def _acknowledge(self, producer: Producer, command: ThrottleCommand, applied: Applied) -> None:
        ack = ThrottleAck(
            relay=self._relay_id,
            scope=command.scope,
            epoch=command.epoch,
            seq=command.seq,
            applied=applied,
            at_ms=self._clock(),
        )
        key = ack_key(self._relay_id, command.scope)
        try:
            producer.send(Topic.THROTTLE_ACKS, key, encode_ack(ack), on_done=_log_unacknowledged)
        except KafkaClientError as error:
            _log_unacknowledged(error)

    def _log_failing(self, text: str) -> None:
        """One line per outage, not per attempt."""
        if not self._failing:
            self._failing = True
            log.error("subscriber.failing", error=text, effect="the gate keeps what it has")


class _Connection:
    """Reader and producer, opened together and closed together."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self.reader = TopicReader(kafka, (Topic.POLICIES, Topic.THROTTLE_COMMANDS))
        try:
            # No linger: an acknowledgement is alone, and operators wait for it.
            self.producer = Producer(kafka, linger_ms=0)
        except BaseException:
            self.reader.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        closers: tuple[Callable[[], None], ...] = (
            self.reader.close,
            partial(self.producer.close, ACK_CLOSE_SECONDS_MAX),
        )
        for close in closers:
            try:
                close()
            except KafkaClientError as error:
                log.warning("subscriber.close_failed", error=str(error))


def _log_unacknowledged(error: KafkaClientError | None) -> None:
    if error is not None:
        log.warning("subscriber.ack_not_sent", error=str(error))


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")
