"""Threshold rule."""

from __future__ import annotations

import pytest

from meterline.alerting.rules import thresholds
from meterline.alerting.rules.measurement import NANO_USD, Measurement, amount_at, reached
from meterline.schemas.alert import Severity
from meterline.schemas.periods import WindowKind
from meterline.schemas.rule_ref import RuleId

DEFAULT = (50, 75, 80, 90, 95, 100)


def reading(observed: int, limit: int) -> Measurement:
    """Spend against a month's budget."""
    return Measurement(
        RuleId.BUDGET_MONTH, WindowKind.MONTH, "2026-10", 0, 1, 1, observed, limit, NANO_USD
    )


@pytest.mark.parametrize(
    ("observed", "limit", "notified", "expected", "because"),
    [
        (49, 100, 0, None, "below the first threshold"),
        (50, 100, 0, (50, ()), "reaching is enough"),
        (92, 100, 0, (90, (50, 75, 80)), "one alert names the highest, the rest are listed"),
        (92, 100, 75, (90, (80,)), "a notified one is not listed again"),
        (92, 100, 90, None, "notified once"),
        (60, 100, 90, None, "spend that fell by a correction notifies nothing lower"),
        (250, 100, 0, (100, (50, 75, 80, 90, 95)), "far above is the highest threshold"),
        (749_999_999, 1_000_000_000, 50, None, "a nano-dollar below 75 percent"),
        (750_000_000, 1_000_000_000, 50, (75, ()), "exactly 75 percent"),
        (2, 3, 50, None, "66.7 percent is not 75"),
        (0, 0, 0, None, "a budget of zero without spend is no news"),
        (1, 0, 0, (100, (50, 75, 80, 90, 95)), "anything spent exceeds a budget of zero"),
        (-5, 100, 0, None, "corrections may exceed the spend"),
    ],
)
def test_one_alert_names_the_highest_threshold_crossed(
    observed: int,
    limit: int,
    notified: int,
    expected: tuple[int, tuple[int, ...]] | None,
    because: str,
) -> None:
    """Crossing several thresholds at once notifies the highest and lists the others."""
    found = thresholds.crossing(reading(observed, limit), DEFAULT, notified)
    assert (None if found is None else found[:2]) == expected, because


@pytest.mark.parametrize(
    ("percent", "severity"),
    [
        (1, Severity.INFO),
        (50, Severity.INFO),
        (74, Severity.INFO),
        (75, Severity.WARNING),
        (80, Severity.WARNING),
        (89, Severity.WARNING),
        (90, Severity.ERROR),
        (95, Severity.ERROR),
        (99, Severity.ERROR),
        (100, Severity.CRITICAL),
        (150, Severity.CRITICAL),
    ],
)
def test_severity_rises_with_the_threshold(percent: int, severity: Severity) -> None:
    """Every percentage has a severity, also one that no default names."""
    assert thresholds.severity_of(percent) is severity


def test_any_list_of_percentages_will_do() -> None:
    """Order and repetition in the list do not matter, and a threshold may exceed 100."""
    found = thresholds.crossing(reading(130, 100), (120, 10, 10, 200), 0)
    assert found is not None
    assert found[:2] == (120, (10,))


@pytest.mark.parametrize("limit", [1, 3, 7, 100, 999_999_999_999])
@pytest.mark.parametrize("percent", [1, 33, 75, 100, 110])
def test_amount_at_is_the_least_amount_that_reaches(limit: int, percent: int) -> None:
    """The edge that the engine waits for is exactly where the comparison turns."""
    edge = amount_at(limit, percent)
    assert reached(edge, limit, percent)
    assert not reached(edge - 1, limit, percent)


def test_percent_is_floored() -> None:
    """99.9 percent of a budget reads as 99, never as 100."""
    assert reading(999, 1000).percent == 99
    assert reading(5, 0).percent == 100
