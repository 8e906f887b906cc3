"""Parts that tests of the relay share: settings, events, a meter that counts, a scripted broker."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from meterline.backends.kafka.config import embedded_kafka
from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    MessageRefusedError,
)
from meterline.relay.sender import OnDone
from meterline.relay.settings import EmitterSettings, RelaySettings, SpoolSettings
from meterline.schemas.codec import UsageMessage, decode_usage
from meterline.schemas.metrics import Metric
from meterline.schemas.usage import UsageEvent

NOW = 1_763_700_000_000
DEADLINE_SECONDS = 20.0
_DOWN = "the scripted broker is down"


def relay_settings(
    directory: Path,
    bootstrap: str = "127.0.0.1:1",
    *,
    emitter: EmitterSettings | None = None,
    spool: SpoolSettings | None = None,
) -> RelaySettings:
    """A relay called r1 with its spool in `directory`."""
    return RelaySettings(
        "r1",
        embedded_kafka(bootstrap),
        spool or SpoolSettings(directory),
        emitter or EmitterSettings(linger_ms=10),
    )


def usage_event(number: int, key: str = "", user_agent: str = "", time_ms: int = NOW) -> UsageEvent:
    """Event number `number`, of one of 17 keys."""
    return UsageEvent(
        id=f"e{number}",
        time_ms=time_ms,
        organisation="acme",
        key=key or f"k-{number % 17}",
        model="gpt-4.1",
        department="research",
        input_tokens=100 + number,
        output_tokens=10,
        user_agent=user_agent,
    )


def eventually(holds: Callable[[], bool], what: str = "condition") -> None:
    """Wait until something holds; AssertionError at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.002)


class CountingMeter:
    """Counts by metric and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Metric, str]] = Counter()
        self._lock = threading.Lock()

    def count(self, metric: Metric, amount: int = 1, *, reason: str = "") -> None:
        with self._lock:
            self.counts[metric, reason] += amount

    def gauge(self, metric: Metric, value: int) -> None:
        """Nothing of the relay's is a gauge."""


class ScriptedBroker:
    """For unit tests of the emitter: a log in memory that is down, refuses or loses answers on demand.

    It asserts on its own what every broker is owed: one message per partition in flight.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.up = True
        self.refuse_partition: int | None = None
        self.lose_answers = 0
        self.answer = threading.Event()
        self.answer.set()
        self.connections = 0
        self.log: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)

    def connect(self) -> ScriptedBroker:
        if not self.up:
            raise BrokerUnavailableError(_DOWN)
        self.connections += 1
        return self

    def send(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        if not self.up:
            raise BrokerUnavailableError(_DOWN)
        threading.Thread(target=self._append, args=(key, value, partition, on_done)).start()

    def close(self) -> None:
        """Nothing is open."""

    def messages(self, partition: int) -> list[UsageMessage]:
        return [decode_usage(value, NOW) for _, value in self.log[partition]]

    def events(self) -> list[str]:
        """Ids of all events, a repeated (lane, seq) left out."""
        seen: set[tuple[str, int]] = set()
        found: list[str] = []
        for partition in sorted(self.log):
            for message in self.messages(partition):
                if (message.lane, message.seq) not in seen:
                    seen.add((message.lane, message.seq))
                    found += [event.id for event in message.events]
        return found

    def _append(self, key: bytes, value: bytes, partition: int, on_done: OnDone) -> None:
        self.answer.wait(DEADLINE_SECONDS)
        error: KafkaClientError | None = None
        if partition == self.refuse_partition:
            error = MessageRefusedError("too large")
        elif not self.up:
            error = BrokerUnavailableError(_DOWN)
        else:
            self.log[partition].append((key, value))
            if self.lose_answers:
                self.lose_answers -= 1
                error = BrokerUnavailableError("answer lost")
        on_done(error)


def assert_lanes_gapless(messages: list[UsageMessage]) -> None:
    """In one partition every lane counts 1, 2, 3, ...; a repetition is the one before again."""
    last: dict[str, int] = {}
    for message in messages:
        before = last.get(message.lane, 0)
        assert message.seq in {before, before + 1}, (message.lane, before, message.seq)
        last[message.lane] = message.seq
