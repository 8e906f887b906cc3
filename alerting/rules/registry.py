"""Every kind of rule: a new one is its module and one line here. Pure.

The order of the kinds is the order in which a scope's rules are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meterline.alerting.rules.breaker import BreakerKind
from meterline.alerting.rules.burn_rate import BurnRateKind
from meterline.alerting.rules.deviation import DeviationKind
from meterline.alerting.rules.kind import ActiveRule, AlertKind, ScopeRuleKind
from meterline.alerting.rules.limits import LimitKind
from meterline.alerting.rules.no_data import NoDataKind
from meterline.alerting.rules.pipeline import PipelineKind
from meterline.alerting.rules.thresholds import ThresholdKind
from meterline.schemas.alert import RuleType
from meterline.schemas.policy import RuleSet
from meterline.schemas.policy_kinds import RuleKind
from meterline.schemas.rule_ref import RuleRef

BUILT_IN: tuple[AlertKind, ...] = (
    ThresholdKind(),
    LimitKind(),
    BreakerKind(),
    DeviationKind(),
    BurnRateKind(),
    NoDataKind(),
    PipelineKind(),
)


class RuleKinds:
    """The kinds that an engine, the policy compiler and the notifications work with."""

    def __init__(self, *kinds: AlertKind) -> None:
        """Take the kinds; their names are distinct."""
        self.by_name: Mapping[str, AlertKind] = MappingProxyType(
            {each.name: each for each in kinds}
        )
        self.of_scopes: tuple[ScopeRuleKind[Any, Any, Any], ...] = tuple(
            each for each in kinds if isinstance(each, ScopeRuleKind)
        )
        """Those that the engine evaluates for scopes, in their order."""
        self.in_policy_file: Mapping[str, RuleKind[Any, Any]] = MappingProxyType(
            {each.name: each for each in kinds if isinstance(each, RuleKind)}
        )
        """By field of the `rules` section."""
        self.evaluated: frozenset[str] = frozenset({RuleType.THRESHOLD, RuleType.LIMIT}).union(
            each.name for each in self.of_scopes
        )
        """Names of the kinds that the engine evaluates for scopes, budgets and limits included."""
        self.frozen: frozenset[str] = frozenset(
            each.name for each in self.of_scopes if each.freezes_learning
        )
        """Names of the kinds whose incidents are not learnt from."""
        self.ended_by_spend: frozenset[str] = frozenset(
            each.name for each in self.of_scopes if each.ended_by_spend
        )

    def published(self, rule_set: RuleSet) -> tuple[ActiveRule, ...]:
        """Every rule of the published lists, in the order of evaluation."""
        return tuple(
            ActiveRule(kind, RuleRef(kind.name, rule.id), rule, kind.reads_minutes(rule))
            for kind in self.of_scopes
            for rule in kind.rules_of(rule_set)
        )


RULES = RuleKinds(*BUILT_IN)
RULE_KINDS = RULES.in_policy_file
