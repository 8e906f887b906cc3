"""The flush: makes what was counted durable, then lets Faust commit.

    1  dead letters            at least once, with the same bytes and key each time
    2  entries and ids         harmless if the rest never comes: each carries its tag
    3  state record            says that 1 and 2 are there; last, after their acknowledgement
    4  acknowledge messages    only what 3 covers
    5  commit of offsets       by Faust's timer; a later commit means a longer replay, no more

A crash between any two of them loses nothing and counts nothing twice: the messages are read again,
and state record, tags and ids tell what of each was done. Nothing goes on after a failure: a
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

from meterline.schemas.clock import Clock
from meterline.schemas.dead_letter import DeadLetter, encode_dead_letter
from meterline.schemas.failpoints import Failpoints, StreamsFailpoint
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
    """Makes records durable: returns when they are acknowledged, raises otherwise."""

    async def write(self, topic: str, records: Mapping[int, Sequence[Record]]) -> None:
        """Write records to their partitions, in order."""

    async def write_keyed(self, topic: str, records: Sequence[Record]) -> None:
        """Write records to the partitions their keys choose."""


class Ledgers(Protocol):
    """What the flusher needs of the table."""

    ledgers: dict[int, PartitionLedger]

    def take_flush(self) -> dict[int, FlushRecords]:
        """The records of every partition with changes, as of now."""


class Acknowledge(Protocol):
    """A message that waits for its effects to be durable."""

    def ack(self) -> bool:
        """Let its offset be committed."""


def end_process(status: int, fact: str, **values: object) -> NoReturn:
    """Say why and end at once: no clean-up, nothing written after we have lost track.

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
        """Set up; `run` does the work."""
        self._settings = settings
        self._table = table
        self._clock = clock
        self._meter = meter
        self._failpoints = failpoints
        self._pending: list[Acknowledge] = []
        self._letters: list[DeadLetter] = []
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
        """Note a message that was applied."""
        self._pending.append(event)
        self._events += outcome.accepted
        tally = self._tally
        tally[Metric.MESSAGES, ""] += 1
        if outcome.accepted:
            tally[Metric.EVENTS, ""] += outcome.accepted
        for notice, count in outcome.notices:
            tally[Metric.NOTICES, notice.value] += count
        if outcome.letters:
            self._letters.extend(outcome.letters)
            for letter in outcome.letters:
                tally[Metric.REJECTS, letter.reason.value] += 1
        settings = self._settings
        if (
            self._events >= settings.pending_events_max
            or len(self._pending) >= settings.pending_events_max
            or len(self._letters) >= settings.pending_letters_max
        ):
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Hold the agent while a bound is reached; Faust then pauses the partitions."""
        if not self._room.is_set():
            await self._room.wait()

    def forget_pending(self) -> None:
        """On a rebalance: messages not acknowledged come again to whoever owns them."""
        self._pending.clear()
        self._letters.clear()
        self._events = 0
        self._room.set()

    # -- flushing

    async def run(self, writer: Callable[[], RecordWriter], failed: Callable[[], bool]) -> None:
        """Flush at the interval until cancelled; end the process on any failure.

        Args:
            writer: gives the producer (it exists only once Faust has started).
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
                # Every failure has the same answer.
                end_process(FAILED_STATUS, "flush.failed")

    async def flush(self, writer: RecordWriter) -> None:
        """Carry out the numbered effects for everything applied so far.

        Raises:
            Exception: whatever the writer raised; the caller must not go on.
        """
        if not self._table.ledgers:
            return
        self._flushing = True
        pending, self._pending = self._pending, []
        letters, self._letters = self._letters, []
        tally, self._tally = self._tally, Counter()
        # From here on new messages are the next flush's: everything is encoded before any await.
        taken = self._table.take_flush()
        self._events = 0
        self._room.set()
        settings = self._settings
        if letters:
            self._failpoints.hit(StreamsFailpoint.BEFORE_DEAD_LETTERS)
            rows = [(letter.key().encode(), encode_dead_letter(letter)) for letter in letters]
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
