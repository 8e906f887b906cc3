"""Threshold rule: percentages of a budget, each fires once per scope, period and budget version.

    fired 75     observed 92 %                       thresholds 50 75 80 90 95 100
    ------------------------------------->  one alert: 90, also crossed: 80
Only thresholds above the highest one that has fired can fire: spend that falls by a correction and
rises again, or a lower threshold that is added later, is no news.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from typing_extensions import override

from meterline.alerting.rules.evaluation import Ending, Evaluation, Subject, amount_text
from meterline.alerting.rules.kind import AlertKind
from meterline.alerting.rules.measurement import Measurement, amount_at, reached
from meterline.schemas.alert import RuleType, Severity
from meterline.schemas.rule_ref import RuleId, RuleRef, rule_ref

# (at least this percentage, severity), highest first.
_SEVERITIES = (
    (100, Severity.CRITICAL),
    (90, Severity.ERROR),
    (75, Severity.WARNING),
)


class ThresholdKind(AlertKind):
    """A percentage of a budget."""

    name = RuleType.THRESHOLD.value
    rule_type = RuleType.THRESHOLD

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """What to do about a budget that is used up in part or whole."""
        return _ADVICE.get(rule.id, "Look at `meterline explain` for the key that spends.")


_ADVICE = {
    RuleId.BUDGET_MONTH.value: (
        "Look at `meterline explain` for the key that spends; raise the month's budget or let "
        "the breaker slow the scope down until the period ends."
    ),
    RuleId.BUDGET_DAY.value: (
        "Look at `meterline explain` for the key that spends; raise the day's budget or wait "
        "for midnight in the billing time zone."
    ),
}


class Crossing(NamedTuple):
    """A threshold that fires now; `also_crossed` are the lower ones it stands for."""

    threshold: int
    also_crossed: tuple[int, ...]
    severity: Severity


def severity_of(percent: int) -> Severity:
    """The severity of a threshold."""
    for least, severity in _SEVERITIES:
        if percent >= least:
            return severity
    return Severity.INFO


def crossing(measurement: Measurement, thresholds: Iterable[int], fired: int) -> Crossing | None:
    """The one alert that this measurement asks for, or None.

    Args:
        measurement: spend against a budget.
        thresholds: percentages in any order.
        fired: the highest threshold that has fired in this period and budget version; 0 if none.
    """
    if measurement.observed <= 0:
        # A budget of zero is reached by nothing, and that is no news at every month's start.
        return None
    crossed = sorted(
        percent
        for percent in set(thresholds)
        if percent > fired and reached(measurement.observed, measurement.limit, percent)
    )
    if not crossed:
        return None
    *lower, highest = crossed
    return Crossing(highest, tuple(lower), severity_of(highest))


def breakpoints(limit: int, thresholds: Iterable[int]) -> set[int]:
    """Amounts at which `crossing` may answer otherwise than just below them."""
    return {1} if limit == 0 else {amount_at(limit, percent) for percent in thresholds}


def evaluate(
    subject: Subject,
    measurement: Measurement,
    thresholds: Iterable[int],
    notified_level: int,
    renotify_seconds: int,
) -> Evaluation:
    """What the rule says of a budget.

    Args:
        subject: whose budget.
        measurement: spend against it.
        thresholds: percentages in any order.
        notified_level: the highest threshold that has fired; lower ones need no text.
        renotify_seconds: between reminders; 0 for none.
    """
    crossed = crossing(measurement, thresholds, notified_level)
    return Evaluation(
        rule=rule_ref(measurement.rule_id),
        rule_type=RuleType.THRESHOLD,
        level=0 if crossed is None else crossed.threshold,
        window=measurement.kind,
        period=measurement.period,
        reset_at_ms=measurement.end_ms,
        observed=measurement.observed,
        limit=measurement.limit,
        percent=measurement.percent,
        unit="percent",
        severity=Severity.INFO if crossed is None else crossed.severity,
        summary="" if crossed is None else _summary(subject, measurement, crossed),
        ending=Ending.PERIOD,
        renotify_seconds=renotify_seconds,
        lower_levels=() if crossed is None else crossed.also_crossed,
    )


def _summary(subject: Subject, measurement: Measurement, crossed: Crossing) -> str:
    spent = amount_text(measurement.observed, measurement.unit)
    limit = amount_text(measurement.limit, measurement.unit)
    return (
        f"{subject.text} has spent {spent} of its {measurement.kind} budget of {limit} "
        f"({measurement.percent} %, threshold {crossed.threshold} %) in {measurement.period}"
    )
