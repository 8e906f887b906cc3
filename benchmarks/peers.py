"""Peers: the same counting with quixstreams and bytewax, in one run, on one broker.

All three read the same messages of 100 events from the same topic of the same broker, in turn in
each round, one worker process each:

- ours: the product's worker. It rates each event, remembers ids, keeps nine sums in calendar
  windows, makes every total durable in its changelog and only then commits.
- quixstreams: each message is summed per scope and minute in Python first, then `group_by` scope,
  then its own tumbling windows with its RocksDB state and changelog topics.
- bytewax: the same sums first, then `key_on` scope, then its own `fold_window`s with its SQLite
  recovery.

The peers get the money from a dictionary of prices, keep four sums, know no duplicates, and their
events count as done when they come to the last window, not when they are durable: less work than ours.
Their programs are `peer_quixstreams.py` and `peer_bytewax.py`.

    python -m benchmarks.peers [--json] [--rounds N] [--kafka embedded|apache]

Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Figure, Target, finish
from benchmarks.usage_traffic import EVENTS_PER_MESSAGE, batches, fill
from benchmarks.worker_process import Round, our_worker, round_of, run_worker
from meterline.app.settings import broker_name
from meterline.app.telemetry import set_up_logging
from meterline.embedded.broker import start_broker
from meterline.embedded.kafka import start_kafka
from meterline.streams.settings import StreamsSettings, embedded_settings

MESSAGES = 2_000
# A peer that cannot count them all in this time is measured on what it did count.
PEER_SECONDS = 15.0
RATIO_MIN = 3.0
SIDES: Mapping[str, str] = {
    "ours": "benchmarks.peers",
    "quixstreams": "benchmarks.peer_quixstreams",
    "bytewax": "benchmarks.peer_bytewax",
}


@contextmanager
def broker(kind: str, folder: Path) -> Iterator[str]:
    """The broker of one round."""
    server = start_kafka(folder / "kafka") if kind == "apache" else start_broker()
    try:
        yield server.address
    finally:
        server.stop()


def run_round(kind: str, number: int) -> dict[str, Round]:
    """Fill a fresh broker's topic and let each side count it, one after the other."""
    with tempfile.TemporaryDirectory() as name, broker(kind, Path(name)) as bootstrap:
        fill(bootstrap, batches(number, MESSAGES))
        found: dict[str, Round] = {}
        # The order turns from round to round, so that no peer always comes first.
        sides = list(SIDES)
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            directory = Path(name) / side
            directory.mkdir()
            argv = ["-m", SIDES[side], "--worker", bootstrap, str(directory), kind]
            total = MESSAGES * EVENTS_PER_MESSAGE
            found[side] = round_of(run_worker(argv, total, seconds_max=PEER_SECONDS))
    return found


def figures_of(rounds: Sequence[Mapping[str, Round]]) -> list[Figure]:
    """Rates, costs and memory of each side, and our lead."""
    figures: list[Figure] = []
    for side in SIDES:
        mine = [each[side] for each in rounds]
        figures += [
            Figure(f"{side}_per_second", [one.events_per_second for one in mine], "events/s"),
            Figure(f"{side}_cpu_per_million", [one.cpu_seconds_per_million for one in mine], "s"),
            Figure(f"{side}_peak_rss", [one.peak_rss_mib for one in mine], "MiB"),
        ]
    for side in list(SIDES)[1:]:
        speed = [r["ours"].events_per_second / r[side].events_per_second for r in rounds]
        thrift = [
            r[side].cpu_seconds_per_million / r["ours"].cpu_seconds_per_million for r in rounds
        ]
        figures += [
            Figure(f"times_{side}", speed, "times"),
            Figure(f"cpu_times_{side}", thrift, "times"),
        ]
    return figures


def main() -> None:
    """Run the rounds and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--kafka", type=broker_name, choices=("embedded", "apache"), default="embedded"
    )
    options = parser.parse_args()
    rounds = [run_round(options.kafka, number) for number in range(options.rounds)]
    targets = [Target(f"times_{side}", ">=", RATIO_MIN) for side in list(SIDES)[1:]]
    finish("peers", figures_of(rounds), targets, json_flag=options.json)


def worker_main(bootstrap: str, directory: str, kind: str) -> int:
    """Be our side."""
    set_up_logging("streams", level="error")
    data_dir = Path(directory)
    if kind == "apache":
        return our_worker(StreamsSettings(bootstrap=bootstrap, data_dir=data_dir))
    return our_worker(embedded_settings(bootstrap, data_dir=data_dir))


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "--worker":
        sys.exit(worker_main(*sys.argv[2:]))
    main()
