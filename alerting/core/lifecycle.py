"""The lifecycle of alerts: one for the rules of scopes, pipeline and reconciliation. Pure.

    inactive --reached--> pending --for--> firing --over--> resolved
        ^                    |               |  ^
        +---not any more-----+               +--+ reminder every `renotify`; a higher level fires
                                                once more, with its own severity
An episode is one stretch of one rule: it keeps its identity (the period in which it began) for as
long as it lasts. Each level fires once per episode. What ends a firing alert is data of the
evaluation (`Ending`); how levels, texts and severities come about is the rule kind's business.

Every change is a record of the alerts topic, pending ones too: a worker that was killed finds
there since when a rule has held and when its alert was last notified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from meterline.alerting.rules.evaluation import Ending, Evaluation, Subject
from meterline.alerting.rules.measurement import reached
from meterline.schemas.alert import Alert, AlertStatus

_ID_LENGTH = 32  # 128 bits of SHA-256: no two alerts of a lifetime share an id


@dataclass(frozen=True, slots=True)
class Episode:
    """One rule of one subject in one period of one budget version."""

    period: str
    budget_version: int
    notified_level: int = 0
    """The highest threshold that has fired, in the rule's unit; 0 for none."""
    firing: tuple[Alert, ...] = ()
    pending: Alert | None = None
    """What waits until it has held for long enough."""


class Transition(NamedTuple):
    """Where an episode went; `due_ms` is when time alone changes it, 0 for never."""

    episode: Episode | None
    alerts: tuple[Alert, ...]
    due_ms: int = 0


def advance(
    before: Episode | None,
    subject: Subject,
    evaluation: Evaluation,
    budget_version: int,
    now_ms: int,
) -> Transition:
    """One step of one rule's lifecycle: resolve, begin, escalate, remind."""
    episode = before or Episode(evaluation.period, budget_version)
    episode, alerts = _resolve(episode, evaluation, budget_version, now_ms)
    if not _same(episode, evaluation, budget_version):
        alerts += _cancelled(episode, now_ms)
        episode = Episode(evaluation.period, budget_version)
    if evaluation.recurs and not episode.firing:
        episode = replace(episode, notified_level=0)
    episode, fired = _escalate(episode, subject, evaluation, now_ms)
    alerts += fired
    episode, reminders = _remind(episode, evaluation.renotify_seconds, now_ms)
    alerts += reminders
    empty = not (episode.notified_level or episode.firing or episode.pending)
    return Transition(None if empty else episode, tuple(alerts), _due(episode, evaluation, now_ms))


def continues(episode: Episode, period: str, budget_version: int) -> bool:
    """Whether a rule whose alerts end with their period is still in the episode's."""
    return episode.period == period and episode.budget_version == budget_version


def abandon(episode: Episode, now_ms: int) -> list[Alert]:
    """End an episode whose rule, subject, period or budget version has ended."""
    return [*(resolved(alert, now_ms) for alert in episode.firing), *_cancelled(episode, now_ms)]


def recalled(before: Episode | None, alert: Alert) -> Episode:
    """The episode after one record of the alerts topic, whichever controller wrote it.

    Args:
        before: of the alert's rule, scope, period and budget version; None if nothing is known.
        alert: the record.
    """
    episode = before or Episode(alert.period, alert.budget_version)
    others = tuple(known for known in episode.firing if known.dedup_key != alert.dedup_key)
    notified_level = max(episode.notified_level, alert.threshold)
    match alert.status:
        case AlertStatus.PENDING:
            return replace(episode, pending=alert)
        case AlertStatus.INACTIVE:
            return replace(episode, pending=None)
        case AlertStatus.FIRING:
            # The highest threshold stands last, in whatever order they were written.
            firing = tuple(sorted((*others, alert), key=lambda each: each.threshold))
            return replace(episode, notified_level=notified_level, firing=firing, pending=None)
        case AlertStatus.RESOLVED:
            return replace(episode, notified_level=notified_level, firing=others)


def resolved(alert: Alert, now_ms: int, *, recurs: bool = False) -> Alert:
    """The record that a firing alert is over."""
    return alert.model_copy(
        update={
            "id": alert_id(
                alert.dedup_key, AlertStatus.RESOLVED, alert.starts_at_ms if recurs else None
            ),
            "status": AlertStatus.RESOLVED,
            "ends_at_ms": now_ms,
            "commands": (),
            "summary": f"Resolved: {alert.summary}",
        }
    )


def dedup_key(rule: str, threshold: int, scope: str, period: str, budget_version: int) -> str:
    """The identity of an alert, the same for its firing and its resolution."""
    return f"{rule}/{threshold}/{scope}/{period}/{budget_version}"


def alert_id(key: str, status: AlertStatus, starts_at_ms: int | None = None) -> str:
    """Deterministic, so that a replay or a restart notifies nothing twice under two ids.

    Args:
        key: the dedup key, and what else distinguishes the records of one alert.
        status: of the record.
        starts_at_ms: where an alert may fire several times in a period.
    """
    start = "" if starts_at_ms is None else f"\n{starts_at_ms}"
    return hashlib.sha256(f"{key}\n{status.value}{start}".encode()).hexdigest()[:_ID_LENGTH]


def _resolve(
    episode: Episode, evaluation: Evaluation, budget_version: int, now_ms: int
) -> tuple[Episode, list[Alert]]:
    """Resolve what is over."""
    if not episode.firing:
        return episode, []
    if episode.budget_version != budget_version:
        over: Sequence[Alert] = episode.firing
    elif evaluation.ending is Ending.CLEARED:
        over = () if evaluation.still_active else episode.firing
    elif episode.period != evaluation.period:
        over = episode.firing
    else:
        over = [alert for alert in episode.firing if _is_limit_raised(alert, evaluation)]
    if not over:
        return episode, []
    kept = tuple(alert for alert in episode.firing if alert not in over)
    alerts = [resolved(alert, now_ms, recurs=evaluation.recurs) for alert in over]
    return replace(episode, firing=kept), alerts


def _is_limit_raised(alert: Alert, evaluation: Evaluation) -> bool:
    """Whether the limit was raised above what is spent, within one budget version."""
    if alert.limit == evaluation.limit:
        return False
    percent = alert.threshold if alert.unit == "percent" else 100
    return not reached(evaluation.observed, evaluation.limit, percent)


def _same(episode: Episode, evaluation: Evaluation, budget_version: int) -> bool:
    """Whether an evaluation belongs to an episode."""
    if continues(episode, evaluation.period, budget_version):
        return True
    if episode.budget_version != budget_version or evaluation.ending is Ending.PERIOD:
        return False
    return bool(episode.firing or episode.pending)


def _escalate(
    episode: Episode, subject: Subject, evaluation: Evaluation, now_ms: int
) -> tuple[Episode, list[Alert]]:
    """Begin, or fire a level above those that have fired."""
    pending = episode.pending
    if evaluation.level <= episode.notified_level:
        if pending is None:
            return episode, []
        return replace(episode, pending=None), _cancelled(episode, now_ms)
    if evaluation.for_seconds and pending is None:
        waiting = _alert(episode, subject, evaluation, AlertStatus.PENDING, now_ms)
        return replace(episode, pending=waiting), [waiting]
    since_ms = pending.starts_at_ms if pending is not None else now_ms
    if now_ms - since_ms < evaluation.for_seconds * 1000:
        return episode, []
    alert = _alert(episode, subject, evaluation, AlertStatus.FIRING, now_ms)
    firing = (*episode.firing, alert)
    return replace(episode, notified_level=evaluation.level, firing=firing, pending=None), [alert]


def _remind(
    episode: Episode, renotify_seconds: int, now_ms: int
) -> tuple[Episode, tuple[Alert, ...]]:
    """Notify the highest firing alert of an episode again if it is time."""
    at_ms = _reminder_at_ms(episode, renotify_seconds)
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


def _reminder_at_ms(episode: Episode, renotify_seconds: int) -> int:
    """When the next reminder is due; 0 for never."""
    if not renotify_seconds or not episode.firing:
        return 0
    highest = episode.firing[-1]
    return (highest.told_at_ms or highest.starts_at_ms) + renotify_seconds * 1000


def _due(episode: Episode, evaluation: Evaluation, now_ms: int) -> int:
    """When time alone changes the episode; 0 for never."""
    times = [_reminder_at_ms(episode, evaluation.renotify_seconds)]
    if episode.pending is not None:
        times.append(episode.pending.starts_at_ms + evaluation.for_seconds * 1000)
    return min((each for each in times if each > now_ms), default=0)


def _cancelled(episode: Episode, now_ms: int) -> list[Alert]:
    """What was pending did not last."""
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
    episode: Episode, subject: Subject, evaluation: Evaluation, status: AlertStatus, now_ms: int
) -> Alert:
    rule = str(evaluation.rule)
    key = dedup_key(rule, evaluation.level, subject.scope, episode.period, episode.budget_version)
    named = f"{key}\n{now_ms}" if status is AlertStatus.PENDING else key
    return Alert(
        id=alert_id(named, status, now_ms if evaluation.recurs else None),
        dedup_key=key,
        rule_id=rule,
        rule_type=evaluation.rule_type,
        status=status,
        severity=evaluation.severity,
        scope=subject.scope,
        window=evaluation.window,
        period=episode.period,
        threshold=evaluation.level,
        unit=evaluation.unit,
        observed=evaluation.observed,
        limit=evaluation.limit,
        percent=evaluation.percent,
        budget_version=episode.budget_version,
        also_crossed=tuple(
            level
            for level in evaluation.lower_levels
            if episode.notified_level < level < evaluation.level
        ),
        summary=evaluation.summary,
        starts_at_ms=now_ms,
        reset_at_ms=evaluation.reset_at_ms,
        # Its start says when, where it is never notified again.
        told_at_ms=0 if evaluation.recurs else now_ms,
        explanation=evaluation.explanation,
    )
