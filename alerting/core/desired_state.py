"""Desired state: all that restricts a scope, as one throttle command in absolute numbers.

Several causes (month budget, day budget, limits) may hold at once; the most restrictive speaks,
and of equally restrictive ones the one that ends last. A command is a lease:

    issued      + lease/3: renewed      + lease: expires by itself, in the way `on_expiry` says
    never beyond the end of the period that caused it (+ EXPIRY_SLACK_MS)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meterline.alerting.core.breaker import admitted_percent, level
from meterline.alerting.rules.evaluation import amount_text
from meterline.alerting.rules.measurement import NANO_USD, Measurement
from meterline.schemas.money import divide_half_even
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.policy import BreakerPolicy, ScopePolicy
from meterline.schemas.rule_ref import BUDGET_RULES
from meterline.schemas.throttle import (
    BUDGET_EXHAUSTED,
    BUDGET_THROTTLED,
    BreakerState,
    Evidence,
    OnExpiry,
    ThrottleCommand,
    ThrottleLimits,
    ThrottleMode,
)

# The skew of clocks that relays are trusted to have (STANDARDS: 30 s).
EXPIRY_SLACK_MS = 30_000
RENEWALS_PER_LEASE = 3  # two renewals may be lost before a lease ends
RELEASED = "released"
_DEGRADE_PERCENT = 10


class Cause(NamedTuple):
    """One reason to restrict a scope."""

    state: BreakerState
    measurement: Measurement


class Stamp(NamedTuple):
    """What makes a command's version and time."""

    epoch: int
    seq: int
    now_ms: int


def most_restrictive(causes: Iterable[Cause]) -> Cause | None:
    """The cause that speaks for the scope; None if nothing restricts it."""
    restricting = [cause for cause in causes if cause.state is not BreakerState.CLOSED]
    if not restricting:
        return None
    return max(restricting, key=lambda cause: (level(cause.state), cause.measurement.end_ms))


def restriction(
    policy: ScopePolicy, breaker: BreakerPolicy, cause: Cause, stamp: Stamp
) -> ThrottleCommand:
    """The command that puts a cause into force."""
    state, measurement = cause
    is_open = state is BreakerState.OPEN
    is_budget = measurement.rule_id in BUDGET_RULES
    percent = admitted_percent(breaker, state)
    limits = ThrottleLimits() if is_open else reduced(policy, percent)
    unlimited = limits.requests_per_minute is None and limits.tokens_per_minute is None
    expires_at_ms = stamp.now_ms + lease_ms(breaker, state)
    return ThrottleCommand(
        scope=policy.scope,
        epoch=stamp.epoch,
        seq=stamp.seq,
        state=state,
        # Another model or a later time does not make an exhausted budget whole.
        mode=ThrottleMode.REJECT if is_open else policy.throttle_mode,
        admit_percent=percent if is_open or unlimited else 100,
        limits=limits,
        fallback_model=policy.fallback_model,
        reason=_reason(cause, percent),
        reason_code=_reason_code(cause),
        http_status=breaker.http_status if is_open and is_budget else 429,
        evidence=_evidence(measurement),
        issued_at_ms=stamp.now_ms,
        expires_at_ms=min(expires_at_ms, measurement.end_ms + EXPIRY_SLACK_MS),
        reset_at_ms=measurement.end_ms,
        on_expiry=OnExpiry.DEGRADE if is_open else OnExpiry.RELEASE,
        degrade_percent=_DEGRADE_PERCENT,
        degrade_nano_usd_per_hour=_degraded_per_hour(measurement) if is_open else 0,
    )


def release(
    scope: str, before: ThrottleCommand, why: str, lease: int, stamp: Stamp
) -> ThrottleCommand:
    """The command that lifts every restriction of a scope."""
    return ThrottleCommand(
        scope=scope,
        epoch=stamp.epoch,
        seq=stamp.seq,
        state=BreakerState.CLOSED,
        reason=f"released from {before.state.value}: {why}",
        reason_code=RELEASED,
        evidence=None,
        issued_at_ms=stamp.now_ms,
        expires_at_ms=stamp.now_ms + lease,
    )


def same_content(left: ThrottleCommand, right: ThrottleCommand) -> bool:
    """Whether two commands ask the same of a relay, whatever their version, time and numbers."""
    return _content(left) == _content(right)


def renew_at_ms(breaker: BreakerPolicy, command: ThrottleCommand) -> int:
    """When the lease must be renewed; 0 if never."""
    if command.state is BreakerState.CLOSED:
        return 0
    if command.reset_at_ms and command.expires_at_ms >= command.reset_at_ms + EXPIRY_SLACK_MS:
        # It already lasts to the end of its period, and the period's end has its own timer.
        return 0
    return command.issued_at_ms + lease_ms(breaker, command.state) // RENEWALS_PER_LEASE


def lease_ms(breaker: BreakerPolicy, state: BreakerState) -> int:
    """How long a command of a state lives without renewal."""
    seconds = (
        breaker.open_lease_seconds if state is BreakerState.OPEN else breaker.soft_lease_seconds
    )
    return seconds * 1000


def reduced(policy: ScopePolicy, percent: int) -> ThrottleLimits:
    """The policy's rate limits at `percent`, as absolute numbers; None where there is none.

    A limit above zero stays above zero: 80 % of one request per minute is not a block.
    """
    base = policy.limits
    requests = base.requests_per_minute
    burst = base.burst_requests
    if burst is None and requests is not None:
        burst = max(1, requests // 10)
    return ThrottleLimits(
        requests_per_minute=_share(requests, percent),
        tokens_per_minute=_share(base.tokens_per_minute, percent),
        burst_requests=_share(burst, percent),
    )


def _share(base: int | None, percent: int) -> int | None:
    if base is None:
        return None
    return max(1, base * percent // 100) if base and percent else 0


def _degraded_per_hour(measurement: Measurement) -> int:
    """A tenth of an hour's even share of the budget: what a dead controller still lets through."""
    if measurement.unit != NANO_USD:
        return 0
    hours = max(1, (measurement.end_ms - measurement.start_ms) // HOUR_MS)
    return divide_half_even(measurement.limit * _DEGRADE_PERCENT, 100 * hours)


def _reason_code(cause: Cause) -> str:
    if cause.measurement.rule_id not in BUDGET_RULES:
        return cause.measurement.rule_id.value
    return BUDGET_EXHAUSTED if cause.state is BreakerState.OPEN else BUDGET_THROTTLED


def _reason(cause: Cause, percent: int) -> str:
    measurement = cause.measurement
    what = "budget" if measurement.rule_id in BUDGET_RULES else "limit"
    spent = amount_text(measurement.observed, measurement.unit)
    limit = amount_text(measurement.limit, measurement.unit)
    effect = "requests are refused" if percent == 0 else f"limits are at {percent} %"
    return (
        f"{spent} of the {measurement.kind} {what} of {limit} used ({measurement.percent} %) "
        f"in {measurement.period}: {effect}"
    )


def _evidence(measurement: Measurement) -> Evidence:
    return Evidence(
        rule_id=measurement.rule_id,
        window=measurement.kind,
        period=measurement.period,
        observed=measurement.observed,
        limit=measurement.limit,
        unit=measurement.unit,
        percent=measurement.percent,
        budget_version=measurement.budget_version,
        source_offset=",".join(f"{shard}:{offset}" for shard, offset in measurement.source),
    )


def _content(command: ThrottleCommand) -> tuple[object, ...]:
    evidence = command.evidence
    cause = (
        None
        if evidence is None
        else (evidence.rule_id, evidence.period, evidence.limit, evidence.budget_version)
    )
    return (
        command.state,
        command.mode,
        command.admit_percent,
        command.limits,
        command.fallback_model,
        command.reason_code,
        command.http_status,
        command.reset_at_ms,
        command.on_expiry,
        command.degrade_percent,
        command.degrade_nano_usd_per_hour,
        cause,
    )
