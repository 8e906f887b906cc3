"""Absolute limits: an amount per hour or day that opens the breaker for the rest of that window.

Reaching the limit is enough (`>=`). The window's end closes it: no hysteresis is needed, because
spend within a window only grows, save for corrections, which may reopen the tap at once.
"""

from __future__ import annotations

from typing import NamedTuple

from typing_extensions import override

from meterline.alerting.rules.evaluation import Ending, Evaluation, Subject, amount_text
from meterline.alerting.rules.kind import AlertKind
from meterline.alerting.rules.measurement import NANO_USD, TOKENS, Measurement
from meterline.alerting.rules.thresholds import Crossing
from meterline.schemas.alert import RuleType, Severity
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import Limits
from meterline.schemas.rule_ref import RuleId, RuleRef, rule_ref


class LimitKind(AlertKind):
    """An absolute limit."""

    name = RuleType.LIMIT.value
    rule_type = RuleType.LIMIT

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """What to do about a limit that is used up."""
        return _ADVICE.get(rule.id, "Look at `meterline explain` for the key that spends.")


_ADVICE = {
    RuleId.HOUR_SPEND.value: (
        "Something spends fast: find the key with `meterline explain`; throttle it by hand if "
        "it is a runaway loop."
    ),
    RuleId.DAY_SPEND.value: (
        "The day's spend limit is used up: requests are refused until midnight unless the "
        "limit is raised."
    ),
    RuleId.DAY_TOKENS.value: (
        "The day's token limit is used up: requests are refused until midnight unless the "
        "limit is raised."
    ),
}


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


def is_reached(measurement: Measurement) -> bool:
    """Whether the window is closed to further requests."""
    return measurement.observed >= measurement.limit


def crossing(measurement: Measurement, fired: int) -> Crossing | None:
    """The alert that this measurement asks for, or None.

    Args:
        measurement: spend or tokens against an absolute limit.
        fired: the limit that has fired in this period and budget version; 0 if none.
    """
    if measurement.observed <= 0 or not is_reached(measurement) or 0 < measurement.limit <= fired:
        return None
    if measurement.limit == 0 and fired:
        return None
    # A limit of zero fires as 1, the least amount that crosses it.
    return Crossing(max(measurement.limit, 1), (), Severity.CRITICAL)


def evaluate(
    subject: Subject, measurement: Measurement, notified_level: int, renotify_seconds: int
) -> Evaluation:
    """What the rule says of a limit.

    Args:
        subject: whose limit.
        measurement: spend or tokens against it.
        notified_level: the limit that has fired in this period; needs no text again.
        renotify_seconds: between reminders; 0 for none.
    """
    crossed = crossing(measurement, notified_level)
    return Evaluation(
        rule=rule_ref(measurement.rule_id),
        rule_type=RuleType.LIMIT,
        level=0 if crossed is None else crossed.threshold,
        window=measurement.kind,
        period=measurement.period,
        reset_at_ms=measurement.end_ms,
        observed=measurement.observed,
        limit=measurement.limit,
        percent=measurement.percent,
        unit=measurement.unit,
        severity=Severity.CRITICAL,
        summary="" if crossed is None else _summary(subject, measurement),
        ending=Ending.PERIOD,
        renotify_seconds=renotify_seconds,
    )


def _summary(subject: Subject, measurement: Measurement) -> str:
    spent = amount_text(measurement.observed, measurement.unit)
    limit = amount_text(measurement.limit, measurement.unit)
    return (
        f"{subject.text} has reached its limit of {limit} per {measurement.kind} ({spent}) "
        f"in {measurement.period}"
    )
