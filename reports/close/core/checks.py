"""Checks before a close; pure. Each blocker says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override

from meterline.reports.booking.core.inputs import CostMapping
from meterline.reports.booking.core.months import Month, cut_off_ms
from meterline.reports.booking.core.values import SumRow
from meterline.reports.core.totals import Total
from meterline.schemas.money import usd_display
from meterline.schemas.periods import rfc3339

EXAMPLES_MAX = 5
"""A reason names examples, not a list of a thousand."""


class BlockerKind(StrEnum):
    """Why a month cannot be closed."""

    TIME = "time"
    LAG = "lag"
    DRIFT = "drift"
    UNMAPPED = "unmapped"
    EXCHANGE = "exchange"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a month cannot be closed."""

    kind: BlockerKind
    detail: str

    @override
    def __str__(self) -> str:
        """`unmapped: acme/research has no cost centre ...`."""
        return f"{self.kind.value}: {self.detail}"


def check_time(
    month: Month, mapping: CostMapping, time_zone: str, now_ms: int, *, early: bool
) -> list[Blocker]:
    """A month is closed after its cut-off; with `early` as soon as it is over."""
    if now_ms < month.end_ms:
        detail = f"{month.name} is not over before {rfc3339(month.end_ms)}"
        return [Blocker(BlockerKind.TIME, detail)]
    cut_off = cut_off_ms(month, mapping.finance, time_zone)
    if now_ms < cut_off and not early:
        detail = f"the cut-off of {month.name} is {rfc3339(cut_off)}; --early closes before it"
        return [Blocker(BlockerKind.TIME, detail)]
    return []


def check_mapping(rows: Iterable[SumRow], mapping: CostMapping) -> list[Blocker]:
    """Every department with cost has a cost centre."""
    mapped = {
        (each.organisation, each.department) for each in mapping.departments if each.cost_center
    }
    costs: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.organisation, row.department)
        costs[key] = costs.get(key, 0) + row.cost_nano_usd
    for shared in mapping.finance.shared:
        if (shared.organisation, shared.department) in costs:
            costs |= {
                (shared.organisation, bearer): costs.get((shared.organisation, bearer), 1)
                for bearer, weight in shared.weights.items()
                if weight
            }
    unmapped = sorted(key for key, cost in costs.items() if cost and key not in mapped)
    if not unmapped:
        return []
    named = ", ".join("/".join(key) for key in unmapped[:EXAMPLES_MAX])
    more = f" and {len(unmapped) - EXAMPLES_MAX} more" if len(unmapped) > EXAMPLES_MAX else ""
    detail = (
        f"no cost centre for {named}{more}: set cost_center in the policy file "
        f"(a draft books them on the suspense account)"
    )
    return [Blocker(BlockerKind.UNMAPPED, detail)]


def check_drift(streams: Mapping[str, Total], booked: Mapping[str, Total]) -> list[Blocker]:
    """Streams and raw events agree on every scope of the month, to the nano-dollar."""
    nothing = Total(0, 0, 0, 0, 0)
    different = [
        scope
        for scope in sorted(streams.keys() | booked.keys())
        if streams.get(scope, nothing) != booked.get(scope, nothing)
    ]
    if not different:
        return []
    named = "; ".join(
        f"{scope}: streams {_described(streams.get(scope, nothing))}, "
        f"events {_described(booked.get(scope, nothing))}"
        for scope in different[:EXAMPLES_MAX]
    )
    return [
        Blocker(
            BlockerKind.DRIFT,
            f"{len(different)} of {len(streams.keys() | booked.keys())} totals differ ({named})",
        )
    ]


def _described(total: Total) -> str:
    return f"{usd_display(total.cost_nano_usd, 9)} in {total.events:,} events"
