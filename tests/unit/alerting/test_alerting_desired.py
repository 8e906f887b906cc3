"""Desired state as commands."""

from __future__ import annotations

import pytest

from meterline.alerting.core import desired_state as desired
from meterline.alerting.core.desired_state import EXPIRY_SLACK_MS, Cause, Stamp
from meterline.alerting.rules.measurement import NANO_USD, TOKENS, Measurement
from meterline.schemas.periods import DAY_MS, HOUR_MS, WindowKind
from meterline.schemas.policy import BreakerPolicy, Limits, ScopePolicy
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.throttle import BreakerState, OnExpiry, ThrottleCommand, ThrottleMode

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState
SCOPE = "department:acme/research"
POLICY = BreakerPolicy()
NOW = 1_000_000
MONTH_END = 30 * DAY_MS


def reading(
    rule_id: RuleId = RuleId.BUDGET_MONTH,
    *,
    observed: int = 100,
    end_ms: int = MONTH_END,
    unit: str = NANO_USD,
) -> Measurement:
    """Spend against a limit of 100."""
    kind = WindowKind.MONTH if rule_id is RuleId.BUDGET_MONTH else WindowKind.HOUR
    return Measurement(rule_id, kind, "2026-10", 0, end_ms, 3, observed, 100, unit, (("0", 17),))


def command(
    state: BreakerState, read: Measurement | None = None, now_ms: int = NOW, **policy: object
) -> ThrottleCommand:
    """The command for one cause."""
    scoped = ScopePolicy.model_validate({"scope": SCOPE, **policy})
    return desired.restriction(scoped, POLICY, Cause(state, read or reading()), Stamp(7, 5, now_ms))


def test_rates_are_absolute_shares_of_the_policy() -> None:
    """A throttle names numbers, so that applying it twice changes nothing."""
    limits = Limits(requests_per_minute=60, tokens_per_minute=10_000, burst_requests=11)
    throttled = command(THROTTLED, limits=limits)
    assert throttled.limits.requests_per_minute == 48
    assert throttled.limits.tokens_per_minute == 8_000
    assert throttled.limits.burst_requests == 8
    assert throttled.admit_percent == 100
    half = command(HALF_OPEN, limits=limits)
    assert half.limits.requests_per_minute == 30


def test_the_default_burst_is_reduced_as_well() -> None:
    """A bucket of a tenth of the rate, if policy names none."""
    assert command(HALF_OPEN, limits=Limits(requests_per_minute=60)).limits.burst_requests == 3


def test_a_share_of_one_is_not_none() -> None:
    """80 percent of one request a minute is one, not a block; of zero it is zero."""
    limits = Limits(requests_per_minute=1, tokens_per_minute=0)
    throttled = command(THROTTLED, limits=limits)
    assert throttled.limits.requests_per_minute == 1
    assert throttled.limits.tokens_per_minute == 0


@pytest.mark.parametrize(("state", "percent"), [(THROTTLED, 80), (HALF_OPEN, 50), (OPEN, 0)])
def test_without_a_rate_a_share_of_requests_is_admitted(state: BreakerState, percent: int) -> None:
    """Where there is no rate to reduce, requests are spread."""
    given = command(state)
    assert given.admit_percent == percent
    assert given.limits == command(OPEN).limits


@pytest.mark.parametrize(
    ("state", "rule_id", "code", "status", "on_expiry"),
    [
        (OPEN, RuleId.BUDGET_MONTH, "budget_exhausted", 402, OnExpiry.DEGRADE),
        (OPEN, RuleId.BUDGET_DAY, "budget_exhausted", 402, OnExpiry.DEGRADE),
        (HALF_OPEN, RuleId.BUDGET_MONTH, "budget_throttled", 429, OnExpiry.RELEASE),
        (OPEN, RuleId.HOUR_SPEND, "hour_spend", 429, OnExpiry.DEGRADE),
        (OPEN, RuleId.DAY_TOKENS, "day_tokens", 429, OnExpiry.DEGRADE),
    ],
)
def test_what_a_relay_answers_and_does_without_renewal(
    state: BreakerState, rule_id: RuleId, code: str, status: int, on_expiry: OnExpiry
) -> None:
    """An exhausted budget is 402 and degrades; a rate or a soft throttle is 429."""
    given = command(state, reading(rule_id))
    assert (given.reason_code, given.http_status, given.on_expiry) == (code, status, on_expiry)


@pytest.mark.parametrize(
    ("state", "end_ms", "expires_ms", "because"),
    [
        (THROTTLED, MONTH_END, NOW + 180_000, "a soft lease"),
        (OPEN, MONTH_END, NOW + 900_000, "a block's lease"),
        (OPEN, NOW + 60_000, NOW + 60_000 + EXPIRY_SLACK_MS, "never beyond the period's end"),
    ],
)
def test_leases(state: BreakerState, end_ms: int, expires_ms: int, because: str) -> None:
    """A command ends by itself soon after its controller or its period does."""
    given = command(state, reading(end_ms=end_ms))
    assert given.expires_at_ms == expires_ms, because
    assert given.reset_at_ms == end_ms


def test_renewal_at_a_third_of_the_lease() -> None:
    """Two renewals may be lost; a lease that already reaches the period's end needs none."""
    assert desired.renew_at_ms(POLICY, command(THROTTLED)) == NOW + 60_000
    assert desired.renew_at_ms(POLICY, command(OPEN)) == NOW + 300_000
    short = command(OPEN, reading(end_ms=NOW + 60_000))
    assert desired.renew_at_ms(POLICY, short) == 0


def test_an_open_breaker_rejects_whatever_the_mode() -> None:
    """Queueing or another model does not make an exhausted budget whole."""
    queueing = {"throttle_mode": ThrottleMode.QUEUE}
    assert command(OPEN, None, NOW, **queueing).mode is ThrottleMode.REJECT
    assert command(THROTTLED, None, NOW, **queueing).mode is ThrottleMode.QUEUE


def test_a_dead_controller_leaves_a_money_cap() -> None:
    """A tenth of an hour's even share of the budget; tokens have none."""
    hours = 10
    month = Measurement(
        RuleId.BUDGET_MONTH, WindowKind.MONTH, "x", 0, hours * HOUR_MS, 1, 1000, 1000, NANO_USD
    )
    assert command(OPEN, month).degrade_nano_usd_per_hour == 10
    assert command(THROTTLED, month).degrade_nano_usd_per_hour == 0
    assert command(OPEN, reading(RuleId.DAY_TOKENS, unit=TOKENS)).degrade_nano_usd_per_hour == 0


def test_the_most_restrictive_cause_speaks() -> None:
    """Stage first, then the cause that ends last."""
    soon, late = reading(end_ms=10), reading(end_ms=20)
    assert desired.most_restrictive([Cause(CLOSED, late)]) is None
    causes = [Cause(THROTTLED, late), Cause(OPEN, soon), Cause(HALF_OPEN, late)]
    assert desired.most_restrictive(causes) == Cause(OPEN, soon)
    assert desired.most_restrictive([Cause(OPEN, soon), Cause(OPEN, late)]) == Cause(OPEN, late)


def test_more_spend_is_not_another_command() -> None:
    """Evidence, version and time may differ without a new command to relays."""
    first = command(OPEN, reading(observed=100))
    later = command(OPEN, reading(observed=250), NOW + 5_000)
    assert desired.same_content(first, later)
    assert not desired.same_content(first, command(HALF_OPEN))
    assert not desired.same_content(first, command(OPEN, reading(RuleId.HOUR_SPEND)))


def test_the_receipt_names_its_source() -> None:
    """Evidence says which offsets of which shards the decision stood on."""
    evidence = command(OPEN).evidence
    assert evidence is not None
    assert (evidence.source_offset, evidence.budget_version, evidence.percent) == ("0:17", 3, 100)
