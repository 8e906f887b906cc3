"""From emit to refusal: how long an exhausted budget still lets requests through.

The whole pipeline runs as processes (broker, ClickHouse, streams, sink, alerts, notify) under a
steady load of 1,000 events per second. Each trial has a department of its own whose budget one
event exhausts: the clock runs from `record(event)` until the same relay's gate refuses that
department. The way is emit, batch, log, fold, snapshot, decide, command, apply.

    python -m benchmarks.latency [--json] [--trials N] [--rate EVENTS_PER_SECOND] [--kafka KIND]
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, Target, finish
from benchmarks.under_load import (
    ORGANISATION,
    in_rounds,
    measure,
    policy,
    quantile,
    read_arguments,
    usage,
)
from meterline.app.telemetry import set_up_logging
from meterline.relay.client import RelayClient
from meterline.relay.gate import Admission, GateRequest

TRIAL_BOUND_SECONDS = 10.0
POLL_SECONDS = 0.001
P50_TARGET_SECONDS = 0.4
P99_TARGET_SECONDS = 1.0


def trial(client: RelayClient, number: int) -> float:
    """Seconds from one event to the refusal it causes."""
    department = f"d{number}"
    request = GateRequest(ORGANISATION, f"t{number}", "gpt-4.1", department=department)
    assert client.decide(request).admission is Admission.ADMIT
    began = time.perf_counter()
    client.record(usage(f"trial-{number}:1", department, f"t{number}", large=True))
    while client.decide(request).admission is Admission.ADMIT:
        if time.perf_counter() - began > TRIAL_BOUND_SECONDS:
            message = f"department {department} was never refused"
            raise TimeoutError(message)
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def main() -> None:
    """Run, print, exit with 0 if every target is met."""
    arguments = read_arguments(__doc__)
    set_up_logging("latency", "error")
    pauses = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(
            Path(folder),
            arguments,
            policy(arguments.trials),
            trial,
            lambda _: pauses.random() * 0.1,  # so that trials do not ride on one phase
        )
    rounds = in_rounds(measured.trials)
    every = sorted(measured.trials)
    figures = [
        Figure("p50_seconds", [quantile(one, 0.50) for one in rounds], "s"),
        Figure("p99_seconds", [quantile(one, 0.99) for one in rounds], "s"),
        Figure("all_p99_seconds", [quantile(every, 0.99)], "s"),
        Figure("worst_seconds", [every[-1]], "s"),
        Figure("load_events_per_second", [measured.load_events_per_second], "1/s"),
    ]
    targets = [
        Target("p50_seconds", "<", P50_TARGET_SECONDS),
        Target("all_p99_seconds", "<", P99_TARGET_SECONDS),
    ]
    finish("latency", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
