"""The amounts at which a scope's budgets and limits may answer otherwise.

Most observations change nothing. Each (scope, window kind) keeps the range between the two nearest
amounts at which any rule may answer otherwise; a sum inside it costs the engine two lookups.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from meterline.alerting.core import breaker as staged
from meterline.alerting.core import scope_rules
from meterline.alerting.core.state import NoChangeRange, State
from meterline.alerting.rules import limits, thresholds
from meterline.alerting.rules.measurement import NANO_USD, TOKENS, Measurement
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.rule_ref import BUDGET_RULES, RuleId

CURRENT_WINDOWS = (WindowKind.HOUR, WindowKind.DAY, WindowKind.MONTH)
_UNBOUNDED = 2**100  # beyond any sum of money or tokens


class _SpendRule(NamedTuple):
    rule_id: RuleId
    kind: WindowKind
    unit: str
    limit: int


def set_breakpoints(state: State, scope: str, policy: ScopePolicy | None) -> None:
    """Where the scope's rules may answer otherwise; forgets windows that no rule reads."""
    cost: dict[WindowKind, set[int]] = {}
    tokens: dict[WindowKind, set[int]] = {}
    for rule in _rules(policy):
        if rule.rule_id in BUDGET_RULES:
            found = thresholds.breakpoints(rule.limit, state.rules.thresholds_percent)
            # An exhausted budget has no burn rate, until it is corrected: the limit is always one.
            found |= {rule.limit, *staged.breakpoints(state.rules.breaker, rule.limit)}
        else:
            found = {max(rule.limit, 1)}
        into = cost if rule.unit == NANO_USD else tokens
        into.setdefault(rule.kind, set()).update(found)
    if scope in state.scope_rules:
        for kind in (WindowKind.HOUR, WindowKind.DAY):
            cost.setdefault(kind, set())
    for kind in CURRENT_WINDOWS:
        if kind in cost or kind in tokens:
            state.breakpoints[scope, kind] = (
                tuple(sorted(cost.get(kind, ()))),
                tuple(sorted(tokens.get(kind, ()))),
            )
        else:
            for known in (state.breakpoints, state.no_change, state.spend, state.ahead):
                known.pop((scope, kind), None)


def set_no_change_range(state: State, scope: str, kind: WindowKind) -> None:
    """The next evaluation is due when the window's sum leaves the range that it is in now."""
    breakpoints = state.breakpoints.get((scope, kind))
    if breakpoints is None:
        return
    start_ms = state.windows[kind].start_ms
    spend = state.spend.get((scope, kind))
    current = spend is not None and spend.start_ms == start_ms
    cost = spend.cost_nano_usd if spend is not None and current else 0
    tokens = spend.tokens if spend is not None and current else 0
    low, high = nearest(breakpoints[0], cost)
    high = min(high, scope_rules.amount_bound(state, scope, kind, cost))
    state.no_change[scope, kind] = NoChangeRange(
        start_ms, low, high, *nearest(breakpoints[1], tokens)
    )


def set_minute_headroom(state: State, scope: str) -> None:
    """The same for rules that look at the last minutes."""
    rules = state.scope_rules.get(scope, ())
    policy = state.scopes[scope].policy if scope in state.scopes else None
    if policy is not None and any(each.reads_minutes for each in rules):
        state.minutes[scope] = scope_rules.minute_bound(state, policy, rules)


def nearest(breakpoints: tuple[int, ...], amount: int) -> tuple[int, int]:
    """The nearest breakpoints: `low <= amount < high`."""
    position = bisect_right(breakpoints, amount)
    low = breakpoints[position - 1] if position else -_UNBOUNDED
    high = breakpoints[position] if position < len(breakpoints) else _UNBOUNDED
    return low, high


def _rules(policy: ScopePolicy | None) -> Iterator[_SpendRule]:
    if policy is None:
        return
    budget = policy.budget
    if budget.month_nano_usd is not None:
        yield _SpendRule(RuleId.BUDGET_MONTH, WindowKind.MONTH, NANO_USD, budget.month_nano_usd)
    if budget.day_nano_usd is not None:
        yield _SpendRule(RuleId.BUDGET_DAY, WindowKind.DAY, NANO_USD, budget.day_nano_usd)
    for rule in limits.limit_rules(policy.limits):
        yield _SpendRule(rule.rule_id, rule.kind, rule.unit, rule.limit)


def measurements_of(state: State, scope: str, policy: ScopePolicy | None) -> Iterator[Measurement]:
    """What each budget and limit of the scope reads now."""
    if policy is None:
        return
    for rule in _rules(policy):
        window = state.windows[rule.kind]
        spend = state.spend.get((scope, rule.kind))
        observed = 0
        source: tuple[tuple[str, int], ...] = ()
        if spend is not None and spend.start_ms == window.start_ms:
            observed = spend.tokens if rule.unit == TOKENS else spend.cost_nano_usd
            source = spend.source
        yield Measurement(
            rule.rule_id,
            rule.kind,
            state.periods[rule.kind],
            window.start_ms,
            window.end_ms,
            policy.budget_version,
            observed,
            rule.limit,
            rule.unit,
            source,
        )
