"""Probes of the pipeline through the same lifecycle as every other rule. Pure."""

from __future__ import annotations

from meterline.alerting.core import lifecycle
from meterline.alerting.core.state import HealthChecksSeen, State
from meterline.alerting.rules.evaluation import Evaluation, Subject, percent_of
from meterline.alerting.rules.pipeline import (
    HealthCheck,
    limit_of,
    severity_of,
    text_of,
    unit_of,
)
from meterline.schemas.alert import Alert, RuleType
from meterline.schemas.periods import WindowKind
from meterline.schemas.rule_ref import RuleRef


def observe(state: State, seen: HealthChecksSeen) -> list[Alert]:
    """Take one round of probes in; what has to be told."""
    measured = {(probe.kind, probe.subject): probe for probe in seen.probes}
    # What was told of and is not seen any more is over: a relay that was retired, a closed hour.
    gone = {
        (kind, subject): HealthCheck(kind, subject, 0)
        for kind, subject in state.pipeline
        if kind in seen.kinds and (kind, subject) not in measured
    }
    alerts: list[Alert] = []
    for probe in (*measured.values(), *gone.values()):
        alerts += _observe_one(state, probe)
    return alerts


def _observe_one(state: State, probe: HealthCheck) -> list[Alert]:
    key = (probe.kind, probe.subject)
    before = state.pipeline.get(key)
    limit = limit_of(state.rules.pipeline, probe.kind)
    holds = limit is not None and probe.value >= limit
    if before is None and not holds:
        return []
    signal = _signal(state, probe, limit or 0, holds=holds)
    went = lifecycle.advance(before, Subject(probe.subject), signal, 0, state.now_ms)
    over = went.episode is None or (
        not went.episode.firing
        and went.episode.pending is None
        # Kept for the rest of its hour, so that it is not told twice in it.
        and went.episode.period != state.periods[WindowKind.HOUR]
    )
    if over or went.episode is None:
        state.pipeline.pop(key, None)
    else:
        state.pipeline[key] = went.episode
    return list(went.alerts)


def _signal(state: State, probe: HealthCheck, limit: int, *, holds: bool) -> Evaluation:
    hour = state.windows[WindowKind.HOUR]
    rules = state.rules.pipeline
    return Evaluation(
        rule=RuleRef(RuleType.PIPELINE.value, probe.kind.value),
        rule_type=RuleType.PIPELINE,
        level=1 if holds else 0,
        still_active=holds,
        window=WindowKind.HOUR,
        period=state.periods[WindowKind.HOUR],
        reset_at_ms=hour.end_ms,
        observed=probe.value,
        limit=limit,
        percent=percent_of(probe.value, limit),
        unit=unit_of(probe.kind),
        severity=severity_of(probe.kind),
        summary=text_of(probe),
        for_seconds=rules.for_seconds,
        renotify_seconds=rules.renotify_seconds,
    )
