"""How rules are named on the wire."""

from __future__ import annotations

import pytest

from meterline.schemas.alert import RuleType
from meterline.schemas.rule_ref import RuleId, RuleRef, parse_rule, rule_ref


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("budget_month", RuleType.THRESHOLD, "budget_month"),
        ("day_tokens", RuleType.LIMIT, "day_tokens"),
        ("breaker", RuleType.BREAKER, "breaker"),
        ("deviation.day", RuleType.DEVIATION, "day"),
        ("deviation.budget_month", RuleType.DEVIATION, "budget_month"),
        ("burn_rate.fast.2", RuleType.BURN_RATE, "fast.2"),
        ("pipeline.drift", RuleType.PIPELINE, "drift"),
        ("idle.night", "idle", "night"),
    ],
)
def test_a_rule_has_one_spelling_and_one_kind(text: str, kind: str, name: str) -> None:
    """Parsed and spelled again it is the same text, also where this version has no such kind."""
    assert parse_rule(text) == RuleRef(kind, name)
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize("text", ["", "weekly", "threshold.x", "limit.day_spend", ".day"])
def test_a_spelling_that_no_rule_has_is_kept(text: str) -> None:
    """An alert of another version keeps its rule's name, and is no other rule."""
    assert str(parse_rule(text)) == text
    assert parse_rule(text).kind == ""


def test_every_rule_of_budgets_and_limits_is_spelled_by_its_id() -> None:
    """As commands and metrics have it."""
    assert [str(rule_ref(rule)) for rule in RuleId] == [rule.value for rule in RuleId]
