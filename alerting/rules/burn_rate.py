"""Burn rate: how soon a budget ends if spending goes on like this. All in integers.

    long window   the last hour, say: is it enough money to be worth waking somebody?
    short window  the last five minutes: is it still going on?
The rule holds when at the pace of *both* windows what is left of the budget ends within
`exhausts_within`, and the pace is at least `factor` times the even one (budget / period). A firing
alert ends when the long window no longer says so, which an hour of calm brings about by itself.

    spent / window_seconds >= remaining / within_seconds         without dividing:
    spent * within_seconds >= remaining * window_seconds
"""

from __future__ import annotations

from typing import NamedTuple

from meterline.alerting.rules.history import MINUTES_AHEAD_MAX, Ring
from meterline.schemas.policy_rules import BurnRateRule

_NEVER = 2**100


class BudgetLeft(NamedTuple):
    """A budget in its current period."""

    limit: int
    spent: int
    period_seconds: int

    @property
    def remaining(self) -> int:
        """Nano-USD until the budget is exhausted; not above zero when it is."""
        return self.limit - self.spent


class Pace(NamedTuple):
    """Nano-USD spent in each of a rule's windows."""

    long: int
    short: int


def pace(rule: BurnRateRule, minutes: Ring, minute: int) -> Pace:
    """Spend of the windows that end with a minute, and of what clocks ahead of it have said."""
    end = minute + 1 + MINUTES_AHEAD_MAX
    return Pace(
        minutes.sum(minute + 1 - rule.long_seconds // 60, end),
        minutes.sum(minute + 1 - rule.short_seconds // 60, end),
    )


def lacking(rule: BurnRateRule, budget: BudgetLeft, spent: Pace) -> int:
    """How much more in the current minute would make the rule hold; 0 or less if it holds."""
    if budget.remaining <= 0 or budget.limit == 0:
        return _NEVER  # exhausted: the threshold of 100 % has said so
    return max(
        _lacking(rule, budget, spent.long, rule.long_seconds),
        _lacking(rule, budget, spent.short, rule.short_seconds),
    )


def still_active(rule: BurnRateRule, budget: BudgetLeft, spent: Pace) -> bool:
    """Whether a firing alert stays: the long window alone decides."""
    if budget.remaining <= 0:
        return spent.long > 0
    return _lacking(rule, budget, spent.long, rule.long_seconds) <= 0


def seconds_left(rule: BurnRateRule, budget: BudgetLeft, spent: Pace) -> int:
    """Until the budget ends, at the pace of the window that spends faster; -1 for never."""
    fastest = min(
        (
            budget.remaining * seconds // amount
            for amount, seconds in (
                (spent.long, rule.long_seconds),
                (spent.short, rule.short_seconds),
            )
            if amount > 0
        ),
        default=-1,
    )
    return max(fastest, 0) if spent.long > 0 or spent.short > 0 else -1


def _lacking(rule: BurnRateRule, budget: BudgetLeft, spent: int, seconds: int) -> int:
    within = rule.exhausts_within_seconds
    # What is spent more also leaves less: (spent + x) * within >= (remaining - x) * seconds.
    soon = -(-(budget.remaining * seconds - spent * within) // (within + seconds))
    even = -(-rule.factor * budget.limit * seconds // budget.period_seconds)
    return max(soon, even - spent)
