"""The gate: decides in process, in microseconds, whether a request may go out.

Policies and throttle commands are applied by `relay.subscriber`. The gate works in memory, under a
lock, and its callers pass the time. A request has up to five scopes (organisation, department,
project, user, key); the most restrictive of them wins:

    permanent rejection   disabled, model not allowed, breaker open
    retryable rejection   a rate is used up (requests, tokens, money), or the scope's share is
                          reduced: reject, queue or redirect, as the scope's mode says
    admitted
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from meterline.relay.core.bucket import Bucket, all_have_one
from meterline.relay.core.effective_limits import EffectiveLimits, Phase, lease_ended
from meterline.relay.core.gate_scope import GateScope
from meterline.relay.decision import Admission, GateDecision, GateReason, GateRequest
from meterline.relay.settings import GateSettings
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.scopes import ScopeError, parse_scope, scopes_of
from meterline.schemas.throttle import Applied, ThrottleCommand, ThrottleMode

__all__ = ["Admission", "Gate", "GateDecision", "GateReason", "GateRequest"]

# The Retry-After of a rejection without a better one.
RETRY_SECONDS_DEFAULT = 1
# One plan per caller and model in use, about 500 bytes each; beyond it all are made again, which
# costs 10 us per caller once.
PLANS_MAX = 32_768


_ADMITTED = GateDecision(Admission.ADMIT, GateReason.ADMITTED)
_INVALID = GateDecision(
    Admission.REJECT, GateReason.INVALID_REQUEST, http_status=400, should_retry=False
)
_RANK = {ThrottleMode.REDIRECT: 0, ThrottleMode.QUEUE: 1, ThrottleMode.REJECT: 2}


class _Plan(msgspec.Struct, frozen=True, gc=False):
    """What is to be checked of one caller and model, prepared: a decision only walks it."""

    scopes: tuple[str, ...]
    involved: tuple[GateScope, ...]
    """The scopes that have a policy or a command."""
    forbidden: bool
    """Disabled, or the model is not allowed: no bucket is checked."""
    watched: tuple[GateScope, ...]
    buckets: tuple[Bucket, ...]
    requests: tuple[Bucket, ...]
    """Those of `buckets` that one admitted request is taken from."""


class Gate:
    """Thread-safe; one per process."""

    def __init__(self, settings: GateSettings | None = None) -> None:
        """Initialise an empty gate: `ready` is False."""
        self._settings = settings if settings is not None else GateSettings()
        self._scopes: dict[str, GateScope] = {}
        self._plans: dict[GateRequest, _Plan] = {}
        # Held for the few microseconds of a decision that changes buckets.
        self._lock = threading.Lock()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether policies and commands were read to their end once."""
        return self._ready

    def set_ready(self) -> None:
        """Policies and commands were read to their end; stays so when the broker is away."""
        self._ready = True

    def decide(self, request: GateRequest, now_ms: int) -> GateDecision:
        """Decide one request, and count it if it is admitted.

        Args:
            request: who asks for what.
            now_ms: the relay's time, UTC ms.
        """
        plan = self._plans.get(request) or self._make_plan(request)
        if plan is None:
            return _INVALID
        if not self._ready and (closed := self._closed(plan)):
            return _not_ready(closed)
        if not plan.involved:
            return _ADMITTED
        with self._lock:
            for each in plan.watched:
                if now_ms >= each.limits.until_ms:
                    plan = self._end_leases(plan, request, now_ms)
                    break
            return _decide(plan, request.model, now_ms)

    def settle(
        self, request: GateRequest, tokens: int, now_ms: int, cost_nano_usd: int = 0
    ) -> None:
        """Charge what an admitted request used, after its response.

        Between decision and settlement any number of requests may be in flight: a bucket that is
        positive admits them all, and pays the debt off before it admits again.

        Args:
            request: as decided.
            tokens: input and output together.
            now_ms: the relay's time, UTC ms.
            cost_nano_usd: what the relay believes it costs; only for money limits.
        """
        plan = self._plans.get(request) or self._make_plan(request)
        if plan is None or not plan.buckets:
            return
        with self._lock:
            for each in plan.involved:
                if each.tokens is not None:
                    each.tokens.charge(tokens, now_ms)
                if each.spend is not None:
                    each.spend.charge(cost_nano_usd, now_ms)

    def apply(self, command: ThrottleCommand, now_ms: int) -> Applied:
        """Apply a command if it is newer than the one in force.

        An expired one is applied as well, with what its lease leaves behind: otherwise a relay
        that restarts while the controller is dead would forget a block.

        Returns:
            ACCEPTED, STALE (version not greater), EXPIRED (lease over when it came), or MALFORMED
            (its scope is none).
        """
        try:
            parse_scope(command.scope)
        except ScopeError:
            return Applied.MALFORMED
        with self._lock:
            state = self._state_of(command.scope)
            if command.version <= state.version:
                return Applied.STALE
            state.version = command.version
            state.command = command
            self._refresh(state, now_ms)
        return Applied.EXPIRED if lease_ended(command, now_ms) else Applied.ACCEPTED

    def release(self, scope: str, now_ms: int) -> None:
        """The command was deleted (a tombstone): back to policy; older commands stay stale."""
        with self._lock:
            if scope in self._scopes:
                self._scopes[scope].command = None
                self._refresh(self._scopes[scope], now_ms)

    def apply_policy(self, policy: ScopePolicy, now_ms: int) -> None:
        """Put a scope's policy in place of the one before; ScopeError if its scope is none."""
        parse_scope(policy.scope)
        with self._lock:
            state = self._state_of(policy.scope)
            state.policy = policy
            self._refresh(state, now_ms)

    def remove_policy(self, scope: str, now_ms: int) -> None:
        """The policy was deleted; a command for the scope stays in force."""
        with self._lock:
            if scope in self._scopes:
                self._scopes[scope].policy = None
                self._refresh(self._scopes[scope], now_ms)

    def version(self, scope: str) -> tuple[int, int]:
        """(epoch, seq) of the newest command for a scope; (-1, -1) if there was none."""
        found = self._scopes.get(scope)
        return found.version if found is not None else (-1, -1)

    def commands(self) -> tuple[ThrottleCommand, ...]:
        """The newest command of every scope that has one."""
        with self._lock:
            return tuple(each.command for each in self._scopes.values() if each.command is not None)

    def effective_limits(self) -> dict[str, EffectiveLimits]:
        """The limits last derived for every known scope, for status pages."""
        with self._lock:
            return {scope: each.limits for scope, each in self._scopes.items()}

    def _state_of(self, scope: str) -> GateScope:
        found = self._scopes.get(scope)
        if found is None:
            found = self._scopes[scope] = GateScope(scope)
            # Plans that were made without it may need it.
            self._plans = {}
        return found

    def _refresh(self, state: GateScope, now_ms: int) -> None:
        """A renewed lease changes no plan; another kind of restriction changes them."""
        if state.refresh(now_ms, self._settings.relays):
            self._plans = {}

    def _make_plan(self, request: GateRequest) -> _Plan | None:
        try:
            scopes = scopes_of(
                request.organisation,
                request.department,
                request.project,
                request.user,
                request.key,
            )
        except ScopeError:
            return None
        with self._lock:
            return self._build_plan(request, scopes)

    def _build_plan(self, request: GateRequest, scopes: tuple[str, ...]) -> _Plan:
        known = self._scopes
        involved = tuple(known[scope] for scope in scopes if scope in known)
        plan = _Plan(
            scopes,
            involved,
            any(
                each.permanent_reason(request.model) not in {None, GateReason.BLOCKED}
                for each in involved
            ),
            tuple(each for each in involved if each.watched()),
            tuple(bucket for each in involved for bucket in each.buckets()),
            tuple(each.requests for each in involved if each.requests is not None),
        )
        if len(self._plans) >= PLANS_MAX:
            self._plans = {}
        self._plans[request] = plan
        return plan

    def _end_leases(self, plan: _Plan, request: GateRequest, now_ms: int) -> _Plan:
        """Let ended leases leave what they leave."""
        for each in plan.watched:
            if now_ms >= each.limits.until_ms:
                self._refresh(each, now_ms)
        return self._build_plan(request, plan.scopes)

    def _closed(self, plan: _Plan) -> str:
        """While not ready: the scope that fails closed, or nothing."""
        policies = [each.policy for each in plan.involved if each.policy is not None]
        if not policies:
            return "" if self._settings.fail_open else plan.scopes[0]
        return next((policy.scope for policy in policies if not policy.fail_open), "")


def _decide(plan: _Plan, model: str, now_ms: int) -> GateDecision:
    least: GateScope | None = None
    if plan.watched:
        # Nested shares do not multiply: only the smallest is drawn from.
        least = min(plan.watched, key=_admit_percent) if len(plan.watched) > 1 else plan.watched[0]
    # A blocked scope's share is the least of all.
    if plan.forbidden or (least is not None and least.limits.phase is Phase.BLOCKED):
        return _permanent_rejection(plan, model, now_ms)
    if not all_have_one(plan.buckets, now_ms):
        return _retryable_rejection(plan, model, now_ms)
    if least is not None and not least.in_share():
        reason = GateReason.REDUCED_SHARE
        return _retryable(least, reason, RETRY_SECONDS_DEFAULT, model, plan.involved)
    for bucket in plan.requests:
        bucket.take_one()
    return _ADMITTED


def _admit_percent(each: GateScope) -> int:
    return each.limits.admit_percent


def _permanent_rejection(plan: _Plan, model: str, now_ms: int) -> GateDecision:
    if len(plan.watched) == 1 and not plan.forbidden:
        # The common case, and the one that a runaway client hammers.
        return _permanent(plan.watched[0], GateReason.BLOCKED, now_ms)
    refusals = [
        _permanent(each, reason, now_ms)
        for each in plan.involved
        if (reason := each.permanent_reason(model)) is not None
    ]
    # The one that lasts longest: what it says about waiting holds for the others too.
    return refusals[0] if len(refusals) == 1 else max(refusals, key=_lasting)


def _retryable_rejection(plan: _Plan, model: str, now_ms: int) -> GateDecision:
    refusals = [
        (_RANK[each.limits.mode], *wait, each)
        for each in plan.involved
        if (wait := each.retryable_reason(now_ms)) is not None
    ]
    _, wait_ms, reason, each = max(refusals, key=_strictness)
    return _retryable(each, reason, -(-wait_ms // 1000), model, plan.involved)


def _strictness(refusal: tuple[int, int, GateReason, GateScope]) -> tuple[int, int]:
    return refusal[:2]


def _lasting(decision: GateDecision) -> tuple[bool, int]:
    """No Retry-After at all lasts longest."""
    return not decision.retry_after_seconds, decision.retry_after_seconds


def _not_ready(scope: str) -> GateDecision:
    return GateDecision(
        Admission.REJECT,
        GateReason.NOT_READY,
        scope=scope,
        http_status=503,
        retry_after_seconds=RETRY_SECONDS_DEFAULT,
    )


def _permanent(each: GateScope, reason: GateReason, now_ms: int) -> GateDecision:
    limits = each.limits
    if reason is not GateReason.BLOCKED:
        return GateDecision(
            Admission.REJECT,
            reason,
            scope=each.scope,
            rule=limits.rule,
            http_status=403,
            should_retry=False,
        )
    # Without a known end the lease's end is the next time the answer can change.
    ends_ms = limits.reset_at_ms if limits.reset_at_ms > now_ms else limits.until_ms
    return GateDecision(
        Admission.REJECT,
        reason,
        scope=each.scope,
        rule=limits.rule,
        http_status=limits.http_status,
        retry_after_seconds=max(1, -(-(ends_ms - now_ms) // 1000)),
        should_retry=False,
        reset_at_ms=limits.reset_at_ms,
    )


def _retryable(
    each: GateScope,
    reason: GateReason,
    retry_seconds: int,
    model: str,
    involved: Sequence[GateScope],
) -> GateDecision:
    limits = each.limits
    fallback = limits.fallback_model
    if limits.mode is ThrottleMode.REDIRECT and _may_redirect(fallback, model, involved):
        return GateDecision(
            Admission.REDIRECT,
            reason,
            scope=each.scope,
            rule=limits.rule,
            fallback_model=fallback,
            reset_at_ms=limits.reset_at_ms,
        )
    queue = limits.mode is ThrottleMode.QUEUE
    return GateDecision(
        Admission.QUEUE if queue else Admission.REJECT,
        reason,
        scope=each.scope,
        rule=limits.rule,
        http_status=429,
        retry_after_seconds=max(1, retry_seconds),
        reset_at_ms=limits.reset_at_ms,
    )


def _may_redirect(fallback: str, model: str, involved: Sequence[GateScope]) -> bool:
    """A request for the fallback model itself has nowhere cheaper to go."""
    return fallback not in {"", model} and all(
        each.limits.allowed_models is None or fallback in each.limits.allowed_models
        for each in involved
    )
