"""One scope in the gate: its policy and command, the limits in effect, and what it has used."""

from __future__ import annotations

from collections.abc import Iterator

from meterline.relay.core.bucket import HOUR_MS, MINUTE_MS, Bucket
from meterline.relay.core.effective_limits import (
    NEVER_MS,
    PERCENT,
    EffectiveLimits,
    Phase,
    effective_limits_of,
)
from meterline.relay.decision import GateReason
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.throttle import ThrottleCommand


class GateScope:
    """Policy, command, the effective limits that follow from both, and their buckets.

    Not thread-safe: the gate's lock is held around every call.
    """

    __slots__ = ("command", "limits", "policy", "requests", "scope", "spend", "spread", "tokens", "version")  # fmt: skip

    def __init__(self, scope: str) -> None:
        """Neither policy nor command is known yet."""
        self.scope = scope
        self.policy: ScopePolicy | None = None
        self.command: ThrottleCommand | None = None
        self.version = (-1, -1)
        self.limits: EffectiveLimits = effective_limits_of(None, None, 0)
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.spend: Bucket | None = None
        self.spread = 0  # error diffusion: hundredths of a request that are due

    def refresh(self, now_ms: int, relays: int) -> bool:
        """Derive the limits again and apply them to the buckets; whether plans must be remade."""
        before = self._shape()
        limits = effective_limits_of(self.policy, self.command, now_ms, relays)
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        self.requests = _shaped(self.requests, requests, limits.burst_requests, MINUTE_MS, now_ms)
        self.tokens = _shaped(self.tokens, tokens, tokens or 0, MINUTE_MS, now_ms)
        spend, period_ms = limits.nano_usd_per_minute, MINUTE_MS
        if limits.nano_usd_per_hour is not None:
            spend, period_ms = limits.nano_usd_per_hour, HOUR_MS
        self.spend = _shaped(self.spend, spend, spend or 0, period_ms, now_ms)
        if limits.admit_percent != self.limits.admit_percent:
            self.spread = 0
        self.limits = limits
        return self._shape() != before

    def watched(self) -> bool:
        """Whether there is more to check than the buckets."""
        return self.limits.phase is not Phase.NORMAL or self.limits.until_ms != NEVER_MS

    def buckets(self) -> Iterator[Bucket]:
        """The buckets of its rates; none for a rate without a limit."""
        for bucket in (self.requests, self.tokens, self.spend):
            if bucket is not None:
                yield bucket

    def permanent_reason(self, model: str) -> GateReason | None:
        """Why the scope rejects a request permanently: a reason that waiting a moment does not remove."""
        limits = self.limits
        if limits.disabled:
            return GateReason.DISABLED
        if limits.phase is Phase.BLOCKED:
            return GateReason.BLOCKED
        if limits.allowed_models is not None and model not in limits.allowed_models:
            return GateReason.MODEL_NOT_ALLOWED
        return None

    def retryable_reason(self, now_ms: int) -> tuple[int, GateReason] | None:
        """Why the scope rejects a request that may be retried: the wait in ms and the rate used up."""
        waits = []
        if self.requests is not None:
            waits.append((self.requests.wait_ms(now_ms), GateReason.REQUEST_RATE))
        # Tokens and money are known after the response: one unit left is enough to go out.
        if self.tokens is not None:
            waits.append((self.tokens.wait_ms(now_ms), GateReason.TOKEN_RATE))
        if self.spend is not None:
            waits.append((self.spend.wait_ms(now_ms), GateReason.SPEND_RATE))
        if not waits:
            return None
        longest = max(waits)
        return longest if longest[0] else None

    def in_share(self) -> bool:
        """Whether this request is among the admitted share: exactly floor(n * share) of n are."""
        self.spread += self.limits.admit_percent
        if self.spread < PERCENT:
            return False
        self.spread -= PERCENT
        return True

    def _shape(self) -> tuple[object, ...]:
        """What plans are made of."""
        limits = self.limits
        return (
            limits.disabled,
            limits.allowed_models,
            self.watched(),
            self.requests,
            self.tokens,
            self.spend,
        )


def _shaped(
    bucket: Bucket | None, amount: int | None, burst: int, period_ms: int, now_ms: int
) -> Bucket | None:
    if amount is None:
        return None
    if bucket is None or bucket.period_ms != period_ms:
        return Bucket(amount, burst, period_ms, now_ms)
    bucket.reshape(amount, burst, now_ms)
    return bucket
