"""The whole pipeline as processes, under a steady load, for benchmarks that time single events.

Each trial has a department of its own whose budget one event exhausts; the load has one without.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from typing_extensions import override

from meterline.app.clock import now_ms
from meterline.app.local.stack import Stack, StackOptions
from meterline.app.settings import broker_name
from meterline.app.wiring import kafka_config
from meterline.relay.client import RelayClient
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.usage import UsageEvent

ORGANISATION = "bench"
ROUNDS = 3
# The load fills caches and tables; not part of any trial.
WARM_UP_SECONDS = 3.0
CLIENT_START_SECONDS = 60


def read_arguments(description: str) -> argparse.Namespace:
    """The options of every benchmark under load."""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument(
        "--kafka", type=broker_name, choices=("embedded", "apache"), default="embedded"
    )
    return parser.parse_args()


def policy(trials: int, notify: dict[str, Any] | None = None) -> str:
    """Departments whose budget is one cent, and one without any for the load; the receivers."""
    departments = [{"id": f"d{n}", "budget": {"month_usd": "0.01"}} for n in range(trials)]
    document: dict[str, Any] = {
        "version": 1,
        "time_zone": "UTC",
        "organisations": [{"id": ORGANISATION, "departments": [*departments, {"id": "load"}]}],
    }
    if notify is not None:
        document["notify"] = notify
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


def quantile(sorted_values: list[float], share: float) -> float:
    """The value below which a share lies (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def in_rounds(seconds: list[float]) -> list[list[float]]:
    """Every third trial, sorted: three rounds that saw the same weather."""
    return [sorted(seconds[number::ROUNDS]) for number in range(ROUNDS)]


class Measured(NamedTuple):
    """What the trials gave, and the load that really flowed meanwhile."""

    trials: list[Any]
    load_events_per_second: float


def measure(
    folder: Path,
    arguments: argparse.Namespace,
    policy_text: str,
    trial: Callable[[RelayClient, int], Any],
    pause: Callable[[float], float],
) -> Measured:
    """Run all trials, one after the other.

    Args:
        folder: for data, spools and logs.
        arguments: from `read_arguments`.
        policy_text: the policy file.
        trial: one of them, by its number.
        pause: seconds to wait after a trial that took this many.
    """
    file = folder / "policy.yaml"
    file.write_text(policy_text, encoding="utf-8")
    with ExitStack() as closing:
        stack = closing.enter_context(_running(folder, arguments.kafka, file))
        clients = [
            closing.enter_context(_client(stack, folder, name))
            for name in ("bench-load", "bench-trials")
        ]
        load = Load(clients[0], arguments.rate)
        closing.callback(load.stop.set)
        load.start()
        began = time.monotonic()
        time.sleep(WARM_UP_SECONDS)
        done = []
        for number in range(arguments.trials):
            started = time.monotonic()
            done.append(trial(clients[1], number))
            time.sleep(pause(time.monotonic() - started))
        return Measured(done, load.sent / (time.monotonic() - began))


@contextmanager
def _running(folder: Path, kafka: str, policy_file: Path) -> Iterator[Stack]:
    with (folder / "log").open("w", encoding="utf-8") as log:
        options = StackOptions(folder / "data", kafka=kafka, policy=policy_file)
        stack = Stack(options, log, lambda _line: None)
        stack.start()
        try:
            yield stack
        finally:
            stack.stop()


@contextmanager
def _client(stack: Stack, folder: Path, name: str) -> Iterator[RelayClient]:
    config = kafka_config(stack.settings, name)
    client = RelayClient(
        RelaySettings(name, config, SpoolSettings(folder / name)), now_ms, NoMeter()
    )
    try:
        assert client.start(CLIENT_START_SECONDS)
        yield client
    finally:
        client.close(5)
