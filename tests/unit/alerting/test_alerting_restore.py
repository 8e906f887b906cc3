"""Starting again from the topics."""

from __future__ import annotations

import pytest

from meterline.alerting.core.restore import RestoredState, next_epoch
from meterline.alerting.core.state import PublishAlert, PublishThrottle
from meterline.schemas.throttle import BreakerState
from tests.alerting_story import KEY, RESEARCH, Scenario

CLOSED, THROTTLED, HALF_OPEN, OPEN = BreakerState


@pytest.fixture
def story() -> Scenario:
    """Research has used up its month."""
    begun = Scenario("2026-10-05T12:00:00Z")
    begun.policy(RESEARCH, month="100")
    begun.spend(RESEARCH, "100")
    return begun


def test_a_restart_notifies_nothing_again(story: Scenario) -> None:
    """Alerts that are on the topic are not fired again; the block is claimed under a new epoch."""
    (effect,) = story.restart()
    assert isinstance(effect, PublishThrottle)
    assert effect.command.state is OPEN
    assert effect.command.epoch > 1


def test_a_missing_alert_is_notified_under_its_own_id(story: Scenario) -> None:
    """Killed between command and alert: the alert comes at the next start, with the same id."""
    (lost,) = story.alerts
    effects = story.restart(alerts=[])
    (again,) = [effect.alert for effect in effects if isinstance(effect, PublishAlert)]
    assert (again.id, again.dedup_key) == (lost.id, lost.dedup_key)


def test_a_missing_command_is_published(story: Scenario) -> None:
    """Killed before the command: the difference between desired and published is published."""
    story.commands.clear()
    story.restart()
    assert story.state_of(RESEARCH) is OPEN


def test_a_period_that_ended_meanwhile_is_noticed(story: Scenario) -> None:
    """A worker that was down over the month's end releases and resolves at its start."""
    story.now_ms += 31 * 86_400_000
    story.restart()
    assert story.state_of(RESEARCH) is CLOSED
    assert story.still_firing() == set()


def test_a_policy_that_went_meanwhile_is_noticed(story: Scenario) -> None:
    """A command without policy is released, its alerts resolved."""
    story.policies.clear()
    story.restart()
    assert story.state_of(RESEARCH) is CLOSED
    assert story.still_firing() == set()


def test_hysteresis_survives_a_restart(story: Scenario) -> None:
    """The stage is taken from the command, not from spend alone."""
    story.spend(RESEARCH, "-2")
    story.restart()
    assert story.state_of(RESEARCH) is OPEN
    assert story.state.scopes[RESEARCH].breakers != {}


def test_an_older_controllers_last_word_is_corrected(story: Scenario) -> None:
    """Compaction keeps the last record, so a stale one must not stay the last."""
    newest = story.last(RESEARCH)
    story.policy(RESEARCH, month="1000", version=2)
    released = story.last(RESEARCH)
    assert released.state is CLOSED
    story.commands.append(newest)
    story.restart()
    assert story.last(RESEARCH).state is CLOSED
    assert story.last(RESEARCH).version > released.version


def test_thresholds_stay_notified_after_their_resolution(story: Scenario) -> None:
    """A resolved alert of this period and budget version is not fired again by a restart."""
    story.policy(RESEARCH, month="1000", version=2)
    story.policy(RESEARCH, month="100", version=3)
    fired = story.fired(RESEARCH)
    story.restart()
    assert story.fired(RESEARCH) == fired


def test_other_scopes_are_untouched(story: Scenario) -> None:
    """A scope without restriction or alert has nothing published at a start."""
    story.policy(KEY, month="5")
    effects = story.restart()
    assert all(
        effect.command.scope != KEY for effect in effects if isinstance(effect, PublishThrottle)
    )


@pytest.mark.parametrize(
    ("greatest", "now_ms", "expected", "because"),
    [
        (0, 5_000_000, 5_000, "the topic was lost: above what relays may remember"),
        (5_000, 5_000_000, 5_001, "two starts within a second"),
        (9_000, 5_000_000, 9_001, "a clock that was set back"),
    ],
)
def test_epochs_only_rise(greatest: int, now_ms: int, expected: int, because: str) -> None:
    """Each start is above every epoch that a relay may have seen."""
    assert next_epoch(greatest, now_ms) == expected, because


def test_the_greatest_epoch_counts_though_it_is_not_the_last(story: Scenario) -> None:
    """An older controller's later record does not lower the epoch."""
    memory = RestoredState()
    command = story.last(RESEARCH)
    memory.add_command(command.model_copy(update={"epoch": 8}))
    memory.add_command(command)
    assert memory.greatest_epoch == 8
    assert memory.commands()[RESEARCH].epoch == 8
