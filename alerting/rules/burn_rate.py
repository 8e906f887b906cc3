"""Burn rate: how soon a budget ends at the current rate of spend. All in integers. Pure.

    long window   the last hour, say: is it enough money to be worth waking the on-call?
    short window  the last five minutes: is it still happening?
The rule holds when at the rate of *both* windows what is left of the budget ends within
`exhausts_within`, and the rate is at least `factor` times the even one (budget / period). A firing
alert ends when the long window no longer says so, which an hour of calm brings about by itself.

    spent / window_seconds >= remaining / within_seconds         without dividing:
    spent * within_seconds >= remaining * window_seconds
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import Field
from typing_extensions import override

from meterline.alerting.rules.evaluation import Evaluation, amount_text, percent_of, span_text
from meterline.alerting.rules.history import MINUTES_AHEAD_MAX, Ring
from meterline.alerting.rules.kind import ScopeRuleKind, ScopeView
from meterline.alerting.rules.measurement import NANO_USD
from meterline.schemas.alert import Explanation, RuleType, Severity
from meterline.schemas.periods import MINUTE_MS, Window, WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.policy_entry import Duration
from meterline.schemas.policy_kinds import FieldFault, RuleEntry
from meterline.schemas.policy_rules import BurnRateRule
from meterline.schemas.rule_ref import RuleRef
from meterline.schemas.scopes import ScopeType

_HOUR = 3_600
_DAY = 86_400
# Minutes are kept for two hours (`alerting.rules.history`).
_WINDOW_SECONDS_MIN = 60
_WINDOW_SECONDS_MAX = 2 * _HOUR
# No period is longer than a month.
_EXHAUSTS_SECONDS_MIN = 60
_EXHAUSTS_SECONDS_MAX = 31 * _DAY
_NEVER = 2**100
"""Beyond any sum of money."""


class BudgetLeft(NamedTuple):
    """A budget in its current period."""

    limit: int
    spent: int
    period_seconds: int

    @property
    def remaining(self) -> int:
        """Nano-USD until the budget is exhausted; not above zero when it is."""
        return self.limit - self.spent


class SpendRate(NamedTuple):
    """Nano-USD spent in each of a rule's windows."""

    long: int
    short: int


class BurnRateEntry(RuleEntry):
    """Its fields in the policy file."""

    long_window: Duration = _HOUR
    short_window: Duration = 300
    exhausts_within: Duration = 4 * _HOUR
    factor: Annotated[int, Field(ge=0, le=10_000)] = 3


class BurnRateKind(ScopeRuleKind[BurnRateEntry, BurnRateRule, None]):
    """A budget that ends soon at the current rate."""

    name = RuleType.BURN_RATE.value
    rule_type = RuleType.BURN_RATE
    published_field = "burn_rates"
    published = BurnRateRule
    entry = BurnRateEntry

    @override
    def check(self, entry: BurnRateEntry, /) -> Iterator[FieldFault]:
        """Windows are whole minutes within what is kept, and fit each other."""
        for name in ("long_window", "short_window"):
            seconds = getattr(entry, name)
            if seconds % 60 or not _WINDOW_SECONDS_MIN <= seconds <= _WINDOW_SECONDS_MAX:
                yield name, "must be whole minutes, 1m to 2h"
        if entry.short_window >= entry.long_window:
            yield "short_window", "must be shorter than long_window"
        if not _EXHAUSTS_SECONDS_MIN <= entry.exhausts_within <= _EXHAUSTS_SECONDS_MAX:
            yield "exhausts_within", "must be between 1m and 31d"

    @override
    def compile(self, entry: BurnRateEntry, /) -> BurnRateRule:
        """The published rule, in seconds."""
        return BurnRateRule(
            id=entry.id,
            scope_types=entry.scope_types,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
            long_seconds=entry.long_window,
            short_seconds=entry.short_window,
            exhausts_within_seconds=entry.exhausts_within,
            factor=entry.factor,
        )

    @override
    def applies_to(self, rule: BurnRateRule, scope_type: ScopeType, policy: ScopePolicy) -> bool:
        """Only scopes with a budget have a burn rate."""
        has_budget = policy.budget.month_nano_usd or policy.budget.day_nano_usd
        return bool(has_budget) and super().applies_to(rule, scope_type, policy)

    @override
    def reads_minutes(self, rule: BurnRateRule) -> bool:
        """Always: both windows end now."""
        return True

    @override
    def evaluate(self, rule: BurnRateRule, prepared: None, view: ScopeView) -> Evaluation:
        """Whether both windows would use up the rest of a budget too soon."""
        rate = spend_rate(rule, view.history.minutes, view.minute)
        soonest: tuple[int, Window, BudgetLeft] | None = None
        is_active = False
        for window, left in _budgets_left(view):
            is_active = is_active or still_active(rule, left, rate)
            if headroom(rule, left, rate) <= 0:
                seconds = seconds_left(rule, left, rate)
                if soonest is None or seconds < soonest[0]:
                    soonest = (seconds, window, left)
        window = view.windows[WindowKind.HOUR]
        limit = 0
        summary = ""
        explanation = None
        if soonest is not None:
            seconds, window, left = soonest
            limit = left.limit
            explanation = Explanation(method=self.name, seconds_left=seconds)
            summary = (
                f"{view.subject.text} spends its {window.kind} budget of "
                f"{amount_text(limit, NANO_USD)} too fast: "
                f"{amount_text(rate.long, NANO_USD)} in {span_text(rule.long_seconds)}, "
                f"{amount_text(rate.short, NANO_USD)} in {span_text(rule.short_seconds)}; "
                f"{amount_text(left.remaining, NANO_USD)} is left and ends in {span_text(seconds)}"
            )
        return Evaluation(
            rule=RuleRef(self.name, rule.id),
            rule_type=self.rule_type,
            level=1 if soonest is not None else 0,
            still_active=is_active,
            window=window.kind,
            period=view.periods[WindowKind.HOUR],
            reset_at_ms=window.end_ms,
            observed=rate.long,
            limit=limit,
            percent=percent_of(rate.long, limit),
            unit=NANO_USD,
            severity=Severity.CRITICAL,
            summary=summary,
            explanation=explanation,
            for_seconds=rule.for_seconds,
            renotify_seconds=rule.renotify_seconds,
        )

    @override
    def headroom(self, rule: BurnRateRule, prepared: None, view: ScopeView) -> Iterator[int]:
        """Per budget, spend of this minute that makes the rule hold."""
        rate = spend_rate(rule, view.history.minutes, view.minute)
        for _, left in _budgets_left(view):
            yield headroom(rule, left, rate)

    @override
    def recheck_ms(self, rule: BurnRateRule, view: ScopeView, *, is_active: bool) -> int:
        """At the next minute while an alert is active: windows calm by time alone."""
        # Its windows move with every minute, and calm sends no events.
        return (view.minute + 1) * MINUTE_MS if is_active else 0

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """What slows the spend or moves the end of the budget."""
        return (
            "At this pace the budget ends early: find the key with `meterline explain`, then "
            "throttle it or raise the budget."
        )


def spend_rate(rule: BurnRateRule, minutes: Ring, minute: int) -> SpendRate:
    """Spend of the windows that end with a minute, and of what clocks ahead of it have said."""
    end = minute + 1 + MINUTES_AHEAD_MAX
    return SpendRate(
        minutes.sum(minute + 1 - rule.long_seconds // 60, end),
        minutes.sum(minute + 1 - rule.short_seconds // 60, end),
    )


def headroom(rule: BurnRateRule, budget: BudgetLeft, rate: SpendRate) -> int:
    """How much more in the current minute would make the rule hold; 0 or less if it holds."""
    if budget.remaining <= 0 or budget.limit == 0:
        return _NEVER  # exhausted: the threshold of 100 % has said so
    return max(
        _headroom(rule, budget, rate.long, rule.long_seconds),
        _headroom(rule, budget, rate.short, rule.short_seconds),
    )


def still_active(rule: BurnRateRule, budget: BudgetLeft, rate: SpendRate) -> bool:
    """Whether a firing alert stays: the long window alone decides."""
    if budget.remaining <= 0:
        return rate.long > 0
    return _headroom(rule, budget, rate.long, rule.long_seconds) <= 0


def seconds_left(rule: BurnRateRule, budget: BudgetLeft, rate: SpendRate) -> int:
    """Until the budget ends, at the rate of the window that spends faster; -1 for never."""
    fastest = min(
        (
            budget.remaining * seconds // amount
            for amount, seconds in (
                (rate.long, rule.long_seconds),
                (rate.short, rule.short_seconds),
            )
            if amount > 0
        ),
        default=-1,
    )
    return max(fastest, 0) if rate.long > 0 or rate.short > 0 else -1


def _budgets_left(view: ScopeView) -> Iterator[tuple[Window, BudgetLeft]]:
    """The scope's budgets in their current periods, the month's first."""
    budget = view.policy.budget
    for kind, limit in (
        (WindowKind.MONTH, budget.month_nano_usd),
        (WindowKind.DAY, budget.day_nano_usd),
    ):
        if limit is not None:
            window = view.windows[kind]
            seconds = (window.end_ms - window.start_ms) // 1000
            yield window, BudgetLeft(limit, view.spent(kind), seconds)


def _headroom(rule: BurnRateRule, budget: BudgetLeft, spent: int, seconds: int) -> int:
    within = rule.exhausts_within_seconds
    # What is spent more also leaves less: (spent + x) * within >= (remaining - x) * seconds.
    soon = -(-(budget.remaining * seconds - spent * within) // (within + seconds))
    even = -(-rule.factor * budget.limit * seconds // budget.period_seconds)
    return max(soon, even - spent)
