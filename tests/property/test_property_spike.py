"""Spikes and burn rates: the engine's short cuts lose no alert and invent none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meterline.alerting.core.state import PolicyChanged
from meterline.alerting.rules import burn_rate, deviation
from meterline.alerting.rules.burn_rate import BudgetLeft, SpendRate
from meterline.alerting.rules.history import PastHours
from meterline.schemas.alert import AlertStatus
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.policy import RULES_ID, RuleSet
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule
from tests.alerting_story import KEY, Scenario

RULE = DeviationRule(id="loop", method=DeviationMethod.SPIKE)
HOURS = st.lists(st.integers(0, 40), min_size=24, max_size=24)
STEPS = st.lists(
    st.tuples(st.sampled_from([1, 61, 600, 1_799, 3_601]), st.integers(0, 25)),
    min_size=1,
    max_size=12,
)


def is_notified(story: Scenario) -> bool:
    """Whether the rule has fired."""
    return any(alert.status is AlertStatus.FIRING for alert in story.alerts)


def holds(story: Scenario, spent: list[tuple[int, int]]) -> bool:
    """The rule by its definition: all past hours, and every event of the last sixty minutes."""
    state = story.state
    found = deviation.baseline(
        RULE, PastHours(state.histories[KEY], state.hour, (), state.days, state.alive)
    )
    minute = story.now_ms // 60_000
    recent = sum(usd for at_ms, usd in spent if minute - 60 < at_ms // 60_000 <= minute)
    return found is not None and recent * NANO_PER_USD >= found.levels[0][1]


@settings(max_examples=30, deadline=None)
@given(HOURS, STEPS)
def test_a_spike_is_notified_by_the_event_that_reaches_its_line(
    hours: list[int], steps: list[tuple[int, int]]
) -> None:
    """Whatever the past and the path of spend: notified with the first event at which it holds."""
    story = Scenario("2026-10-05T00:00:00Z")
    story.rules = RuleSet(deviations=(RULE,), thresholds_percent=())
    story.step(PolicyChanged(RULES_ID, story.rules))
    story.policy(KEY)
    spent: list[tuple[int, int]] = []
    for hour in range(5 * 24):
        story.spend(KEY, str(hours[hour % 24]))
        spent.append((story.now_ms, hours[hour % 24]))
        story.wait(HOUR_MS // 1000)
    # The past alone is usual: every day was the same.
    assert not is_notified(story)
    held = False
    for seconds, usd in steps:
        story.wait(seconds)
        story.spend(KEY, str(usd))
        spent.append((story.now_ms, usd))
        held = held or holds(story, spent)
        assert is_notified(story) is held


BURN = BurnRateRule(id="fast", factor=2)
DAY_BUDGET_USD = 100


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_burn_rate_is_notified_by_the_event_that_reaches_its_pace(
    steps: list[tuple[int, int]],
) -> None:
    """Whatever the path of spend: notified with the first event at which both windows say so."""
    story = Scenario("2026-10-05T00:00:00Z")
    story.rules = RuleSet(deviations=(), burn_rates=(BURN,), thresholds_percent=())
    story.step(PolicyChanged(RULES_ID, story.rules))
    story.policy(KEY, day=str(DAY_BUDGET_USD))
    spent: list[tuple[int, int]] = []
    held = False
    for seconds, usd in steps:
        story.wait(seconds)
        story.spend(KEY, str(usd))
        spent.append((story.now_ms // 60_000, usd * NANO_PER_USD))
        minute = story.now_ms // 60_000
        long, short = (
            sum(cost for at, cost in spent if minute - width < at <= minute) for width in (60, 5)
        )
        total = sum(cost for _, cost in spent)
        left = BudgetLeft(DAY_BUDGET_USD * NANO_PER_USD, total, 86_400)
        held = held or burn_rate.headroom(BURN, left, SpendRate(long, short)) <= 0
        assert is_notified(story) is held
