"""From what the worker holds and what the probe thread read to one observation. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alerting.probes import Round, relay_probes
from alerting.rules.pipeline import Probe, ProbeKind
from alerting.state import ProbesSeen
from alerting.totals import SpendTotals
from schemas.scopes import ScopeType

_ORGANISATION = f"{ScopeType.ORGANISATION.value}:"
_KEY = f"{ScopeType.KEY.value}:"
_HELD = frozenset({ProbeKind.UNPRICED, ProbeKind.ZERO_COST, ProbeKind.RELAY_SILENT})


def inspect(
    totals: SpendTotals, lanes: Mapping[str, int], found: Round, hour_start_ms: int, now_ms: int
) -> ProbesSeen:
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
    return ProbesSeen(frozenset(kinds), tuple(probe for probe in probes if probe.value > 0))


def _prices(totals: SpendTotals, hour_start_ms: int) -> Iterator[Probe]:
    for scope, unpriced, tokens, cost in totals.odd_hours(hour_start_ms):
        if unpriced and scope.startswith(_ORGANISATION):
            yield Probe(ProbeKind.UNPRICED, scope, unpriced, "in this hour")
        if scope.startswith(_KEY) and not unpriced and tokens > 0 and cost == 0:
            yield Probe(ProbeKind.ZERO_COST, scope, tokens, "in this hour")
