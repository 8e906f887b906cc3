"""Reads what the same usage would cost at other prices, and the saving.

Rating is per request: a context tier is a cliff on one request's tokens, and each request is
rounded once. So ClickHouse counts requests that are equal in every input of rating,
and each such group costs (price of one) x (how many), exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meterline.backends.clickhouse.client import Client
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.attribution.core.question import Axis
from meterline.reports.core.query import between
from meterline.reports.repricing.core.scenario import Scenario, price_cuts
from meterline.reports.repricing.core.slices import EventSlice
from meterline.reports.repricing.core.whatif import CostComparison, UsageQuery, WhatIf, price_row
from meterline.reports.repricing.slices import read_event_slices


def price_scenario(
    client: Client, scenario: Scenario, period: ReportPeriod, by: tuple[Axis, ...]
) -> WhatIf:
    """Price the usage of a period by a scenario; the answer has only the requests that it concerns.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    answer = WhatIf(period, by)
    for piece in read_event_slices(client, period):
        models = scenario.concerned(_models(client, piece))
        if not models:
            continue
        cuts = price_cuts(scenario.catalogue, piece.start_ms, piece.end_ms)
        usage = UsageQuery(piece, by, models, cuts)
        for row in _rows(client, usage):
            group, compared = price_row(scenario, row, len(by))
            answer.groups.setdefault(group, CostComparison()).add(compared)
    ranked = sorted(answer.groups.items(), key=lambda each: (-each[1].now_nano_usd, each[0]))
    answer.groups = dict(ranked)
    return answer


def _models(client: Client, piece: EventSlice) -> list[str]:
    rows = client.query(
        f"SELECT DISTINCT toString(model) FROM usage_events WHERE {between('event_time')}",  # noqa: S608
        piece._asdict(),
    )
    return [row[0] for row in rows]


def _rows(client: Client, usage: UsageQuery) -> Iterator[tuple[Any, ...]]:
    for block in client.blocks(*usage.build()):
        yield from zip(*block, strict=True)
