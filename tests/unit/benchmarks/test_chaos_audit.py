"""The audit of a chaos run finds what it is there to find."""

from __future__ import annotations

from benchmarks.chaos_suite import audit
from benchmarks.chaos_suite.journal import Entry, Kind, truth_of
from benchmarks.chaos_suite.policy import THRESHOLDS
from benchmarks.chaos_suite.topics import Topics
from meterline.operations.replay.truth import RunFacts, Truth
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.alert import Alert, AlertStatus, RuleType, Severity
from meterline.schemas.dead_letter import DeadLetter
from meterline.schemas.periods import Calendar
from meterline.schemas.reasons import RejectReason
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.throttle import BreakerState
from meterline.schemas.usage import UsageEvent
from tests.alerting_story import RESEARCH, Scenario

NOW_MS = 1_790_856_000_000
KEY = "key:acme/k-1"


def a_truth() -> Truth:
    """One event of two dollars."""
    event = UsageEvent(
        id="r-0000000",
        time_ms=NOW_MS,
        organisation="acme",
        key="k-1",
        provider="openai",
        model="gpt-4.1",
        input_tokens=1_000_000,
    )
    facts = RunFacts("r", 1, NOW_MS, NOW_MS, True, 0, 0, 0, 0)
    entries = [Entry(kind=Kind.EVENT, at_ms=NOW_MS, number=0, event=event)]
    return truth_of(entries, facts, load_catalogue(()), Calendar())


def fired(*thresholds: int, version: int = 1, status: AlertStatus = AlertStatus.FIRING) -> Alert:
    """An alert of the key's month budget of two dollars."""
    *lower, highest = thresholds
    name = f"{KEY}/{highest}/{version}"
    return Alert(
        id=f"{name}/{status}",
        dedup_key=name,
        rule_id=RuleId.BUDGET_MONTH,
        rule_type=RuleType.THRESHOLD,
        status=status,
        severity=Severity.INFO,
        scope=KEY,
        window="month",
        period="2026-10",
        threshold=highest,
        unit="percent",
        observed=2_000_000_000,
        limit=1 if version > 1 else 2_000_000_000,
        percent=100,
        budget_version=version,
        also_crossed=tuple(lower),
        summary="",
        starts_at_ms=NOW_MS,
    )


def thresholds(*alerts: Alert) -> list[str]:
    """The differences found."""
    return list(audit.thresholds(a_truth(), {KEY: 2_000_000_000}, alerts, "2026-10"))


def test_thresholds_notified_once_are_right() -> None:
    """Notified together or one by one, and repeated under one id: no difference."""
    assert thresholds(fired(*THRESHOLDS)) == []
    assert thresholds(fired(50), fired(75, 80), fired(75, 80), fired(90, 95, 100)) == []


def test_thresholds_missing_or_notified_twice_are_found() -> None:
    """A threshold that was not notified, and one notified under two ids."""
    assert len(thresholds(fired(50, 75, 80, 90, 95))) == 1
    assert len(thresholds(fired(*THRESHOLDS), fired(50))) == 1
    assert len(thresholds()) == 1


def test_a_second_firing_after_the_resolution_is_found() -> None:
    """Firing, resolved, firing again of one alert is a transition too many."""
    alert = fired(*THRESHOLDS)
    over = fired(*THRESHOLDS, status=AlertStatus.RESOLVED)
    assert thresholds(alert, over) == []
    assert len(thresholds(alert, over, alert)) == 1
    assert len(thresholds(over, alert)) == 2


def test_a_wrong_belief_is_found() -> None:
    """A nano-dollar more or less than the truth, or nothing at all."""
    wanted = audit.expected_belief(a_truth(), NOW_MS)
    assert wanted[KEY, "budget_month", "2026-10"] == 2_000_000_000
    assert wanted[KEY, "day_tokens", "2026-10-01"] == 1_000_000
    assert list(audit.belief(wanted, wanted)) == []
    wrong = {**wanted, (KEY, "budget_month", "2026-10"): 1_999_999_999}
    assert len(list(audit.belief(wanted, wrong))) == 1
    assert len(list(audit.belief(wanted, {}))) == len(wanted)
    assert audit.believed([fired(100, version=2)])[KEY, "budget_month", "2026-10"] == 2_000_000_000


def a_letter(reason: RejectReason, event_id: str = "", offset: int = 5) -> DeadLetter:
    return DeadLetter(
        topic="usage.events",
        partition=0,
        offset=offset,
        index=-1,
        reason=reason,
        detail="",
        event_id=event_id,
    )


def letters(*found: DeadLetter) -> list[str]:
    """The differences, with one broken message at offset 5 and one broken event."""
    journal = [
        Entry(kind=Kind.BROKEN, id="b-1", reason=RejectReason.MALFORMED_JSON, value=b"{"),
        Entry(kind=Kind.INVALID, id="b-2", reason=RejectReason.FUTURE_TIME),
    ]
    topics = Topics(broken={(0, 5): "b-1"}, dead_letters={each.key(): each for each in found})
    stored = {(each.partition, each.offset, each.index, each.reason.value) for each in found}
    return list(audit.dead_letters(journal, topics, stored))


def test_dead_letters_are_matched_with_what_was_broken() -> None:
    """Each with its reason; missing ones, other reasons and letters of good events are found."""
    message = a_letter(RejectReason.MALFORMED_JSON)
    event = a_letter(RejectReason.FUTURE_TIME, "b-2", 9)
    assert letters(message, event) == []
    assert len(letters(message)) == 1
    assert len(letters(event)) == 2  # neither a letter of its place nor of its name
    other = a_letter(RejectReason.WRONG_TYPE, "b-2", 9)
    assert len(letters(message, other)) == 1
    good = a_letter(RejectReason.CONFLICT, "r-0000000", 11)
    assert len(letters(message, event, good)) == 1


def test_deliveries_are_matched_with_the_alerts() -> None:
    """Once or repeated alike; missing, unknown and changed ones are found."""
    alert = fired(50)
    name = f"msg_{alert.id}"
    assert list(audit.deliveries([alert, alert], {name: {b"a"}})) == []
    assert len(list(audit.deliveries([alert], {}))) == 1
    assert len(list(audit.deliveries([], {name: {b"a"}}))) == 1
    assert len(list(audit.deliveries([alert], {name: {b"a", b"b"}}))) == 1


def test_a_stale_relay_is_found() -> None:
    """An older command in the gate, or a newer one that was not acknowledged."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="1")
    story.spend(RESEARCH, "1")
    (command,) = [one for one in story.commands if one.state is BreakerState.OPEN]
    older = (command.epoch, command.seq - 1)
    said = {("relay-1", RESEARCH): command.version}
    topics = Topics(commands={RESEARCH: command}, acknowledged=said)
    assert list(audit.stale(topics, {"relay-1": {RESEARCH: command.version}})) == []
    assert len(list(audit.stale(topics, {"relay-1": {RESEARCH: older}}))) == 1
    assert len(list(audit.stale(topics, {"relay-1": {}}))) == 1
    unsaid = Topics(commands={RESEARCH: command})
    assert len(list(audit.stale(unsaid, {"relay-1": {RESEARCH: command.version}}))) == 1
