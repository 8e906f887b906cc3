"""The staged breaker of one budget: how much of the base limits a scope keeps.

    percent of budget   0            75          90          100
    state               | closed     | throttled | half open | open
    admitted              100 %        80 %        50 %        none     (of the base limits)

It rises at once, several stages if need be. It falls one stage per dwell, and only while spend is
below the stage's bound minus the hysteresis. Three things reset it without that walk: a new
period, another budget version, and the policy that switches breakers off (the override).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from meterline.alerting.rules.measurement import Measurement, amount_at, reached
from meterline.schemas.policy import BreakerPolicy
from meterline.schemas.throttle import BreakerState

STAGES = (
    BreakerState.CLOSED,
    BreakerState.THROTTLED,
    BreakerState.HALF_OPEN,
    BreakerState.OPEN,
)
_LEVEL = {state: level for level, state in enumerate(STAGES)}


class TripReason(StrEnum):
    """Why the breaker is where it is after a step."""

    STEADY = "steady"
    LIMIT_REACHED = "limit_reached"
    """It rose."""
    HELD_BY_GRACE = "held_by_grace"
    """It would rise, but the month is young and the state not known complete."""
    HELD_BY_HYSTERESIS = "held_by_hysteresis"
    """Spend is below the stage's bound, but not far enough."""
    DWELLING = "dwelling"
    """It would fall, but has not been in its stage for long enough."""
    STEPPED_DOWN = "stepped_down"
    NEW_PERIOD = "new_period"
    BUDGET_CHANGED = "budget_changed"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one budget's breaker in one period of one budget version."""

    state: BreakerState = BreakerState.CLOSED
    since_ms: int = 0
    period: str = ""
    budget_version: int = 0


class Step(NamedTuple):
    """Where a step led, why, and when time alone may change the answer (0: never)."""

    breaker: Breaker
    reason: TripReason
    recheck_ms: int = 0


def level(state: BreakerState) -> int:
    """How restrictive: 0 closed to 3 open."""
    return _LEVEL[state]


def admitted_percent(policy: BreakerPolicy, state: BreakerState) -> int:
    """Share of the base limits that a stage leaves."""
    match state:
        case BreakerState.CLOSED:
            return 100
        case BreakerState.THROTTLED:
            return policy.throttle_to_percent
        case BreakerState.HALF_OPEN:
            return policy.half_open_to_percent
        case BreakerState.OPEN:
            return 0


def advance(
    policy: BreakerPolicy,
    breaker: Breaker,
    measurement: Measurement,
    now_ms: int,
    *,
    may_trip: bool,
) -> Step:
    """One step of the state machine.

    Args:
        policy: the bounds.
        breaker: where it stands.
        measurement: spend against the budget, in the current window.
        now_ms: the current time.
        may_trip: False in the grace at a month's start while the state is not known complete.
    """
    fresh = Breaker(BreakerState.CLOSED, now_ms, measurement.period, measurement.budget_version)
    if not policy.enabled:
        return Step(fresh, TripReason.DISABLED)
    if breaker.period != measurement.period or breaker.budget_version != measurement.budget_version:
        return _reset(policy, breaker, fresh, measurement, may_trip=may_trip)
    target = _stage(policy, measurement)
    if level(target) < level(breaker.state):
        return _fall(policy, breaker, target, measurement, now_ms)
    if target is breaker.state:
        return Step(breaker, TripReason.STEADY)
    if may_trip:
        return Step(replace(breaker, state=target, since_ms=now_ms), TripReason.LIMIT_REACHED)
    return Step(breaker, TripReason.HELD_BY_GRACE, _grace_end(policy, measurement))


def may_trip(
    policy: BreakerPolicy, measurement: Measurement, now_ms: int, *, complete: bool
) -> bool:
    """Whether a month's breaker may rise: not in the grace, unless the state is known complete.

    At a month's start totals are small and mostly history being replayed: a stage reached on half
    of the data is a stage reached for the wrong reason. Hour and day limits stay active.

        month   [ start ........ start + grace ) ....................... end )
                  only if complete               always
    """
    return complete or now_ms >= _grace_end(policy, measurement)


def breakpoints(policy: BreakerPolicy, limit: int) -> set[int]:
    """Amounts at which `advance` may answer otherwise than just below them."""
    if limit == 0 or not policy.enabled:
        return set()
    bounds = [_bound(policy, state) for state in STAGES[1:]]
    percents = bounds + [bound - policy.hysteresis_points for bound in bounds]
    return {amount_at(limit, percent) for percent in percents}


def _reset(
    policy: BreakerPolicy,
    before: Breaker,
    fresh: Breaker,
    measurement: Measurement,
    *,
    may_trip: bool,
) -> Step:
    """Begin a period or a budget version: whatever stage spend asks for, without the walk down."""
    new_period = before.period != measurement.period
    # Without the right to trip, a change of the budget may ease but not tighten.
    ceiling = before.state if not new_period else BreakerState.CLOSED
    target = _stage(policy, measurement)
    if not may_trip and level(target) > level(ceiling):
        held = replace(fresh, state=ceiling)
        return Step(held, TripReason.HELD_BY_GRACE, _grace_end(policy, measurement))
    reason = TripReason.NEW_PERIOD if new_period else TripReason.BUDGET_CHANGED
    return Step(replace(fresh, state=target), reason)


def _fall(
    policy: BreakerPolicy,
    breaker: Breaker,
    target: BreakerState,
    measurement: Measurement,
    now_ms: int,
) -> Step:
    release_percent = _bound(policy, breaker.state) - policy.hysteresis_points
    if reached(measurement.observed, measurement.limit, release_percent):
        return Step(breaker, TripReason.HELD_BY_HYSTERESIS)
    dwell_ms = policy.dwell_seconds * 1000
    if now_ms - breaker.since_ms < dwell_ms:
        return Step(breaker, TripReason.DWELLING, breaker.since_ms + dwell_ms)
    below = STAGES[level(breaker.state) - 1]
    lower = replace(breaker, state=below, since_ms=now_ms)
    recheck_ms = 0 if below is target else now_ms + dwell_ms
    return Step(lower, TripReason.STEPPED_DOWN, recheck_ms)


def _stage(policy: BreakerPolicy, measurement: Measurement) -> BreakerState:
    """The stage that spend alone asks for."""
    for state in (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.THROTTLED):
        if reached(measurement.observed, measurement.limit, _bound(policy, state)):
            return state
    return BreakerState.CLOSED


def _bound(policy: BreakerPolicy, state: BreakerState) -> int:
    """The percentage at which a stage begins."""
    match state:
        case BreakerState.CLOSED:
            return 0
        case BreakerState.THROTTLED:
            return policy.throttle_at_percent
        case BreakerState.HALF_OPEN:
            return policy.half_open_at_percent
        case BreakerState.OPEN:
            return policy.open_at_percent


def _grace_end(policy: BreakerPolicy, measurement: Measurement) -> int:
    return measurement.start_ms + policy.grace_seconds * 1000
