"""The producer: acks from all replicas, bounded memory, bounded waiting, each error reported once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from kafka import KafkaProducer

from meterline.backends.kafka._driver_patches import WaitingClient, ask_for_ids_again, end_sender
from meterline.backends.kafka.client import REQUEST_TIMEOUT_MS, common_options, start_client
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.error_mapping import client_error, mapped
from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    KafkaFatalError,
)

# The driver has no bound of its own. 64 MiB are a minute of 10,000 events a second in batches.
BUFFER_BYTES_MAX = 64 * 1024 * 1024
# The longest a send may block, for buffer space and for a topic's first metadata each: long
# enough for a slow broker's answer, short enough that a relay's thread is not lost.
SEND_BLOCK_SECONDS_MAX = 1.0
# How long a message may wait for its acknowledgement, retries included, before on_done gets
# BrokerUnavailableError: longer than a broker's restart, shorter than an operator's patience.
DELIVERY_SECONDS_MAX = 30.0
# A message of MESSAGE_BYTES_MAX and its key and framing; the topics allow the same.
REQUEST_BYTES_MAX = 1_100_000
# About what one message of 100 events takes on the wire, four times over.
BATCH_BYTES = 65_536
# What the driver keeps per record beside its bytes, so that tiny records are bounded as well.
RECORD_OVERHEAD_BYTES = 512
# After everything is answered only the driver's thread and its sockets are waited for.
CLOSE_SECONDS_MAX = 5.0

OnDone: TypeAlias = Callable[[KafkaClientError | None], None]


class _Held(NamedTuple):
    """What is remembered of a record until it is answered."""

    generation: int
    size: int
    topic: str
    on_done: OnDone | None


class Producer:
    """Sends records; safe to use from several threads.

    Order: records of one partition are appended in the order of `send`, retries included; with
    `idempotent` False that takes one request in flight at a time, and a retry after a lost answer
    may append a record twice.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        linger_ms: int = 5,
        delivery_seconds: float = DELIVERY_SECONDS_MAX,
        buffer_bytes: int = BUFFER_BYTES_MAX,
        send_block_seconds: float = SEND_BLOCK_SECONDS_MAX,
    ) -> None:
        """Connect.

        Args:
            config: the cluster.
            linger_ms: how long a record may wait for others of its batch.
            delivery_seconds: how long until an unacknowledged record counts as failed.
            buffer_bytes: records not yet acknowledged may hold this much memory.
            send_block_seconds: the longest that `send` waits, for space and for metadata each.

        Raises:
            BrokerUnavailableError: no broker answers.
            KafkaFatalError: the settings cannot work.
        """
        self._buffer_bytes = buffer_bytes
        self._send_block_seconds = send_block_seconds
        delivery_ms = int(delivery_seconds * 1000)
        options = {
            **common_options(config),
            "acks": "all",
            "enable_idempotence": config.idempotent,
            # Without producer ids the broker cannot put retried batches back into order.
            "max_in_flight_requests_per_connection": 5 if config.idempotent else 1,
            "linger_ms": linger_ms,
            "batch_size": BATCH_BYTES,
            "max_request_size": REQUEST_BYTES_MAX,
            "max_block_ms": int(send_block_seconds * 1000),
            "delivery_timeout_ms": delivery_ms,
            "request_timeout_ms": max(1, min(REQUEST_TIMEOUT_MS, delivery_ms - linger_ms)),
            # Topics are made by `meterline topics apply` only.
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._state = threading.Condition()
        self._held_bytes = 0
        # Records sent and not answered, by flush generation: a flush waits for the generations
        # up to its own and not for what other threads send meanwhile.
        self._generation = 0
        self._unanswered: Counter[int] = Counter()
        self._first_error: KafkaClientError | None = None
        self._closed = False
        self._driver: Any = start_client(KafkaProducer, config, options, WaitingClient)
        ask_for_ids_again(self._driver)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_done: OnDone | None = None,
    ) -> None:
        """Hand one record over; returns before it is sent.

        Either this raises, or `on_done` is called exactly once: with None when the record is
        acknowledged, else with the error. It is called from the driver's thread as a rule, and in
        this thread if the answer came first, so do not hold a lock that it needs; it must be
        quick and must not send.

        Raises:
            BrokerUnavailableError: the buffer stayed full or the topic's metadata could not be had
                within the bound.
            MessageRefusedError: larger than REQUEST_BYTES_MAX, or no such partition.
            KafkaFatalError: closed, or the broker forbids it.
        """
        size = len(key or b"") + len(value or b"") + RECORD_OVERHEAD_BYTES
        held = _Held(self._take(size, topic), size, topic, on_done)
        try:
            with mapped(f"sending to {topic}"):
                future = self._driver.send(
                    topic, value=value, key=key, partition=partition, timestamp_ms=timestamp_ms
                )
        except BrokerUnavailableError as error:
            self._give_back(held, None)
            message = f"{error}; is the broker up, and was `meterline topics apply` run?"
            raise BrokerUnavailableError(message) from error.__cause__
        except BaseException:
            self._give_back(held, None)
            raise
        future.add_callback(partial(self._succeeded, held))
        future.add_errback(partial(self._failed, held))

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything sent before this call is answered.

        Raises:
            BrokerUnavailableError: not done within the time; what is unsent stays buffered and its
                error, if any, is for the next flush.
            KafkaClientError: the first error of sends since the last flush.
        """
        if not self._wait_answered(timeout_seconds):
            message = f"the broker did not acknowledge everything within {timeout_seconds:g} s"
            raise BrokerUnavailableError(message)
        with self._state:
            error, self._first_error = self._first_error, None
        if error is not None:
            raise error

    def close(self, timeout_seconds: float = 10) -> None:
        """Send what is buffered for at most this long, then close; idempotent.

        Records unsent by then are failed to their on_done; `flush` first to know of them.
        """
        if self._closed:
            return
        self._closed = True
        with mapped("closing the producer"):
            if self._wait_answered(timeout_seconds):
                self._driver.close(timeout=CLOSE_SECONDS_MAX)
                return
            end_sender(self._driver, CLOSE_SECONDS_MAX)
            self._driver.close(timeout=0)

    @property
    def held_bytes(self) -> int:
        """Bytes of records not yet answered, overhead included."""
        return self._held_bytes

    def _take(self, size: int, topic: str) -> int:
        if self._closed:
            message = f"sending to {topic}: the producer is closed"
            raise KafkaFatalError(message)
        with self._state:
            free = self._state.wait_for(
                # A single record larger than the buffer passes alone rather than never.
                lambda: self._held_bytes == 0 or self._held_bytes + size <= self._buffer_bytes,
                self._send_block_seconds,
            )
            if not free:
                message = (
                    f"sending to {topic}: {self._held_bytes} bytes wait for the broker, "
                    f"at most {self._buffer_bytes}"
                )
                raise BrokerUnavailableError(message)
            self._held_bytes += size
            self._unanswered[self._generation] += 1
            return self._generation

    def _give_back(self, held: _Held, error: KafkaClientError | None) -> None:
        with self._state:
            self._held_bytes -= held.size
            self._unanswered[held.generation] -= 1
            if not self._unanswered[held.generation]:
                del self._unanswered[held.generation]
            if self._first_error is None:
                self._first_error = error
            self._state.notify_all()

    def _wait_answered(self, timeout_seconds: float) -> bool:
        with self._state:
            own = self._generation
            self._generation += 1
            return self._state.wait_for(
                lambda: not any(generation <= own for generation in self._unanswered),
                timeout_seconds,
            )

    def _succeeded(self, held: _Held, _metadata: object) -> None:
        try:
            if held.on_done is not None:
                held.on_done(None)
        finally:
            # After on_done, so that a flush returns when all of them have been called.
            self._give_back(held, None)

    def _failed(self, held: _Held, cause: BaseException) -> None:
        error = client_error(cause, f"sending to {held.topic}")
        error.__cause__ = cause
        try:
            if held.on_done is not None:
                held.on_done(error)
        finally:
            self._give_back(held, error)
