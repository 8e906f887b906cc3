"""One lifecycle for every rule: what differs between kinds is data of the evaluation."""

from __future__ import annotations

import pytest

from meterline.alerting.core.lifecycle import Episode, Transition, advance, recalled
from meterline.alerting.rules.evaluation import Ending, Evaluation, Subject
from meterline.schemas.alert import AlertStatus, RuleType, Severity
from meterline.schemas.rule_ref import RuleRef

KEY = Subject("key:acme/k-17", "Ada")
FIRING, RESOLVED = AlertStatus.FIRING, AlertStatus.RESOLVED
PENDING, INACTIVE = AlertStatus.PENDING, AlertStatus.INACTIVE
HOLDS = Evaluation(
    rule=RuleRef("deviation", "day"),
    rule_type=RuleType.DEVIATION,
    level=100,
    window="day",
    period="2026-10-05",
    reset_at_ms=0,
    observed=120,
    limit=100,
    percent=120,
    unit="percent",
    severity=Severity.WARNING,
    summary="too much",
)
CALM = HOLDS._replace(level=0, still_active=False, observed=10, percent=10)


def seen(moved: Transition) -> list[AlertStatus]:
    """What a step publishes."""
    return [alert.status for alert in moved.alerts]


def step(
    before: Transition | None, evaluation: Evaluation, at_ms: int, version: int = 1
) -> Transition:
    """One more evaluation of the same rule and scope."""
    return advance(before.episode if before else None, KEY, evaluation, version, at_ms)


def test_a_rule_waits_fires_escalates_reminds_and_is_resolved() -> None:
    """Every change is published once, and the next time is known."""
    rule = HOLDS._replace(for_seconds=60, renotify_seconds=600)
    waits = step(None, rule, 1_000)
    assert (seen(waits), waits.due_ms) == ([PENDING], 61_000)
    fired = step(waits, rule, 61_000)
    assert (seen(fired), fired.due_ms) == ([FIRING], 661_000)
    assert seen(step(fired, rule, 62_000)) == []
    worse = step(fired, rule._replace(level=200, for_seconds=0), 63_000)
    assert [(each.status, each.threshold) for each in worse.alerts] == [(FIRING, 200)]
    again = step(worse, rule, 663_000)
    assert [(each.threshold, each.reminder) for each in again.alerts] == [(200, 1)]
    over = step(again, CALM, 664_000)
    assert [(each.status, each.threshold) for each in over.alerts] == [
        (RESOLVED, 100),
        (RESOLVED, 200),
    ]


def test_what_was_pending_and_did_not_last_is_inactive() -> None:
    """It never fired, and nothing is left of it."""
    waits = step(None, HOLDS._replace(for_seconds=60), 1_000)
    calm = step(waits, CALM, 2_000)
    assert (seen(calm), calm.episode) == ([INACTIVE], None)


@pytest.mark.parametrize(
    ("ending", "change", "expected"),
    [
        (Ending.CLEARED, {"period": "2026-10-06"}, []),
        (Ending.CLEARED, {"level": 0, "still_active": False}, [RESOLVED]),
        (Ending.CLEARED, {"level": 0, "limit": 1_000}, []),
        (Ending.PERIOD, {"period": "2026-10-06", "level": 0}, [RESOLVED]),
        (Ending.PERIOD, {"period": "2026-10-06"}, [RESOLVED, FIRING]),
        (Ending.PERIOD, {"level": 0, "observed": 10}, []),
        (Ending.PERIOD, {"level": 0, "limit": 1_000}, [RESOLVED]),
        (Ending.PERIOD, {"level": 0, "limit": 110}, []),
    ],
)
def test_what_ends_an_alert_is_the_kinds_choice(
    ending: Ending, change: dict[str, object], expected: list[AlertStatus]
) -> None:
    """Its cause, across midnight; or its period, and a limit raised above what is spent."""
    rule = HOLDS._replace(ending=ending)
    fired = step(None, rule, 1_000)
    assert seen(step(fired, Evaluation(**{**rule._asdict(), **change}), 2_000)) == expected


def test_another_budget_version_is_another_alert() -> None:
    """Whatever ends it otherwise, what compares with the old budget is over."""
    fired = step(None, HOLDS, 1_000)
    other = step(fired, HOLDS, 2_000, version=2)
    assert seen(other) == [RESOLVED, FIRING]
    assert len({each.dedup_key for each in other.alerts}) == 2


def test_a_level_fires_once_in_an_episode_unless_the_rule_recurs() -> None:
    """A recurring rule fires again in its period, under other ids and the same dedup key."""
    for recurs, expected in ((False, []), (True, [FIRING])):
        rule = HOLDS._replace(recurs=recurs)
        fired = step(None, rule, 1_000)
        over = step(fired, CALM._replace(recurs=recurs), 2_000)
        again = step(over, rule, 3_000)
        assert (seen(over), seen(again)) == ([RESOLVED], expected)
        records = (*fired.alerts, *over.alerts, *again.alerts)
        assert len({each.id for each in records}) == len(records)
        assert len({each.dedup_key for each in records}) == 1


def test_an_episode_is_recalled_from_its_records() -> None:
    """A restart continues where the records end: nothing fires a second time."""
    rule = HOLDS._replace(for_seconds=60)
    waits = step(None, rule, 1_000)
    fired = step(waits, rule, 61_000)
    episode: Episode | None = None
    for alert in (*waits.alerts, *fired.alerts):
        episode = recalled(episode, alert)
    assert episode == fired.episode
    assert advance(episode, KEY, rule, 1, 62_000).alerts == ()
