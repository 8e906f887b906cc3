"""What to do about an alert: the sentence that every message ends with. Pure.

Each kind of rule holds its own. docs/oncall.md says the same at length.
"""

from __future__ import annotations

from meterline.alerting.rules.registry import RULES, RuleKinds
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.rule_ref import parse_rule

_RESOLVED = "Nothing: it is over."
_UNKNOWN_KIND = "Look at `meterline explain` for the scope."


def advice(alert: Alert, kinds: RuleKinds = RULES) -> str:
    """The sentence."""
    if alert.status is AlertStatus.RESOLVED:
        return _RESOLVED
    rule = parse_rule(alert.rule_id)
    # A rule that only a later version has is advised on by its type.
    kind = kinds.by_name.get(rule.kind) or kinds.by_name.get(alert.rule_type.value)
    return _UNKNOWN_KIND if kind is None else kind.advice(rule)
