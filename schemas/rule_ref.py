"""Which rule an alert comes from: its kind, and its id among the rules of that kind.

    budget_month                      kind threshold   the rules of budgets and limits are one each,
    day_spend                         kind limit       and are spelled by their id alone
    breaker                           kind breaker
    deviation.day  burn_rate.fast     kind deviation   rules of the policy file have an id of their own
    pipeline.lag   pipeline.drift     kind pipeline
Alerts, labels and dedup keys carry the spelling; it is parsed once, where a record is read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from typing_extensions import override

from meterline.schemas.alert import RuleType

_SEPARATOR = "."


class RuleId(StrEnum):
    """The rules of budgets and limits; the names stand in alerts, commands and metrics."""

    BUDGET_MONTH = "budget_month"
    BUDGET_DAY = "budget_day"
    HOUR_SPEND = "hour_spend"
    DAY_SPEND = "day_spend"
    DAY_TOKENS = "day_tokens"


BUDGET_RULES = frozenset({RuleId.BUDGET_MONTH, RuleId.BUDGET_DAY})
"""Compared in percent; the others are absolute limits."""

_KINDS = {
    **{
        rule.value: RuleType.THRESHOLD if rule in BUDGET_RULES else RuleType.LIMIT
        for rule in RuleId
    },
    RuleType.BREAKER.value: RuleType.BREAKER,
}
"""The kinds of rules that are spelled by their id alone."""
_UNKNOWN = ""
_BARE = frozenset({_UNKNOWN, *_KINDS.values()})


class RuleRef(NamedTuple):
    """One rule."""

    kind: str
    """A name of the registry of rule kinds, which is the `RuleType` of those that Meterline ships;
    empty for a spelling that no rule of this version has."""
    id: str

    @override
    def __str__(self) -> str:
        """As alerts carry it."""
        return self.id if self.kind in _BARE else f"{self.kind}{_SEPARATOR}{self.id}"


def rule_ref(rule: RuleId) -> RuleRef:
    """The reference of a budget's or limit's rule."""
    return _REFS[rule]


def parse_rule(text: str) -> RuleRef:
    """Read the spelling of alerts; a spelling that means nothing here is kept as it is."""
    kind, separator, name = text.partition(_SEPARATOR)
    if separator and kind not in _BARE:
        return RuleRef(kind, name)
    return RuleRef(_KINDS[text].value if text in _KINDS else _UNKNOWN, text)


_REFS = {rule: RuleRef(_KINDS[rule.value].value, rule.value) for rule in RuleId}
