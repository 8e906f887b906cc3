"""Health checks: numbers about the pipeline, read outside the loop that throttles.

    thread, every CHECK_SECONDS:
        dead letters   its own reader of usage.dead-letter, by the hour of their timestamps
        lag            the streams' group against the ends of usage.events
    loop, when a round of the thread is ready:
        unpriced, zero cost, silent relays: from the totals and state records it holds anyway
A check that cannot be read is left out of its round: its alerts stay as they are. Nothing here may
stop the worker: enforcement does not depend on it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from meterline.alerting.rules.pipeline import (
    PIPELINE,
    HealthCheck,
    HealthCheckKind,
    HealthCheckRound,
)
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.errors import KafkaClientError
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.clock import Clock
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.topics import Topic

CHECK_SECONDS = 10.0
# Six hours of samples, one per round: a lag older than that is reported as six hours.
SAMPLES_MAX = 2_160
_READ_SECONDS = 0.5

_log = structlog.get_logger()


@dataclass(slots=True)
class LagClock:
    """How long the oldest message that is not counted has waited; exact to a round's length."""

    samples: deque[tuple[int, Mapping[int, int]]] = field(
        default_factory=lambda: deque(maxlen=SAMPLES_MAX)
    )

    def seconds(self, behind: Mapping[int, int], ends: Mapping[int, int], now_ms: int) -> int:
        """The age of the oldest sample whose ends have not been reached.

        Args:
            behind: messages not counted, by partition.
            ends: the ends of the partitions.
            now_ms: the current time.
        """
        self.samples.append((now_ms, dict(ends)))
        reached = {number: end - behind.get(number, 0) for number, end in ends.items()}
        while self.samples:
            at_ms, then = self.samples[0]
            if any(end > reached.get(number, 0) for number, end in then.items()):
                return max(0, now_ms - at_ms) // 1000
            self.samples.popleft()
        return 0


class HealthCheckThread:
    """Reads the checks that cost a request; hands over the newest round, never blocks the loop."""

    def __init__(self, kafka: KafkaConfig, streams_group: str, clock: Clock) -> None:
        """Start nothing yet."""
        self._kafka = kafka
        self._group = streams_group
        self._clock = clock
        self._stop = threading.Event()
        # One round is enough: a newer one replaces what was not fetched.
        self._rounds: queue.Queue[HealthCheckRound] = queue.Queue(maxsize=1)
        self._dead_letters_by_hour: dict[int, int] = {}
        self._lag = LagClock()
        self._thread = threading.Thread(target=self._run, name="health-checks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; waits no longer than one request takes, and not at all if it never started."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CHECK_SECONDS)

    def take(self) -> HealthCheckRound | None:
        """The newest round, once."""
        try:
            return self._rounds.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_rounds()
            except KafkaClientError as error:
                _log.info("health_checks.unavailable", reason=str(error))
            self._stop.wait(CHECK_SECONDS)

    def _read_rounds(self) -> None:
        admin = Admin(self._kafka)
        dead_letters = TopicReader(self._kafka, (Topic.DEAD_LETTERS,))
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                self._offer(self._round(admin, dead_letters))
                self._stop.wait(max(0.0, CHECK_SECONDS - (time.monotonic() - begun)))
        finally:
            dead_letters.close()
            admin.close()

    def _offer(self, found: HealthCheckRound) -> None:
        self.take()
        self._rounds.put_nowait(found)

    def _round(self, admin: Admin, dead_letters: TopicReader) -> HealthCheckRound:
        now_ms = self._clock()
        kinds = {HealthCheckKind.DEAD_LETTERS}
        checks = [self._count_dead_letters(dead_letters, now_ms)]
        behind = admin.group_lag(self._group, Topic.USAGE_EVENTS)
        if behind is not None:
            kinds.add(HealthCheckKind.LAG)
            ends = admin.ends(Topic.USAGE_EVENTS)
            seconds = self._lag.seconds(behind, ends, now_ms)
            detail = f"({sum(behind.values()):,} messages)"
            checks.append(HealthCheck(HealthCheckKind.LAG, PIPELINE, seconds, detail))
        return HealthCheckRound(frozenset(kinds), tuple(checks))

    def _count_dead_letters(self, dead_letters: TopicReader, now_ms: int) -> HealthCheck:
        while records := dead_letters.poll(_READ_SECONDS):
            for record in records:
                hour = record.timestamp_ms // HOUR_MS
                self._dead_letters_by_hour[hour] = self._dead_letters_by_hour.get(hour, 0) + 1
        current = now_ms // HOUR_MS
        self._dead_letters_by_hour = {
            hour: count for hour, count in self._dead_letters_by_hour.items() if hour >= current
        }
        return HealthCheck(
            HealthCheckKind.DEAD_LETTERS,
            PIPELINE,
            self._dead_letters_by_hour.get(current, 0),
            "this hour",
        )
