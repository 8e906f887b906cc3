"""Stories of budgets over days and months, with a clock that the story moves."""

from __future__ import annotations

from meterline.schemas.alert import AlertStatus
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.policy import Limits
from meterline.schemas.throttle import BreakerState, OnExpiry
from tests.alerting_story import KEY, RESEARCH, Scenario

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState


def test_a_blocked_key_is_free_again_when_the_month_begins() -> None:
    """A blocked key emits no events, so the period's start itself releases it."""
    story = Scenario("2026-10-20T09:00:00Z")
    story.policy(KEY, month="20")
    story.spend(KEY, "20")
    assert story.state_of(KEY) is OPEN

    story.wait_until("2026-10-31T23:59:59Z")
    assert story.state_of(KEY) is OPEN
    assert story.last(KEY).expires_at_ms > story.now_ms, "the lease was renewed all along"
    assert story.last(KEY).expires_at_ms <= story.last(KEY).reset_at_ms + 30_000

    story.wait_until("2026-11-01T00:00:00Z")
    assert story.state_of(KEY) is CLOSED
    assert "2026-10 has ended" in story.last(KEY).reason
    assert story.still_firing() == set()

    story.spend(KEY, "10")
    assert story.fired(KEY) == [100, 50], "the new month notifies its own thresholds"


def test_late_events_of_the_old_month_do_not_block_the_new_one() -> None:
    """What was spent before midnight counts for the month that it was spent in."""
    story = Scenario("2026-10-31T23:59:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "90")
    story.wait_until("2026-11-01T00:05:00Z")
    story.spend(RESEARCH, "500", at="2026-10-31T23:58:00Z")
    assert story.state_of(RESEARCH) is CLOSED
    assert story.fired(RESEARCH) == [90]


def test_an_incomplete_state_does_not_trip_a_young_month() -> None:
    """In the grace the month rule waits for completeness; day caps close the hole meanwhile."""
    story = Scenario("2026-11-01T01:00:00Z", complete=False)
    story.policy(RESEARCH, month="100", day="40")
    story.spend(RESEARCH, "30")
    assert story.state_of(RESEARCH) is THROTTLED, "the day budget trips: 75 % of 40"
    story.policy(KEY, month="10")
    story.spend(KEY, "50")
    assert story.state_of(KEY) is CLOSED, "the month's rule is held by the grace"
    assert story.fired(KEY) == [100], "but receivers are notified"

    story.set_complete(complete=True)
    assert story.state_of(KEY) is OPEN


def test_the_grace_ends_by_itself() -> None:
    """Six hours into the month a trip needs no completeness, and no further event."""
    story = Scenario("2026-11-01T01:00:00Z", complete=False)
    story.policy(KEY, month="10")
    story.spend(KEY, "50")
    story.wait_until("2026-11-01T05:59:59Z")
    assert story.state_of(KEY) is CLOSED
    story.wait_until("2026-11-01T06:00:00Z")
    assert story.state_of(KEY) is OPEN


def test_a_raised_budget_frees_at_once_and_arms_again() -> None:
    """Recovery needs no new event; the new budget version notifies its own thresholds."""
    story = Scenario("2026-10-20T09:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "100")
    fired = {alert.dedup_key for alert in story.alerts}

    story.policy(RESEARCH, month="400", version=2)
    assert story.state_of(RESEARCH) is CLOSED
    assert "budget was changed" in story.last(RESEARCH).reason
    resolved = {a.dedup_key for a in story.alerts if a.status is AlertStatus.RESOLVED}
    assert resolved == fired
    assert story.still_firing() == set()

    story.spend(RESEARCH, "200")
    assert story.fired(RESEARCH) == [100, 75]
    assert story.state_of(RESEARCH) is THROTTLED


def test_a_small_raise_eases_only_as_far_as_spend_allows() -> None:
    """A budget raised by a tenth leaves the scope half open, and says so."""
    story = Scenario("2026-10-20T09:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "100")
    story.policy(RESEARCH, month="110", version=2)
    assert story.state_of(RESEARCH) is HALF_OPEN
    assert story.fired(RESEARCH) == [100, 90]


def test_an_hourly_cap_blocks_for_its_hour_only() -> None:
    """A runaway loop is stopped at the cap, freed with the hour, and stopped again."""
    story = Scenario("2026-10-20T09:40:00Z")
    story.policy(KEY, limits=Limits(hour_spend_nano_usd=5 * NANO_PER_USD))
    for hour in (10, 11, 12):
        story.spend(KEY, "6")
        assert story.state_of(KEY) is OPEN
        assert story.last(KEY).on_expiry is OnExpiry.DEGRADE
        story.wait_until(f"2026-10-20T{hour}:00:00Z")
        assert story.state_of(KEY) is CLOSED
    assert len({alert.id for alert in story.alerts}) == 6, "three hours fired and resolved"


def test_the_most_restrictive_of_cap_and_budget_wins_in_turn() -> None:
    """While the hour's cap blocks, the month's throttle waits behind it."""
    story = Scenario("2026-10-20T09:40:00Z")
    story.policy(KEY, month="100", limits=Limits(hour_spend_nano_usd=80 * NANO_PER_USD))
    story.spend(KEY, "80")
    assert (story.state_of(KEY), story.last(KEY).reason_code) == (OPEN, "hour_spend")
    story.wait_until("2026-10-20T10:00:00Z")
    assert (story.state_of(KEY), story.last(KEY).reason_code) == (THROTTLED, "budget_throttled")


def test_one_department_stops_and_the_others_go_on() -> None:
    """Commands name one scope; no other scope's state changes."""
    story = Scenario("2026-10-20T09:00:00Z")
    for name in ("research", "sales", "support"):
        story.policy(f"department:acme/{name}", month="100")
        story.spend(f"department:acme/{name}", "10")
    story.spend(RESEARCH, "90")
    assert {command.scope for command in story.commands} == {RESEARCH}


def test_a_controller_that_was_down_overnight_catches_up() -> None:
    """After a restart in the next day the day's block is lifted and the month's stage stands."""
    story = Scenario("2026-10-20T22:00:00Z")
    story.policy(RESEARCH, month="100", day="80")
    story.spend(RESEARCH, "80")
    assert story.state_of(RESEARCH) is OPEN
    story.now_ms += 12 * 3_600_000
    story.restart()
    assert story.state_of(RESEARCH) is THROTTLED
    assert {key.split("/")[0] for key in story.still_firing()} == {"budget_month"}


def test_the_clocks_go_back_and_the_hour_has_two_names() -> None:
    """The repeated hour of a daylight saving change is two windows, each with its own cap."""
    story = Scenario("2026-11-01T05:30:00Z", zone="America/New_York")
    story.policy(KEY, limits=Limits(hour_spend_nano_usd=NANO_PER_USD))
    story.spend(KEY, "1")
    story.wait_until("2026-11-01T06:00:00Z")
    assert story.state_of(KEY) is CLOSED
    story.spend(KEY, "1")
    assert story.state_of(KEY) is OPEN
    fired = [a.dedup_key for a in story.alerts if a.status is AlertStatus.FIRING]
    assert len(set(fired)) == 2
