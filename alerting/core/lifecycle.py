"""Alert lifecycle: what has been told of one rule in one period, and what is told now.

    inactive --crossed--> firing --new period, other budget version, rule gone--> resolved

An alert is a state change of (scope, rule, threshold, period, budget version) and is told once.
Spend that falls below a threshold within the period does not resolve it: it was crossed in this
period, and would not be told again. Rules that look back have a lifecycle with waiting and
recovery: `alerting.core.rule_lifecycle`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from meterline.alerting.rules.measurement import NANO_USD, Measurement, reached
from meterline.alerting.rules.thresholds import Crossing
from meterline.schemas.alert import Alert, AlertStatus, RuleType
from meterline.schemas.money import usd_display

_ID_LENGTH = 32  # 128 bits of SHA-256: no two alerts of a lifetime share an id


@dataclass(frozen=True, slots=True)
class Episode:
    """One rule of one scope in one period of one budget version."""

    period: str
    budget_version: int
    told: int = 0
    """The highest threshold told so far, in the rule's unit; 0 for none."""
    firing: tuple[Alert, ...] = ()
    pending: Alert | None = None
    """What waits until it has held for long enough."""


class Subject(NamedTuple):
    """Whom an alert is about."""

    scope: str
    name: str
    """The scope's name for people; may be empty."""


def dedup_key(rule_id: str, threshold: int, scope: str, period: str, budget_version: int) -> str:
    """The identity of an alert, the same for its firing and its resolution."""
    return f"{rule_id}/{threshold}/{scope}/{period}/{budget_version}"


def alert_id(key: str, status: AlertStatus) -> str:
    """Deterministic, so that a replay or a restart tells nothing twice under two names."""
    return hashlib.sha256(f"{key}\n{status.value}".encode()).hexdigest()[:_ID_LENGTH]


def continues(episode: Episode, reading: Measurement | None) -> bool:
    """Whether a reading belongs to the episode's period and budget version."""
    return (
        reading is not None
        and episode.period == reading.period
        and episode.budget_version == reading.budget_version
    )


def recalled(before: Episode | None, alert: Alert) -> Episode:
    """The episode after one record of the alerts topic, whoever wrote it.

    Args:
        before: of the alert's rule, scope, period and budget version; None if nothing is known.
        alert: the record.
    """
    episode = before or Episode(alert.period, alert.budget_version)
    others = tuple(known for known in episode.firing if known.dedup_key != alert.dedup_key)
    told = max(episode.told, alert.threshold)
    match alert.status:
        case AlertStatus.PENDING:
            return replace(episode, pending=alert)
        case AlertStatus.INACTIVE:
            return replace(episode, pending=None)
        case AlertStatus.FIRING:
            # The highest threshold stands last, whoever told of which first.
            firing = tuple(sorted((*others, alert), key=lambda each: each.threshold))
            return replace(episode, told=told, firing=firing, pending=None)
        case AlertStatus.RESOLVED:
            return replace(episode, told=told, firing=others)


def close(episode: Episode, now_ms: int) -> list[Alert]:
    """Resolve whatever still fires."""
    return [resolved(alert, now_ms) for alert in episode.firing]


def lift(episode: Episode, reading: Measurement, now_ms: int) -> tuple[Episode, list[Alert]]:
    """Resolve alerts whose limit was raised above what is spent, within one budget version."""
    lifted = [alert for alert in episode.firing if _is_lifted(alert, reading)]
    if not lifted:
        return episode, []
    kept = tuple(alert for alert in episode.firing if alert not in lifted)
    return replace(episode, firing=kept), [resolved(alert, now_ms) for alert in lifted]


def fire(
    episode: Episode, subject: Subject, reading: Measurement, crossed: Crossing, now_ms: int
) -> tuple[Episode, Alert]:
    """Tell of a crossing."""
    is_percent = reading.rule_id.value.startswith("budget_")
    key = dedup_key(
        reading.rule_id, crossed.threshold, subject.scope, reading.period, reading.budget_version
    )
    alert = Alert(
        id=alert_id(key, AlertStatus.FIRING),
        dedup_key=key,
        rule_id=reading.rule_id,
        rule_type=RuleType.THRESHOLD if is_percent else RuleType.LIMIT,
        status=AlertStatus.FIRING,
        severity=crossed.severity,
        scope=subject.scope,
        window=reading.kind,
        period=reading.period,
        threshold=crossed.threshold,
        unit="percent" if is_percent else reading.unit,
        observed=reading.observed,
        limit=reading.limit,
        percent=reading.percent,
        budget_version=reading.budget_version,
        also_crossed=crossed.also_crossed,
        summary=_summary(subject, reading, crossed, is_percent=is_percent),
        starts_at_ms=now_ms,
        told_at_ms=now_ms,
        reset_at_ms=reading.end_ms,
    )
    return replace(episode, told=crossed.threshold, firing=(*episode.firing, alert)), alert


def resolved(alert: Alert, now_ms: int) -> Alert:
    """The word that a firing alert is over."""
    return alert.model_copy(
        update={
            "id": alert_id(alert.dedup_key, AlertStatus.RESOLVED),
            "status": AlertStatus.RESOLVED,
            "ends_at_ms": now_ms,
            "commands": (),
            "summary": f"Resolved: {alert.summary}",
        }
    )


def amount_text(amount: int, unit: str) -> str:
    """An amount for people."""
    return usd_display(amount) if unit == NANO_USD else f"{amount:,} tokens"


def _is_lifted(alert: Alert, reading: Measurement) -> bool:
    percent = alert.threshold if alert.unit == "percent" else 100
    return alert.limit != reading.limit and not reached(reading.observed, reading.limit, percent)


def _summary(subject: Subject, reading: Measurement, crossed: Crossing, *, is_percent: bool) -> str:
    who = f"{subject.name} ({subject.scope})" if subject.name else subject.scope
    spent = amount_text(reading.observed, reading.unit)
    limit = amount_text(reading.limit, reading.unit)
    if is_percent:
        return (
            f"{who} has spent {spent} of its {reading.kind} budget of {limit} "
            f"({reading.percent} %, threshold {crossed.threshold} %) in {reading.period}"
        )
    return (
        f"{who} has reached its limit of {limit} per {reading.kind} ({spent}) in {reading.period}"
    )
