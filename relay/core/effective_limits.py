"""The effective limits of one scope: a pure function of its policy, its command and the time.

A command is in force while its lease runs; what it leaves behind afterwards is its `on_expiry`.
The same command read again after a restart therefore gives the same limits.

               apply                    lease ends                        the cause ends
    NORMAL ────────────► REDUCED or ────────────────► RELEASE: NORMAL
                         BLOCKED                      DEGRADE: DEGRADED ────────────► NORMAL
                                                      HOLD: unchanged, ≤ 24 h ──────► NORMAL

Clocks: `expires_at_ms` is the controller's time, `now_ms` the relay's. They may differ by
CLOCK_SKEW_MS: a lease counts as ended only that much later. A relay whose clock is ahead thus does
not end live leases; the price is that a dead controller's lease lasts up to 30 s longer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.policy import Limits, ScopePolicy
from meterline.schemas.throttle import (
    HOLD_MS_MAX,
    BreakerState,
    OnExpiry,
    ThrottleCommand,
    ThrottleLimits,
    ThrottleMode,
)

CLOCK_SKEW_MS = 30_000
NEVER_MS = 2**62
PERCENT = 100
# Below every share that a command can name, so that blocked beats a share of zero.
BLOCKED_PERCENT = -1
POLICY_RULE = "policy"


class Phase(StrEnum):
    """How far a scope is restricted."""

    NORMAL = "normal"
    REDUCED = "reduced"
    DEGRADED = "degraded"
    BLOCKED = "blocked"


class EffectiveLimits(NamedTuple):
    """Everything the gate checks of one scope; None means no limit."""

    phase: Phase
    until_ms: int
    """Derive the limits again from this time on."""
    disabled: bool
    allowed_models: frozenset[str] | None
    requests_per_minute: int | None
    burst_requests: int
    tokens_per_minute: int | None
    nano_usd_per_minute: int | None
    nano_usd_per_hour: int | None
    admit_percent: int
    """Share of requests admitted; BLOCKED_PERCENT when blocked."""
    mode: ThrottleMode
    fallback_model: str
    rule: str
    http_status: int
    reset_at_ms: int


def lease_ended(command: ThrottleCommand, now_ms: int) -> bool:
    """Whether a command's lease is over, clock skew allowed for."""
    return now_ms >= command.expires_at_ms + CLOCK_SKEW_MS


def effective_limits_of(
    policy: ScopePolicy | None, command: ThrottleCommand | None, now_ms: int, relays: int = 1
) -> EffectiveLimits:
    """Derive a scope's effective limits.

    Args:
        policy: the scope's policy, if it has one.
        command: the newest command for it, in force or not.
        now_ms: the relay's time.
        relays: relay processes that share each absolute limit evenly.
    """
    base = _base(policy, relays)
    if command is None or command.state is BreakerState.CLOSED:
        return base
    if not lease_ended(command, now_ms):
        until_ms = command.expires_at_ms + CLOCK_SKEW_MS
        return _in_force(base, command, until_ms, relays)
    match command.on_expiry:
        case OnExpiry.RELEASE:
            return base
        case OnExpiry.HOLD:
            until_ms = command.expires_at_ms + HOLD_MS_MAX
            if command.reset_at_ms:
                # Its author said when it ends, which no controller has to be alive for.
                until_ms = min(until_ms, command.reset_at_ms)
            return _in_force(base, command, until_ms, relays) if now_ms < until_ms else base
        case OnExpiry.DEGRADE:
            # Until the budget's period ends, which no controller has to be alive for.
            until_ms = max(command.reset_at_ms, 0) or command.expires_at_ms + HOLD_MS_MAX
            return _degraded(base, command, until_ms, relays) if now_ms < until_ms else base


def _base(policy: ScopePolicy | None, relays: int) -> EffectiveLimits:
    limits = policy.limits if policy is not None else Limits()
    models = limits.allowed_models
    requests = limits.requests_per_minute
    return EffectiveLimits(
        phase=Phase.NORMAL,
        until_ms=NEVER_MS,
        disabled=policy is not None and policy.disabled,
        allowed_models=None if models is None else frozenset(models),
        requests_per_minute=_share(requests, relays),
        burst_requests=_burst(_share(requests, relays), _share(limits.burst_requests, relays)),
        tokens_per_minute=_share(limits.tokens_per_minute, relays),
        nano_usd_per_minute=None,
        nano_usd_per_hour=None,
        admit_percent=PERCENT,
        mode=policy.throttle_mode if policy is not None else ThrottleMode.REJECT,
        fallback_model=policy.fallback_model if policy is not None else "",
        rule=POLICY_RULE,
        http_status=429,
        reset_at_ms=0,
    )


def _in_force(
    base: EffectiveLimits, command: ThrottleCommand, until_ms: int, relays: int
) -> EffectiveLimits:
    if command.state is BreakerState.OPEN:
        return base._replace(
            phase=Phase.BLOCKED,
            until_ms=until_ms,
            admit_percent=BLOCKED_PERCENT,
            rule=command.reason_code,
            http_status=command.http_status,
            reset_at_ms=command.reset_at_ms,
        )
    limits = command.limits
    requests = _least(base.requests_per_minute, _share(limits.requests_per_minute, relays))
    burst = _share(limits.burst_requests, relays)
    if burst is None and requests == base.requests_per_minute:
        burst = base.burst_requests
    return base._replace(
        phase=Phase.REDUCED,
        until_ms=until_ms,
        requests_per_minute=requests,
        burst_requests=_burst(requests, burst),
        tokens_per_minute=_least(base.tokens_per_minute, _share(limits.tokens_per_minute, relays)),
        nano_usd_per_minute=_share(limits.nano_usd_per_minute, relays),
        # A share of requests is what is left to reduce where no rate was named.
        admit_percent=PERCENT if _names_a_rate(limits) else command.admit_percent,
        mode=command.mode,
        fallback_model=command.fallback_model or base.fallback_model,
        rule=command.reason_code,
        reset_at_ms=command.reset_at_ms,
    )


def _degraded(
    base: EffectiveLimits, command: ThrottleCommand, until_ms: int, relays: int
) -> EffectiveLimits:
    percent = command.degrade_percent
    requests = _part(base.requests_per_minute, percent)
    tokens = _part(base.tokens_per_minute, percent)
    limited = requests is not None or tokens is not None
    return base._replace(
        phase=Phase.DEGRADED,
        until_ms=until_ms,
        requests_per_minute=requests,
        burst_requests=_burst(requests, None),
        tokens_per_minute=tokens,
        nano_usd_per_hour=_share(command.degrade_nano_usd_per_hour or None, relays),
        admit_percent=PERCENT if limited else percent,
        rule=command.reason_code,
        reset_at_ms=command.reset_at_ms,
    )


def _names_a_rate(limits: ThrottleLimits) -> bool:
    return (
        limits.requests_per_minute is not None
        or limits.tokens_per_minute is not None
        or limits.nano_usd_per_minute is not None
    )


def _share(limit: int | None, relays: int) -> int | None:
    """This relay's part of a limit; a limit above zero never becomes none at all."""
    return limit if not limit else max(1, limit // relays)


def _part(limit: int | None, percent: int) -> int | None:
    if not limit or not percent:
        return None if limit is None else 0
    return max(1, limit * percent // PERCENT)


def _least(left: int | None, right: int | None) -> int | None:
    """The more restrictive of two limits."""
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _burst(requests_per_minute: int | None, burst: int | None) -> int:
    """What the bucket holds: as named, else a tenth of a minute's requests, at least one."""
    if not requests_per_minute:
        return 0
    if burst is not None:
        return min(burst, requests_per_minute)
    return max(1, requests_per_minute // 10)
