"""From emit to refusal: how long an exhausted budget still lets requests through.

The whole pipeline runs as processes (broker, ClickHouse, streams, sink, alerts, notify) under a
steady load of 1,000 events per second. Each trial has a department of its own whose budget one
event exhausts: the clock runs from `record(event)` until the same relay's gate refuses that
department. The way is emit, batch, log, fold, snapshot, decide, command, apply.

    python -m benchmarks.latency [--json] [--trials N] [--rate EVENTS_PER_SECOND] [--kafka KIND]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

import yaml
from typing_extensions import override

from app.clock import now_ms
from app.stack import Stack, StackOptions
from app.telemetry import set_up_logging
from app.wiring import kafka_config
from benchmarks.report import Figure, Target, finish
from relay.client import RelayClient
from relay.gate import Admission, GateRequest
from relay.settings import RelaySettings, SpoolSettings
from schemas.metrics import NoMeter
from schemas.usage import UsageEvent

ORGANISATION = "bench"
ROUNDS = 3
TRIAL_BOUND_SECONDS = 10.0
POLL_SECONDS = 0.001
P50_TARGET_SECONDS = 0.4
P99_TARGET_SECONDS = 1.0


def policy(trials: int) -> str:
    """Departments whose budget is one cent, and one without any for the load."""
    departments = [{"id": f"d{n}", "budget": {"month_usd": "0.01"}} for n in range(trials)]
    document = {
        "version": 1,
        "time_zone": "UTC",
        "organisations": [
            {"id": ORGANISATION, "departments": [*departments, {"id": "load"}]},
        ],
    }
    return yaml.safe_dump(document)


def usage(name: str, department: str, key: str, *, large: bool) -> UsageEvent:
    """A small request, or one of 1.8 cents."""
    return UsageEvent(
        id=name,
        time_ms=now_ms(),
        organisation=ORGANISATION,
        department=department,
        key=key,
        provider="openai",
        model="gpt-4.1",
        input_tokens=5_000 if large else 300,
        output_tokens=1_000 if large else 100,
    )


class Load(threading.Thread):
    """A steady rate of events from a relay of its own."""

    def __init__(self, client: RelayClient, per_second: float) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._per_second = per_second
        self.stop = threading.Event()
        self.sent = 0

    @override
    def run(self) -> None:
        """Emit on a schedule without drift."""
        began = time.monotonic()
        while not self.stop.is_set():
            due = int((time.monotonic() - began) * self._per_second)
            while self.sent < due:
                number = self.sent
                self._client.record(
                    usage(f"load-{number}:1", "load", f"k{number % 200}", large=False)
                )
                self.sent += 1
            time.sleep(0.002)


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


def quantile(sorted_values: list[float], share: float) -> float:
    """The value below which a share lies (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def main() -> None:
    """Run, print, exit with 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--kafka", choices=("tansu", "apache"), default="tansu")
    arguments = parser.parse_args()
    set_up_logging("latency", "error")
    with tempfile.TemporaryDirectory() as folder:
        seconds, sent = measure(Path(folder), arguments.trials, arguments.rate, arguments.kafka)
    per_round = [sorted(seconds[n::ROUNDS]) for n in range(ROUNDS)]
    p50s = [quantile(one, 0.50) for one in per_round]
    p99s = [quantile(one, 0.99) for one in per_round]
    every = sorted(seconds)
    figures = [
        Figure("p50_seconds", p50s, "s"),
        Figure("p99_seconds", p99s, "s"),
        Figure("all_p99_seconds", [quantile(every, 0.99)], "s"),
        Figure("worst_seconds", [every[-1]], "s"),
        Figure("load_events_per_second", [sent], "1/s"),
    ]
    targets = [
        Target("p50_seconds", "<", P50_TARGET_SECONDS),
        Target("all_p99_seconds", "<", P99_TARGET_SECONDS),
    ]
    finish("latency", figures, targets, json_flag=arguments.json)


def measure(folder: Path, trials: int, rate: float, kafka: str) -> tuple[list[float], float]:
    """Seconds of every trial, and the load that really flowed, events per second."""
    file = folder / "policy.yaml"
    file.write_text(policy(trials), encoding="utf-8")
    with (folder / "log").open("w", encoding="utf-8") as log:
        stack = Stack(
            StackOptions(folder / "data", kafka=kafka, policy=file), log, lambda _line: None
        )
        stack.start()
        clients = [
            RelayClient(
                RelaySettings(
                    name, kafka_config(stack.settings, name), SpoolSettings(folder / name)
                ),
                now_ms,
                NoMeter(),
            )
            for name in ("bench-load", "bench-trials")
        ]
        load = Load(clients[0], rate)
        try:
            for client in clients:
                assert client.start(20)
            load.start()
            began = time.monotonic()
            time.sleep(3)  # the load fills caches and tables; not part of any trial
            pauses = random.Random(7)
            seconds = []
            for number in range(trials):
                seconds.append(trial(clients[1], number))
                time.sleep(pauses.random() * 0.1)  # so that trials do not ride on one phase
            return seconds, load.sent / (time.monotonic() - began)
        finally:
            load.stop.set()
            for client in clients:
                client.close(5)
            stack.stop()


if __name__ == "__main__":
    main()
