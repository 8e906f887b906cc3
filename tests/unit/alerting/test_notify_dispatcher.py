"""The dispatcher: grouping, silences, inhibition, fallbacks and replays, without a broker."""

from __future__ import annotations

import msgspec
import pytest

from meterline.alerting.notify.channels.slack import SlackChannel
from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.alerting.notify.core.active import ActiveAlerts
from meterline.alerting.notify.core.channel_health import FAILURES_UNTIL_PAUSE, FIRST_PAUSE_MS
from meterline.alerting.notify.core.channel_traits import ChannelTraits
from meterline.alerting.notify.core.delivery_log import DeliveryLog
from meterline.alerting.notify.core.dispatcher import Dispatcher
from meterline.alerting.notify.core.outbox import Job
from meterline.alerting.notify.core.policy_snapshot import PolicySnapshot
from meterline.alerting.notify.core.rate_limit import UNLIMITED, RateLimit
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.delivery import Delivery, DeliveryOutcome, decode_delivery, encode_delivery
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.policy import NotifyPolicy, ScopePolicy
from meterline.schemas.policy_notify import LOG_CHANNEL, Inhibition, Maintenance, Route, Silence
from meterline.schemas.throttle import BreakerState, ThrottleCommand, ThrottleLimits
from tests.alerting_story import RESEARCH, Scenario

NOW = parse_rfc3339("2026-10-05T12:00:00Z")
KEY = "key:acme/k-1"
DELAYS = (0, 5, 300)
DELIVERED = Attempt(DeliveryOutcome.DELIVERED, 200)
FAILED = Attempt(DeliveryOutcome.RETRY, 503, "answered 503")


def traits(*, groups: bool, fallback: str = "", rate_limit: RateLimit = UNLIMITED) -> ChannelTraits:
    """A channel of which only this matters."""
    return ChannelTraits("f", rate_limit, groups, fallback)


class NotifierHarness:
    """A dispatcher and the log it writes, with a clock that the test moves."""

    def __init__(self, policy: NotifyPolicy, **channels: ChannelTraits) -> None:
        self.now_ms = NOW
        self.policy = policy
        self.channels = {LOG_CHANNEL: traits(groups=False), **channels}
        self.written: list[Delivery] = []
        self.alerts: list[Alert] = []
        self.objects: list[tuple[str, ScopePolicy | Silence | None]] = []
        self.commands: list[ThrottleCommand] = []
        self.dispatcher = self.opened()

    def opened(self) -> Dispatcher:
        """A dispatcher made of the topics alone, as after a restart."""
        log, knowledge, active = DeliveryLog(), PolicySnapshot(), ActiveAlerts()
        for delivery in self.written:
            log.fold(decode_delivery(encode_delivery(delivery)))
        knowledge.fold_policy("notify", self.policy)
        for name, item in self.objects:
            knowledge.fold_policy(name, item)
        for command in self.commands:
            knowledge.fold_command(command)
        for offset, alert in enumerate(self.alerts):
            active.fold(alert, offset)
        dispatcher = Dispatcher(log, knowledge, active)
        dispatcher.set_channels(self.channels)
        return dispatcher

    def know(self, name: str, item: ScopePolicy | Silence | None) -> None:
        """A policy object is published."""
        self.objects.append((name, item))
        self.dispatcher.policy.fold_policy(name, item)

    def command(self, scope: str, state: BreakerState, seconds: int = 900) -> None:
        """A throttle command is published."""
        command = ThrottleCommand(
            scope=scope,
            epoch=1,
            seq=len(self.commands) + 1,
            state=state,
            limits=ThrottleLimits(),
            reason="r",
            reason_code="budget_exhausted",
            issued_at_ms=self.now_ms,
            expires_at_ms=self.now_ms + seconds * 1000,
        )
        self.commands.append(command)
        self.dispatcher.policy.fold_command(command)

    def read(self, *alerts: Alert) -> None:
        """Alerts come."""
        for alert in alerts:
            self.dispatcher.read(alert, 0, len(self.alerts), self.now_ms)
            self.alerts.append(alert)
        self.write(self.dispatcher.records_before_sending(self.now_ms))

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now_ms += int(seconds * 1000)
        self.dispatcher.review_muted(self.now_ms)
        self.write(self.dispatcher.records_before_sending(self.now_ms))

    def write(self, deliveries: list[Delivery]) -> None:
        """Records become durable."""
        self.written += deliveries
        self.dispatcher.recorded(deliveries)

    def send(self, attempt: Attempt = DELIVERED) -> list[Job]:
        """What leaves now, and comes to this; the log's own lines are left out."""
        jobs = self.dispatcher.outbox.take_due(self.now_ms)
        for job in jobs:
            of = DELIVERED if job.channel == LOG_CHANNEL else attempt
            records = list(self.dispatcher.records(job, of, DELAYS, self.now_ms, self.now_ms))
            self.write(records)
            self.dispatcher.settle(job, of, records[-1], self.now_ms)
        return [job for job in jobs if job.channel != LOG_CHANNEL]

    def of(self, channel: str) -> list[DeliveryOutcome]:
        """The outcomes on a channel."""
        return [one.outcome for one in self.written if one.channel == channel]


def alert_of(scope: str = RESEARCH, percent: str = "92", severity: Severity | None = None) -> Alert:
    """A budget's alert."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(scope, month="100")
    story.spend(scope, percent)
    changes = {} if severity is None else {"severity": severity}
    return story.alerts[0].model_copy(update=changes)


def over(alert: Alert) -> Alert:
    """Its resolution."""
    changes = {"status": AlertStatus.RESOLVED, "id": f"over-{alert.id}", "ends_at_ms": NOW + 1}
    return alert.model_copy(update=changes)


def slack_grouped(*by: str, wait: int = 10, interval: int = 300) -> NotifyPolicy:
    """One Slack channel whose alerts are grouped."""
    route = Route(
        id="r",
        channels=("chat",),
        group_by=by,
        group_wait_seconds=wait,
        group_interval_seconds=interval,
    )
    return NotifyPolicy(channels=(SlackChannel(id="chat", url_env="U"),), routes=(route,))


def hook(name: str = "hook", fallback: str = "") -> WebhookChannel:
    """A webhook channel."""
    return WebhookChannel(id=name, url="https://x.test/", fallback=fallback)


def harness_of(policy: NotifyPolicy) -> NotifierHarness:
    """A harness whose Slack channels group."""
    made: dict[str, ChannelTraits] = {
        channel.id: traits(groups=isinstance(channel, SlackChannel), fallback=channel.fallback)
        for channel in policy.channels
    }
    return NotifierHarness(policy, **made)


def test_alerts_of_a_group_come_in_one_message() -> None:
    """What comes within group_wait waits for it; other groups have messages of their own."""
    harness = harness_of(slack_grouped("organisation"))
    harness.read(alert_of("key:acme/a"))
    harness.wait(5)
    harness.read(alert_of("key:acme/b"), alert_of("key:other/c"))
    assert harness.send() == []
    harness.wait(5)
    (first,) = harness.send()
    assert [alert.scope for alert in first.alerts] == ["key:acme/a", "key:acme/b"]
    harness.wait(5)
    (second,) = harness.send()
    assert [alert.scope for alert in second.alerts] == ["key:other/c"]


def test_a_group_that_was_notified_waits_for_its_interval() -> None:
    """The second message of a group comes group_interval after the first, also over a restart."""
    harness = harness_of(slack_grouped("organisation", wait=10, interval=300))
    harness.read(alert_of("key:acme/a"))
    harness.wait(10)
    assert len(harness.send()) == 1
    harness.dispatcher = harness.opened()
    harness.read(alert_of("key:acme/b"))
    harness.wait(200)
    assert harness.send() == []
    harness.wait(100)
    assert len(harness.send()) == 1


def test_a_critical_alert_does_not_wait() -> None:
    """It takes the group with it at once, within the interval too."""
    harness = harness_of(slack_grouped("organisation"))
    harness.read(alert_of("key:acme/a"))
    harness.read(alert_of("key:acme/b", "100"))
    (due,) = harness.send()
    assert len(due.alerts) == 2
    harness.read(alert_of("key:acme/c", "100"))
    assert len(harness.send()) == 1


def test_a_groups_message_has_its_id_and_content_for_good() -> None:
    """Killed after the message was written, the next worker sends the same, though more came."""
    harness = harness_of(slack_grouped("organisation", wait=0))
    harness.read(alert_of("key:acme/a"))
    (before,) = [one for one in harness.written if one.channel == "chat"]
    harness.alerts = []  # the offsets were not committed: the alert is read again, with another
    harness.dispatcher = harness.opened()
    harness.read(alert_of("key:acme/a"), alert_of("key:acme/b"))
    (due,) = harness.send()
    assert due.message_id == before.message_id
    assert [alert.scope for alert in due.alerts] == ["key:acme/a"]
    harness.wait(300)
    (later,) = harness.send()
    assert [alert.scope for alert in later.alerts] == ["key:acme/b"]


def silence(*match: str, seconds: int = 600, start: int = 0) -> Silence:
    """A silence from the story's begin."""
    return Silence(
        id="s1",
        match=match,
        starts_at_ms=NOW + start * 1000,
        ends_at_ms=NOW + (start + seconds) * 1000,
        author="ana",
        reason="migration",
    )


def test_a_silenced_alert_is_notified_when_the_silence_ends_and_it_still_fires() -> None:
    """Silence delays, it does not lose; the log says who silenced it and why."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.know("silence:s1", silence("department=research"))
    harness.read(alert_of())
    assert harness.send() == []
    (muted,) = [one for one in harness.written if one.channel == "hook"]
    assert muted.outcome is DeliveryOutcome.MUTED
    assert muted.error == "silence s1 by ana: migration"
    harness.wait(599)
    assert harness.send() == []
    harness.dispatcher = harness.opened()
    harness.wait(1)
    assert [job.alert.scope for job in harness.send()] == [RESEARCH]
    harness.wait(60)
    assert harness.send() == []


def test_what_was_over_before_its_silence_ended_is_not_notified() -> None:
    """Neither the firing nor its resolution: no page is open."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.know("silence:s1", silence("scope_type=department"))
    alert = alert_of()
    harness.read(alert)
    harness.read(over(alert))
    harness.wait(700)
    assert harness.send() == []
    assert harness.of("hook") == [DeliveryOutcome.MUTED] * 2


def test_a_resolution_breaks_a_silence_for_receivers_of_the_firing() -> None:
    """A page that is open is closed, whatever was silenced since."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    alert = alert_of()
    harness.read(alert)
    assert len(harness.send()) == 1
    harness.know("silence:s1", silence("department=research"))
    harness.read(over(alert))
    assert [job.alert.status for job in harness.send()] == [AlertStatus.RESOLVED]


def test_a_deleted_silence_is_over() -> None:
    """A silence that is taken back lets through what it kept."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.know("silence:s1", silence("department=research"))
    harness.read(alert_of())
    harness.know("silence:s1", None)
    harness.wait(1)
    assert len(harness.send()) == 1


@pytest.mark.parametrize(
    ("moment", "muted"),
    [
        ("2026-10-05T20:30:00Z", True),  # Monday 22:30 in Berlin
        ("2026-10-05T21:59:59Z", True),
        ("2026-10-05T22:00:00Z", False),
        ("2026-10-05T19:59:59Z", False),
        ("2026-10-06T20:30:00Z", False),  # Tuesday
        ("2027-01-04T20:30:00Z", False),  # beyond `until`
    ],
)
def test_maintenance_windows_recur_in_local_time(moment: str, *, muted: bool) -> None:
    """Mondays from 22:00 for two hours, in the billing time zone."""
    window = Maintenance(
        id="nightly",
        match=("scope=~.*",),
        author="ana",
        reason="upgrade",
        days=("mon",),
        start="22:00",
        minutes=120,
        until_ms=parse_rfc3339("2027-01-01T00:00:00Z"),
    )
    harness = harness_of(NotifyPolicy(channels=(hook(),), maintenance=(window,)))
    harness.dispatcher.policy._time_zone = "Europe/Berlin"
    harness.now_ms = parse_rfc3339(moment)
    harness.read(alert_of())
    assert (harness.send() == []) is muted


def test_an_open_breaker_mutes_the_warnings_below_it() -> None:
    """A department that is shut needs no warnings of its keys; errors and others come through."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    project = "project:acme/bot"
    harness.know(project, ScopePolicy(scope=project, parent=RESEARCH))
    harness.know(KEY, ScopePolicy(scope=KEY, parent=project))
    harness.command(RESEARCH, BreakerState.OPEN)
    harness.read(alert_of(KEY, "76"), alert_of("key:acme/stranger", "76"))
    harness.read(alert_of(KEY, "92"))
    due = [(job.alert.scope, job.alert.severity) for job in harness.send()]
    assert due == [("key:acme/stranger", Severity.WARNING), (KEY, Severity.ERROR)]
    (muted,) = [one for one in harness.written if one.outcome is DeliveryOutcome.MUTED]
    assert muted.error == f"inhibition open-breaker: breaker open on {RESEARCH}"
    harness.command(RESEARCH, BreakerState.CLOSED)
    harness.wait(1)
    assert [job.alert.severity for job in harness.send()] == [Severity.WARNING]


def test_an_open_breaker_whose_lease_ended_mutes_nothing() -> None:
    """The last record of a dead controller does not keep receivers from being notified."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.know(KEY, ScopePolicy(scope=KEY, parent=RESEARCH))
    harness.command(RESEARCH, BreakerState.OPEN, seconds=10)
    harness.wait(11)
    harness.read(alert_of(KEY, "76"))
    assert len(harness.send()) == 1


def test_a_louder_alert_of_the_same_scope_can_explain_a_quieter_one() -> None:
    """Inhibition by relation `same`, and never of an alert by itself."""
    rule = Inhibition(
        id="louder",
        source=("severity=critical",),
        target=("severity!=critical",),
        relation="same",
    )
    harness = harness_of(NotifyPolicy(channels=(hook(),), inhibit=(rule,)))
    day = alert_of(severity=Severity.CRITICAL).model_copy(
        update={"rule_id": "day_spend", "dedup_key": "d", "id": "d"}
    )
    harness.read(day)
    harness.read(alert_of())
    assert [job.alert.rule_id for job in harness.send()] == ["day_spend"]


def test_routes_choose_channels_in_order() -> None:
    """The first match ends the search unless it says `continue`; no match is every channel."""
    routes = (
        Route(
            id="audit", match=("severity=~error|critical",), channels=("all",), keep_looking=True
        ),
        Route(id="lab", match=("department=research",), channels=("lab",)),
        Route(id="keys", match=("scope_type=key", 'project!=""'), channels=()),
    )
    policy = NotifyPolicy(channels=(hook("all"), hook("lab"), hook("rest")), routes=routes)
    harness = harness_of(policy)
    harness.know(KEY, ScopePolicy(scope=KEY, parent="project:acme/bot"))
    harness.read(alert_of())
    assert [(job.channel, job.route) for job in harness.send()] == [
        ("all", "audit"),
        ("lab", "lab"),
    ]
    harness.read(alert_of(KEY, "76"))
    assert harness.send() == []
    harness.read(alert_of("department:acme/sales", "76"))
    assert [job.channel for job in harness.send()] == ["all", "lab", "rest"]


def test_a_fallback_hears_what_keeps_failing_once() -> None:
    """After the second failure, under the same id; the failing channel is still tried."""
    harness = harness_of(NotifyPolicy(channels=(hook("main", fallback="spare"), hook("spare"))))
    harness.policy = harness.policy.model_copy(
        update={"routes": (Route(id="r", channels=("main",)),)}
    )
    harness.dispatcher = harness.opened()
    harness.read(alert_of())
    (first,) = harness.send(FAILED)
    assert first.channel == "main"
    harness.wait(6)
    (second,) = harness.send(FAILED)
    harness.dispatcher = harness.opened()
    (due,) = harness.send()
    assert (due.channel, due.message_id) == ("spare", second.message_id)
    harness.wait(400)
    (last,) = harness.send(FAILED)
    assert (last.channel, last.attempt) == ("main", 3)
    assert harness.send() == []
    assert harness.of("main")[-1] is DeliveryOutcome.EXHAUSTED


def test_a_fallback_that_is_notified_anyway_is_not_notified_twice() -> None:
    """It has its own record of the alert."""
    harness = harness_of(NotifyPolicy(channels=(hook("main", fallback="spare"), hook("spare"))))
    harness.read(alert_of())
    refused = Attempt(DeliveryOutcome.REFUSED, 404, "answered 404")
    assert len(harness.send(refused)) == 2
    assert harness.send() == []


def test_a_group_falls_back_to_a_machine_alert_by_alert() -> None:
    """A pager takes no groups: each alert of a lost Slack message pages by itself."""
    policy = slack_grouped("organisation", wait=0)
    chat = SlackChannel(id="chat", url_env="U", fallback="pager")
    policy = policy.model_copy(update={"channels": (chat, hook("pager"))})
    harness = harness_of(policy)
    harness.read(alert_of("key:acme/a"), alert_of("key:acme/b"))
    harness.send(Attempt(DeliveryOutcome.GONE, 410, "answered 410"))
    pages = harness.send()
    assert [(job.channel, len(job.alerts)) for job in pages] == [("pager", 1)] * 2


def test_a_dead_endpoint_is_left_alone_and_probed() -> None:
    """After five failures nothing leaves for it until its pause ends, then one message."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.read(*(alert_of(f"key:acme/{n}") for n in range(FAILURES_UNTIL_PAUSE + 3)))
    tried = 0
    while jobs := harness.send(FAILED):
        tried += len(jobs)
    assert FAILURES_UNTIL_PAUSE <= tried < FAILURES_UNTIL_PAUSE + 4
    harness.wait(FIRST_PAUSE_MS / 1000 - 1)
    assert harness.send() == []
    harness.wait(300)
    jobs = harness.dispatcher.outbox.take_due(harness.now_ms)
    assert len([job for job in jobs if job.channel == "hook"]) == 1


def test_a_paced_channel_keeps_its_pace() -> None:
    """One message a second, whatever waits; the harness knows when to look again."""
    policy = NotifyPolicy(channels=(hook(),))
    harness = NotifierHarness(policy, hook=traits(groups=False, rate_limit=RateLimit(1, 1_000)))
    harness.read(*(alert_of(f"key:acme/{n}") for n in range(3)))
    sent = [len(harness.send())]
    for _ in range(3):
        assert harness.dispatcher.next_ms(harness.now_ms) == (
            harness.now_ms + 1_000 if sum(sent) < 3 else None
        )
        harness.wait(1)
        sent.append(len(harness.send()))
    assert sent == [1, 1, 1, 0]


def test_a_replay_sends_a_done_message_again_under_its_id() -> None:
    """Also after a restart, and exactly once."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.read(alert_of())
    (first,) = harness.send(Attempt(DeliveryOutcome.REFUSED, 404, "answered 404"))
    done = harness.written[-1]
    wish = msgspec.structs.replace(
        done,
        outcome=DeliveryOutcome.PENDING,
        attempt=0,
        replayed_at_ms=harness.now_ms,
        next_attempt_ms=harness.now_ms,
    )
    harness.written.append(wish)
    assert harness.dispatcher.log.fold(wish)
    assert not harness.dispatcher.log.fold(wish), "its own echo asks for nothing"
    harness.dispatcher = harness.opened()
    (again,) = harness.send()
    assert (again.message_id, again.attempt) == (first.message_id, 1)
    harness.dispatcher = harness.opened()
    assert harness.send() == []


def test_a_new_alert_of_an_incident_wakes_the_one_that_waits() -> None:
    """100 % does not stand behind a 75 % that waits minutes for its retry."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.read(alert_of(percent="76"))
    harness.send(FAILED)
    harness.wait(6)
    harness.send(FAILED)
    harness.read(alert_of(percent="100"))
    due = [*harness.send(), *harness.send()]
    assert [job.alert.threshold for job in due] == [75, 100]


def test_offsets_are_held_until_every_channel_has_its_record() -> None:
    """An alert that waits for its group is remembered by its offset alone."""
    harness = harness_of(slack_grouped("organisation"))
    harness.read(alert_of("key:acme/a"))
    harness.send()
    assert harness.dispatcher.commits.take_committable() == {}
    harness.wait(10)
    assert harness.dispatcher.commits.take_committable() == {0: 1}


@pytest.mark.parametrize("status", [AlertStatus.PENDING, AlertStatus.INACTIVE])
def test_an_alert_that_waits_is_not_notified(status: AlertStatus) -> None:
    """An alert that has not held for long enough is read and not notified."""
    harness = harness_of(NotifyPolicy(channels=(hook(),)))
    harness.read(alert_of().model_copy(update={"status": status}))
    assert harness.dispatcher.outbox.take_due(harness.now_ms) == []
    assert harness.dispatcher.commits.take_committable() == {0: 1}
    assert harness.dispatcher.active.of_scope(RESEARCH) == ()
