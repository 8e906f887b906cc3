"""One relay process of the demonstration: asks its gate, "serves" the request, records the usage.

The requests are a synthetic trace; everything else is what a real relay runs: `RelayClient` with
emitter, spool, gate and command subscriber. Reports to its parent in JSON lines on standard
output: `ready`, a `tally` every second, `turned` when the gate's answer for a department changes,
and at the end `done` with the truth of what it sent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from meterline.app.clock import now_ms
from meterline.app.settings import load_settings
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import catalogue, kafka_config, stop_on_signals
from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.synthetic import synthetic_trace
from meterline.relay.client import RelayClient
from meterline.relay.emitter import EmitOutcome
from meterline.relay.gate import Admission, GateDecision, GateRequest
from meterline.relay.responses import refusal
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.usage import UsageEvent

READY_WAIT_SECONDS = 20.0  # the gate reads its topics to their ends; a broker answers in one
DRAIN_SECONDS = 15.0  # the embedded broker takes a batch in milliseconds
TALLY_SECONDS = 1.0
ROWS = 200_000  # far more than a demonstration sends


class RelayNode:
    """The loop of one relay."""

    def __init__(self, name: str, client: RelayClient, prices: Any) -> None:
        """Take a started client and a catalogue."""
        self._name = name
        self._client = client
        self._prices = prices
        self._last: dict[str, tuple[Admission, str]] = {}
        self._admitted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._sent = 0
        self._cost_nano_usd = 0

    def serve(self, event: UsageEvent) -> None:
        """One request: decide, and record its usage if it was let through."""
        request = GateRequest(
            event.organisation,
            event.key,
            event.model,
            event.department,
            event.project,
            event.user,
        )
        decision = self._client.decide(request)
        self._note(event.department, decision)
        if decision.admission is not Admission.ADMIT:
            self._refused[event.department] += 1
            return
        outcome = self._client.record(event)
        if outcome is not EmitOutcome.ACCEPTED:
            report("lost", relay=self._name, outcome=outcome.value)
            return
        self._admitted[event.department] += 1
        self._sent += 1
        self._cost_nano_usd += self._prices.rate(event).cost_nano_usd

    def tally(self) -> None:
        """Report the counts so far."""
        report(
            "tally",
            relay=self._name,
            admitted=dict(self._admitted),
            refused=dict(self._refused),
        )

    def done(self, *, drained: bool) -> None:
        """Report what was sent in all."""
        report(
            "done",
            relay=self._name,
            events=self._sent,
            cost_nano_usd=self._cost_nano_usd,
            drained=drained,
        )

    def _note(self, department: str, decision: GateDecision) -> None:
        """Report when the gate's answer to a department has changed for good."""
        # A share that alternates is in the tally; only full stops and full starts are reported.
        if decision.admission is Admission.REJECT and decision.reason.value == "reduced_share":
            return
        answer = (decision.admission, decision.reason.value)
        if self._last.get(department, (Admission.ADMIT, "admitted")) == answer:
            return
        self._last[department] = answer
        refused = refusal(decision) if decision.admission is Admission.REJECT else None
        report(
            "turned",
            relay=self._name,
            department=department,
            admission=decision.admission.value,
            reason=decision.reason.value,
            scope=decision.scope,
            status=refused.status if refused else 200,
            headers=dict(refused.headers) if refused else {},
            body=refused.body.decode() if refused else "",
            at_ms=now_ms(),
        )


def report(kind: str, **fields: Any) -> None:
    """One JSON line to the parent."""
    sys.stdout.buffer.write(msgspec.json.encode({"kind": kind, **fields}) + b"\n")
    sys.stdout.buffer.flush()


def run(name: str, seed: int, per_second: float, run_id: str, stop: Event) -> int:
    """Serve the trace at a steady rate until asked to stop."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="meterline-spool-") as folder:
        relay = RelaySettings(name, kafka_config(settings, name), SpoolSettings(Path(folder)))
        client = RelayClient(relay, now_ms, NoMeter())
        ready = client.start(READY_WAIT_SECONDS)
        report("ready", relay=name, gate_ready=ready)
        node = RelayNode(name, client, catalogue(settings))
        assigner = Assigner(organisation="acme", keys=200, departments=8, seed=seed)
        begun = time.monotonic()
        tallied = begun
        for number, row in enumerate(synthetic_trace(seed + len(name), ROWS)):
            # A schedule without drift: each request has its time, however long the last took.
            pause = begun + number / per_second - time.monotonic()
            if stop.wait(max(pause, 0)):
                break
            event_id = f"{run_id}-{name}-{number}:1"
            node.serve(assigner.event(row, event_id, now_ms(), name))
            if time.monotonic() - tallied >= TALLY_SECONDS:
                tallied = time.monotonic()
                node.tally()
        node.tally()
        node.done(drained=client.close(DRAIN_SECONDS))
    return 0


def main() -> int:
    """Entry of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--run-id", required=True)
    arguments = parser.parse_args()
    set_up_logging(arguments.name, "warning")
    stop = stop_on_signals()
    return run(arguments.name, arguments.seed, arguments.per_second, arguments.run_id, stop)


if __name__ == "__main__":
    sys.exit(main())
