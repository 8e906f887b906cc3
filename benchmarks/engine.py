"""The engine alone: observations per second through `step`, and bytes of state per scope.

    python -m benchmarks.engine [--json]

10,000 keys, each with a month's and a day's budget, three absolute limits, three deviation rules
(one of each method), a burn rate and a no-data rule: ten rules. Nine days of hours are there
before it begins. Then every key spends for some minutes across the stroke of an hour, and each
event changes four sums (minute, hour, day, month), as spend.snapshots tells them. The stroke of the
hour is inside what is measured: every baseline is worked out anew.
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from datetime import UTC, datetime

from alerting import engine
from alerting.past_windows import SpendSum
from alerting.state import PolicyChanged, State
from benchmarks.report import Figure, Target, finish, json_argument
from schemas.periods import HOUR_MS, MINUTE_MS, Calendar, WindowKind
from schemas.policy import Budget, Limits, RuleSet, ScopePolicy
from schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule, NoDataRule

SCOPES = 10_000
SCOPES_WEIGHED = 500
ROUNDS = 3
MINUTES = 4
EVENTS_PER_MINUTE = 3
"""Of each scope: the sums of a minute come several times, as with a flush every 100 ms."""
HISTORY_HOURS = 9 * 24
NANO = 1_000_000_000
NOON_MS = int(datetime(2026, 6, 15, 11, 58, tzinfo=UTC).timestamp()) * 1000
TARGET_PER_SECOND = 50_000

RULES = RuleSet(
    deviations=tuple(DeviationRule(id=method.value, method=method) for method in DeviationMethod),
    burn_rates=(BurnRateRule(id="fast"),),
    no_data=(NoDataRule(id="silent"),),
)


def policy(number: int) -> ScopePolicy:
    """A key with two budgets and three limits."""
    return ScopePolicy(
        scope=f"key:bench/k-{number}",
        budget=Budget(month_nano_usd=3_000 * NANO, day_nano_usd=200 * NANO),
        limits=Limits(
            hour_spend_nano_usd=50 * NANO, day_spend_nano_usd=300 * NANO, day_tokens=10**9
        ),
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


def measure(state: State, scopes: int, begin_ms: int = NOON_MS) -> float:
    """Observations per second; what is fed is made beforehand, minute by minute."""
    rng = random.Random(11)
    calendar = Calendar()
    sums: dict[tuple[str, WindowKind], tuple[int, int]] = {}
    steps = 0
    seconds = 0.0
    for minute in range(MINUTES):
        now_ms = begin_ms + minute * MINUTE_MS
        windows = calendar.windows(now_ms)
        observations = []
        for _ in range(EVENTS_PER_MINUTE):
            for number in rng.sample(range(scopes), scopes):
                scope = f"key:bench/k-{number}"
                cost = rng.randrange(NANO // 20)
                for window in windows:
                    start_ms, total = sums.get((scope, window.kind), (window.start_ms, 0))
                    total = total + cost if start_ms == window.start_ms else cost
                    sums[scope, window.kind] = (window.start_ms, total)
                    observations.append(
                        SpendSum(
                            scope,
                            window.kind,
                            window.start_ms,
                            window.end_ms,
                            total,
                            100,
                            (),
                            now_ms,
                        )
                    )
        begun = time.perf_counter()
        for observation in observations:
            engine.step(state, observation, now_ms)
        seconds += time.perf_counter() - begun
        steps += len(observations)
    return steps / seconds


def weigh() -> float:
    """Bytes of state per scope, after it has been used."""
    gc.collect()
    tracemalloc.start()
    state = loaded(SCOPES_WEIGHED)
    measure(state, SCOPES_WEIGHED)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(state.tracks) == SCOPES_WEIGHED
    return held / SCOPES_WEIGHED


def main() -> None:
    """Measure and print."""
    as_json = json_argument(__doc__.splitlines()[0] if __doc__ else None)
    state = loaded(SCOPES)
    # As in the worker: its objects live long, and are not worth looking at.
    gc.collect()
    gc.freeze()
    # Each round crosses another hour.
    rates = [measure(state, SCOPES, NOON_MS + number * HOUR_MS) for number in range(ROUNDS)]
    figures = [
        Figure("observations_per_second", rates, "/s"),
        Figure("state_bytes_per_scope", [weigh()], "bytes"),
    ]
    targets = [Target("observations_per_second", ">=", TARGET_PER_SECOND)]
    finish("engine", figures, targets, json_flag=as_json)


if __name__ == "__main__":
    main()
