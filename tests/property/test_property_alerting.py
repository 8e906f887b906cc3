"""Properties of the breaker and the engine, over any order of events."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meterline.alerting.core.breaker import Breaker, TripReason, advance, level
from meterline.alerting.rules.measurement import NANO_USD, Measurement
from meterline.alerting.rules.thresholds import crossing
from meterline.schemas.alert import Alert, AlertStatus
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import BreakerPolicy, Limits
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.throttle import BreakerState, ThrottleCommand
from tests.alerting_story import KEY, RESEARCH, Scenario

DWELL_MS = BreakerPolicy().dwell_seconds * 1000
BEGINS_ANEW = {TripReason.NEW_PERIOD, TripReason.BUDGET_CHANGED, TripReason.DISABLED}


class BreakerWalk(RuleBasedStateMachine):
    """Any spend, time, period, budget version and override against one breaker."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = BreakerPolicy()
        self.breaker = Breaker()
        self.now_ms = 0
        self.percent = 0
        self.period = 1
        self.version = 1
        self.entered_ms = 0

    def _advance(self, *, may_trip: bool = True) -> None:
        before = self.breaker
        reading = Measurement(
            RuleId.BUDGET_MONTH,
            WindowKind.MONTH,
            str(self.period),
            0,
            2**50,
            self.version,
            self.percent,
            100,
            NANO_USD,
        )
        step = advance(self.policy, before, reading, self.now_ms, may_trip=may_trip)
        self.breaker = step.breaker
        fallen = level(before.state) - level(step.breaker.state)
        begun_anew = step.reason in BEGINS_ANEW or step.breaker.period != before.period
        if fallen > 0 and not begun_anew:
            assert step.reason is TripReason.STEPPED_DOWN
            assert fallen == 1, "one stage at a time"
            assert self.now_ms - self.entered_ms >= DWELL_MS, "after its dwell"
        if fallen < 0:
            assert may_trip, "nothing rises without the right to trip"
        if fallen or begun_anew:
            self.entered_ms = self.now_ms
        assert step.recheck_ms == 0 or step.recheck_ms > self.now_ms or not may_trip

    @rule(percent=st.integers(0, 140))
    def spend(self, percent: int) -> None:
        """Spend stands at any percentage, up or down."""
        self.percent = percent
        self._advance()

    @rule(percent=st.integers(0, 140))
    def spend_in_the_grace(self, percent: int) -> None:
        """As `spend`, without the right to trip."""
        self.percent = percent
        self._advance(may_trip=False)

    @rule(ms=st.integers(0, 2 * DWELL_MS))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.now_ms += ms
        self._advance()

    @rule()
    def new_period(self) -> None:
        """Another month, nothing spent."""
        self.period += 1
        self.percent = 0
        self._advance()

    @rule()
    def change_budget(self) -> None:
        """Another budget version."""
        self.version += 1
        self._advance()

    @rule(enabled=st.booleans())
    def override(self, enabled: bool) -> None:
        """The breaker is switched off or on."""
        self.policy = self.policy.model_copy(update={"enabled": enabled})
        self._advance()

    @invariant()
    def exhausted_is_open(self) -> None:
        """Repeating the last observation with the right to trip opens at 100 percent."""
        if self.policy.enabled and self.percent >= 100 and self.breaker.period:
            self._advance()
            assert self.breaker.state is BreakerState.OPEN


TestBreakerWalk = BreakerWalk.TestCase
TestBreakerWalk.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


class ControllerLife(RuleBasedStateMachine):
    """A controller's life: spend, corrections, policy, time and restarts in any order."""

    @initialize(complete=st.booleans())
    def begin(self, complete: bool) -> None:
        """A month and a day budget, an hourly cap."""
        self.story = Scenario("2026-10-30T20:00:00Z", complete=complete)
        self.version = 1
        self.story.policy(RESEARCH, month="100", day="60")
        self.story.policy(KEY, limits=Limits(hour_spend_nano_usd=10**10))

    @rule(scope=st.sampled_from([RESEARCH, KEY]), usd=st.integers(-20, 60), shard=st.integers(0, 2))
    def spend(self, scope: str, usd: int, shard: int) -> None:
        """Money is spent or taken back."""
        self.story.spend(scope, str(usd), shard=str(shard))

    @rule(seconds=st.sampled_from([1, 59, 301, 3_600, 40_000, 90_000]))
    def wait(self, seconds: int) -> None:
        """Time passes, over hours, days and the month's end."""
        self.story.wait(seconds)

    @rule(month=st.integers(50, 400))
    def change_budget(self, month: int) -> None:
        """Another budget, higher or lower."""
        self.version += 1
        self.story.policy(RESEARCH, month=str(month), day="60", version=self.version)

    @rule()
    def restart(self) -> None:
        """The worker starts again from the topics."""
        self.story.restart(complete=self.story.complete)

    @rule()
    def lose_the_last_alert_and_restart(self) -> None:
        """Killed after the command and before the alert."""
        if self.story.alerts:
            self.story.alerts.pop()
        self.story.restart(complete=self.story.complete)

    @invariant()
    def nothing_fires_twice(self) -> None:
        """Each alert identity is fired at most once and resolved at most once."""
        notified = Counter((alert.dedup_key, alert.status) for alert in self.story.alerts)
        assert all(times == 1 for times in notified.values()), notified
        assert len({alert.id for alert in self.story.alerts}) == len(notified)

    @invariant()
    def versions_only_rise(self) -> None:
        """(epoch, seq) of commands rises strictly, over restarts as well."""
        versions = [command.version for command in self.story.commands]
        assert versions == sorted(set(versions))

    @invariant()
    def restrictions_are_leases_in_force(self) -> None:
        """While the controller lives, no restriction's lease runs out."""
        for scope in (RESEARCH, KEY):
            if self.story.state_of(scope) is not BreakerState.CLOSED:
                assert self.story.last(scope).expires_at_ms > self.story.now_ms

    @invariant()
    def firing_alerts_are_of_the_present(self) -> None:
        """What still fires belongs to the current budget version."""
        for key in self.story.still_firing():
            scope_version = self.version if RESEARCH in key else 1
            assert key.endswith(f"/{scope_version}"), key

    @invariant()
    def an_exhausted_day_is_blocked(self) -> None:
        """A day budget that is used up is open: no grace, no dwell on the way up."""
        day = self.story.calendar.window(WindowKind.DAY, self.story.now_ms)
        spent = [
            total.cost_nano_usd
            for total in self.story.totals.of(RESEARCH)
            if total.kind is WindowKind.DAY and total.start_ms == day.start_ms
        ]
        if spent and spent[0] >= 60 * 10**9:
            assert self.story.state_of(RESEARCH) is BreakerState.OPEN


TestControllerLife = ControllerLife.TestCase
TestControllerLife.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(-20, 60)),
        st.tuples(st.just("wait"), st.sampled_from([1, 301, 3_600, 90_000])),
        st.tuples(st.just("budget"), st.integers(50, 400)),
    ),
    max_size=20,
)


def _play(actions: list[tuple[str, int]], epoch: int) -> Scenario:
    story = Scenario("2026-10-30T20:00:00Z")
    story.state.epoch = epoch
    story.policy(RESEARCH, month="100", day="60")
    for number, (what, amount) in enumerate(actions):
        match what:
            case "spend":
                story.spend(RESEARCH, str(amount))
            case "wait":
                story.wait(amount)
            case _:
                story.policy(RESEARCH, month=str(amount), day="60", version=number + 2)
    return story


def _without_epoch(commands: list[ThrottleCommand]) -> list[Any]:
    return [command.model_copy(update={"epoch": 0}) for command in commands]


def _identities(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.id, alert.summary) for alert in alerts]


@given(ACTIONS)
def test_a_replay_gives_the_same_commands_apart_from_the_epoch(
    actions: list[tuple[str, int]],
) -> None:
    """The same observations at the same times give the same commands and alert ids."""
    first, second = _play(actions, 1), _play(actions, 900)
    assert _without_epoch(first.commands) == _without_epoch(second.commands)
    assert _identities(first.alerts) == _identities(second.alerts)


@given(
    st.lists(st.integers(1, 300), max_size=12),
    st.lists(st.integers(-50, 120), max_size=30),
)
def test_thresholds_of_one_period_fire_once_and_rise(
    percents: list[int], amounts: list[int]
) -> None:
    """Whatever the list and the path of spend, no threshold is notified or listed twice."""
    notified, seen, spent = 0, [], 0
    for amount in amounts:
        spent += amount
        reading = Measurement(
            RuleId.BUDGET_DAY, WindowKind.DAY, "2026-10-30", 0, 1, 1, spent, 100, NANO_USD
        )
        crossed = crossing(reading, percents, notified)
        if crossed is not None:
            assert crossed.threshold > notified
            seen += [*crossed.also_crossed, crossed.threshold]
            notified = crossed.threshold
    assert len(seen) == len(set(seen))
    highest = max((sum(amounts[: n + 1]) for n in range(len(amounts))), default=0)
    assert set(seen) == {percent for percent in percents if percent <= highest}


def test_firing_and_resolution_are_distinguished() -> None:
    """The resolution has the firing's key and another id."""
    story = _play([("spend", 60), ("wait", 90_000)], 1)
    fired, resolved = (
        [alert for alert in story.alerts if alert.status is status]
        for status in (AlertStatus.FIRING, AlertStatus.RESOLVED)
    )
    assert {alert.dedup_key for alert in resolved} <= {alert.dedup_key for alert in fired}
    assert not {alert.id for alert in resolved} & {alert.id for alert in fired}
