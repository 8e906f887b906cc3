"""The notify worker on the embedded broker, with a real receiver."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from meterline.alerting.notify.channels.slack import SlackChannel
from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.alerting.notify.core.outbox import IN_FLIGHT_PER_CHANNEL_MAX
from meterline.alerting.notify.worker import EXIT_OK, run_notify
from meterline.alerting.settings import NotifySettings
from meterline.backends.failpoints import AlertingFailpoint
from meterline.schemas.alert import Alert
from meterline.schemas.delivery import Delivery, DeliveryOutcome
from meterline.schemas.metrics import NoMeter
from meterline.schemas.policy import NotifyPolicy
from meterline.schemas.policy_notify import Route, Silence
from meterline.schemas.topics import Topic
from tests.alerting_broker import (
    PATIENCE_SECONDS,
    Log,
    running_log,
    running_process,
    running_thread,
)
from tests.alerting_story import RESEARCH, Scenario
from tests.alerting_worker import now_ms
from tests.channel_receivers import slack
from tests.webhook_receiver import SECRET, Answer, Receiver, running_receiver

pytestmark = pytest.mark.functional

SECRETS = {"HOOK_SECRET": SECRET}
QUICK = NotifySettings(retry_seconds=(0, 0, 0), request_timeout_seconds=1)


@pytest.fixture
def log() -> Iterator[Log]:
    """A broker with our topics."""
    with running_log() as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with running_receiver() as running:
        yield running


def channel(receiver: Receiver, name: str, *answers: Answer, **more: object) -> WebhookChannel:
    """A channel to a path of the receiver."""
    given = {
        "id": name,
        "url": receiver.url(f"/{name}", *answers),
        "secret_env": "HOOK_SECRET",
        "allow_private_address": True,
        **more,
    }
    return WebhookChannel.model_validate(given)


def alerts(count: int = 1) -> list[Alert]:
    """Alerts of `count` departments."""
    story = Scenario("2026-10-05T12:00:00Z")
    for number in range(count):
        scope = f"{RESEARCH}-{number}"
        story.policy(scope, month="1")
        story.spend(scope, "1")
    return story.alerts


def notify(log: Log, stop: threading.Event, settings: NotifySettings = QUICK) -> int:
    """The worker."""
    return run_notify(settings, log.config, SECRETS.get, now_ms, NoMeter(), stop)


def of(log: Log, name: str) -> list[Delivery]:
    """The delivery records of one channel."""
    return [delivery for delivery in log.deliveries if delivery.channel == name]


def outcomes(log: Log, name: str) -> list[DeliveryOutcome]:
    """What became of the attempts of one channel, in order."""
    return [delivery.outcome for delivery in of(log, name)]


def test_an_alert_leaves_signed_and_is_logged(log: Log, receiver: Receiver) -> None:
    """A receiver verifies the alert, and both channels have their line in the delivery log."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops"),)))
    (alert,) = alerts()
    with running_thread(lambda stop: notify(log, stop)) as codes:
        log.alert(alert)
        log.until(lambda: len(log.deliveries) == 2, "two deliveries")
    assert codes == [EXIT_OK]
    (received,) = receiver.of("/ops")
    assert received.verified()["data"]["scope"] == alert.scope
    assert outcomes(log, "log") == outcomes(log, "ops") == [DeliveryOutcome.DELIVERED]
    assert SECRET not in str(log.deliveries)


def test_a_channel_that_is_published_before_an_alert_hears_it(log: Log, receiver: Receiver) -> None:
    """One policy change brings an alert and the channel for it, while the worker waits."""
    given = alerts(5)
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(given[0])
        log.until(lambda: len(of(log, "log")) == 1, "a worker in charge")
        for number, alert in enumerate(given[1:]):
            name = f"ops-{number}"
            log.policy(NotifyPolicy(channels=(channel(receiver, name),)))
            log.alert(alert)
            log.until(partial(of, log, name), f"a delivery to {name}")


def test_a_failing_receiver_is_tried_again_under_the_same_id(log: Log, receiver: Receiver) -> None:
    """500, then 200: one message, two attempts, two records."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", Answer(500), Answer(200)),)))
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 2, "the second attempt")
    assert outcomes(log, "ops") == [DeliveryOutcome.RETRY, DeliveryOutcome.DELIVERED]
    assert [delivery.attempt for delivery in of(log, "ops")] == [1, 2]
    first, second = receiver.of("/ops")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert second.verified()["type"] == "alert.firing"


def test_retry_after_is_waited_for(log: Log, receiver: Receiver) -> None:
    """429 with Retry-After: 1 is tried again after a second and no sooner."""
    busy = Answer(429, {"retry-after": "1"})
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", busy),)))
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 2, "the second attempt")
    first, second = of(log, "ops")
    assert first.http_status == 429
    assert second.at_ms >= first.next_attempt_ms >= first.at_ms + 1_000


def test_the_schedule_ends(log: Log, receiver: Receiver) -> None:
    """After the last attempt the log says that no receiver was reached."""
    answers = [Answer(503)] * 3
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", *answers),)))
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 3, "the last attempt")
    assert outcomes(log, "ops")[-1] is DeliveryOutcome.EXHAUSTED
    assert of(log, "ops")[-1].next_attempt_ms == 0


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(400), DeliveryOutcome.REFUSED),
        (Answer(302, {"location": "/elsewhere"}), DeliveryOutcome.REFUSED),
    ],
)
def test_a_final_answer_is_not_tried_again(
    log: Log, receiver: Receiver, answer: Answer, outcome: DeliveryOutcome
) -> None:
    """A refusal or a redirect is the end of that message, and of no other."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", answer),)))
    with running_thread(lambda stop: notify(log, stop)):
        for alert in alerts(2):
            log.alert(alert)
        log.until(lambda: len(of(log, "ops")) == 2, "both messages")
    assert sorted(outcomes(log, "ops")) == sorted([outcome, DeliveryOutcome.DELIVERED])
    assert receiver.of("/elsewhere") == []


def test_gone_disables_the_channel_until_its_policy_changes(log: Log, receiver: Receiver) -> None:
    """After 410 nothing is sent, over a restart as well; a changed policy is a new chance."""
    first, second, third = alerts(3)
    policy = NotifyPolicy(channels=(channel(receiver, "ops", Answer(410)),))
    log.policy(policy)
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(first)
        log.until(lambda: len(of(log, "ops")) == 1, "the 410")
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(second)
        log.until(lambda: len(of(log, "ops")) == 2, "the skipped message")
        assert len(receiver.of("/ops")) == 1
        log.policy(NotifyPolicy(channels=(channel(receiver, "ops", min_severity="warning"),)))
        # Policy and alerts are two topics: wait until the worker has seen the first.
        time.sleep(1)
        log.alert(third)
        log.until(lambda: len(of(log, "ops")) == 3, "the third message")
    expected = [DeliveryOutcome.GONE, DeliveryOutcome.GONE, DeliveryOutcome.DELIVERED]
    assert outcomes(log, "ops") == expected


def test_a_hanging_receiver_delays_no_other(log: Log, receiver: Receiver) -> None:
    """While every place of one channel hangs, the other channel gets all alerts."""
    hangs = [Answer(hang=True)] * 20
    channels = (channel(receiver, "dead", *hangs), channel(receiver, "ops"))
    log.policy(NotifyPolicy(channels=channels))
    count = IN_FLIGHT_PER_CHANNEL_MAX * 2
    slow = replace(QUICK, request_timeout_seconds=PATIENCE_SECONDS)
    with running_thread(lambda stop: notify(log, stop, slow)):
        for alert in alerts(count):
            log.alert(alert)
        log.until(lambda: len(of(log, "ops")) == count, "the other channel's messages")
        assert of(log, "dead") == []
    assert len(receiver.of("/dead")) == IN_FLIGHT_PER_CHANNEL_MAX


def test_a_private_address_is_forbidden_unless_allowed(log: Log, receiver: Receiver) -> None:
    """A URL into our own network is refused for good, with a reason that shows no path."""
    guarded = WebhookChannel(id="ops", url="https://127.0.0.1/T0K3N", secret_env="HOOK_SECRET")
    log.policy(NotifyPolicy(channels=(guarded,)))
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 1, "the refusal")
    assert outcomes(log, "ops") == [DeliveryOutcome.FORBIDDEN]
    assert "T0K3N" not in str(log.deliveries)


def test_a_missing_secret_is_worth_a_restart(log: Log, receiver: Receiver) -> None:
    """Without its secret a message waits; the operator sets it, and nothing was lost."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops"),)))
    stop_secret: dict[str, str] = {}
    settings = replace(QUICK, retry_seconds=(0, 1, 1))

    def without_secret(stop: threading.Event) -> int:
        return run_notify(settings, log.config, stop_secret.get, now_ms, NoMeter(), stop)

    with running_thread(without_secret):
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 1, "the failed attempt")
    assert "HOOK_SECRET" in of(log, "ops")[0].error
    with running_thread(lambda stop: notify(log, stop, settings)):
        log.until(lambda: DeliveryOutcome.DELIVERED in outcomes(log, "ops"), "the delivery")
    assert receiver.of("/ops")[0].verified()


def test_a_full_outbox_stops_reading_and_loses_nothing(log: Log, receiver: Receiver) -> None:
    """At its bound the worker reads no more alerts until there is room again."""
    answers = [Answer(500)] * 4
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", *answers),)))
    tight = replace(QUICK, pending_max=2, retry_seconds=(0, 1, 1))
    with running_thread(lambda stop: notify(log, stop, tight)):
        for alert in alerts(8):
            log.alert(alert)
        log.until(
            lambda: outcomes(log, "ops").count(DeliveryOutcome.DELIVERED) == 8, "all messages"
        )
    assert len({request.headers["webhook-id"] for request in receiver.of("/ops")}) == 8


def test_garbage_on_the_topics_is_passed_over(log: Log, receiver: Receiver) -> None:
    """A record that Meterline did not write stops nothing."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops"),)))
    for topic in (Topic.ALERTS, Topic.DELIVERIES, Topic.POLICIES):
        log.garbage(topic)
    with running_thread(lambda stop: notify(log, stop)) as codes:
        log.alert(alerts()[0])
        log.until(lambda: len(of(log, "ops")) == 1, "the delivery")
    assert codes == [EXIT_OK]


@pytest.mark.parametrize(
    "point",
    [
        AlertingFailpoint.BEFORE_DELIVERY,
        AlertingFailpoint.DELIVERED,
        AlertingFailpoint.DELIVERY_DURABLE,
    ],
)
def test_killed_between_steps_nothing_is_lost(
    log: Log, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, point: AlertingFailpoint
) -> None:
    """After kill -9 every alert arrives; one that arrives twice has the same webhook-id."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops"),)))
    log.alert(alerts()[0])
    with running_process("notify", log.config, point) as killed:
        assert killed.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    with running_process("notify", log.config):
        log.until(lambda: DeliveryOutcome.DELIVERED in outcomes(log, "ops"), "the delivery")
    # Killed before the first send it arrives once; later it may have been on its way already.
    most = 1 if point is AlertingFailpoint.BEFORE_DELIVERY else 2
    assert 1 <= len(receiver.of("/ops")) <= most
    assert len({request.headers["webhook-id"] for request in receiver.of("/ops")}) == 1


def test_a_waiting_message_survives_a_kill(
    log: Log, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry is remembered by the delivery log, though its alert's offset was committed."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops", Answer(500)),)))
    log.alert(alerts()[0])
    with running_process("notify", log.config) as process:
        log.until(lambda: len(of(log, "ops")) == 1, "the failed attempt")
        process.kill()
        process.wait()
    with running_process("notify", log.config):
        log.until(lambda: DeliveryOutcome.DELIVERED in outcomes(log, "ops"), "the second attempt")
    assert [delivery.attempt for delivery in of(log, "ops")] == [1, 2]
    documents = [json.loads(request.body) for request in receiver.of("/ops")]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    "point",
    [
        AlertingFailpoint.MESSAGE_DURABLE,
        AlertingFailpoint.DELIVERED,
        AlertingFailpoint.DELIVERY_DURABLE,
    ],
)
def test_a_group_killed_between_steps_keeps_its_message(
    log: Log, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, point: AlertingFailpoint
) -> None:
    """After kill -9 every alert of a group arrives, and what arrives twice has the same id."""
    monkeypatch.setenv("SLACK_URL", slack(receiver, "/chat"))
    chat = SlackChannel(id="chat", url_env="SLACK_URL", allow_private_address=True)
    route = Route(
        id="all",
        channels=("chat",),
        group_by=("organisation",),
        group_wait_seconds=0,
        group_interval_seconds=0,
    )
    log.policy(NotifyPolicy(channels=(chat,), routes=(route,)))
    fired = alerts(3)
    for alert in fired:
        log.alert(alert)
    with running_process("notify", log.config, point) as killed:
        assert killed.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    with running_process("notify", log.config):
        log.until(
            lambda: (
                {
                    alert_id
                    for one in of(log, "chat")
                    if one.outcome is DeliveryOutcome.DELIVERED
                    for alert_id in one.alert_ids
                }
                == {alert.id for alert in fired}
            ),
            "all alerts",
        )
    bodies = {request.headers["webhook-id"]: request.body for request in receiver.of("/chat")}
    assert all(
        bodies[request.headers["webhook-id"]] == request.body for request in receiver.of("/chat")
    )
    shown = b"".join(bodies.values())
    for alert in fired:
        assert shown.count(f"*{alert.scope} has".encode()) == 1


def test_a_silence_holds_and_ends_on_the_topics(log: Log, receiver: Receiver) -> None:
    """A silence published while the worker runs mutes; its early end lets the alert through."""
    log.policy(NotifyPolicy(channels=(channel(receiver, "ops"),)))
    silence = Silence(
        id="s1",
        match=("scope_type=department",),
        starts_at_ms=0,
        ends_at_ms=now_ms() + 3_600_000,
        author="ana",
        reason="migration",
    )
    log.policy(silence)
    with running_thread(lambda stop: notify(log, stop)):
        log.alert(alerts()[0])
        log.until(lambda: outcomes(log, "ops") == [DeliveryOutcome.MUTED], "the muted record")
        log.policy(silence.model_copy(update={"ends_at_ms": now_ms(), "version": 2}))
        log.until(lambda: DeliveryOutcome.DELIVERED in outcomes(log, "ops"), "the delivery")
    assert len(receiver.of("/ops")) == 1


def test_slack_is_notified_once_a_second(log: Log, receiver: Receiver) -> None:
    """Slack's limit holds without a 429."""
    url = slack(receiver, "/paced")
    chat = SlackChannel(id="chat", url_env="SLACK_URL", allow_private_address=True)
    log.policy(NotifyPolicy(channels=(chat,)))

    def run(stop: threading.Event) -> int:
        return run_notify(QUICK, log.config, {"SLACK_URL": url}.get, now_ms, NoMeter(), stop)

    with running_thread(run):
        for alert in alerts(3):
            log.alert(alert)
        log.until(lambda: len(of(log, "chat")) == 3, "three messages")
    times = [delivery.at_ms for delivery in of(log, "chat")]
    assert all(later - earlier >= 1_000 for earlier, later in pairwise(times))
