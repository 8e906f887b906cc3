"""Alerts about the pipeline: from health checks to the lifecycle that every rule has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meterline.alerting.core import lifecycle
from meterline.alerting.core.state import HealthChecksSeen, State
from meterline.alerting.core.totals import SpendTotals
from meterline.alerting.rules import pipeline
from meterline.alerting.rules.evaluation import Subject
from meterline.alerting.rules.pipeline import (
    HealthCheck,
    HealthCheckKind,
    HealthCheckRound,
    relay_checks,
)
from meterline.schemas.alert import Alert
from meterline.schemas.periods import WindowKind
from meterline.schemas.scopes import ScopeType

_ORGANISATION = f"{ScopeType.ORGANISATION.value}:"
_KEY = f"{ScopeType.KEY.value}:"
_FROM_TOTALS = frozenset(
    {HealthCheckKind.UNPRICED, HealthCheckKind.ZERO_COST, HealthCheckKind.RELAY_SILENT}
)


def inspect(
    totals: SpendTotals,
    lanes: Mapping[str, int],
    read: HealthCheckRound,
    hour_start_ms: int,
    now_ms: int,
) -> HealthChecksSeen:
    """One round of every health check that could be read.

    Args:
        totals: what was counted.
        lanes: when the last batch of each lane came.
        read: those that cost a request.
        hour_start_ms: the current hour.
        now_ms: the current time.
    """
    checks = [*read.checks, *_prices(totals, hour_start_ms), *relay_checks(lanes, now_ms)]
    return HealthChecksSeen(
        read.kinds | _FROM_TOTALS, tuple(check for check in checks if check.value > 0)
    )


def observe(state: State, seen: HealthChecksSeen) -> list[Alert]:
    """Apply one round of health checks; the alerts that it asks for."""
    measured = {(check.kind, check.subject): check for check in seen.checks}
    # An alert whose subject is not seen any more is over: a retired relay, a closed hour.
    gone = {
        (kind, subject): HealthCheck(kind, subject, 0)
        for kind, subject in state.pipeline
        if kind in seen.kinds and (kind, subject) not in measured
    }
    alerts: list[Alert] = []
    for check in (*measured.values(), *gone.values()):
        alerts += _observe_one(state, check)
    return alerts


def _observe_one(state: State, check: HealthCheck) -> list[Alert]:
    key = (check.kind, check.subject)
    before = state.pipeline.get(key)
    period = state.periods[WindowKind.HOUR]
    evaluation = pipeline.evaluate(
        state.rules.pipeline, check, state.windows[WindowKind.HOUR], period
    )
    if before is None and not evaluation.level:
        return []
    moved = lifecycle.advance(before, Subject(check.subject), evaluation, 0, state.now_ms)
    episode = moved.episode
    # Kept for the rest of its hour, so that it does not fire twice in it.
    if episode is not None and (episode.firing or episode.pending or episode.period == period):
        state.pipeline[key] = episode
    else:
        state.pipeline.pop(key, None)
    return list(moved.alerts)


def _prices(totals: SpendTotals, hour_start_ms: int) -> Iterator[HealthCheck]:
    for scope, unpriced, tokens, cost in totals.odd_hours(hour_start_ms):
        if unpriced and scope.startswith(_ORGANISATION):
            yield HealthCheck(HealthCheckKind.UNPRICED, scope, unpriced, "in this hour")
        if scope.startswith(_KEY) and not unpriced and tokens > 0 and cost == 0:
            yield HealthCheck(HealthCheckKind.ZERO_COST, scope, tokens, "in this hour")
