"""The gate: decides in process, in microseconds, whether a request may go out.

It knows policies and throttle commands only from what it was given (`relay.subscriber` gives);
it does no I/O and reads no clock. A request has up to five scopes (organisation, department,
project, user, key); the most restrictive of them wins:

    refused for good     disabled, model not allowed, breaker open
    refused for now      a rate is used up (requests, tokens, money), or the scope's share is
                         reduced: reject, queue or redirect, as the scope's mode says
    admitted
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from relay.bucket import HOUR_MS, MINUTE_MS, Bucket
from relay.settings import GateSettings
from relay.stance import FOR_EVER_MS, PERCENT, Phase, Stance, lease_ended, stance_of
from schemas.policy import ScopePolicy
from schemas.scopes import ScopeError, parse_scope, scopes_of
from schemas.throttle import Applied, ThrottleCommand, ThrottleMode

# What a client is told to wait when nothing better is known.
RETRY_SECONDS_DEFAULT = 1
# One plan per caller and model in use, about 500 bytes each; beyond it all are made anew, which
# costs 10 us per caller once.
PLANS_MAX = 32_768


class Admission(StrEnum):
    """What the relay is to do with the request."""

    ADMIT = "admit"
    REJECT = "reject"
    QUEUE = "queue"
    """Hold it and decide again after `retry_after_seconds`, or reject it if there is no room."""
    REDIRECT = "redirect"
    """Send it to `fallback_model` instead; this is its admission, it is not decided again."""


class GateReason(StrEnum):
    """Why."""

    ADMITTED = "admitted"
    INVALID_REQUEST = "invalid_request"
    """An organisation, department, project, user or key that cannot stand in a scope."""
    NOT_READY = "not_ready"
    """The commands are not read to their end, and policy says to fail closed."""
    DISABLED = "disabled"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    BLOCKED = "blocked"
    """The breaker is open; `rule` says why."""
    REQUEST_RATE = "request_rate"
    TOKEN_RATE = "token_rate"  # noqa: S105 - no password
    SPEND_RATE = "spend_rate"
    REDUCED_SHARE = "reduced_share"
    """Only a share of the scope's requests is admitted, and this is not one of them."""


class GateRequest(NamedTuple):
    """Who asks for which model; empty means none."""

    organisation: str
    key: str
    model: str
    department: str = ""
    project: str = ""
    user: str = ""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The gate's answer."""

    admission: Admission
    reason: GateReason
    scope: str = ""
    """The scope that decided; empty when admitted."""
    rule: str = ""
    """`policy`, or the reason code of the throttle command."""
    http_status: int = 0
    """For a rejection, and for a queued request that cannot be queued; 0 otherwise."""
    retry_after_seconds: int = 0
    """0: nothing is known, or waiting does not help."""
    should_retry: bool = True
    fallback_model: str = ""
    reset_at_ms: int = 0
    """When the cause ends by itself; 0 when it does not or nobody knows."""

    @property
    def message(self) -> str:
        """One sentence for the caller; it names no amounts."""
        return _SENTENCES[self.reason].format(scope=self.scope)


_SENTENCES = {
    GateReason.ADMITTED: "admitted",
    GateReason.INVALID_REQUEST: "organisation, department, project, user or key is not valid",
    GateReason.NOT_READY: "{scope}: limits are not known yet, try again shortly",
    GateReason.DISABLED: "{scope} is disabled",
    GateReason.MODEL_NOT_ALLOWED: "{scope} may not use this model",
    GateReason.BLOCKED: "{scope} is blocked until its budget or limit allows more",
    GateReason.REQUEST_RATE: "{scope} has reached its rate of requests",
    GateReason.TOKEN_RATE: "{scope} has reached its rate of tokens",
    GateReason.SPEND_RATE: "{scope} has reached its rate of spend",
    GateReason.REDUCED_SHARE: "{scope} is throttled",
}
_ADMITTED = Decision(Admission.ADMIT, GateReason.ADMITTED)
_INVALID = Decision(
    Admission.REJECT, GateReason.INVALID_REQUEST, http_status=400, should_retry=False
)
_RANK = {ThrottleMode.REDIRECT: 0, ThrottleMode.QUEUE: 1, ThrottleMode.REJECT: 2}


class _ScopeGate:
    """One scope: what was said about it, what follows for now, and what it has used."""

    __slots__ = ("command", "policy", "requests", "scope", "spend", "spread", "stance", "tokens", "version")  # fmt: skip

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.policy: ScopePolicy | None = None
        self.command: ThrottleCommand | None = None
        self.version = (-1, -1)
        self.stance: Stance = stance_of(None, None, 0)
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.spend: Bucket | None = None
        self.spread = 0  # error diffusion: hundredths of a request that are due

    def refresh(self, now_ms: int, relays: int) -> bool:
        """Derive the stance anew and give the buckets its limits; whether plans must be remade."""
        before = self._shape()
        stance = stance_of(self.policy, self.command, now_ms, relays)
        requests, tokens = stance.requests_per_minute, stance.tokens_per_minute
        self.requests = _shaped(self.requests, requests, stance.burst_requests, MINUTE_MS, now_ms)
        self.tokens = _shaped(self.tokens, tokens, tokens or 0, MINUTE_MS, now_ms)
        spend, period_ms = stance.nano_usd_per_minute, MINUTE_MS
        if stance.nano_usd_per_hour is not None:
            spend, period_ms = stance.nano_usd_per_hour, HOUR_MS
        self.spend = _shaped(self.spend, spend, spend or 0, period_ms, now_ms)
        if stance.admit_percent != self.stance.admit_percent:
            self.spread = 0
        self.stance = stance
        return self._shape() != before

    def watched(self) -> bool:
        """Whether there is more to ask than the buckets."""
        return self.stance.phase is not Phase.NORMAL or self.stance.until_ms != FOR_EVER_MS

    def buckets(self) -> Iterator[Bucket]:
        """Its limits' buckets."""
        for bucket in (self.requests, self.tokens, self.spend):
            if bucket is not None:
                yield bucket

    def refused_for_good(self, model: str) -> GateReason | None:
        """A reason that waiting a moment does not remove."""
        stance = self.stance
        if stance.disabled:
            return GateReason.DISABLED
        if stance.phase is Phase.BLOCKED:
            return GateReason.BLOCKED
        if stance.allowed_models is not None and model not in stance.allowed_models:
            return GateReason.MODEL_NOT_ALLOWED
        return None

    def refused_for_now(self, now_ms: int) -> tuple[int, GateReason] | None:
        """Which rate is used up, and for how many ms."""
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
        self.spread += self.stance.admit_percent
        if self.spread < PERCENT:
            return False
        self.spread -= PERCENT
        return True

    def _shape(self) -> tuple[object, ...]:
        """What plans are made of."""
        stance = self.stance
        return (
            stance.disabled,
            stance.allowed_models,
            self.watched(),
            self.requests,
            self.tokens,
            self.spend,
        )


class _Plan(msgspec.Struct, frozen=True, gc=False):
    """What there is to ask about one caller and model, prepared: a decision only walks it."""

    scopes: tuple[str, ...]
    involved: tuple[_ScopeGate, ...]
    """The scopes something was said about."""
    forbidden: bool
    """Disabled, or the model is not allowed: no bucket is asked."""
    watched: tuple[_ScopeGate, ...]
    buckets: tuple[Bucket, ...]
    requests: tuple[Bucket, ...]
    """Those of `buckets` that one admitted request is taken from."""


class Gate:
    """Thread-safe; one per process."""

    def __init__(self, settings: GateSettings | None = None) -> None:
        """Know nothing yet: `ready` is False."""
        self._settings = settings if settings is not None else GateSettings()
        self._scopes: dict[str, _ScopeGate] = {}
        self._plans: dict[GateRequest, _Plan] = {}
        # Held for the few microseconds of a decision that changes buckets.
        self._lock = threading.Lock()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether policies and commands were read to their end once."""
        return self._ready

    def set_ready(self) -> None:
        """Everything said so far is known; it stays so when the broker goes away."""
        self._ready = True

    def decide(self, request: GateRequest, now_ms: int) -> Decision:
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
                if now_ms >= each.stance.until_ms:
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
        """Take a command over if it is newer than the one in force.

        An expired one is taken over as well, with what its lease leaves behind: otherwise a relay
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
            scope_gate = self._scope_gate(command.scope)
            if command.version <= scope_gate.version:
                return Applied.STALE
            scope_gate.version = command.version
            scope_gate.command = command
            self._refresh(scope_gate, now_ms)
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
            scope_gate = self._scope_gate(policy.scope)
            scope_gate.policy = policy
            self._refresh(scope_gate, now_ms)

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

    def stances(self) -> dict[str, Stance]:
        """What was last derived for every known scope, for status pages."""
        with self._lock:
            return {scope: each.stance for scope, each in self._scopes.items()}

    def _scope_gate(self, scope: str) -> _ScopeGate:
        found = self._scopes.get(scope)
        if found is None:
            found = self._scopes[scope] = _ScopeGate(scope)
            # Plans that were made without it may need it.
            self._plans = {}
        return found

    def _refresh(self, scope_gate: _ScopeGate, now_ms: int) -> None:
        """A renewed lease changes no plan; another kind of restriction changes them."""
        if scope_gate.refresh(now_ms, self._settings.relays):
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
                each.refused_for_good(request.model) not in {None, GateReason.BLOCKED}
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
            if now_ms >= each.stance.until_ms:
                self._refresh(each, now_ms)
        return self._build_plan(request, plan.scopes)

    def _closed(self, plan: _Plan) -> str:
        """While not ready: the scope that fails closed, or nothing."""
        policies = [each.policy for each in plan.involved if each.policy is not None]
        if not policies:
            return "" if self._settings.fail_open else plan.scopes[0]
        return next((policy.scope for policy in policies if not policy.fail_open), "")


def _decide(plan: _Plan, model: str, now_ms: int) -> Decision:
    least: _ScopeGate | None = None
    if plan.watched:
        # Nested shares do not multiply: only the smallest is drawn from.
        least = min(plan.watched, key=_admit_percent) if len(plan.watched) > 1 else plan.watched[0]
    # A blocked scope's share is the least of all.
    if plan.forbidden or (least is not None and least.stance.phase is Phase.BLOCKED):
        return _refuse_for_good(plan, model, now_ms)
    for bucket in plan.buckets:
        if not bucket.has_one(now_ms):
            return _refuse_for_now(plan, model, now_ms)
    if least is not None and not least.in_share():
        reason = GateReason.REDUCED_SHARE
        return _for_now(least, reason, RETRY_SECONDS_DEFAULT, model, plan.involved)
    for bucket in plan.requests:
        bucket.take_one()
    return _ADMITTED


def _admit_percent(each: _ScopeGate) -> int:
    return each.stance.admit_percent


def _refuse_for_good(plan: _Plan, model: str, now_ms: int) -> Decision:
    if len(plan.watched) == 1 and not plan.forbidden:
        # The common case, and the one that a runaway client hammers.
        return _for_good(plan.watched[0], GateReason.BLOCKED, now_ms)
    refusals = [
        _for_good(each, reason, now_ms)
        for each in plan.involved
        if (reason := each.refused_for_good(model)) is not None
    ]
    # The one that lasts longest: what it says about waiting holds for the others too.
    return refusals[0] if len(refusals) == 1 else max(refusals, key=_lasting)


def _refuse_for_now(plan: _Plan, model: str, now_ms: int) -> Decision:
    refusals = [
        (_RANK[each.stance.mode], *wait, each)
        for each in plan.involved
        if (wait := each.refused_for_now(now_ms)) is not None
    ]
    _, wait_ms, reason, each = max(refusals, key=_strictness)
    return _for_now(each, reason, -(-wait_ms // 1000), model, plan.involved)


def _strictness(refusal: tuple[int, int, GateReason, _ScopeGate]) -> tuple[int, int]:
    return refusal[:2]


def _lasting(decision: Decision) -> tuple[bool, int]:
    """No Retry-After at all lasts longest."""
    return not decision.retry_after_seconds, decision.retry_after_seconds


def _shaped(
    bucket: Bucket | None, amount: int | None, burst: int, period_ms: int, now_ms: int
) -> Bucket | None:
    if amount is None:
        return None
    if bucket is None or bucket.period_ms != period_ms:
        return Bucket(amount, burst, period_ms, now_ms)
    bucket.reshape(amount, burst, now_ms)
    return bucket


def _not_ready(scope: str) -> Decision:
    return Decision(
        Admission.REJECT,
        GateReason.NOT_READY,
        scope=scope,
        http_status=503,
        retry_after_seconds=RETRY_SECONDS_DEFAULT,
    )


def _for_good(each: _ScopeGate, reason: GateReason, now_ms: int) -> Decision:
    stance = each.stance
    if reason is not GateReason.BLOCKED:
        return Decision(
            Admission.REJECT,
            reason,
            scope=each.scope,
            rule=stance.rule,
            http_status=403,
            should_retry=False,
        )
    # Without a known end the lease's end is the next time the answer can change.
    ends_ms = stance.reset_at_ms if stance.reset_at_ms > now_ms else stance.until_ms
    return Decision(
        Admission.REJECT,
        reason,
        scope=each.scope,
        rule=stance.rule,
        http_status=stance.http_status,
        retry_after_seconds=max(1, -(-(ends_ms - now_ms) // 1000)),
        should_retry=False,
        reset_at_ms=stance.reset_at_ms,
    )


def _for_now(
    each: _ScopeGate,
    reason: GateReason,
    retry_seconds: int,
    model: str,
    involved: Sequence[_ScopeGate],
) -> Decision:
    stance = each.stance
    fallback = stance.fallback_model
    if stance.mode is ThrottleMode.REDIRECT and _may_redirect(fallback, model, involved):
        return Decision(
            Admission.REDIRECT,
            reason,
            scope=each.scope,
            rule=stance.rule,
            fallback_model=fallback,
            reset_at_ms=stance.reset_at_ms,
        )
    queue = stance.mode is ThrottleMode.QUEUE
    return Decision(
        Admission.QUEUE if queue else Admission.REJECT,
        reason,
        scope=each.scope,
        rule=stance.rule,
        http_status=429,
        retry_after_seconds=max(1, retry_seconds),
        reset_at_ms=stance.reset_at_ms,
    )


def _may_redirect(fallback: str, model: str, involved: Sequence[_ScopeGate]) -> bool:
    """A request for the fallback model itself has nowhere cheaper to go."""
    return fallback not in {"", model} and all(
        each.stance.allowed_models is None or fallback in each.stance.allowed_models
        for each in involved
    )
