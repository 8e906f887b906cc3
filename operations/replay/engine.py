"""Runs a replay: rows of a trace, at their times, through real emitters.

Order of effects for each event:
    (1) the emitter accepts it     from here on it reaches the log exactly once
    (2) the truth counts it        an event that was never accepted is in no total
At the end every emitter is flushed: a replay that returns normally has everything in the log.
"""

from __future__ import annotations

import math
import random  # noqa: TID251 - seeded: a replay must be repeatable
import secrets
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.errors import KafkaClientError
from meterline.backends.kafka.producer import Producer
from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.malformed import broken_message
from meterline.operations.replay.options import (
    LATE_HOURS,
    ReplayError,
    ReplayHooks,
    ReplayOptions,
    ReplayProgress,
    ReplayResult,
    TraceFormat,
)
from meterline.operations.replay.synthetic import ROWS, synthetic_trace
from meterline.operations.replay.traces import AZURE_COLUMNS, TraceRow, read_csv, read_jsonl
from meterline.operations.replay.truth import RunFacts, TruthBuilder, event_id, write_truth
from meterline.pricing.catalogue import Catalogue
from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.clock import Clock
from meterline.schemas.codec import fault
from meterline.schemas.periods import Calendar, rfc3339
from meterline.schemas.topics import Topic
from meterline.schemas.usage import FUTURE_TOLERANCE_MS, UsageEvent

PROGRESS_SECONDS = 0.5
EMIT_WAIT_SECONDS = 0.005
# A full emitter empties within a second unless no broker answers; then the replay fails.
EMIT_SECONDS_MAX = 60.0
FLUSH_SECONDS_MAX = 120.0
# Pauses shorter than this are not worth a system call: the next row makes up for it.
PAUSE_SECONDS_MIN = 0.001
# Within this many events a duplicate is sent again; far inside the deduplication's memory.
DUPLICATE_DISTANCE_MAX = 2_000
LATE_SECONDS_MIN = 120
_FULL = frozenset({EmitOutcome.QUEUE_FULL, EmitOutcome.SPOOL_FULL})


def run_replay(
    options: ReplayOptions,
    kafka: KafkaConfig,
    clock: Clock,
    catalogue: Catalogue,
    *,
    truth: Path | None = None,
    hooks: ReplayHooks | None = None,
) -> ReplayResult:
    """Send a trace; returns what was sent.

    Args:
        options: what to send, and how.
        kafka: the cluster.
        clock: event times are read from it, unless `options.start_ms` says otherwise.
        catalogue: the rate cards of the pipeline.
        truth: the truth file to write; also written when the replay is stopped or fails, of
            what was accepted until then.
        hooks: progress, stop, gate, metrics.

    Raises:
        ReplayError: wrong options or trace, or not everything was delivered.
    """
    faults = options.faults()
    if faults:
        raise ReplayError("; ".join(faults))
    if truth is not None and not truth.parent.is_dir():
        message = f"--truth {truth}: no such directory"
        raise ReplayError(message)
    rows = load_rows(options)
    _check_start(options, rows, clock())
    _check_broker(kafka)
    hooks = hooks or ReplayHooks()
    calendar = Calendar(options.time_zone)
    with _emitters(options, kafka, clock, hooks) as emitters, _broken(options, kafka) as producer:
        sender = _Sender(
            options,
            emitters=emitters,
            producer=producer,
            clock=clock,
            hooks=hooks,
            truth=TruthBuilder(catalogue, calendar),
            total=len(rows),
        )
        try:
            sender.send(rows)
            sender.deliver()
        finally:
            if truth is not None:
                _write(truth, sender)
    return ReplayResult(
        run_id=sender.run_id,
        progress=sender.progress(),
        malformed=sender.malformed,
        started_ms=sender.started_ms,
        ended_ms=sender.ended_ms,
        complete=sender.complete,
        truth_written=truth,
    )


def load_rows(options: ReplayOptions) -> list[TraceRow]:
    """Read or make the trace, in the order of time; ReplayError says what is wrong with it."""
    match options.format:
        case TraceFormat.SYNTHETIC:
            return synthetic_trace(options.seed, options.limit or ROWS)
        case TraceFormat.AZURE:
            columns = {**AZURE_COLUMNS, **options.columns}
            return read_csv(_path(options), columns, options.time_unit, options.limit)
        case TraceFormat.CSV:
            return read_csv(_path(options), options.columns, options.time_unit, options.limit)
        case TraceFormat.JSONL:
            return read_jsonl(_path(options), options.limit)


def _check_start(options: ReplayOptions, rows: list[TraceRow], now_ms: int) -> None:
    """Refuse a backfill that would run into the future: its events would be dead letters."""
    if options.start_ms is None:
        return
    span_ms = rows[-1].time_ms - rows[0].time_ms
    sending_ms = int(span_ms / options.speed) if options.speed else 0
    if options.start_ms + span_ms > now_ms + sending_ms:
        message = (
            f"--start {rfc3339(options.start_ms)}: the trace lasts {span_ms // 60_000} minutes "
            "and would end in the future; start earlier"
        )
        raise ReplayError(message)


def _check_broker(kafka: KafkaConfig) -> None:
    """Fail at once if no broker answers: an emitter would go on spooling."""
    try:
        admin = Admin(kafka)
        try:
            admin.partitions(Topic.USAGE_EVENTS)
        finally:
            admin.close()
    except KafkaClientError as error:
        raise ReplayError(str(error)) from error


def _path(options: ReplayOptions) -> Path:
    assert options.trace is not None, "checked by faults"
    return options.trace


def _write(path: Path, sender: _Sender) -> None:
    try:
        write_truth(path, sender.truth.truth(sender.facts()))
    except OSError as error:
        message = f"--truth {path}: {error}"
        raise ReplayError(message) from error


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    duplicates: int = 0
    late: int = 0
    refused: int = 0
    malformed: int = 0
    invalid: int = 0


class _Sender:
    """Sends the rows of one run and counts them."""

    def __init__(  # noqa: PLR0913 - assembled in one place, above
        self,
        options: ReplayOptions,
        *,
        emitters: list[Emitter],
        producer: Producer | None,
        clock: Clock,
        hooks: ReplayHooks,
        truth: TruthBuilder,
        total: int,
    ) -> None:
        self.started_ms = self.ended_ms = clock()
        self.run_id = options.run_id or f"r{self.started_ms:x}{secrets.token_hex(2)}"
        self.truth = truth
        self.complete = False
        self._options = options
        self._emitters = emitters
        self._producer = producer
        self._clock = clock
        self._hooks = hooks
        self._total = total
        self._counts = _Counts()
        self._draw = random.Random(f"send {options.seed}")  # noqa: S311 - no secret
        self._assigner = Assigner(
            organisation=options.organisation,
            keys=options.keys,
            departments=options.departments,
            seed=options.seed,
        )
        self._again: defaultdict[int, list[tuple[int, UsageEvent]]] = defaultdict(list)
        self._begun = time.monotonic()
        self._reported = self._begun
        self._behind = 0.0

    @property
    def malformed(self) -> int:
        return self._counts.malformed

    def send(self, rows: list[TraceRow]) -> None:
        """Send every row when it is due; return early if stopped."""
        first_ms = rows[0].time_ms
        per_ms = 1 / (1000 * self._options.speed) if self._options.speed else 0.0
        for number, row in enumerate(rows):
            self._wait_until(self._begun + (row.time_ms - first_ms) * per_ms)
            if self._hooks.stop.is_set():
                return
            self._send_row(number, row, first_ms)
            for relay, event in self._again.pop(number, ()):
                self._emit_again(relay, event)
            self._report()
        for pending in self._again.values():
            for relay, event in pending:
                self._emit_again(relay, event)
        self.complete = True

    def deliver(self) -> None:
        """Wait until the broker has everything.

        Raises:
            ReplayError: it has not within FLUSH_SECONDS_MAX.
        """
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        for emitter in self._emitters:
            if not emitter.flush(max(0.0, deadline - time.monotonic())):
                message = (
                    f"{emitter.backlog_batches} batches were not acknowledged within "
                    f"{FLUSH_SECONDS_MAX:g} s: is the broker up?"
                )
                raise ReplayError(message)
        if self._producer is not None:
            try:
                self._producer.flush(FLUSH_SECONDS_MAX)
            except KafkaClientError as error:
                raise ReplayError(str(error)) from error
        self.ended_ms = self._clock()
        self._hooks.on_progress(self.progress())

    def progress(self) -> ReplayProgress:
        counts = self._counts
        return ReplayProgress(
            sent=counts.sent,
            total=self._total,
            duplicates=counts.duplicates,
            late=counts.late,
            refused=counts.refused,
            elapsed_seconds=time.monotonic() - self._begun,
            behind_seconds=self._behind,
            cost_nano_usd=self.truth.cost_nano_usd,
        )

    def facts(self) -> RunFacts:
        counts = self._counts
        return RunFacts(
            run_id=self.run_id,
            seed=self._options.seed,
            started_ms=self.started_ms,
            ended_ms=max(self.ended_ms, self._clock()),
            complete=self.complete,
            duplicates=counts.duplicates,
            late=counts.late,
            malformed=counts.malformed,
            invalid=counts.invalid,
        )

    def _send_row(self, number: int, row: TraceRow, first_ms: int) -> None:
        now_ms = self._clock()
        relay = self._draw.randrange(len(self._emitters))
        event = self._event(number, row, first_ms, now_ms, f"replay-{relay + 1}")
        if not self._hooks.admit(event):
            self._counts.refused += 1
            return
        self._emit(relay, event)  # (1)
        if fault(event, now_ms + FUTURE_TOLERANCE_MS) is None:
            self.truth.add(event, number)  # (2)
        else:
            self._counts.invalid += 1
        self._counts.sent += 1
        if self._draw.random() < self._options.duplicates:
            self._plan_duplicate(number, relay, event)
        if self._draw.random() < self._options.malformed:
            self._send_broken(number, now_ms)

    def _event(
        self, number: int, row: TraceRow, first_ms: int, now_ms: int, relay: str
    ) -> UsageEvent:
        time_ms = now_ms
        if self._options.start_ms is not None:
            time_ms = self._options.start_ms + row.time_ms - first_ms
        if self._draw.random() < self._options.late:
            time_ms -= self._late_by_ms()
            self._counts.late += 1
        name = event_id(self.run_id, number)
        if row.event is None:
            return self._assigner.event(row, name, time_ms, relay)
        return msgspec.structs.replace(row.event, id=name, time_ms=time_ms, relay=relay)

    def _late_by_ms(self) -> int:
        """A lateness in ms: minutes are likelier than hours, hours than days."""
        low, high = math.log(LATE_SECONDS_MIN), math.log(LATE_HOURS * 3600)
        return int(1000 * math.exp(self._draw.uniform(low, high)))

    def _plan_duplicate(self, number: int, relay: int, event: UsageEvent) -> None:
        """Half at once or soon through the same relay, half through another one."""
        draw = self._draw
        if draw.random() < 0.5:  # noqa: PLR2004 - half
            relay = (relay + 1 + draw.randrange(max(1, len(self._emitters) - 1))) % len(
                self._emitters
            )
        distance = 0 if draw.random() < 0.5 else draw.randrange(1, DUPLICATE_DISTANCE_MAX)  # noqa: PLR2004 - half
        self._again[number + distance].append((relay, event))

    def _emit_again(self, relay: int, event: UsageEvent) -> None:
        self._emit(relay, event)
        self._counts.duplicates += 1

    def _emit(self, relay: int, event: UsageEvent) -> None:
        """Wait while the emitter is full: a replay loses nothing.

        Raises:
            ReplayError: refused permanently, or full for EMIT_SECONDS_MAX.
        """
        outcome = self._emitters[relay].emit(event)
        if outcome is EmitOutcome.ACCEPTED:
            return
        deadline = time.monotonic() + EMIT_SECONDS_MAX
        while outcome in _FULL and time.monotonic() < deadline:
            time.sleep(EMIT_WAIT_SECONDS)
            outcome = self._emitters[relay].emit(event)
        if outcome is not EmitOutcome.ACCEPTED:
            message = f"event {event.id} was not accepted ({outcome}): is the broker up?"
            raise ReplayError(message)

    def _send_broken(self, number: int, now_ms: int) -> None:
        assert self._producer is not None, "made when malformed > 0"
        broken_id = f"{self.run_id}-broken-{number}"
        _, value = broken_message(self._draw, broken_id, now_ms, self._options.organisation)
        self._producer.send(Topic.USAGE_EVENTS, broken_id.encode(), value)
        self._counts.malformed += 1

    def _wait_until(self, due: float) -> None:
        """Hold the schedule: delays are made up for, never added up."""
        while (ahead := due - time.monotonic()) > PAUSE_SECONDS_MIN:
            self._report()
            if self._hooks.stop.wait(min(ahead, PROGRESS_SECONDS)):
                return
        self._behind = max(0.0, -ahead) if self._options.speed else 0.0

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            self._hooks.on_progress(self.progress())


@contextmanager
def _emitters(
    options: ReplayOptions, kafka: KafkaConfig, clock: Clock, hooks: ReplayHooks
) -> Iterator[list[Emitter]]:
    """N relays in this process; their spools are removed when all was delivered."""
    temporary = options.spool_dir is None
    directory = options.spool_dir or Path(tempfile.mkdtemp(prefix="meterline-replay-"))
    opened: list[Emitter] = []
    try:
        for number in range(1, options.relays + 1):
            name = f"replay-{number}"
            settings = RelaySettings(name, kafka, SpoolSettings(directory / name))
            emitter = Emitter(settings, clock, hooks.meter)
            opened.append(emitter)
            emitter.start()
        yield opened
    finally:
        closed = [emitter.close() for emitter in opened]
        if temporary and all(closed):
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _broken(options: ReplayOptions, kafka: KafkaConfig) -> Iterator[Producer | None]:
    if not options.malformed:
        yield None
        return
    try:
        producer = Producer(kafka)
    except KafkaClientError as error:
        raise ReplayError(str(error)) from error
    try:
        yield producer
    finally:
        producer.close()
