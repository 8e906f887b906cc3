"""Who is notified of an alert, and who is not: routes, silences, maintenance, inhibition. Pure.

Every decision carries its reason: `meterline alerts route` prints what the worker acts on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from meterline.alerting.notify.core.labels import above, labels_of
from meterline.schemas.alert import Alert, AlertStatus, Severity
from meterline.schemas.matchers import failing
from meterline.schemas.policy import NotifyPolicy
from meterline.schemas.policy_notify import LOG_CHANNEL, Maintenance, Route, Silence

_SEVERITY_RANK = {severity.value: rank for rank, severity in enumerate(Severity)}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Labels = Mapping[str, str]


def _no_sources(_scope: str) -> Iterable[Labels]:
    return ()


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """What a decision stands on."""

    policy: NotifyPolicy = field(default_factory=NotifyPolicy)
    parents: Mapping[str, str] = field(default_factory=dict)
    """Scope -> the scope above it."""
    silences: Sequence[Silence] = ()
    time_zone: str = "UTC"
    sources: Callable[[str], Iterable[Labels]] = _no_sources
    """The labels of what is active on a scope: its firing alerts and its open breaker."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One channel that is notified, and because of which route (None: there are no routes)."""

    channel: str
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One thing that was asked, and what it answered."""

    what: str
    answer: str


@dataclass(frozen=True, slots=True)
class NotifyDecision:
    """Where an alert goes."""

    recipients: tuple[Recipient, ...]
    """The log first; one per channel."""
    muted_by: str = ""
    """What mutes every channel but the log now; empty for nothing."""
    steps: tuple[TraceStep, ...] = ()
    """Every check in order, for operators."""


def decide(alert: Alert, context: RoutingContext, now_ms: int) -> NotifyDecision:
    """Decide who is notified of an alert.

    A resolution is never muted here: a receiver of the firing gets its end, so that no page
    stays open behind a silence.
    """
    labels = labels_of(alert, context.parents)
    steps: list[TraceStep] = []
    chosen = list(_routed(alert, labels, context.policy, steps))
    muted_by = (
        "" if alert.status is AlertStatus.RESOLVED else _muted(labels, context, now_ms, steps)
    )
    return NotifyDecision((Recipient(LOG_CHANNEL), *chosen), muted_by, tuple(steps))


def group_key(route: Route, labels: Labels) -> str:
    """The group that an alert belongs to on a route."""
    parts = ",".join(f"{name}={labels.get(name, '')}" for name in route.group_by)
    return f"{route.id}:{parts}"


def in_maintenance(window: Maintenance, time_zone: str, now_ms: int) -> bool:
    """Whether a recurring window holds a moment; its minutes count from its local start.

    Args:
        window: the window.
        time_zone: whose clock `start` is read from.
        now_ms: the moment, UTC ms.
    """
    if window.until_ms and now_ms >= window.until_ms:
        return False
    zone = ZoneInfo(time_zone)
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    hour, _, minute = window.start.partition(":")
    # A window may be as long as a week: it can have begun on any day since.
    for days_ago in range(window.minutes // (24 * 60) + 2):
        day = now.date() - timedelta(days=days_ago)
        if window.days and _DAYS[day.weekday()] not in window.days:
            continue
        start = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=zone)
        began_ms = int(start.timestamp() * 1000)
        if began_ms <= now_ms < began_ms + window.minutes * 60_000:
            return True
    return False


def _routed(
    alert: Alert, labels: Labels, policy: NotifyPolicy, steps: list[TraceStep]
) -> Iterator[Recipient]:
    least = {channel.id: channel.min_severity for channel in policy.channels}
    seen = {LOG_CHANNEL}
    for recipient in _candidates(labels, policy, steps):
        name = recipient.channel
        if name in seen or name not in least:
            continue
        seen.add(name)
        # A channel with an unknown least severity gets everything: too much is safer.
        if _SEVERITY_RANK[alert.severity.value] < _SEVERITY_RANK.get(least[name], 0):
            steps.append(TraceStep(f"channel {name}", f"no: takes {least[name]} and above"))
            continue
        steps.append(TraceStep(f"channel {name}", "notified"))
        yield recipient


def _candidates(
    labels: Labels, policy: NotifyPolicy, steps: list[TraceStep]
) -> Iterator[Recipient]:
    everyone = [Recipient(channel.id) for channel in policy.channels]
    if not policy.routes:
        steps.append(TraceStep("routes", "there are none: every channel is considered"))
        yield from everyone
        return
    taken = False
    for route in policy.routes:
        fault = failing(route.match, labels)
        if fault:
            steps.append(TraceStep(f"route {route.id}", f"no: {fault} does not hold"))
            continue
        taken = True
        more = ", and continues" if route.keep_looking else ""
        to = ", ".join(route.channels) or "no channel"
        steps.append(TraceStep(f"route {route.id}", f"matches: to {to}{more}"))
        yield from (Recipient(name, route) for name in route.channels)
        if not route.keep_looking:
            return
    if not taken:
        # Too much is safer than silence.
        steps.append(TraceStep("routes", "none matches: every channel is considered"))
        yield from everyone


def _muted(labels: Labels, context: RoutingContext, now_ms: int, steps: list[TraceStep]) -> str:
    for reason in _mutes(labels, context, now_ms):
        steps.append(TraceStep("muted by", reason))
        return reason
    steps.append(TraceStep("muted by", "nothing"))
    return ""


def _mutes(labels: Labels, context: RoutingContext, now_ms: int) -> Iterator[str]:
    for silence in context.silences:
        if silence.starts_at_ms <= now_ms < silence.ends_at_ms and not failing(
            silence.match, labels
        ):
            yield f"silence {silence.id} by {silence.author}: {silence.reason}"
    for window in context.policy.maintenance:
        if not failing(window.match, labels) and in_maintenance(window, context.time_zone, now_ms):
            yield f"maintenance {window.id} by {window.author}: {window.reason}"
    yield from _inhibitions(labels, context)


def _inhibitions(labels: Labels, context: RoutingContext) -> Iterator[str]:
    scope = labels["scope"]
    for rule in context.policy.inhibit:
        if failing(rule.target, labels):
            continue
        places = (scope,) if rule.relation == "same" else above(scope, context.parents)
        for place in places:
            for source in context.sources(place):
                # Nothing explains itself away.
                is_itself = source.get("rule") == labels["rule"] and place == scope
                if not is_itself and not failing(rule.source, source):
                    what = f"{source.get('rule', '')} {source.get('state', '')}".strip()
                    yield f"inhibition {rule.id}: {what} on {place}"
                    break
