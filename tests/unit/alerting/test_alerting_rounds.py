"""On the hour every scope needs new baselines, and no throttle waits for them."""

from __future__ import annotations

from meterline.alerting.core import engine
from meterline.alerting.core.state import (
    Effect,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    State,
    Tick,
)
from meterline.alerting.rules.measurement import SpendSum
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import DAY_MS, HOUR_MS, Calendar, WindowKind, parse_rfc3339
from meterline.schemas.policy import Budget, Limits, RuleSet, ScopePolicy
from meterline.schemas.policy_rules import DeviationRule

NOON_MS = parse_rfc3339("2026-06-15T12:00:00Z")
MIDNIGHT_MS = parse_rfc3339("2026-06-16T00:00:00Z")
SCOPES = 3 * engine.ROUND_WORK_MAX
RULES = RuleSet(deviations=(DeviationRule(id="day"),))


def scope_of(number: int) -> str:
    """The name of a scope."""
    return f"key:acme/k-{number:04}"


def loaded(until_ms: int = NOON_MS) -> State:
    """Scopes with ten dollars in every hour of the last eight days."""
    state = engine.start(1, RULES, until_ms - 1)
    today = Calendar().window(WindowKind.DAY, until_ms).start_ms
    for number in range(SCOPES):
        scope = scope_of(number)
        policy = ScopePolicy(
            scope=scope,
            budget=Budget(month_nano_usd=10**6 * NANO_PER_USD),
            limits=Limits(hour_spend_nano_usd=500 * NANO_PER_USD),
        )
        past = tuple(
            SpendSum(scope, WindowKind.HOUR, at_ms, at_ms + HOUR_MS, 10 * NANO_PER_USD, 0)
            for at_ms in range(today - 8 * DAY_MS, until_ms, HOUR_MS)
        )
        engine.step(state, PolicyChanged(scope, policy, past), until_ms - 1)
    return state


def spend(state: State, number: int, usd: int, now_ms: int) -> tuple[Effect, ...]:
    """The hour's and the day's sum of one scope."""
    effects: tuple[Effect, ...] = ()
    for window in Calendar().windows(now_ms)[1:3]:
        spent = SpendSum(
            scope_of(number), window.kind, window.start_ms, window.end_ms, usd * NANO_PER_USD, 1
        )
        effects += engine.step(state, spent, now_ms)[1]
    return effects


def test_a_round_does_a_bounded_number_of_evaluations_that_can_wait() -> None:
    """The others wait, in order, and none is forgotten."""
    state = loaded()
    for number in range(SCOPES):
        spend(state, number, 1, NOON_MS)
    assert list(state.waiting) == [
        scope_of(number) for number in range(engine.ROUND_WORK_MAX, SCOPES)
    ]
    now_ms = NOON_MS
    rounds = 0
    while state.waiting:
        now_ms = engine.next_timer(state)
        engine.step(state, Tick(complete=True), now_ms)
        rounds += 1
    assert (rounds, now_ms) == (2, NOON_MS + 2)
    hour = NOON_MS // HOUR_MS
    assert {known for known, _ in state.baselines.values()} == {hour}


def test_a_limit_that_is_reached_does_not_wait() -> None:
    """Its command comes out of the step that reaches it, whatever else the round has to do."""
    state = loaded()
    for number in range(SCOPES - 1):
        spend(state, number, 1, NOON_MS)
    assert len(state.waiting) > engine.ROUND_WORK_MAX
    last = SCOPES - 1
    first = spend(state, last, 500, NOON_MS)
    assert [effect.command.scope for effect in first if isinstance(effect, PublishThrottle)] == [
        scope_of(last)
    ]
    # One that waits and reaches its limit meanwhile is not held back either.
    waiting = SCOPES - 2
    assert scope_of(waiting) in state.waiting
    later = spend(state, waiting, 501, NOON_MS)
    assert any(isinstance(effect, PublishThrottle) for effect in later)
    assert scope_of(waiting) not in state.waiting


def test_a_deviation_that_waits_is_notified_in_the_next_rounds() -> None:
    """Nothing is missed by waiting: the same alerts, a few rounds later."""
    state = loaded(MIDNIGHT_MS)
    effects = [each for number in range(SCOPES) for each in spend(state, number, 400, MIDNIGHT_MS)]
    now_ms = MIDNIGHT_MS
    while state.waiting:
        now_ms += 1
        effects += engine.step(state, Tick(complete=True), now_ms)[1]
    scopes = [each.alert.scope for each in effects if isinstance(each, PublishAlert)]
    assert sorted(scopes) == [scope_of(number) for number in range(SCOPES)]
    assert now_ms > MIDNIGHT_MS
