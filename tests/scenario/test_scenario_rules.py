"""History-based rules, as scenarios through the real engine."""

from __future__ import annotations

import pytest

from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.money import nano_from_usd
from meterline.schemas.policy import RULES_ID, BreakerPolicy, RuleSet
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule, NoDataRule
from tests.alerting_story import KEY, RESEARCH, Scenario

FIRING, RESOLVED = AlertStatus.FIRING, AlertStatus.RESOLVED


def alerts_of(story: Scenario, rule: str) -> list[Alert]:
    """Every record of a rule, in order."""
    return [alert for alert in story.alerts if alert.rule_id == rule]


def with_rules(story: Scenario, **rules: object) -> None:
    """Put rules into force, and no others."""
    silent: dict[str, object] = {"deviations": (), "burn_rates": (), "no_data": ()}
    story.rules = RuleSet.model_validate({**silent, **rules})
    from meterline.alerting.core.state import PolicyChanged  # noqa: PLC0415 - the story's own word

    story.step(PolicyChanged(RULES_ID, story.rules))


def office_week(story: Scenario, *, days: int = 7, usd: str = "10", scope: str = KEY) -> None:
    """Days of eight working hours with the same spend each, then midnight."""
    for _ in range(days):
        for _ in range(8):
            story.wait(3600)
            story.spend(scope, usd)
        story.wait(16 * 3600)


def started(**rule: object) -> Scenario:
    """A week of office hours, with one deviation rule."""
    story = Scenario("2026-10-05T08:00:00Z")
    rules = (DeviationRule.model_validate({"id": "day", **rule}),)
    with_rules(story, deviations=rules)
    story.policy(KEY)
    office_week(story)
    return story


def test_a_day_beyond_the_usual_is_notified_within_the_hour_and_explained() -> None:
    """The alert says what is usual, how far beyond it we are, and how much more it is."""
    story = started()
    assert alerts_of(story, "deviation.day") == [], "a usual week is silent"
    story.wait(3600)
    story.spend(KEY, "19")
    assert alerts_of(story, "deviation.day") == [], "nine dollars more are not worth a message"
    story.spend(KEY, "3")
    (alert,) = alerts_of(story, "deviation.day")
    assert alert.explanation is not None
    assert alert.explanation.baseline_nano_usd == nano_from_usd("10")
    assert alert.explanation.excess_nano_usd == nano_from_usd("12")
    assert alert.explanation.score_hundredths == 1200, "12 dollars over a deviation of 1"
    assert alert.observed == nano_from_usd("22")
    assert alert.limit == nano_from_usd("20")
    assert alert.also_crossed == (250,), "twice the threshold at once is one message"
    assert "$22.00 so far today, where $10.00 is usual" in alert.summary


def test_a_deviation_ends_with_its_day_and_is_notified_again_on_the_next() -> None:
    """Once per day; the new day begins from zero."""
    story = started()
    story.wait(3600)
    story.spend(KEY, "50")
    story.spend(KEY, "50")
    assert [alert.status for alert in alerts_of(story, "deviation.day")] == [FIRING]
    story.wait_until("2026-10-13T00:00:01Z")
    assert [alert.status for alert in alerts_of(story, "deviation.day")] == [FIRING, RESOLVED]
    story.wait_until("2026-10-13T09:00:00Z")
    story.spend(KEY, "100")
    assert [alert.status for alert in alerts_of(story, "deviation.day")] == [
        FIRING,
        RESOLVED,
        FIRING,
    ]
    assert len({alert.dedup_key for alert in alerts_of(story, "deviation.day")}) == 2


@pytest.mark.parametrize("method", list(DeviationMethod))
def test_a_restart_changes_nothing_and_notifies_nothing_twice(method: DeviationMethod) -> None:
    """The baseline that is rebuilt from the topics is the one that was built live."""
    live, killed = started(method=method.value), started(method=method.value)
    assert killed.restart() == []
    for story in (live, killed):
        story.wait(3600)
        story.spend(KEY, "70")
    assert live.alerts, "it fires"
    assert killed.alerts == live.alerts
    assert killed.restart() == []
    live.wait(3600)
    killed.wait(3600)
    for story in (live, killed):
        story.spend(KEY, "200")
        story.wait(30 * 3600)
        assert story.restart() == []
    assert [alert.status for alert in killed.alerts] == [alert.status for alert in live.alerts]
    assert not killed.still_firing()


def test_a_young_scope_is_left_alone() -> None:
    """Fewer days than the warm-up say nothing about what is usual."""
    story = Scenario("2026-10-05T08:00:00Z")
    with_rules(story, deviations=(DeviationRule(id="day"),))
    story.policy(KEY)
    office_week(story, days=3)
    story.spend(KEY, "500")
    assert story.alerts == []


def test_an_incident_is_not_learnt_from_until_it_is_the_new_normal() -> None:
    """A tenfold day does not hide the next; what goes on for days becomes usual."""
    story = started()
    for _ in range(9):
        office_week(story, days=1, usd="100")
    days = [alert.period for alert in alerts_of(story, "deviation.day") if alert.status is FIRING]
    assert days[0] == "2026-10-12"
    assert len(set(days)) >= 2, "the first day did not hide the second"
    assert "2026-10-20" not in days, "in the end it is normal"


def test_hours_without_any_spend_at_all_are_unknown_not_zero() -> None:
    """A pipeline that was down for three days does not make an ordinary day an anomaly."""
    story = started(method="hourly", floor_percent=10)
    story.wait(3 * 86_400)
    story.wait(3600)
    story.spend(KEY, "12")
    assert story.alerts == []


def test_the_seasonal_method_finds_a_step_that_the_first_hour_does_not_show() -> None:
    """Two unusual hours are notified where one is not."""
    story = started(method="seasonal")
    office_week(story, days=2)
    story.wait(3600)
    story.spend(KEY, "22")
    assert story.alerts == [], "one hour of twice the usual may be chance"
    story.wait(3600)
    story.spend(KEY, "22")
    (alert,) = story.alerts
    assert alert.explanation is not None
    assert alert.explanation.method == "seasonal"
    story.wait(5 * 3600)
    assert [each.status for each in story.alerts] == [FIRING, RESOLVED]


def test_a_loop_at_night_is_notified_within_the_hour_although_working_hours_spend_as_much() -> None:
    """A spike is judged by its time of day: eleven dollars at noon are usual, at midnight not."""
    story = started(method="spike")
    story.wait(3 * 3600)
    story.spend(KEY, "11")
    assert story.alerts == [], "usual at noon"
    story.wait(12 * 3600)
    story.spend(KEY, "6")
    story.wait(40 * 60)
    assert story.alerts == []
    story.spend(KEY, "5")
    (alert,) = story.alerts
    assert story.now_ms // 3_600_000 * 3_600_000 == alert.starts_at_ms - 40 * 60_000
    assert alert.explanation is not None
    assert (alert.explanation.method, alert.explanation.baseline_nano_usd) == ("spike", 0)
    assert alert.observed == nano_from_usd("11")
    assert "$11.00 in the last 60 minutes, where $0.00 is usual" in alert.summary


def test_a_spike_is_not_cut_in_two_by_the_stroke_of_an_hour_and_ends_by_the_clock() -> None:
    """Half before and half after it count together; hours of calm end the alert without events."""
    story = started(method="spike")
    story.wait(15 * 3600 + 1800)
    story.spend(KEY, "7")
    story.wait(3000)
    story.spend(KEY, "7")
    assert [alert.status for alert in story.alerts] == [FIRING]
    story.wait(5 * 3600)
    assert [alert.status for alert in story.alerts] == [FIRING, RESOLVED]


def test_one_loop_does_not_hide_the_next_at_the_same_time_of_day() -> None:
    """The busiest day of the week does not count: yesterday's incident is not today's usual."""
    story = started(method="spike")
    firings = []
    for _ in range(3):
        story.wait(15 * 3600)
        story.spend(KEY, "80")
        story.wait(9 * 3600)
        firings.append(sum(alert.status is FIRING for alert in story.alerts))
    assert firings == [1, 2, 2], "what was there on two days may be there on a third"


def burning(**rule: object) -> Scenario:
    """A key with a day's budget of 240 dollars, and one burn-rate rule."""
    story = Scenario("2026-10-05T12:00:00Z")
    rules = (BurnRateRule.model_validate({"id": "fast", **rule}),)
    with_rules(story, burn_rates=rules)
    story.policy(KEY, day="240")
    return story


def test_a_runaway_loop_is_notified_within_minutes_with_the_time_that_is_left() -> None:
    """Ten dollars a minute: the day's budget ends in less than half an hour."""
    story = burning()
    story.spend(KEY, "5")
    assert story.alerts == []
    for _ in range(5):
        story.wait(60)
        story.spend(KEY, "10")
    (alert,) = alerts_of(story, "burn_rate.fast")
    assert alert.explanation is not None
    assert 0 < alert.explanation.seconds_left < 2 * 3600
    assert "ends in" in alert.summary


def test_a_budget_that_a_correction_gives_back_can_burn_again() -> None:
    """An exhausted budget has no pace; a correction brings it back within the same hour."""
    story = Scenario("2026-10-05T12:00:00Z")
    rule = BurnRateRule(id="fast", long_seconds=600, short_seconds=60)
    breaker = BreakerPolicy(enabled=False)
    with_rules(story, burn_rates=(rule,), thresholds_percent=(), breaker=breaker)
    story.policy(KEY, day="240")
    story.spend(KEY, "300")
    story.wait(7200)
    begun = len(story.alerts)
    story.spend(KEY, "-200")
    story.wait(1200)
    story.spend(KEY, "60")
    assert [alert.status for alert in story.alerts[begun:]] == [FIRING]


def test_calm_ends_a_burn_rate_alert_by_the_clock_alone() -> None:
    """No event comes after a loop has been stopped, and the alert still resolves."""
    story = burning()
    for _ in range(5):
        story.wait(60)
        story.spend(KEY, "12")
    assert [alert.status for alert in alerts_of(story, "burn_rate.fast")] == [FIRING]
    story.wait(3700)
    assert [alert.status for alert in alerts_of(story, "burn_rate.fast")] == [FIRING, RESOLVED]


def test_what_has_not_lasted_is_not_notified_and_a_restart_does_not_forget_since_when() -> None:
    """`for` waits; the wait is a record, so that a killed worker continues the wait and does not start it again."""
    story = burning(for_seconds=300)
    story.wait(60)
    story.spend(KEY, "60")
    assert [alert.status for alert in story.alerts] == [AlertStatus.PENDING]
    story.wait(240)
    story.spend(KEY, "20")
    assert story.restart() == []
    story.wait(120)
    assert [alert.status for alert in story.alerts] == [AlertStatus.PENDING, FIRING]
    calm = burning(for_seconds=3000)
    calm.wait(60)
    calm.spend(KEY, "60")
    calm.wait(7200)
    assert [alert.status for alert in calm.alerts] == [AlertStatus.PENDING, AlertStatus.INACTIVE]


def test_a_firing_alert_is_notified_again_at_its_interval_under_another_id() -> None:
    """Reminders, also across a restart; the resolution ends them."""
    story = burning(renotify_seconds=600, long_seconds=7200)
    story.wait(60)
    story.spend(KEY, "100")
    story.wait(660)
    assert [alert.reminder for alert in story.alerts] == [0, 1]
    story.restart()
    story.wait(600)
    assert [alert.reminder for alert in story.alerts] == [0, 1, 2]
    assert len({alert.id for alert in story.alerts}) == 3
    assert len({alert.dedup_key for alert in story.alerts}) == 1
    assert {alert.starts_at_ms for alert in story.alerts} == {story.alerts[0].starts_at_ms}


def test_thresholds_are_notified_again_while_they_hold() -> None:
    """`renotify` of the rule set; only the highest threshold speaks."""
    story = Scenario("2026-10-05T12:00:00Z")
    with_rules(story, renotify_seconds=3600)
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "76")
    story.spend(RESEARCH, "15")
    story.wait(3601)
    assert [(alert.threshold, alert.reminder) for alert in story.alerts] == [
        (75, 0),
        (90, 0),
        (90, 1),
    ]


def test_a_scope_that_falls_silent_is_notified_and_ends_with_its_next_event() -> None:
    """No data, by the clock alone; again after the next silence."""
    story = Scenario("2026-10-05T12:00:00Z")
    with_rules(story, no_data=(NoDataRule(id="silent", after_seconds=7200),))
    story.policy(KEY)
    story.wait(86_400)
    assert story.alerts == [], "what never spoke is not missed"
    story.spend(KEY, "1")
    story.wait(7100)
    assert story.alerts == []
    story.wait(200)
    assert [alert.status for alert in story.alerts] == [FIRING]
    story.restart()
    story.spend(KEY, "1")
    assert [alert.status for alert in story.alerts] == [FIRING, RESOLVED]
    story.wait(8000)
    assert [alert.status for alert in story.alerts] == [FIRING, RESOLVED, FIRING]
    assert len({alert.dedup_key for alert in story.alerts}) == 2


def test_a_rule_that_is_taken_away_resolves_what_it_said() -> None:
    """Nothing fires indefinitely because its rule is gone."""
    story = burning()
    story.wait(60)
    story.spend(KEY, "100")
    with_rules(story)
    assert [alert.status for alert in story.alerts] == [FIRING, RESOLVED]
