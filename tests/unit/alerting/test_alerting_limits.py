"""Absolute limits."""

from __future__ import annotations

import pytest

from meterline.alerting.rules import limits
from meterline.alerting.rules.measurement import TOKENS, Measurement
from meterline.schemas.alert import Severity
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import Limits
from meterline.schemas.rule_ref import RuleId


def reading(observed: int, limit: int) -> Measurement:
    """Tokens against a day's limit."""
    return Measurement(
        RuleId.DAY_TOKENS, WindowKind.DAY, "2026-10-05", 0, 1, 1, observed, limit, TOKENS
    )


@pytest.mark.parametrize(
    ("observed", "limit", "notified", "notified_now", "because"),
    [
        (99, 100, 0, None, "below"),
        (100, 100, 0, 100, "reaching is enough"),
        (180, 100, 100, None, "notified once in the window"),
        (180, 150, 100, 150, "a raised limit is another one"),
        (180, 90, 100, None, "a lowered limit is no news for those who know"),
        (0, 0, 0, None, "nothing used of nothing"),
        (1, 0, 0, 1, "anything used of nothing"),
        (2, 0, 1, None, "notified once, also of nothing"),
    ],
)
def test_a_limit_is_notified_once_per_window(
    observed: int, limit: int, notified: int, notified_now: int | None, because: str
) -> None:
    """Reaching an absolute limit is one critical alert."""
    found = limits.crossing(reading(observed, limit), notified)
    assert (None if found is None else found.threshold) == notified_now, because
    assert found is None or found.severity is Severity.CRITICAL


def test_only_limits_that_are_set_are_rules() -> None:
    """A policy without limits has no rules; a limit of zero is a rule."""
    assert limits.limit_rules(Limits()) == ()
    (rule,) = limits.limit_rules(Limits(hour_spend_nano_usd=0))
    assert (rule.rule_id, rule.kind, rule.limit) == (RuleId.HOUR_SPEND, WindowKind.HOUR, 0)


def test_a_limit_of_zero_is_reached_by_nothing() -> None:
    """Zero per window means that not one request is wanted."""
    assert limits.is_reached(reading(0, 0))
