"""From what the worker holds and what the probe thread read to one observation. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meterline.alerting.core.state import HealthChecksSeen
from meterline.alerting.core.totals import SpendTotals
from meterline.alerting.health_checks import Round, relay_probes
from meterline.alerting.rules.pipeline import HealthCheck, HealthCheckKind
from meterline.schemas.scopes import ScopeType

_ORGANISATION = f"{ScopeType.ORGANISATION.value}:"
_KEY = f"{ScopeType.KEY.value}:"
_HELD = frozenset(
    {HealthCheckKind.UNPRICED, HealthCheckKind.ZERO_COST, HealthCheckKind.RELAY_SILENT}
)


def inspect(
    totals: SpendTotals, lanes: Mapping[str, int], found: Round, hour_start_ms: int, now_ms: int
) -> HealthChecksSeen:
    """One round of every probe that could be read.

    Args:
        totals: what was counted.
        lanes: when the last batch of each lane came.
        found: what the thread read.
        hour_start_ms: the current hour.
        now_ms: the present.
    """
    kinds = found.kinds | _HELD
    probes = [*found.probes, *_prices(totals, hour_start_ms), *relay_probes(lanes, now_ms)]
    return HealthChecksSeen(frozenset(kinds), tuple(probe for probe in probes if probe.value > 0))


def _prices(totals: SpendTotals, hour_start_ms: int) -> Iterator[HealthCheck]:
    for scope, unpriced, tokens, cost in totals.odd_hours(hour_start_ms):
        if unpriced and scope.startswith(_ORGANISATION):
            yield HealthCheck(HealthCheckKind.UNPRICED, scope, unpriced, "in this hour")
        if scope.startswith(_KEY) and not unpriced and tokens > 0 and cost == 0:
            yield HealthCheck(HealthCheckKind.ZERO_COST, scope, tokens, "in this hour")
