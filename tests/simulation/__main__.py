"""`make sim`: schedules until stopped, or one of them with its trace."""

from __future__ import annotations

import argparse
import itertools
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import NamedTuple

from typing_extensions import override

from tests.simulation.ledger_audit import AuditError
from tests.simulation.world import World, small_ring

SEEDS_PER_TASK = 100
"""About a second's work: progress is seen, and handing out tasks costs nothing."""


class Tally(NamedTuple):
    """What some schedules did."""

    schedules: int = 0
    events: int = 0
    commands: int = 0
    alerts: int = 0
    failure: tuple[int, str] | None = None

    def plus(self, other: Tally) -> Tally:
        """Both together; the first failure stays."""
        return Tally(
            self.schedules + other.schedules,
            self.events + other.events,
            self.commands + other.commands,
            self.alerts + other.alerts,
            self.failure or other.failure,
        )

    @override
    def __str__(self) -> str:
        """One line of progress."""
        return (
            f"{self.schedules:,} schedules, {self.events:,} events, {self.commands:,} commands, "
            f"{self.alerts:,} alerts"
        )


def play_some(first: int, count: int) -> Tally:
    """Play consecutive seeds until one fails."""
    tally = Tally()
    for seed in range(first, first + count):
        try:
            with small_ring():
                done = World(seed).run()
        # Whatever it is, it is this seed's finding: an audit or a crash of the system itself.
        except Exception as error:  # noqa: BLE001
            return tally.plus(Tally(1, failure=(seed, f"{type(error).__name__}: {error}")))
        tally = tally.plus(Tally(1, done.events, done.commands, done.alerts))
    return tally


def play_many(first: int, schedules: int | None, processes: int) -> Tally:
    """Play seeds from `first` on, in several processes, with a line of progress now and then."""
    started = printed = time.monotonic()
    total = Tally()
    firsts = itertools.count(first, SEEDS_PER_TASK)
    running: set[Future[Tally]] = set()
    with ProcessPoolExecutor(processes) as pool:
        while True:
            enough = schedules is not None and total.schedules >= schedules
            while len(running) < 2 * processes and not enough and total.failure is None:
                running.add(pool.submit(play_some, next(firsts), SEEDS_PER_TASK))
            if not running:
                return total
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                total = total.plus(future.result())
            if time.monotonic() - printed > 1:
                printed = time.monotonic()
                rate = total.schedules / (printed - started) * 60
                print(f"{total}; {rate:,.0f} schedules per minute", flush=True)


def play_one(seed: int) -> int:
    """Play one seed with its trace; the exit code."""
    with small_ring():
        try:
            world = World(seed, lambda line: print(line, flush=True))
            outcome = world.run()
        except AuditError as error:
            print(f"seed {seed} fails: {error}")
            return 1
    print(outcome)
    return 0


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one schedule and print its trace")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--schedules", type=int, help="number of schedules; default: no limit")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        raise SystemExit(play_one(options.seed))
    try:
        total = play_many(options.first, options.schedules, options.processes)
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    print(total)
    if total.failure is not None:
        seed, what = total.failure
        print(f"FAILED: seed {seed}: {what}")
        print(f"again, with its trace: make sim SCHEDULE={seed}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
