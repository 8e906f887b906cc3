"""The engine alone: observations per second through `step`, and bytes of state per scope.

    python -m benchmarks.engine [--json] [--scopes N]

10,000 keys, each with a month's and a day's budget, two absolute limits, four deviation rules
(one of each method), a burn rate and a no-data rule: ten rules. Nine days of hours are there
before it begins. Then every key spends for four minutes across the turn of an hour, and each
event changes four sums (minute, hour, day, month), as spend.snapshots holds them. The turn of the
hour is inside what is measured: every baseline is computed again.

Sums come in rounds of 1,000 and a tick, as the worker polls them. Rates are of processor time, which
a busy machine does not change; the rate by the clock on the wall is beside it. `round_max` is the
longest round, which is how long a throttle command of that round may have to wait for the others.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from benchmarks.report import Figure, Target, finish
from meterline.alerting.core import engine
from meterline.alerting.core.state import PolicyChanged, State, Tick
from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.periods import HOUR_MS, MINUTE_MS, Calendar, WindowKind
from meterline.schemas.policy import Budget, Limits, RuleSet, ScopePolicy
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule, NoDataRule

SCOPES = 10_000
SCOPES_WEIGHED = 500
ROUNDS = 3
MINUTES = 4
EVENTS_PER_MINUTE = 3
"""Of each scope: the sums of a minute come several times, as with a flush every 100 ms."""
SUMS_PER_ROUND = 1_000
HISTORY_HOURS = 9 * 24
NANO = 1_000_000_000
NOON_MS = int(datetime(2026, 6, 15, 11, 58, tzinfo=UTC).timestamp()) * 1000
TARGET_PER_SECOND = 50_000
# A throttle's own share of the seconds that it takes from the event to the relay.
TARGET_ROUND_MS = 250

RULES = RuleSet(
    deviations=tuple(DeviationRule(id=method.value, method=method) for method in DeviationMethod),
    burn_rates=(BurnRateRule(id="fast"),),
    no_data=(NoDataRule(id="silent"),),
)


class Pass(NamedTuple):
    """Four minutes across the turn of an hour."""

    observations: int
    cpu_seconds: float
    wall_seconds: float
    round_max_seconds: float
    """Processor time of the longest round."""

    @property
    def per_cpu_second(self) -> float:
        """Observations per second of processor time."""
        return self.observations / self.cpu_seconds

    @property
    def per_wall_second(self) -> float:
        """Observations per second that went by."""
        return self.observations / self.wall_seconds


def policy(number: int) -> ScopePolicy:
    """A key with two budgets and two limits."""
    return ScopePolicy(
        scope=f"key:bench/k-{number}",
        budget=Budget(month_nano_usd=3_000 * NANO, day_nano_usd=200 * NANO),
        limits=Limits(hour_spend_nano_usd=50 * NANO, day_tokens=10**9),
    )


def loaded(scopes: int) -> State:
    """An engine that knows the past of its scopes."""
    rng = random.Random(7)
    state = engine.start(1, RULES, NOON_MS)
    first = NOON_MS // HOUR_MS * HOUR_MS - HISTORY_HOURS * HOUR_MS
    for number in range(scopes):
        item = policy(number)
        past = tuple(
            SpendSum(
                item.scope, WindowKind.HOUR, at_ms, at_ms + HOUR_MS, rng.randrange(2 * NANO), 0
            )
            for at_ms in range(first, first + HISTORY_HOURS * HOUR_MS, HOUR_MS)
        )
        state, _ = engine.step(state, PolicyChanged(item.scope, item, past), NOON_MS)
    return state


def spending(scopes: int, begin_ms: int) -> Iterator[tuple[int, list[SpendSum]]]:
    """Rounds of sums and when each of them comes."""
    rng = random.Random(11)
    calendar = Calendar()
    sums: dict[tuple[str, WindowKind], tuple[int, int]] = {}
    rounds_per_minute = -(-EVENTS_PER_MINUTE * scopes * 4 // SUMS_PER_ROUND)
    for minute in range(MINUTES):
        minute_ms = begin_ms + minute * MINUTE_MS
        windows = calendar.windows(minute_ms)
        found: list[SpendSum] = []
        for _ in range(EVENTS_PER_MINUTE):
            for number in rng.sample(range(scopes), scopes):
                scope = f"key:bench/k-{number}"
                cost = rng.randrange(NANO // 20)
                for kind, start_ms, end_ms in windows:
                    before_ms, total = sums.get((scope, kind), (start_ms, 0))
                    total = total + cost if before_ms == start_ms else cost
                    sums[scope, kind] = (start_ms, total)
                    found.append(SpendSum(scope, kind, start_ms, end_ms, total, 100, (), minute_ms))
        for number in range(rounds_per_minute):
            first = number * SUMS_PER_ROUND
            at_ms = minute_ms + number * MINUTE_MS // rounds_per_minute
            yield at_ms, found[first : first + SUMS_PER_ROUND]


def measure(state: State, scopes: int, begin_ms: int = NOON_MS) -> Pass:
    """Let every scope spend; what is fed is made while no clock runs."""
    count = 0
    cpu = wall = longest = 0.0
    for at_ms, sums in spending(scopes, begin_ms):
        for now_ms, batch in _polls(state, at_ms, sums):
            cpu_begun, wall_begun = time.process_time(), time.perf_counter()
            for observation in batch:
                engine.step(state, observation, now_ms)
            engine.step(state, Tick(complete=True), now_ms)
            spent = time.process_time() - cpu_begun
            wall += time.perf_counter() - wall_begun
            cpu += spent
            longest = max(longest, spent)
        count += len(sums)
    assert not state.waiting
    return Pass(count, cpu, wall, longest)


def _polls(
    state: State, at_ms: int, sums: Sequence[SpendSum]
) -> Iterator[tuple[int, Sequence[SpendSum]]]:
    """One round, and those without records that follow while the engine has work left."""
    yield at_ms, sums
    while engine.next_timer(state) <= at_ms + 1:
        at_ms += 1
        yield at_ms, ()


def weigh() -> float:
    """Bytes of state per scope, after it has been used."""
    gc.collect()
    tracemalloc.start()
    state = loaded(SCOPES_WEIGHED)
    measure(state, SCOPES_WEIGHED)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(state.histories) == SCOPES_WEIGHED
    return held / SCOPES_WEIGHED


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--scopes", type=int, default=SCOPES)
    arguments = parser.parse_args()
    state = loaded(arguments.scopes)
    # As in the worker: its objects live long, and are not worth looking at.
    gc.collect()
    gc.freeze()
    # Each round crosses another hour.
    passes = [
        measure(state, arguments.scopes, NOON_MS + number * HOUR_MS) for number in range(ROUNDS)
    ]
    figures = [
        Figure("observations_per_second", [each.per_cpu_second for each in passes], "/s of CPU"),
        Figure("wall_observations_per_second", [each.per_wall_second for each in passes], "/s"),
        Figure("round_max_ms", [each.round_max_seconds * 1000 for each in passes], "ms of CPU"),
        Figure("state_bytes_per_scope", [weigh()], "bytes"),
    ]
    targets = [
        Target("observations_per_second", ">=", TARGET_PER_SECOND),
        Target("round_max_ms", "<=", TARGET_ROUND_MS),
    ]
    finish("engine", figures, targets, json_flag=arguments.json)


if __name__ == "__main__":
    main()
