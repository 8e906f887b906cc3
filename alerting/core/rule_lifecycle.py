"""The lifecycle of rules that look back. Pure.

    inactive --holds--> pending --for--> firing --over--> resolved
        ^                  |               |  ^
        +--does not hold---+               +--+ told again every `renotify`; a higher level is
                                                told once more, louder
A signal is what a rule says at one moment. An episode is one stretch of holding; it keeps its
identity (the period in which it began) for as long as it goes on, so that an incident across
midnight is one incident. Every change is a record of the alerts topic, pending ones too: a worker
that was killed finds there since when a rule holds and when it was last told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from meterline.alerting.core.lifecycle import Episode, Subject, alert_id, dedup_key, resolved
from meterline.schemas.alert import Alert, AlertStatus, Explanation, RuleType, Severity


class Evaluation(NamedTuple):
    """What one rule says of one scope now."""

    rule_id: str
    rule_type: RuleType
    level: int
    """The highest threshold that is reached; 0 if none."""
    goes_on: bool
    """Whether an alert that fires still has its cause."""
    window: str
    period: str
    reset_at_ms: int
    observed: int
    limit: int
    unit: str
    severity: Severity
    summary: str
    explanation: Explanation | None = None
    for_seconds: int = 0
    renotify_seconds: int = 0
    lower_levels: tuple[int, ...] = ()

    @property
    def percent(self) -> int:
        """floor(100 * observed / limit)."""
        return self.observed * 100 // self.limit if self.limit else 0


class Advance(NamedTuple):
    """Where an episode went; `due_ms` is when time alone changes it, 0 for never."""

    episode: Episode | None
    alerts: tuple[Alert, ...]
    due_ms: int = 0


def advance(
    before: Episode | None, subject: Subject, signal: Evaluation, budget_version: int, now_ms: int
) -> Advance:
    """One step of one rule's lifecycle."""
    alerts: list[Alert] = []
    episode = before or Episode(signal.period, budget_version)
    if episode.firing and (not signal.goes_on or episode.budget_version != budget_version):
        alerts += [resolved(alert, now_ms) for alert in episode.firing]
        episode = replace(episode, firing=())
    if not _same(episode, signal, budget_version):
        alerts += _cancelled(episode, now_ms)
        episode = Episode(signal.period, budget_version)
    episode, told = _rise(episode, subject, signal, now_ms)
    alerts += told
    episode, reminders = remind(episode, signal.renotify_seconds, now_ms)
    alerts += reminders
    empty = not (episode.told or episode.firing or episode.pending)
    return Advance(None if empty else episode, tuple(alerts), due(episode, signal, now_ms))


def abandon(episode: Episode, now_ms: int) -> list[Alert]:
    """End an episode whose rule or scope is gone."""
    return [*(resolved(alert, now_ms) for alert in episode.firing), *_cancelled(episode, now_ms)]


def remind(
    episode: Episode, renotify_seconds: int, now_ms: int
) -> tuple[Episode, tuple[Alert, ...]]:
    """Tell the highest firing alert of an episode again if it is time."""
    at_ms = reminder_at_ms(episode, renotify_seconds)
    if at_ms == 0 or now_ms < at_ms:
        return episode, ()
    *others, highest = episode.firing
    number = highest.reminder + 1
    again = highest.model_copy(
        update={
            "id": alert_id(f"{highest.dedup_key}\n{number}", AlertStatus.FIRING),
            "told_at_ms": now_ms,
            "reminder": number,
            "commands": (),
        }
    )
    return replace(episode, firing=(*others, again)), (again,)


def reminder_at_ms(episode: Episode, renotify_seconds: int) -> int:
    """When the next reminder is due; 0 for never."""
    if not renotify_seconds or not episode.firing:
        return 0
    highest = episode.firing[-1]
    return (highest.told_at_ms or highest.starts_at_ms) + renotify_seconds * 1000


def due(episode: Episode, signal: Evaluation, now_ms: int) -> int:
    """When time alone changes the episode; 0 for never."""
    times = [reminder_at_ms(episode, signal.renotify_seconds)]
    if episode.pending is not None:
        times.append(episode.pending.starts_at_ms + signal.for_seconds * 1000)
    return min((each for each in times if each > now_ms), default=0)


def _same(episode: Episode, signal: Evaluation, budget_version: int) -> bool:
    """Whether a signal belongs to an episode: while it fires or waits, whatever the period."""
    if episode.budget_version != budget_version:
        return False
    return bool(episode.firing or episode.pending) or episode.period == signal.period


def _rise(
    episode: Episode, subject: Subject, signal: Evaluation, now_ms: int
) -> tuple[Episode, list[Alert]]:
    if signal.level <= episode.told:
        alerts = _cancelled(episode, now_ms)
        return replace(episode, pending=None), alerts
    pending = episode.pending
    if signal.for_seconds and pending is None:
        waiting = _alert(episode, subject, signal, AlertStatus.PENDING, now_ms)
        return replace(episode, pending=waiting), [waiting]
    since_ms = pending.starts_at_ms if pending is not None else now_ms
    if now_ms - since_ms < signal.for_seconds * 1000:
        return episode, []
    alert = _alert(episode, subject, signal, AlertStatus.FIRING, now_ms)
    firing = (*episode.firing, alert)
    return replace(episode, told=signal.level, firing=firing, pending=None), [alert]


def _cancelled(episode: Episode, now_ms: int) -> list[Alert]:
    pending = episode.pending
    if pending is None:
        return []
    key = f"{pending.dedup_key}\n{pending.starts_at_ms}"
    update = {
        "id": alert_id(key, AlertStatus.INACTIVE),
        "status": AlertStatus.INACTIVE,
        "ends_at_ms": now_ms,
    }
    return [pending.model_copy(update=update)]


def _alert(
    episode: Episode, subject: Subject, signal: Evaluation, status: AlertStatus, now_ms: int
) -> Alert:
    key = dedup_key(
        signal.rule_id, signal.level, subject.scope, episode.period, episode.budget_version
    )
    named = f"{key}\n{now_ms}" if status is AlertStatus.PENDING else key
    return Alert(
        id=alert_id(named, status),
        dedup_key=key,
        rule_id=signal.rule_id,
        rule_type=signal.rule_type,
        status=status,
        severity=signal.severity,
        scope=subject.scope,
        window=signal.window,
        period=episode.period,
        threshold=signal.level,
        unit=signal.unit,
        observed=signal.observed,
        limit=signal.limit,
        percent=signal.percent,
        budget_version=episode.budget_version,
        also_crossed=tuple(
            level for level in signal.lower_levels if episode.told < level < signal.level
        ),
        summary=signal.summary,
        starts_at_ms=now_ms,
        reset_at_ms=signal.reset_at_ms,
        told_at_ms=now_ms,
        explanation=signal.explanation,
    )
