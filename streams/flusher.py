"""The flush: makes what was counted durable, then lets Faust commit.

    1  dead letters            at least once, with the same bytes and key each time
    2  entries and ids         harmless if the rest never comes: each carries its tag
    3  state record            says that 1 and 2 are there; last, after their acknowledgement
    4  acknowledge messages    only what 3 covers
    5  commit of offsets       by Faust's timer; a later commit means a longer replay, no more

A crash between any two of them loses nothing and counts nothing twice: the messages are read again,
and state record, tags and ids tell what of each was done. Nothing continues after a failure: a
process that has lost track of what is durable ends, and its successor reads it from the log.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, Protocol

import structlog

from meterline.backends.failpoints import Failpoints, StreamsFailpoint
from meterline.schemas.clock import Clock
from meterline.schemas.dead_letter import DeadLetter, encode_dead_letter
from meterline.schemas.metrics import Meter, Metric
from meterline.streams.core.ledger import FlushRecords, LedgerOutcome, PartitionLedger, Record
from meterline.streams.settings import StreamsSettings

log = structlog.get_logger()

# sysexits.h: EX_SOFTWARE, EX_TEMPFAIL.
FAILED_STATUS = 70
FENCED_STATUS = 75
# A loop that was not scheduled for this part of the session may have lost its partitions.
FENCE_PART = 0.8


class RecordWriter(Protocol):
    """Makes records durable: a write returns when all are acknowledged, and raises otherwise."""

    async def write(self, topic: str, records: Mapping[int, Sequence[Record]]) -> None:
        """Write records to their partitions, in order."""

    async def write_keyed(self, topic: str, records: Sequence[Record]) -> None:
        """Write records to the partitions their keys choose."""


class Ledgers(Protocol):
    """The ledgers of the spend table."""

    ledgers: dict[int, PartitionLedger]

    def take_flush(self) -> dict[int, FlushRecords]:
        """The records of every partition with changes, as of now."""


class Acknowledge(Protocol):
    """A message that waits for its effects to be durable."""

    def ack(self) -> bool:
        """Let its offset be committed."""


def end_process(status: int, fact: str, **values: object) -> NoReturn:
    """Log the reason and end the process at once: no clean-up, and nothing is written any more.

    Args:
        status: FAILED_STATUS or FENCED_STATUS.
        fact: the log event; the exception being handled, if any, goes with it.
        values: of the log event.
    """
    try:
        log.error(fact, exc_info=sys.exc_info()[0] is not None, **values)
    finally:
        # Whatever becomes of the log line: a closed pipe must not keep a lost worker alive.
        os._exit(status)


class Flusher:
    """Collects applied messages and flushes them; one per worker."""

    def __init__(
        self,
        settings: StreamsSettings,
        table: Ledgers,
        clock: Clock,
        meter: Meter,
        failpoints: Failpoints[StreamsFailpoint],
    ) -> None:
        """Collect nothing yet; `run` starts the flushing."""
        self._settings = settings
        self._table = table
        self._clock = clock
        self._meter = meter
        self._failpoints = failpoints
        self._pending: list[Acknowledge] = []
        self._dead_letters: list[DeadLetter] = []
        self._tally: Counter[tuple[Metric, str]] = Counter()
        self._events = 0
        self._flushing = False
        self._room = asyncio.Event()
        self._room.set()

    @property
    def idle(self) -> bool:
        """Whether everything applied so far is durable and acknowledged."""
        return not self._pending and not self._flushing

    # -- collecting, called by the agent

    def taken(self, event: Acknowledge, outcome: LedgerOutcome) -> None:
        """Add an applied message to the next flush."""
        self._pending.append(event)
        self._events += outcome.accepted
        tally = self._tally
        tally[Metric.MESSAGES, ""] += 1
        if outcome.accepted:
            tally[Metric.EVENTS, ""] += outcome.accepted
        for notice, count in outcome.notices:
            tally[Metric.NOTICES, notice.value] += count
        if outcome.dead_letters:
            self._dead_letters.extend(outcome.dead_letters)
            for letter in outcome.dead_letters:
                tally[Metric.REJECTS, letter.reason.value] += 1
        settings = self._settings
        if (
            self._events >= settings.pending_events_max
            or len(self._pending) >= settings.pending_events_max
            or len(self._dead_letters) >= settings.pending_dead_letters_max
        ):
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Block the agent while a bound is reached; Faust then pauses the partitions."""
        if not self._room.is_set():
            await self._room.wait()

    def forget_pending(self) -> None:
        """On a rebalance: messages not acknowledged are redelivered to the partition's owner."""
        self._pending.clear()
        self._dead_letters.clear()
        self._events = 0
        self._room.set()

    # -- flushing

    async def run(self, writer: Callable[[], RecordWriter], failed: Callable[[], bool]) -> None:
        """Flush at the interval until cancelled; end the process on any failure.

        Args:
            writer: returns the producer, which exists only once Faust has started.
            failed: whether the Faust app has crashed.
        """
        interval = self._settings.flush_interval_ms / 1000
        fence = self._settings.session_timeout_ms / 1000 * FENCE_PART
        while True:
            before = time.monotonic()
            await asyncio.sleep(interval)
            stalled = time.monotonic() - before - interval
            if stalled > fence:
                end_process(FENCED_STATUS, "worker.fenced", stalled_seconds=round(stalled, 2))
            if failed():
                end_process(FAILED_STATUS, "worker.crashed")
            try:
                async with asyncio.timeout(self._settings.flush_timeout_ms / 1000):
                    await self.flush(writer())
            except Exception:
                # Every failure is handled alike.
                end_process(FAILED_STATUS, "flush.failed")

    async def flush(self, writer: RecordWriter) -> None:
        """Carry out the numbered effects for everything applied so far.

        Raises:
            Exception: any error of the writer; the caller must not continue.
        """
        if not self._table.ledgers:
            return
        self._flushing = True
        pending, self._pending = self._pending, []
        dead_letters, self._dead_letters = self._dead_letters, []
        tally, self._tally = self._tally, Counter()
        # From here on new messages belong to the next flush: all is encoded before any await.
        taken = self._table.take_flush()
        self._events = 0
        self._room.set()
        settings = self._settings
        if dead_letters:
            self._failpoints.hit(StreamsFailpoint.BEFORE_DEAD_LETTERS)
            rows = [(letter.key().encode(), encode_dead_letter(letter)) for letter in dead_letters]
            await writer.write_keyed(settings.dead_letter_topic, rows)  # 1
        if taken:
            self._failpoints.hit(StreamsFailpoint.BEFORE_ENTRIES)
            entries = {part: flush.entries for part, flush in taken.items() if flush.entries}
            await self._write_entries(writer, entries)  # 2
            self._failpoints.hit(StreamsFailpoint.AFTER_ENTRIES)
            states: dict[int, Sequence[Record]] = {
                part: [flush.state] for part, flush in taken.items()
            }
            await writer.write(settings.snapshot_topic, states)  # 3
            self._failpoints.hit(StreamsFailpoint.AFTER_STATE)
        for event in pending:  # 4, in the order of the log
            event.ack()
        if pending:
            self._failpoints.hit(StreamsFailpoint.AFTER_ACK)
        self._flushing = False
        self._report(taken, tally)

    async def _write_entries(
        self, writer: RecordWriter, entries: Mapping[int, Sequence[Record]]
    ) -> None:
        topic = self._settings.snapshot_topic
        if self._failpoints.is_armed(StreamsFailpoint.PARTIAL_ENTRIES):
            await writer.write(topic, {p: rows[::2] for p, rows in entries.items()})
            self._failpoints.hit(StreamsFailpoint.PARTIAL_ENTRIES)
        if entries:
            await writer.write(topic, entries)

    def _report(
        self, taken: Mapping[int, FlushRecords], tally: Mapping[tuple[Metric, str], int]
    ) -> None:
        meter = self._meter
        for (metric, reason), count in tally.items():
            meter.count(metric, count, reason=reason)
        if not taken:
            return
        ledgers = self._table.ledgers
        snapshots = sum(flush.snapshots for flush in taken.values())
        if snapshots:
            meter.count(Metric.SNAPSHOTS, snapshots)
        newest_ms = max((ledger.newest_event_ms for ledger in ledgers.values()), default=0)
        if newest_ms:
            meter.gauge(Metric.LAST_EVENT_MS, newest_ms)
        meter.gauge(Metric.LAST_FLUSH_MS, self._clock())
