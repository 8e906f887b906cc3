"""Absolute limits: an amount per hour or day that opens the breaker for the rest of that window.

Reaching the limit is enough (`>=`). The window's end closes it: no hysteresis is needed, because
spend within a window only grows, save for corrections, which may reopen the tap at once.
"""

from __future__ import annotations

from typing import NamedTuple

from meterline.alerting.rules.measurement import NANO_USD, TOKENS, Measurement, RuleId
from meterline.alerting.rules.thresholds import Crossing
from meterline.schemas.alert import Severity
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import Limits


class LimitRule(NamedTuple):
    """One absolute limit of a scope."""

    rule_id: RuleId
    kind: WindowKind
    unit: str
    limit: int


def limit_rules(limits: Limits) -> tuple[LimitRule, ...]:
    """The absolute limits that a policy sets."""
    rules = (
        (RuleId.HOUR_SPEND, WindowKind.HOUR, NANO_USD, limits.hour_spend_nano_usd),
        (RuleId.DAY_SPEND, WindowKind.DAY, NANO_USD, limits.day_spend_nano_usd),
        (RuleId.DAY_TOKENS, WindowKind.DAY, TOKENS, limits.day_tokens),
    )
    return tuple(
        LimitRule(rule_id, kind, unit, limit)
        for rule_id, kind, unit, limit in rules
        if limit is not None
    )


def is_reached(reading: Measurement) -> bool:
    """Whether the window is closed to further requests."""
    return reading.observed >= reading.limit


def crossing(reading: Measurement, told: int) -> Crossing | None:
    """The alert that this reading asks for, or None.

    Args:
        reading: spend or tokens against an absolute limit.
        told: the limit already told in this period and budget version; 0 if none.
    """
    if reading.observed <= 0 or not is_reached(reading) or 0 < reading.limit <= told:
        return None
    if reading.limit == 0 and told:
        return None
    # A limit of zero is told as 1, the least amount that crosses it.
    return Crossing(max(reading.limit, 1), (), Severity.CRITICAL)
