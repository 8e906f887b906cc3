"""One relay of a chaos run: asks its gate, serves a trace, records usage; made to be killed.

    python -m benchmarks.chaos_suite.relay_node JSON       the fields of NodeOptions

Order of effects for each request:
    (1) the journal has it         from here on it is part of the truth
    (2) the emitter accepts it
A process killed in between, or before the emitter sealed it, leaves the rest to its successor,
which records the journal's tail again. Reads commands on standard input (`stop`, `versions`,
`quit`), answers each with one JSON line on standard output.
"""

from __future__ import annotations

import math
import os
import queue
import random
import sys
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.chaos_suite.journal import Entry, Journal, Kind
from benchmarks.chaos_suite.relay_faults import crashing_client
from meterline.app.clock import now_ms
from meterline.app.settings import BrokerKind, KafkaSection, Settings
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import kafka_config
from meterline.backends.kafka.errors import KafkaClientError
from meterline.backends.kafka.producer import Producer
from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.malformed import broken_message
from meterline.operations.replay.synthetic import synthetic_trace
from meterline.operations.replay.truth import event_id
from meterline.relay.emitter import EmitOutcome
from meterline.relay.gate import Admission, GateRequest
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.reasons import RejectReason
from meterline.schemas.usage import FUTURE_TOLERANCE_MS, UsageEvent

TRACE_ROWS = 5_000
READY_SECONDS_MAX = 30.0
DRAIN_SECONDS_MAX = 240.0
# What a killed process may have had unsealed: 50 ms of events, or as long as the emitter waits for
# the number of partitions at a start without a broker (5 s). Three times that.
RECORD_AGAIN_MS = 15_000
EMIT_PAUSE_SECONDS = 0.005
LATE_SECONDS = (120, 20 * 3600)
RECENT_MAX = 2_000
SEND_AGAIN_SECONDS = 0.5
PEER_TAIL_BYTES = 65_536


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a relay process."""

    name: str
    index: int
    """Its events have the numbers index, index + relays, ..."""
    relays: int
    seed: int
    run_id: str
    organisation: str
    keys: int
    departments: int
    per_second: float
    bootstrap: str
    embedded: bool
    folder: str
    """Its journal and its spool, and those of its peers."""
    duplicates: float
    late: float
    malformed: float
    crash_at: str = ""

    def journal(self, index: int) -> Path:
        """The journal of one of the relays."""
        return Path(self.folder) / f"relay-{index + 1}.journal"


class Node:
    """The loop."""

    def __init__(self, options: NodeOptions) -> None:
        """Open journal and spool, connect."""
        self._options = options
        settings = Settings(
            kafka=KafkaSection(
                bootstrap=options.bootstrap,
                kind=BrokerKind.EMBEDDED if options.embedded else BrokerKind.KAFKA,
            )
        )
        kafka = kafka_config(settings, options.name)
        self._journal = Journal(options.journal(options.index))
        relay = RelaySettings(
            options.name, kafka, SpoolSettings(Path(options.folder) / options.name)
        )
        self._client = crashing_client(relay, now_ms, NoMeter(), options.crash_at)
        self._open_producer = partial(Producer, kafka, linger_ms=0)
        self._producer: Producer | None = None
        self._send_again_at = 0.0
        self._left = self._journal.entries
        self._serving = sum(entry.kind is Kind.EVENT for entry in self._left)
        self._draw = random.Random(f"{options.seed} {options.name} {len(self._left)}")
        self._assigner = Assigner(
            organisation=options.organisation,
            keys=options.keys,
            departments=options.departments,
            # The layout of keys and departments is the run's, what is drawn from it the relay's.
            seed=options.seed,
        )
        self._rows = synthetic_trace(options.seed + options.index, TRACE_ROWS)
        self._recent: deque[UsageEvent] = deque(maxlen=RECENT_MAX)
        self._broken: dict[str, Entry] = {}
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.refused = 0
        self.duplicates = 0
        self.recorded_again = 0

    def start(self) -> None:
        """Start the relay and finish what the process before had begun."""
        ready = self._client.start(READY_SECONDS_MAX)
        self._finish_predecessor()
        report("ready", gate=ready, recorded_again=self.recorded_again)

    def _finish_predecessor(self) -> None:
        acknowledged = {entry.id for entry in self._left if entry.kind is Kind.ACKNOWLEDGED}
        begin_ms = max((entry.at_ms for entry in self._left), default=0) - RECORD_AGAIN_MS
        for entry in self._left:
            if entry.kind is Kind.BROKEN and entry.id not in acknowledged:
                self._send_broken(entry)
            elif entry.event is not None and entry.at_ms >= begin_ms:
                self._emit(entry.event)
                self.recorded_again += 1
        self._left = []

    def serve(self) -> None:
        """One request, and now and then a mishap."""
        options, draw = self._options, self._draw
        number = self._serving * options.relays + options.index
        at_ms = now_ms()
        event = self._assigner.event(
            self._rows[self._serving % TRACE_ROWS],
            event_id(options.run_id, number),
            at_ms - self._late_by_ms(),
            options.name,
        )
        request = GateRequest(
            event.organisation,
            event.key,
            event.model,
            event.department,
            event.project,
            event.user,
        )
        if self._client.decide(request).admission is Admission.ADMIT:
            self._serving += 1
            self._write(Entry(kind=Kind.EVENT, at_ms=at_ms, number=number, event=event))  # (1)
            if self._client.record(event) is not EmitOutcome.ACCEPTED:  # (2)
                self._emit(event)
            self._recent.append(event)
        else:
            self.refused += 1
        if draw.random() < options.duplicates:
            self._duplicate()
        if draw.random() < options.malformed:
            self._malformed(number, event, at_ms)

    def look_after_broken(self) -> None:
        """Journal what the broker took, send again what it did not."""
        if self._failed.empty() or time.monotonic() < self._send_again_at:
            return
        self._send_again_at = time.monotonic() + SEND_AGAIN_SECONDS
        for _ in range(self._failed.qsize()):
            self._send_broken(self._broken[self._failed.get()])

    def stop(self) -> None:
        """Everything is with the broker, or say that it is not."""
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while self._broken and time.monotonic() < deadline:
            self.look_after_broken()
            time.sleep(0.05)
        drained = self._client.emitter.flush(max(0.0, deadline - time.monotonic()))
        report(
            "stopped",
            drained=drained and not self._broken,
            refused=self.refused,
            duplicates=self.duplicates,
        )

    def versions(self) -> None:
        """Report which command is in force here, scope by scope."""
        gate = self._client.gate
        report("versions", scopes={each.scope: each.version for each in gate.commands()})

    def close(self) -> None:
        """Let everything go."""
        self._client.close(1)
        if self._producer is not None:
            self._producer.close(1)
        self._journal.close()

    def _write(self, entry: Entry) -> None:
        self._journal.write(entry)

    def _emit(self, event: UsageEvent) -> None:
        """A relay that is not killed loses nothing: wait while the emitter is full."""
        while (outcome := self._client.emitter.emit(event)) is not EmitOutcome.ACCEPTED:
            assert outcome in {EmitOutcome.QUEUE_FULL, EmitOutcome.SPOOL_FULL}, outcome
            time.sleep(EMIT_PAUSE_SECONDS)

    def _late_by_ms(self) -> int:
        if self._draw.random() >= self._options.late:
            return 0
        low, high = (math.log(seconds) for seconds in LATE_SECONDS)
        return int(1000 * math.exp(self._draw.uniform(low, high)))

    def _duplicate(self) -> None:
        """Send an event again: half of this relay's, half of another's."""
        if self._draw.random() < 0.5:
            peer = (self._options.index + 1) % self._options.relays
            events = _tail(self._options.journal(peer))
        else:
            events = list(self._recent)
        if events:
            self._emit(self._draw.choice(events))
            self.duplicates += 1

    def _malformed(self, number: int, event: UsageEvent, at_ms: int) -> None:
        """Half are messages of their own, half stand in batches among good events."""
        # Refused requests, which all have the next one's number, come here as well.
        name = f"{self._options.run_id}-broken-{number}-{self._draw.getrandbits(48):x}"
        if self._draw.random() < 0.5:
            reason, value = broken_message(self._draw, name, at_ms, event.organisation)
            entry = Entry(kind=Kind.BROKEN, at_ms=at_ms, id=name, reason=reason, value=value)
            self._write(entry)
            self._send_broken(entry)
            return
        reason, spoilt = self._spoil(msgspec.structs.replace(event, id=name))
        self._write(Entry(kind=Kind.INVALID, at_ms=at_ms, id=name, reason=reason, event=spoilt))
        self._emit(spoilt)

    def _spoil(self, event: UsageEvent) -> tuple[RejectReason, UsageEvent]:
        spoil = msgspec.structs.replace
        return self._draw.choice(
            (
                (
                    RejectReason.NEGATIVE_QUANTITY,
                    spoil(event, output_tokens=-1, reasoning_tokens=0),
                ),
                (
                    RejectReason.PART_EXCEEDS_WHOLE,
                    spoil(event, cache_read_tokens=event.input_tokens + 1),
                ),
                (RejectReason.INVALID_IDENTIFIER, spoil(event, key="")),
                (
                    RejectReason.FUTURE_TIME,
                    # Still in the future when a successor sends it again.
                    spoil(event, time_ms=now_ms() + 3 * FUTURE_TOLERANCE_MS),
                ),
            )
        )

    def _send_broken(self, entry: Entry) -> None:
        self._broken[entry.id] = entry

        def done(error: KafkaClientError | None) -> None:
            if error is not None:
                self._failed.put(entry.id)
                return
            self._write(Entry(kind=Kind.ACKNOWLEDGED, id=entry.id))
            self._broken.pop(entry.id, None)

        try:
            if self._producer is None:
                # A relay starts without a broker too.
                self._producer = self._open_producer()
            self._producer.send("usage.events", entry.id.encode(), entry.value, on_done=done)
        except KafkaClientError:
            self._failed.put(entry.id)


def _tail(path: Path) -> list[UsageEvent]:
    """Events at the end of another relay's journal."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - PEER_TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)[1:]
    except FileNotFoundError:
        return []
    entries = [msgspec.json.decode(line, type=Entry) for line in lines if line.endswith(b"\n")]
    return [
        entry.event for entry in entries if entry.kind is Kind.EVENT and entry.event is not None
    ]


def report(kind: str, **fields: Any) -> None:
    """One JSON line to the parent."""
    sys.stdout.buffer.write(msgspec.json.encode({"kind": kind, **fields}) + b"\n")
    sys.stdout.buffer.flush()


def _commands() -> queue.SimpleQueue[str]:
    """Lines of standard input; its end is `quit`."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
        lines.put("quit")

    threading.Thread(target=read, name="commands", daemon=True).start()
    return lines


def run(node: Node, per_second: float) -> None:
    """Serve at a steady rate; then answer until asked to quit."""
    commands = _commands()
    begun, served, serving = time.monotonic(), 0, True
    while True:
        try:
            command = commands.get(timeout=0.001 if serving else 1.0)
        except queue.Empty:
            command = ""
        match command:
            case "quit":
                return
            case "stop":
                serving = False
                node.stop()
            case "versions":
                node.versions()
            case _:
                pass
        due = int((time.monotonic() - begun) * per_second)
        while serving and served < due:
            node.serve()
            served += 1
        node.look_after_broken()


def main() -> None:
    """Run until asked to quit, or killed."""
    options = msgspec.json.decode(sys.argv[1], type=NodeOptions)
    set_up_logging(options.name, "warning")
    node = Node(options)
    node.start()
    run(node, options.per_second)
    node.close()


if __name__ == "__main__":
    main()
