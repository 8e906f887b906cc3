"""Manual control in the engine: what an operator's throttle and budget mean for a scope. Pure.

file's policy + override in force  -> the policy that rules are evaluated with
rules' command + manual throttle   -> one command, the more restrictive of both in every part
"""

from __future__ import annotations

from meterline.alerting.core.breaker import level
from meterline.alerting.core.desired_state import EXPIRY_SLACK_MS, Stamp, lease_ms, reduced
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.policy import BreakerPolicy, ScopePolicy
from meterline.schemas.throttle import BreakerState, OnExpiry, ThrottleCommand, ThrottleLimits

MANUAL = "manual"


def effective(
    base: ScopePolicy | None, override: BudgetOverride | None, now_ms: int
) -> ScopePolicy | None:
    """The policy that holds now: the file's, with the budgets of a manual override."""
    if base is None or override is None:
        return base
    budget = base.budget
    if override.holds(now_ms):
        month, day = override.month_nano_usd, override.day_nano_usd
        changes = {}
        if budget.month_nano_usd is not None and month is not None:
            changes["month_nano_usd"] = month
        if budget.day_nano_usd is not None and day is not None:
            changes["day_nano_usd"] = day
        budget = budget.model_copy(update=changes)
    version = override.budget_version(base.budget_version, now_ms)
    return base.model_copy(update={"budget": budget, "budget_version": version})


def next_change_ms(
    throttle: ManualThrottle | None, override: BudgetOverride | None, now_ms: int
) -> int:
    """When a begin or an end comes next; 0 for never."""
    times = [
        each for item in (throttle, override) if item for each in (item.since_ms, item.until_ms)
    ]
    return min((each for each in times if each > now_ms), default=0)


def manual_restriction(
    throttle: ManualThrottle, policy: ScopePolicy | None, breaker: BreakerPolicy, stamp: Stamp
) -> ThrottleCommand:
    """The command that a manual throttle alone would be.

    A block stays for its whole time even if the controller dies; a lesser throttle fails open.
    """
    blocks = throttle.admit_percent == 0
    state = BreakerState.OPEN if blocks else BreakerState.THROTTLED
    limits = ThrottleLimits()
    if policy is not None and not blocks:
        limits = reduced(policy, throttle.admit_percent)
    unlimited = limits.requests_per_minute is None and limits.tokens_per_minute is None
    effect = "requests are refused" if blocks else f"limits are at {throttle.admit_percent} %"
    lease_end_ms = stamp.now_ms + lease_ms(breaker, state)
    return ThrottleCommand(
        scope=throttle.scope,
        epoch=stamp.epoch,
        seq=stamp.seq,
        state=state,
        mode=throttle.mode,
        admit_percent=throttle.admit_percent if unlimited else 100,
        limits=limits,
        fallback_model=policy.fallback_model if policy is not None else "",
        reason=f"set by {throttle.author}: {throttle.reason}: {effect}",
        reason_code=MANUAL,
        http_status=429,
        issued_at_ms=stamp.now_ms,
        expires_at_ms=min(lease_end_ms, throttle.until_ms + EXPIRY_SLACK_MS),
        reset_at_ms=throttle.until_ms,
        on_expiry=OnExpiry.HOLD if blocks else OnExpiry.RELEASE,
    )


def combined(rules: ThrottleCommand | None, manual: ThrottleCommand) -> ThrottleCommand:
    """One command out of two: the most restrictive wins, part by part."""
    if rules is None:
        return manual
    if BreakerState.OPEN in {rules.state, manual.state}:
        # Of two blocks the one that lasts longer; the other is considered again when it ends.
        return max(rules, manual, key=lambda each: (level(each.state), each.reset_at_ms))
    stricter, milder = (
        (rules, manual) if level(rules.state) > level(manual.state) else (manual, rules)
    )
    limits = ThrottleLimits(
        requests_per_minute=_least(
            rules.limits.requests_per_minute, manual.limits.requests_per_minute
        ),
        tokens_per_minute=_least(rules.limits.tokens_per_minute, manual.limits.tokens_per_minute),
        burst_requests=_least(rules.limits.burst_requests, manual.limits.burst_requests),
    )
    return stricter.model_copy(
        update={
            "limits": limits,
            "admit_percent": min(rules.admit_percent, manual.admit_percent),
            "reason": f"{stricter.reason}; {milder.reason}",
            "expires_at_ms": min(rules.expires_at_ms, manual.expires_at_ms),
        }
    )


def _least(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)
