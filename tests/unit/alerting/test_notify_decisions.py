"""Notify's pure parts: message, route, schedule, outbox, progress, delivery log."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest

from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.alerting.notify.core.commit_tracker import CommitTracker
from meterline.alerting.notify.core.decide import RoutingContext, decide
from meterline.alerting.notify.core.delivery_log import DONE_MAX, DeliveryLog
from meterline.alerting.notify.core.messages import body_of, incident_key, message_id
from meterline.alerting.notify.core.outbox import IN_FLIGHT_PER_CHANNEL_MAX, Job, Outbox
from meterline.alerting.notify.core.retry_schedule import (
    RETRY_AFTER_SECONDS_MAX,
    Attempt,
    after,
    outcome_of,
)
from meterline.alerting.settings import NotifySettings
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.delivery import Delivery, DeliveryOutcome
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.policy import Limits, NotifyPolicy
from tests.alerting_story import KEY, RESEARCH, Scenario

DELAYS = NotifySettings().retry_seconds


def fired(scope: str = RESEARCH) -> Alert:
    """The alert of a budget that is used up."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(scope, month="100")
    story.spend(scope, "100.5")
    return story.alerts[-1]


def job(name: str, channel: str = "ops", alert: Alert | None = None, due_ms: int = 0) -> Job:
    """One message."""
    about = alert or fired(f"key:acme/{name}")
    return Job(name, channel, (about,), incident_key(about), due_ms=due_ms)


def test_money_leaves_as_decimal_strings() -> None:
    """No receiver reads an amount as a float."""
    document = json.loads(body_of(fired()))
    data = document["data"]
    assert document["type"] == "alert.firing"
    assert document["timestamp"] == "2026-10-05T12:00:00.000Z"
    assert (data["observed"], data["limit"]) == ("100.500000000", "100.000000000")
    assert (data["threshold"], data["threshold_unit"]) == ("100", "percent")
    assert data["amount_unit"] == "usd"
    assert data["resets_at"] == "2026-11-01T00:00:00.000Z"
    assert data["ends_at"] is None


def test_tokens_leave_as_tokens() -> None:
    """A token limit's numbers are not money."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(KEY, limits=Limits(day_tokens=1000))
    story.spend(KEY, "0.1", tokens=1500)
    data = json.loads(body_of(story.alerts[0]))["data"]
    assert (data["observed"], data["amount_unit"], data["threshold"]) == ("1500", "tokens", "1000")


def test_money_limits_name_their_threshold_in_dollars() -> None:
    """An absolute limit's threshold is an amount."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(KEY, limits=Limits(hour_spend_nano_usd=NANO_PER_USD))
    story.spend(KEY, "2")
    data = json.loads(body_of(story.alerts[0]))["data"]
    assert (data["threshold"], data["threshold_unit"]) == ("1.000000000", "usd")


def test_firing_and_resolution_are_two_messages_of_one_alert() -> None:
    """Another webhook-id, the same dedup key, and the time of the end."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "100")
    story.policy(RESEARCH, month="900", version=2)
    firing, resolved = story.alerts
    assert resolved.status is AlertStatus.RESOLVED
    assert message_id([firing]) != message_id([resolved])
    assert "." not in message_id([firing])
    bodies = [json.loads(body_of(alert)) for alert in (firing, resolved)]
    assert [body["type"] for body in bodies] == ["alert.firing", "alert.resolved"]
    assert len({body["data"]["dedup_key"] for body in bodies}) == 1
    assert bodies[1]["data"]["ends_at"] is not None


@pytest.mark.parametrize(
    ("severity", "notified"),
    [
        (Severity.INFO, ("log", "all")),
        (Severity.WARNING, ("log", "all", "ops")),
        (Severity.ERROR, ("log", "all", "ops")),
        (Severity.CRITICAL, ("log", "all", "ops", "pager")),
    ],
)
def test_channels_hear_from_their_least_severity_up(
    severity: Severity, notified: tuple[str, ...]
) -> None:
    """Routing is by severity; the log hears everything."""
    channels = tuple(
        WebhookChannel(id=name, url="https://x.test/", min_severity=least)
        for name, least in (("all", "info"), ("ops", "warning"), ("pager", "critical"))
    )
    alert = fired().model_copy(update={"severity": severity})
    decision = decide(alert, RoutingContext(NotifyPolicy(channels=channels)), alert.starts_at_ms)
    assert tuple(recipient.channel for recipient in decision.recipients) == notified


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, DeliveryOutcome.DELIVERED),
        (204, DeliveryOutcome.DELIVERED),
        (301, DeliveryOutcome.REFUSED),
        (308, DeliveryOutcome.REFUSED),
        (400, DeliveryOutcome.REFUSED),
        (401, DeliveryOutcome.REFUSED),
        (404, DeliveryOutcome.REFUSED),
        (408, DeliveryOutcome.RETRY),
        (410, DeliveryOutcome.GONE),
        (429, DeliveryOutcome.RETRY),
        (500, DeliveryOutcome.RETRY),
        (503, DeliveryOutcome.RETRY),
    ],
)
def test_answers_are_classified(status: int, outcome: DeliveryOutcome) -> None:
    """2xx is success, 410 disables, time may heal 408, 429 and 5xx; the rest is final."""
    assert outcome_of(status) is outcome


def test_the_schedule_is_kept_and_ends() -> None:
    """Every attempt follows its delay, at most a tenth later; after the last there is none."""
    failed = Attempt(DeliveryOutcome.RETRY, 500)
    for number, delay in enumerate(DELAYS[1:], start=1):
        outcome, at_ms = after(failed, number, "msg_1", DELAYS, 1_000)
        assert outcome is DeliveryOutcome.RETRY
        assert delay * 1000 <= at_ms - 1_000 <= delay * 1100
    assert after(failed, len(DELAYS), "msg_1", DELAYS, 0) == (DeliveryOutcome.EXHAUSTED, 0)
    assert list(DELAYS) == sorted(DELAYS)


def test_retries_of_different_messages_are_spread() -> None:
    """What failed together does not come back together."""
    failed = Attempt(DeliveryOutcome.RETRY)
    times = {after(failed, 2, f"msg_{n}", DELAYS, 0).at_ms for n in range(20)}
    assert len(times) > 15


@pytest.mark.parametrize(
    ("asked", "waited_ms", "because"),
    [
        (3600, 3_600_000, "longer than the schedule: honoured"),
        (10 * RETRY_AFTER_SECONDS_MAX, RETRY_AFTER_SECONDS_MAX * 1000, "a week is not"),
    ],
)
def test_retry_after_is_honoured_within_bounds(asked: int, waited_ms: int, because: str) -> None:
    """A receiver may ask for more time than the schedule gives, up to a day."""
    busy = Attempt(DeliveryOutcome.RETRY, 429, retry_after_seconds=asked)
    assert after(busy, 1, "msg_1", DELAYS, 0).at_ms == waited_ms, because


def test_retry_after_cannot_hasten() -> None:
    """The schedule is the least wait."""
    eager = Attempt(DeliveryOutcome.RETRY, 503, retry_after_seconds=0)
    assert after(eager, 1, "msg_1", DELAYS, 0).at_ms >= DELAYS[1] * 1000


def test_a_slow_channel_fills_its_own_places_only() -> None:
    """Messages under way are bounded per channel; another channel's leave at once."""
    outbox = Outbox()
    for number in range(IN_FLIGHT_PER_CHANNEL_MAX + 3):
        outbox.add(job(f"slow-{number}", "slow"))
    outbox.add(job("other", "quick"))
    taken = outbox.take_due(0)
    assert sum(one.channel == "slow" for one in taken) == IN_FLIGHT_PER_CHANNEL_MAX
    assert sum(one.channel == "quick" for one in taken) == 1
    assert outbox.take_due(0) == []
    outbox.settle(taken[0])
    assert len(outbox.take_due(0)) == 1


def test_messages_of_one_alert_leave_in_order() -> None:
    """No receiver gets "resolved" before "firing", also when the firing must be tried again."""
    alert = fired()
    outbox = Outbox()
    firing, resolved = job("firing", alert=alert), job("resolved", alert=alert)
    outbox.add(firing)
    outbox.add(resolved)
    assert outbox.take_due(0) == [firing]
    outbox.retry(firing, 500)
    assert outbox.take_due(499) == []
    (again,) = outbox.take_due(500)
    assert (again.message_id, again.attempt) == ("firing", 2)
    outbox.settle(again)
    assert outbox.take_due(500) == [resolved]


def test_a_held_channel_waits() -> None:
    """After Retry-After nothing leaves for that receiver until then."""
    outbox = Outbox()
    outbox.add(job("a"))
    outbox.hold("ops", 1_000)
    outbox.hold("ops", 10)
    assert outbox.take_due(999) == []
    assert len(outbox.take_due(1_000)) == 1


def test_a_message_is_in_the_outbox_once() -> None:
    """An alert that is read again is not sent again."""
    outbox = Outbox()
    assert outbox.add(job("a"))
    assert not outbox.add(job("a"))
    assert len(outbox) == 1
    assert ("a", "ops") in outbox
    (taken,) = outbox.take_due(0)
    outbox.settle(taken)
    assert len(outbox) == 0
    assert outbox.in_flight == 0


def test_offsets_are_committed_up_to_the_first_unrecorded_alert() -> None:
    """A commit never passes an alert that only its offset remembers."""
    progress = CommitTracker()
    progress.read(0, 40, [])
    progress.read(0, 41, [("m41", "log"), ("m41", "ops")])
    progress.read(0, 42, [("m42", "log")])
    assert progress.take_committable() == {0: 41}
    progress.recorded(("m42", "log"))
    progress.recorded(("m41", "log"))
    assert progress.take_committable() == {}
    progress.recorded(("m41", "ops"))
    assert progress.take_committable() == {0: 43}
    assert progress.take_committable() == {}


def test_an_alert_written_twice_is_done_once_for_both() -> None:
    """Two records of one alert share their deliveries."""
    progress = CommitTracker()
    progress.read(0, 1, [("m", "log")])
    progress.read(0, 2, [("m", "log")])
    progress.recorded(("m", "log"))
    assert progress.take_committable() == {0: 3}


def delivery(outcome: DeliveryOutcome, attempt: int = 1, **more: object) -> Delivery:
    """One attempt's record."""
    waits = outcome is DeliveryOutcome.RETRY
    fields: dict[str, object] = {
        "message_id": "m",
        "alert_id": "a",
        "channel": "ops",
        "at_ms": 0,
        "alerts": (msgspec.Raw(fired().model_dump_json().encode()),) if waits else (),
        **more,
    }
    return Delivery(outcome=outcome, attempt=attempt, **fields)  # type: ignore[arg-type]


def test_a_waiting_delivery_goes_on_where_it_stopped() -> None:
    """The record of a failed attempt carries all that the next one needs."""
    log = DeliveryLog()
    log.fold(delivery(DeliveryOutcome.RETRY, 2, next_attempt_ms=700))
    (waiting,) = log.waiting()
    assert (waiting.attempt, waiting.due_ms, waiting.alert) == (3, 700, fired())
    assert log.knows("a", "ops")
    assert not log.knows("a", "log")


def test_a_done_delivery_stays_done() -> None:
    """Records that come late or again do not bring a message back."""
    log = DeliveryLog()
    log.fold(delivery(DeliveryOutcome.RETRY))
    log.fold(delivery(DeliveryOutcome.DELIVERED, 2))
    log.fold(delivery(DeliveryOutcome.RETRY))
    assert list(log.waiting()) == []
    assert log.knows("a", "ops")


def test_an_older_attempt_does_not_replace_a_newer_one() -> None:
    """The log is read again after each write; only the newest attempt counts."""
    log = DeliveryLog()
    log.fold(delivery(DeliveryOutcome.RETRY, 3, next_attempt_ms=900))
    log.fold(delivery(DeliveryOutcome.RETRY, 2, next_attempt_ms=300))
    assert [waiting.due_ms for waiting in log.waiting()] == [900]


def test_gone_stands_while_the_policy_is_the_same() -> None:
    """A 410 disables the channel until an operator changes it."""
    log = DeliveryLog()
    log.fold(delivery(DeliveryOutcome.GONE, http_status=410, channel_fingerprint="f1"))
    assert log.is_gone("ops", "f1")
    assert not log.is_gone("ops", "f2")
    assert not log.is_gone("other", "f1")


def test_the_memory_of_done_deliveries_is_bounded() -> None:
    """The oldest are forgotten, long after their offsets were committed."""
    log = DeliveryLog()
    for number in range(DONE_MAX + 5):
        log.fold(delivery(DeliveryOutcome.DELIVERED, message_id=str(number), alert_id=str(number)))
    assert not log.knows("4", "ops")
    assert log.knows("5", "ops")


def test_the_whole_schedule_lasts_days() -> None:
    """A receiver may be away for a weekend."""
    assert sum(DELAYS) > 3 * 86_400
    assert all(earlier < later for earlier, later in pairwise(DELAYS))
