"""Which rules that look back hold for which scope. Pure."""

from __future__ import annotations

from typing import NamedTuple

from meterline.schemas.policy import RuleSet, ScopePolicy
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule, NoDataRule
from meterline.schemas.scopes import ScopeError, parse_scope


class ScopeRules(NamedTuple):
    """The rules that look at one scope."""

    deviations: tuple[DeviationRule, ...] = ()
    burn_rates: tuple[BurnRateRule, ...] = ()
    no_data: tuple[NoDataRule, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.deviations or self.burn_rates or self.no_data)

    @property
    def any_of_minutes(self) -> bool:
        """Whether one looks at the minutes, and may speak in any of them."""
        spikes = (rule.method is DeviationMethod.SPIKE for rule in self.deviations)
        return bool(self.burn_rates) or any(spikes)


NONE = ScopeRules()


def rules_of(rules: RuleSet, policy: ScopePolicy | None) -> ScopeRules:
    """The rules that look at a scope; none for one without policy."""
    if policy is None:
        return NONE
    try:
        kind = parse_scope(policy.scope).type
    except ScopeError:
        return NONE  # a record that no policy file makes
    has_budget = policy.budget.month_nano_usd or policy.budget.day_nano_usd
    return ScopeRules(
        tuple(rule for rule in rules.deviations if kind in rule.scope_types),
        tuple(rule for rule in rules.burn_rates if kind in rule.scope_types and has_budget),
        tuple(rule for rule in rules.no_data if kind in rule.scope_types),
    )
