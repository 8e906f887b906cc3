"""Alerts about a breaker: none is made today. Its stages are `alerting.core.breaker`. Pure."""

from __future__ import annotations

from typing_extensions import override

from meterline.alerting.rules.kind import AlertKind
from meterline.schemas.alert import RuleType
from meterline.schemas.rule_ref import RuleRef


class BreakerKind(AlertKind):
    """The staged breaker of a budget."""

    name = RuleType.BREAKER.value
    rule_type = RuleType.BREAKER

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """Where the reason of a throttle is found."""
        return "Requests are being slowed down or refused: see `meterline explain`."
