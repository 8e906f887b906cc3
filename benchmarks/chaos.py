"""Nothing lost, nothing counted twice, whatever dies: the proof that anyone can run.

The whole pipeline runs as processes under load: two relays serve requests, with 1 % duplicates,
1 % late and 1 % malformed events, while a seeded schedule kills relays, streams workers, sink,
alerts worker, notifier and ClickHouse with SIGKILL, at random moments and at named effects, and
stops a streams worker past the end of its session (on Apache Kafka the broker is killed too). Then
the load ends, and truth, stream totals, ClickHouse, the totals that alerting holds, dead letters, thresholds,
webhook deliveries and the relays' commands must agree. docs/chaos.md says what is compared.

    python -m benchmarks.chaos [--cycles N] [--seed S] [--kafka embedded|apache] [--json]
                               [--schedule FILE] [--keep FOLDER] [--rate EVENTS_PER_SECOND]

Exit status 0: no difference. Otherwise seed and schedule are printed; `--schedule` repeats it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.chaos_suite.run import DIFFERENCES_SHOWN_MAX, ChaosOptions, Outcome, run_chaos
from benchmarks.chaos_suite.schedule import (
    Schedule,
    make_schedule,
    read_schedule,
    schedule_text,
)
from benchmarks.report import Figure, Target, finish
from meterline.app.settings import broker_name
from meterline.app.telemetry import set_up_logging


def main() -> None:
    """Run, print, exit with 0 if nothing differs."""
    arguments = _arguments()
    set_up_logging("chaos", "error")
    if arguments.schedule is not None:
        schedule = read_schedule(arguments.schedule)
    else:
        schedule = make_schedule(
            cycles=arguments.cycles, seed=arguments.seed, kafka=arguments.kafka
        )
    options = ChaosOptions(schedule, per_second=arguments.rate, verbose=not arguments.json)
    try:
        outcome = _run(options, arguments.keep)
    except BaseException:
        tell_schedule(schedule)
        raise
    if not outcome.equal:
        tell_differences(outcome)
        tell_schedule(schedule)
    _finish(outcome, json_flag=arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kafka", type=broker_name, choices=("embedded", "apache"), default="embedded"
    )
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--schedule", type=Path, help="repeat a schedule that was printed")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and data")
    return parser.parse_args()


def _run(options: ChaosOptions, keep: Path | None) -> Outcome:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return run_chaos(options, keep)
    with tempfile.TemporaryDirectory(prefix="meterline-chaos-") as folder:
        return run_chaos(options, Path(folder))


def tell_differences(outcome: Outcome) -> None:
    """What differs, the first of each kind."""
    if outcome.verify is not None and not outcome.verify.equal:
        sys.stderr.write(f"totals differ: {outcome.verify}\n")
    for name, found in outcome.differences.items():
        for line in found[:DIFFERENCES_SHOWN_MAX]:
            sys.stderr.write(f"{name}: {line}\n")
        if len(found) > DIFFERENCES_SHOWN_MAX:
            sys.stderr.write(f"{name}: and {len(found) - DIFFERENCES_SHOWN_MAX} more\n")


def tell_schedule(schedule: Schedule) -> None:
    """What to do to see it again."""
    sys.stderr.write(
        f"seed {schedule.seed}, {len(schedule.rounds)} cycles on {schedule.kafka}; to repeat it, "
        "write the next line to a file and run `python -m benchmarks.chaos --schedule FILE`\n"
        f"{schedule_text(schedule)}\n"
    )


def _finish(outcome: Outcome, *, json_flag: bool) -> None:
    verify = outcome.verify
    assert verify is not None, "every run compares"
    nano_usd = {
        "streams_diff_nano_usd": verify.streams_diff_nano_usd,
        "clickhouse_diff_nano_usd": verify.clickhouse_diff_nano_usd,
        "windows_diff_nano_usd": verify.windows_diff_nano_usd,
    }
    events = {
        "missing_events": verify.missing,
        "extra_events": verify.extra,
        "streams_diff_events": verify.streams_diff_events,
    }
    differences = {f"{name}_differences": len(found) for name, found in outcome.differences.items()}
    zero = {**nano_usd, **events, **differences}
    counted = {
        "events": outcome.events,
        "malformed": outcome.malformed,
        "duplicates": outcome.duplicates,
        "recorded_again": outcome.recorded_again,
        "refused_requests": outcome.refused,
        "kills": outcome.kills,
        **{f"kills_of_{victim}": count for victim, count in outcome.by_victim.items()},
        "crash_points_reached": outcome.crashes_reached,
        "crash_points_missed": len(outcome.crashes_missed),
        "totals_compared": verify.totals,
        "beliefs_compared": outcome.beliefs,
        "alerts": outcome.alerts,
        "deliveries": outcome.deliveries,
        "deliveries_repeated": outcome.deliveries_repeated,
        "scopes_commanded": outcome.commands,
        "seconds": outcome.seconds,
    }
    figures = [
        *(Figure(name, [value], "") for name, value in counted.items()),
        *(Figure(name, [value], "nano-USD") for name, value in nano_usd.items()),
        *(Figure(name, [value], "") for name, value in {**events, **differences}.items()),
    ]
    finish("chaos", figures, [Target(name, "==", 0) for name in zero], json_flag=json_flag)


if __name__ == "__main__":
    main()
