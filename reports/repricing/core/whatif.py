"""Usage at other prices: requests that cost the same are counted by ClickHouse and priced here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.attribution.core.question import Axis
from meterline.reports.attribution.core.sql import axis_expression
from meterline.reports.core.query import Query
from meterline.reports.repricing.core.charged_usage import CHARGED_EVENTS
from meterline.reports.repricing.core.scenario import Request, Scenario
from meterline.reports.repricing.core.slices import EventSlice
from meterline.schemas.money import NanoUsd, nano_from_usd

REQUEST_COLUMNS = Request._fields[1:]
"""Columns of usage_events that rating depends on, beside the time."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Equal requests of a slice, counted."""

    slice: EventSlice
    by: tuple[Axis, ...]
    models: Sequence[str]
    """Stored model names."""
    cuts: Sequence[int]

    def build(self) -> Query:
        """Rows of (one value per axis, columns of Request, requests, unpriced, cost)."""
        parameters: dict[str, object] = {
            **self.slice._asdict(),
            "models": list(self.models),
            "cuts": list(self.cuts),
        }
        axes, names = _axes(self.by, parameters)
        groups = ", ".join([*names, "piece", *REQUEST_COLUMNS])
        sql = f"""
SELECT {"".join(f"{name}, " for name in names)}min(time_ms), {", ".join(REQUEST_COLUMNS)},
       count(), countIf(NOT priced), toString(sum(cost_usd))
FROM (
    SELECT {"".join(f"{axis}, " for axis in axes)}{", ".join(REQUEST_COLUMNS)}, priced, cost_usd,
           toUnixTimestamp64Milli(event_time) AS time_ms,
           roundDown(time_ms, {{cuts:Array(Int64)}}) AS piece
    FROM {CHARGED_EVENTS}
    WHERE model IN {{models:Array(String)}}
)
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound
        return Query(sql, parameters)


def _axes(by: tuple[Axis, ...], parameters: dict[str, object]) -> tuple[list[str], list[str]]:
    names = [f"axis_{number}" for number in range(len(by))]
    axes = [
        f"toString({axis_expression(axis, f'tag_{number}', parameters)}) AS {name}"
        for number, (axis, name) in enumerate(zip(by, names, strict=True))
    ]
    return axes, names


@dataclass(slots=True)
class CostComparison:
    """Charged and scenario cost of one group."""

    requests: int = 0
    now_nano_usd: NanoUsd = 0
    """As charged: the price frozen on each event, or what a re-rating made of it."""
    then_nano_usd: NanoUsd = 0
    unpriced_now: int = 0
    """Requests that have no price now; they count 0 there."""
    unpriced_then: int = 0
    """Requests that the scenario has no price for; they keep what they cost now."""

    @property
    def saving_nano_usd(self) -> NanoUsd:
        """What the scenario saves; negative where it costs more."""
        return self.now_nano_usd - self.then_nano_usd

    def add(self, other: CostComparison) -> None:
        """Add another group."""
        self.requests += other.requests
        self.now_nano_usd += other.now_nano_usd
        self.then_nano_usd += other.then_nano_usd
        self.unpriced_now += other.unpriced_now
        self.unpriced_then += other.unpriced_then


@dataclass(slots=True)
class WhatIf:
    """The answer: by group, the costliest first."""

    period: ReportPeriod
    by: tuple[Axis, ...]
    groups: dict[tuple[str, ...], CostComparison] = field(default_factory=dict)

    @property
    def total(self) -> CostComparison:
        """All groups."""
        total = CostComparison()
        for each in self.groups.values():
            total.add(each)
        return total


def price_row(
    scenario: Scenario, row: Sequence[Any], axes: int
) -> tuple[tuple[str, ...], CostComparison]:
    """One row of `UsageQuery`: its group, and what its requests cost now and then."""
    request = Request._make(row[axes : axes + len(Request._fields)])
    count, unpriced, cost = row[-3:]
    now = nano_from_usd(cost)
    price, priced = scenario.price(request)
    compared = CostComparison(
        count, now, price * count if priced else now, unpriced, 0 if priced else count
    )
    return tuple(row[:axes]), compared
