"""The one throttle command of a scope: what its breakers, limits and manual orders ask for."""

from __future__ import annotations

from collections.abc import Iterator

from meterline.alerting.core import breaker as staged
from meterline.alerting.core import desired_state as desired
from meterline.alerting.core import manual
from meterline.alerting.core.breaker import Breaker
from meterline.alerting.core.state import ScopeState, State
from meterline.alerting.rules import limits
from meterline.alerting.rules.measurement import Measurement
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.throttle import BreakerState, ThrottleCommand


def breaker_steps(
    state: State, known: ScopeState, measurements: dict[RuleId, Measurement]
) -> Iterator[tuple[RuleId, staged.Step]]:
    """Where the breaker of each budget stands after its measurement."""
    policy = state.rules.breaker
    for rule_id in (RuleId.BUDGET_MONTH, RuleId.BUDGET_DAY):
        measurement = measurements.get(rule_id)
        if measurement is not None:
            may_trip = rule_id is not RuleId.BUDGET_MONTH or staged.may_trip(
                policy, measurement, state.now_ms, complete=state.complete
            )
            before = known.breakers.get(rule_id, Breaker())
            yield (
                rule_id,
                staged.advance(policy, before, measurement, state.now_ms, may_trip=may_trip),
            )


def command_for(
    state: State,
    scope: str,
    known: ScopeState,
    measurements: dict[RuleId, Measurement],
    *,
    renew: bool,
) -> ThrottleCommand | None:
    """The command to publish now, or None if the one on the topic stands."""
    causes = [
        desired.Cause(known.breakers[rule_id].state, measurement)
        if rule_id in known.breakers
        else desired.Cause(_limit_state(measurement), measurement)
        for rule_id, measurement in measurements.items()
    ]
    cause = desired.most_restrictive(causes)
    stamp = desired.Stamp(state.epoch, state.seq + 1, state.now_ms)
    published = known.published
    breaker = state.rules.breaker
    command: ThrottleCommand | None = None
    if cause is not None and known.policy is not None:
        command = desired.restriction(known.policy, breaker, cause, stamp)
    if known.manual_throttle is not None and known.manual_throttle.holds(state.now_ms):
        by_hand = manual.manual_restriction(known.manual_throttle, known.policy, breaker, stamp)
        command = manual.combined(command, by_hand)
    if command is None:
        if published is None or (published.state is BreakerState.CLOSED and not renew):
            return None
        why = _why_released(state, known, published)
        lease = desired.lease_ms(breaker, BreakerState.CLOSED)
        return desired.release(scope, published, why, lease, stamp)
    if published is not None and not renew and desired.same_content(published, command):
        renew_at_ms = desired.renew_at_ms(breaker, published)
        if renew_at_ms == 0 or state.now_ms < renew_at_ms:
            return None
    return command


def _limit_state(measurement: Measurement) -> BreakerState:
    return BreakerState.OPEN if limits.is_reached(measurement) else BreakerState.CLOSED


def _why_released(state: State, known: ScopeState, published: ThrottleCommand) -> str:
    evidence = published.evidence
    if published.reason_code == manual.MANUAL:
        return "the manual throttle is over"
    if known.policy is None:
        return "it has no policy any more"
    if published.reset_at_ms and published.reset_at_ms <= state.now_ms:
        return f"{evidence.period if evidence else 'the period'} has ended"
    if evidence is not None and evidence.budget_version != known.policy.budget_version:
        return "its budget was changed"
    if not state.rules.breaker.enabled:
        return "breakers are switched off by policy"
    return "spend is below every bound"
