"""Threshold rule: percentages of a budget, each told once per scope, period and budget version.

    told 75      observed 92 %                       thresholds 50 75 80 90 95 100
    ------------------------------------->  one alert: 90, also crossed: 80
Only thresholds above the highest one already told can fire: spend that falls by a correction and
rises again, or a lower threshold that is added later, tells nobody anything new.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meterline.alerting.rules.measurement import Measurement, amount_at, reached
from meterline.schemas.alert import Severity

# (at least this percentage, severity), loudest first.
_SEVERITIES = (
    (100, Severity.CRITICAL),
    (90, Severity.ERROR),
    (75, Severity.WARNING),
)


class Crossing(NamedTuple):
    """A threshold that must be told now; `also_crossed` are the lower ones it stands for."""

    threshold: int
    also_crossed: tuple[int, ...]
    severity: Severity


def severity_of(percent: int) -> Severity:
    """How loud a threshold is."""
    for least, severity in _SEVERITIES:
        if percent >= least:
            return severity
    return Severity.INFO


def crossing(reading: Measurement, thresholds: Iterable[int], told: int) -> Crossing | None:
    """The one alert that this reading asks for, or None.

    Args:
        reading: spend against a budget.
        thresholds: percentages in any order.
        told: the highest threshold already told in this period and budget version; 0 if none.
    """
    if reading.observed <= 0:
        # A budget of zero is reached by nothing, but nobody needs to hear so at every month's
        # start.
        return None
    crossed = sorted(
        percent
        for percent in set(thresholds)
        if percent > told and reached(reading.observed, reading.limit, percent)
    )
    if not crossed:
        return None
    *lower, highest = crossed
    return Crossing(highest, tuple(lower), severity_of(highest))


def edges(limit: int, thresholds: Iterable[int]) -> set[int]:
    """Amounts at which `crossing` may answer otherwise than just below them."""
    return {1} if limit == 0 else {amount_at(limit, percent) for percent in thresholds}
