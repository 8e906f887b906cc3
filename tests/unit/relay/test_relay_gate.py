"""The gate's decisions, scope by scope and all together."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from meterline.relay.core.effective_limits import CLOCK_SKEW_MS, Phase, effective_limits_of
from meterline.relay.gate import Admission, Gate, GateDecision, GateReason, GateRequest
from meterline.relay.settings import GateSettings
from meterline.schemas.policy import Limits, ScopePolicy
from meterline.schemas.scopes import ScopeError
from meterline.schemas.throttle import (
    HOLD_MS_MAX,
    Applied,
    BreakerState,
    OnExpiry,
    ThrottleCommand,
    ThrottleLimits,
    ThrottleMode,
)

NOW = 1_763_700_000_000
LEASE = 180_000
REQUEST = GateRequest("acme", "k-1", "gpt-4.1", "research", "chatbot", "ana@acme.test")
OTHER = GateRequest("acme", "k-2", "gpt-4.1", "sales", "crm", "bob@acme.test")
SCOPES = [
    "organisation:acme",
    "department:acme/research",
    "project:acme/chatbot",
    "user:acme/ana@acme.test",
    "key:acme/k-1",
]
DEPARTMENT = SCOPES[1]


def command(
    state: BreakerState, seq: int = 1, scope: str = DEPARTMENT, **more: Any
) -> ThrottleCommand:
    fields: dict[str, Any] = {
        "scope": scope,
        "epoch": 1,
        "seq": seq,
        "state": state,
        "reason": "spent $12,345.67 of $10,000.00",
        "reason_code": "budget_exhausted",
        "issued_at_ms": NOW,
        "expires_at_ms": NOW + LEASE,
    }
    return ThrottleCommand(**{**fields, **more})


def policy(scope: str = DEPARTMENT, **limits: Any) -> ScopePolicy:
    return ScopePolicy(scope=scope, limits=Limits(**limits))


def ready_gate(*said: ThrottleCommand | ScopePolicy, relays: int = 1) -> Gate:
    gate = Gate(GateSettings(relays=relays))
    for each in said:
        if isinstance(each, ScopePolicy):
            gate.apply_policy(each, NOW)
        else:
            assert gate.apply(each, NOW) in {Applied.ACCEPTED, Applied.EXPIRED}
    gate.set_ready()
    return gate


def admitted(gate: Gate, count: int, now_ms: int = NOW, request: GateRequest = REQUEST) -> int:
    return sum(gate.decide(request, now_ms).admission is Admission.ADMIT for _ in range(count))


def test_nothing_said_admits() -> None:
    """Without policy and command a ready gate admits everything."""
    assert ready_gate().decide(REQUEST, NOW) == GateDecision(Admission.ADMIT, GateReason.ADMITTED)


@pytest.mark.parametrize("scope", SCOPES)
def test_each_scope_blocks(scope: str) -> None:
    """An open breaker on any of a request's five scopes refuses it, and only what is in the scope."""
    gate = ready_gate(command(BreakerState.OPEN, scope=scope, http_status=402))
    decision = gate.decide(REQUEST, NOW)
    assert (decision.admission, decision.reason) == (Admission.REJECT, GateReason.BLOCKED)
    assert (decision.scope, decision.http_status, decision.should_retry) == (scope, 402, False)
    assert decision.rule == "budget_exhausted"
    if scope != "organisation:acme":
        assert admitted(gate, 100, request=OTHER) == 100


def test_open_says_when_it_ends() -> None:
    """Retry-After of an exhausted budget is the time to the end of its period."""
    gate = ready_gate(command(BreakerState.OPEN, reset_at_ms=NOW + 90_500, http_status=429))
    decision = gate.decide(REQUEST, NOW)
    assert (decision.retry_after_seconds, decision.reset_at_ms) == (91, NOW + 90_500)


def test_open_without_reset_points_at_the_lease() -> None:
    """Where the end is not known, the lease's end is the next time the answer can change."""
    decision = ready_gate(command(BreakerState.OPEN)).decide(REQUEST, NOW)
    assert decision.retry_after_seconds == (LEASE + CLOCK_SKEW_MS) // 1000


@pytest.mark.parametrize("mode", list(ThrottleMode))
def test_open_rejects_in_every_mode(mode: ThrottleMode) -> None:
    """Neither a queue nor a cheaper model makes an exhausted budget larger."""
    gate = ready_gate(command(BreakerState.OPEN, mode=mode, fallback_model="small"))
    assert gate.decide(REQUEST, NOW).admission is Admission.REJECT


def test_closed_releases() -> None:
    """A closed command with a greater version takes the block away."""
    gate = ready_gate(command(BreakerState.OPEN), command(BreakerState.CLOSED, seq=2))
    assert admitted(gate, 10) == 10


@pytest.mark.parametrize("percent", [0, 1, 33, 50, 80, 99, 100])
def test_share_is_exact(percent: int) -> None:
    """Of n requests exactly floor(n * share) are admitted, for every n."""
    gate = ready_gate(command(BreakerState.THROTTLED, admit_percent=percent))
    passed = 0
    for count in range(1, 301):
        passed += admitted(gate, 1)
        assert passed == count * percent // 100


def test_nested_shares_do_not_multiply() -> None:
    """Half of the department within 80 % of the organisation is half: the most restrictive wins."""
    gate = ready_gate(
        command(BreakerState.HALF_OPEN, admit_percent=50),
        command(BreakerState.THROTTLED, scope="organisation:acme", admit_percent=80),
    )
    assert admitted(gate, 1000) == 500
    assert admitted(gate, 1000, request=OTHER) == 800


def test_share_refusal_names_no_amounts() -> None:
    """A throttled request is answered that it may retry, with its scope and rule and without any amount."""
    gate = ready_gate(
        command(BreakerState.HALF_OPEN, admit_percent=0, reason_code="budget_throttled")
    )
    decision = gate.decide(REQUEST, NOW)
    assert decision == GateDecision(
        Admission.REJECT,
        GateReason.REDUCED_SHARE,
        scope=DEPARTMENT,
        rule="budget_throttled",
        http_status=429,
        retry_after_seconds=1,
    )
    assert "12" not in decision.message


def test_queue_mode() -> None:
    """In queue mode the relay gets the decision to hold the request, and how to reject it without room."""
    gate = ready_gate(command(BreakerState.THROTTLED, admit_percent=0, mode=ThrottleMode.QUEUE))
    decision = gate.decide(REQUEST, NOW)
    assert (decision.admission, decision.http_status) == (Admission.QUEUE, 429)


def test_redirect_mode() -> None:
    """In redirect mode the request goes to the fallback model."""
    gate = ready_gate(
        command(
            BreakerState.THROTTLED,
            admit_percent=0,
            mode=ThrottleMode.REDIRECT,
            fallback_model="small",
        )
    )
    decision = gate.decide(REQUEST, NOW)
    assert (decision.admission, decision.fallback_model) == (Admission.REDIRECT, "small")
    again = gate.decide(REQUEST._replace(model="small"), NOW)
    assert again.admission is Admission.REJECT


def test_redirect_respects_allowed_models() -> None:
    """A fallback that another scope forbids is no way out."""
    gate = ready_gate(
        command(
            BreakerState.THROTTLED,
            admit_percent=0,
            mode=ThrottleMode.REDIRECT,
            fallback_model="small",
        ),
        policy("key:acme/k-1", allowed_models=("gpt-4.1",)),
    )
    assert gate.decide(REQUEST, NOW).admission is Admission.REJECT


def test_most_restrictive_mode_wins() -> None:
    """When two scopes refuse for now, reject beats queue beats redirect."""
    queueing = ScopePolicy(
        scope="organisation:acme",
        limits=Limits(requests_per_minute=0),
        throttle_mode=ThrottleMode.QUEUE,
    )
    gate = ready_gate(queueing, policy(requests_per_minute=0))
    decision = gate.decide(REQUEST, NOW)
    assert (decision.admission, decision.scope) == (Admission.REJECT, DEPARTMENT)
    assert gate.decide(OTHER, NOW).admission is Admission.QUEUE


def test_disabled_and_models_are_forbidden() -> None:
    """A disabled scope and a model that is not allowed are 403, and waiting does not help."""
    gate = ready_gate(
        ScopePolicy(scope="key:acme/k-1", disabled=True),
        policy("department:acme/sales", allowed_models=("gpt-4.1",)),
    )
    first = gate.decide(REQUEST, NOW)
    assert (first.reason, first.http_status, first.should_retry) == (
        GateReason.DISABLED,
        403,
        False,
    )
    assert gate.decide(OTHER, NOW).admission is Admission.ADMIT
    second = gate.decide(OTHER._replace(model="o1-pro"), NOW)
    assert (second.reason, second.http_status) == (GateReason.MODEL_NOT_ALLOWED, 403)


def test_no_model_is_allowed_by_an_empty_list() -> None:
    """An empty list of models allows none; no list allows all."""
    gate = ready_gate(policy(allowed_models=()))
    assert gate.decide(REQUEST, NOW).reason is GateReason.MODEL_NOT_ALLOWED


def test_what_lasts_longest_is_reported() -> None:
    """Blocked until tomorrow and disabled for good: the answer is the one that lasts longer."""
    gate = ready_gate(
        command(BreakerState.OPEN, reset_at_ms=NOW + 60_000),
        ScopePolicy(scope="key:acme/k-1", disabled=True),
        command(BreakerState.OPEN, scope="organisation:acme", reset_at_ms=NOW + 9_000_000),
    )
    assert gate.decide(REQUEST, NOW).reason is GateReason.DISABLED
    research = REQUEST._replace(key="k-9")
    assert gate.decide(research, NOW).scope == "organisation:acme"


def test_request_rate_with_burst() -> None:
    """60 a minute with a burst of 5: five at once, then one each second, never more than five."""
    gate = ready_gate(policy(requests_per_minute=60, burst_requests=5))
    assert admitted(gate, 10) == 5
    refused = gate.decide(REQUEST, NOW)
    assert (refused.reason, refused.http_status) == (GateReason.REQUEST_RATE, 429)
    assert (refused.retry_after_seconds, refused.should_retry) == (1, True)
    assert admitted(gate, 10, NOW + 999) == 0
    assert admitted(gate, 10, NOW + 1_000) == 1
    assert admitted(gate, 10, NOW + 3_600_000) == 5


def test_request_rate_over_a_minute() -> None:
    """Over ten minutes of hammering exactly rate times time plus the burst gets through."""
    gate = ready_gate(policy(requests_per_minute=100))
    passed = sum(admitted(gate, 1, NOW + at_ms) for at_ms in range(0, 600_000, 50))
    assert passed == 10 + 999


def test_refused_requests_take_nothing() -> None:
    """A request that one scope refuses is not counted by the others."""
    gate = ready_gate(
        policy("organisation:acme", requests_per_minute=60, burst_requests=5),
        command(BreakerState.OPEN),
    )
    admitted(gate, 100)
    assert admitted(gate, 10, request=OTHER) == 5


def test_clock_set_back_gives_nothing() -> None:
    """A clock that jumps back neither refills nor drains a bucket."""
    gate = ready_gate(policy(requests_per_minute=60, burst_requests=2))
    assert admitted(gate, 3) == 2
    assert admitted(gate, 3, NOW - 3_600_000) == 0
    assert admitted(gate, 3, NOW - 3_600_000 + 1_000) == 1


def test_token_rate_is_settled_afterwards() -> None:
    """While tokens are left requests go out; what they used is paid off before the next."""
    gate = ready_gate(policy(tokens_per_minute=60_000))
    assert admitted(gate, 5) == 5
    gate.settle(REQUEST, 61_000, NOW)
    refused = gate.decide(REQUEST, NOW)
    assert (refused.reason, refused.retry_after_seconds) == (GateReason.TOKEN_RATE, 2)
    assert admitted(gate, 1, NOW + 1_000) == 0
    assert admitted(gate, 1, NOW + 1_001) == 1


def test_debt_is_bounded() -> None:
    """One absurd request blocks a scope for an hour at most."""
    gate = ready_gate(policy(tokens_per_minute=1_000))
    gate.settle(REQUEST, 10**12, NOW)
    assert admitted(gate, 1, NOW + 3_600_000) == 0
    assert admitted(gate, 1, NOW + 3_600_060) == 1


def test_settling_charges_every_scope() -> None:
    """Tokens count against each scope of the request and no other."""
    gate = ready_gate(
        policy("organisation:acme", tokens_per_minute=1_000),
        policy("department:acme/sales", tokens_per_minute=1_000),
    )
    gate.settle(REQUEST, 1_500, NOW)
    assert gate.decide(OTHER, NOW).scope == "organisation:acme"
    gate.settle(REQUEST._replace(key=""), 10**9, NOW)
    assert gate.decide(OTHER, NOW + 31_000).admission is Admission.ADMIT


def test_absolute_limits_take_the_place_of_the_share() -> None:
    """A throttle with absolute limits reduces the rate; its percentage is for scopes without one."""
    gate = ready_gate(
        policy(requests_per_minute=600, burst_requests=60),
        command(
            BreakerState.HALF_OPEN,
            admit_percent=50,
            limits=ThrottleLimits(requests_per_minute=300, burst_requests=30),
        ),
    )
    assert admitted(gate, 100) == 30
    passed = sum(admitted(gate, 1, NOW + at_ms) for at_ms in range(100, 60_100, 100))
    assert passed == 300


def test_command_never_raises_a_limit() -> None:
    """A command's limit above the policy's own changes nothing."""
    gate = ready_gate(
        policy(requests_per_minute=60, burst_requests=5),
        command(BreakerState.THROTTLED, limits=ThrottleLimits(requests_per_minute=6_000)),
    )
    assert admitted(gate, 100) == 5


def test_repeated_command_does_not_refill() -> None:
    """A renewed lease keeps the bucket's level."""
    gate = ready_gate(policy(requests_per_minute=60, burst_requests=5))
    admitted(gate, 5)
    gate.apply(command(BreakerState.THROTTLED, limits=ThrottleLimits(requests_per_minute=60)), NOW)
    assert admitted(gate, 5) == 0


def test_spend_rate() -> None:
    """A limit of money per minute is charged with what the relay says a request cost."""
    gate = ready_gate(
        command(BreakerState.THROTTLED, limits=ThrottleLimits(nano_usd_per_minute=60_000_000_000))
    )
    assert admitted(gate, 3) == 3
    gate.settle(REQUEST, 10, NOW, 61_000_000_000)
    assert gate.decide(REQUEST, NOW).reason is GateReason.SPEND_RATE
    assert admitted(gate, 1, NOW + 1_001) == 1


def test_limits_are_shared_among_relays() -> None:
    """Four relays enforce a quarter each, and a small limit never becomes none."""
    gate = ready_gate(
        policy(requests_per_minute=240, burst_requests=40),
        policy("department:acme/sales", requests_per_minute=3),
        relays=4,
    )
    assert admitted(gate, 100) == 10
    assert admitted(gate, 100, request=OTHER) == 1


@pytest.mark.parametrize(("older", "newer"), [((1, 5), (1, 6)), ((1, 5), (2, 0)), ((0, 0), (0, 1))])
def test_greater_version_wins(older: tuple[int, int], newer: tuple[int, int]) -> None:
    """Epoch before seq; an equal or lesser version is stale and changes nothing."""
    gate = ready_gate()
    first = command(BreakerState.CLOSED, epoch=older[0], seq=older[1])
    second = command(BreakerState.OPEN, epoch=newer[0], seq=newer[1])
    assert gate.apply(first, NOW) is Applied.ACCEPTED
    assert gate.apply(second, NOW) is Applied.ACCEPTED
    assert gate.apply(second, NOW) is Applied.STALE
    assert gate.apply(first, NOW) is Applied.STALE
    assert gate.version(DEPARTMENT) == newer
    assert admitted(gate, 1) == 0


def test_command_without_a_scope_is_malformed() -> None:
    """A command for what is no scope is refused and leaves no trace."""
    gate = ready_gate()
    assert gate.apply(command(BreakerState.OPEN, scope="nonsense"), NOW) is Applied.MALFORMED
    assert gate.effective_limits() == {}
    with pytest.raises(ScopeError):
        gate.apply_policy(ScopePolicy(scope="nonsense"), NOW)


def test_soft_lease_ends_open() -> None:
    """A throttle that is not renewed ends by itself, 30 s of clock skew allowed for."""
    gate = ready_gate(command(BreakerState.HALF_OPEN, admit_percent=0))
    ends = NOW + LEASE + CLOCK_SKEW_MS
    assert admitted(gate, 10, ends - 1) == 0
    assert admitted(gate, 10, ends) == 10


def test_budget_lease_degrades_to_a_share() -> None:
    """A budget's block that is not renewed leaves a tenth, until its period ends."""
    reset = NOW + 86_400_000
    gate = ready_gate(command(BreakerState.OPEN, on_expiry=OnExpiry.DEGRADE, reset_at_ms=reset))
    after = NOW + LEASE + CLOCK_SKEW_MS
    assert admitted(gate, 100, after) == 10
    assert admitted(gate, 100, reset - 1) == 10
    assert admitted(gate, 100, reset) == 100


def test_budget_lease_degrades_to_a_tenth_of_the_rates() -> None:
    """Where policy has rates, the degraded scope has a tenth of them."""
    lasting = command(BreakerState.OPEN, on_expiry=OnExpiry.DEGRADE)
    rates = Limits(requests_per_minute=600, tokens_per_minute=5, burst_requests=600)
    limits = effective_limits_of(
        ScopePolicy(scope=DEPARTMENT, limits=rates), lasting, NOW + LEASE + CLOCK_SKEW_MS
    )
    assert limits.phase is Phase.DEGRADED
    assert (limits.requests_per_minute, limits.burst_requests) == (60, 6)
    assert (limits.tokens_per_minute, limits.admit_percent) == (1, 100)
    assert limits.until_ms == lasting.expires_at_ms + HOLD_MS_MAX


def test_budget_lease_degrades_to_a_cap_of_money() -> None:
    """The degraded scope may spend its hourly cap and no more."""
    gate = ready_gate(
        command(
            BreakerState.OPEN,
            on_expiry=OnExpiry.DEGRADE,
            degrade_percent=100,
            degrade_nano_usd_per_hour=3_600_000_000,
        )
    )
    after = NOW + LEASE + CLOCK_SKEW_MS
    assert admitted(gate, 5, after) == 5
    gate.settle(REQUEST, 10, after, 3_700_000_000)
    assert gate.decide(REQUEST, after).reason is GateReason.SPEND_RATE
    assert admitted(gate, 1, after + 100_001) == 1


def test_manual_block_holds_for_a_day() -> None:
    """A manual block outlives its controller by 24 hours and not a millisecond more."""
    gate = ready_gate(command(BreakerState.OPEN, on_expiry=OnExpiry.HOLD))
    assert admitted(gate, 1, NOW + LEASE + HOLD_MS_MAX - 1) == 0
    assert admitted(gate, 1, NOW + LEASE + HOLD_MS_MAX) == 1


@pytest.mark.parametrize(
    ("on_expiry", "passed"),
    [(OnExpiry.RELEASE, 100), (OnExpiry.DEGRADE, 10), (OnExpiry.HOLD, 0)],
)
def test_expired_command_leaves_what_its_lease_leaves(on_expiry: OnExpiry, passed: int) -> None:
    """A relay that starts after the lease's end stands where one stands that saw it end."""
    gate = Gate()
    gate.set_ready()
    late = NOW + LEASE + CLOCK_SKEW_MS
    lasting = command(BreakerState.OPEN, on_expiry=on_expiry, reset_at_ms=NOW + 9_000_000)
    assert gate.apply(lasting, late) is Applied.EXPIRED
    assert admitted(gate, 100, late) == passed


def test_skewed_clock_keeps_the_lease() -> None:
    """A relay whose clock is 29 s ahead neither refuses nor ends a live command."""
    gate = Gate()
    gate.set_ready()
    ahead = NOW + LEASE + 29_000
    assert gate.apply(command(BreakerState.OPEN), ahead) is Applied.ACCEPTED
    assert admitted(gate, 1, ahead) == 0


def test_tombstone_releases() -> None:
    """A deleted command releases the scope, and its older versions stay stale."""
    gate = ready_gate(command(BreakerState.OPEN))
    gate.release(DEPARTMENT, NOW)
    gate.release("department:acme/unheard", NOW)
    assert admitted(gate, 5) == 5
    assert gate.apply(command(BreakerState.OPEN), NOW) is Applied.STALE


def test_deleted_policy_leaves_the_command() -> None:
    """Without its policy a scope loses its limits and keeps its throttle."""
    gate = ready_gate(
        ScopePolicy(scope=DEPARTMENT, disabled=True),
        command(BreakerState.HALF_OPEN, admit_percent=50),
    )
    gate.remove_policy(DEPARTMENT, NOW)
    assert admitted(gate, 10) == 5


@pytest.mark.parametrize(
    ("policies", "default", "admission"),
    [
        ([], True, Admission.ADMIT),
        ([], False, Admission.REJECT),
        ([ScopePolicy(scope=DEPARTMENT, fail_open=True)], False, Admission.ADMIT),
        ([ScopePolicy(scope=DEPARTMENT, fail_open=False)], True, Admission.REJECT),
        (
            [ScopePolicy(scope=DEPARTMENT), ScopePolicy(scope=SCOPES[4], fail_open=False)],
            True,
            Admission.REJECT,
        ),
    ],
)
def test_before_the_commands_are_read(
    policies: list[ScopePolicy], default: bool, admission: Admission
) -> None:
    """Until the gate is ready each policy's fail_open decides, and the setting where there is none."""
    gate = Gate(GateSettings(fail_open=default))
    for each in policies:
        gate.apply_policy(each, NOW)
    decision = gate.decide(REQUEST, NOW)
    assert decision.admission is admission
    if admission is Admission.REJECT:
        assert (decision.reason, decision.http_status) == (GateReason.NOT_READY, 503)
    gate.set_ready()
    assert gate.decide(REQUEST, NOW).admission is Admission.ADMIT


def test_known_blocks_hold_before_ready() -> None:
    """Failing open does not forget what is known already."""
    gate = Gate()
    gate.apply(command(BreakerState.OPEN), NOW)
    assert gate.decide(REQUEST, NOW).reason is GateReason.BLOCKED


@pytest.mark.parametrize(
    "bad",
    [
        REQUEST._replace(key=""),
        REQUEST._replace(organisation="a/b"),
        REQUEST._replace(user="\n"),
        REQUEST._replace(department="x" * 201),
    ],
)
def test_names_that_are_no_scope(bad: GateRequest) -> None:
    """A request whose names cannot stand in a scope is a bad request, never an exception."""
    decision = ready_gate().decide(bad, NOW)
    assert (decision.admission, decision.http_status) == (Admission.REJECT, 400)


def test_share_is_exact_across_threads() -> None:
    """Eight threads together get exactly the share."""
    gate = ready_gate(command(BreakerState.THROTTLED, admit_percent=37))
    passed: list[int] = []
    threads = [
        threading.Thread(target=lambda: passed.append(admitted(gate, 500))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 4_000 * 37 // 100
