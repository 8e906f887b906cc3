"""Memory of every process of the embedded pipeline: at rest, and after a million events.

    python -m benchmarks.memory [--json] [--events N] [--kafka embedded|apache]

Resident memory as the supervisor's `status` shows it. The events are spread over 500 keys of 8
departments; every one is counted by the streams and stored before the second look.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.report import Figure, Target, finish
from meterline.app.clock import now_ms
from meterline.app.local.processes import worker_lines
from meterline.app.local.stack import Stack, StackOptions
from meterline.app.settings import broker_name
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.relay.client import RelayClient
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.tables import TableName
from meterline.schemas.usage import UsageEvent

ORGANISATION = "bench"
DEPARTMENTS = 8
KEYS = 500
MODELS = ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2", "gpt-4.1-mini")
MEGABYTE = 1_000_000
# At this many events ahead of the sink the load waits: the figure is of a pipeline that keeps up.
AHEAD_MAX = 20_000
# Ten times what a million events take on two busy cores.
DRAIN_SECONDS = 600.0
# The issue names no bound; one machine of 4 GB must hold the pipeline and its relays.
TOTAL_TARGET_MB = 2_500.0


def policy() -> str:
    """Eight departments without a budget: nothing is refused."""
    departments = [{"id": f"d{number}"} for number in range(DEPARTMENTS)]
    document = {
        "version": 1,
        "time_zone": "UTC",
        "organisations": [{"id": ORGANISATION, "departments": departments}],
    }
    return yaml.safe_dump(document)


def usage(number: int, dice: random.Random) -> UsageEvent:
    """One request."""
    key = min(int(dice.paretovariate(0.8)) - 1, KEYS - 1)
    return UsageEvent(
        id=f"memory-{number}:1",
        time_ms=now_ms(),
        organisation=ORGANISATION,
        department=f"d{key % DEPARTMENTS}",
        key=f"k{key}",
        user=f"u{key % 100}",
        provider="openai",
        model=MODELS[number % len(MODELS)],
        input_tokens=dice.randrange(100, 5_000),
        output_tokens=dice.randrange(10, 800),
    )


def stored(client: Client) -> int:
    """Rows in the table of events."""
    answer = client.query(f"SELECT count() FROM {TableName.USAGE_EVENTS}")  # noqa: S608 - our name
    return int(answer[0][0])


def resident(stack: Stack) -> dict[str, float]:
    """Megabytes of every process."""
    workers = worker_lines(stack.settings.data_dir)
    return {worker.name: (worker.rss_bytes or 0) / MEGABYTE for worker in workers}


def send(stack: Stack, folder: Path, events: int) -> None:
    """Emit all, and wait until ClickHouse has them."""
    dice = random.Random(11)
    settings = RelaySettings(
        "bench", kafka_config(stack.settings, "bench"), SpoolSettings(folder / "spool")
    )
    relay = RelayClient(settings, now_ms, NoMeter())
    clickhouse = Client(clickhouse_config(stack.settings))
    try:
        assert relay.start(20)
        deadline = time.monotonic() + DRAIN_SECONDS
        sent = 0
        while sent < events:
            for _ in range(min(AHEAD_MAX // 2, events - sent)):
                relay.record(usage(sent, dice))
                sent += 1
            while sent - stored(clickhouse) > AHEAD_MAX // 2 and time.monotonic() < deadline:
                time.sleep(0.05)
        while stored(clickhouse) < events:
            if time.monotonic() > deadline:
                message = f"{stored(clickhouse):,} of {events:,} events arrived"
                raise TimeoutError(message)
            time.sleep(0.2)
    finally:
        relay.close(5)
        clickhouse.close()


def measure(folder: Path, events: int, kafka: str) -> tuple[dict[str, float], dict[str, float]]:
    """Megabytes of every process: at rest, and after the events."""
    file = folder / "policy.yaml"
    file.write_text(policy(), encoding="utf-8")
    with (folder / "log").open("w", encoding="utf-8") as log:
        stack = Stack(
            StackOptions(folder / "data", kafka=kafka, policy=file), log, lambda _line: None
        )
        try:
            stack.start()
            rest = resident(stack)
            send(stack, folder, events)
            return rest, resident(stack)
        finally:
            stack.stop()


def main() -> None:
    """Run, print, exit with 0 if the whole stays below the target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--kafka", type=broker_name, choices=("embedded", "apache"), default="embedded"
    )
    arguments = parser.parse_args()
    set_up_logging("memory", "error")
    with tempfile.TemporaryDirectory() as folder:
        rest, after = measure(Path(folder), arguments.events, arguments.kafka)
    figures = [
        Figure(f"{name}_{when}_mb", [one[name]], "MB")
        for name in rest
        for when, one in (("at_rest", rest), ("after", after))
    ]
    figures.append(Figure("total_after_mb", [sum(after.values())], "MB"))
    targets = [Target("total_after_mb", "<", TOTAL_TARGET_MB)]
    finish("memory", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
