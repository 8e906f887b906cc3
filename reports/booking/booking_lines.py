"""Booked lines in ClickHouse: statements that write them, and sums of them.

A run books, for its own month and for every earlier closed month, the difference between what the
raw events say now and what was booked before:

    lines = events of the origin month, up to the frozen positions
          + adjustments of their prices                             -  lines booked so far

So the first close of a month books all of it, a later one only what came late or was corrected,
and a repeated run books nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meterline.backends.clickhouse.client import Client
from meterline.reports.booking.core.booking import POSITION
from meterline.reports.booking.core.months import Month
from meterline.reports.booking.core.values import DayRow, LineKind, SumRow
from meterline.reports.core.query import between
from meterline.reports.core.totals import Total
from meterline.schemas.money import NanoUsd, nano_from_usd


def read_months_with_events(client: Client, time_zone: str) -> set[str]:
    """Names of the months that have events, such as 2026-10."""
    rows = client.query(
        "SELECT DISTINCT formatDateTime(event_time, '%Y-%m', {time_zone:String}) "
        "FROM usage_events WHERE is_deleted = 0",
        {"time_zone": time_zone},
    )
    return {row[0] for row in rows}


def read_positions(client: Client, month: Month) -> dict[int, int]:
    """The first free position of every source partition, by what is stored of a month."""
    rows = client.query(
        f"""
SELECT source_partition, max({POSITION}) + 1
FROM usage_events
WHERE {between("event_time")}
GROUP BY source_partition ORDER BY source_partition""",  # noqa: S608 - fixed text
        {"start_ms": month.start_ms, "end_ms": month.end_ms},
    )
    return {int(partition): int(limit) for partition, limit in rows}


def read_month_sums(client: Client, month: Month) -> tuple[int, int, NanoUsd]:
    """What a month's events and adjustments say now: (events, tokens in and out, cost)."""
    ((events, tokens, cost, adjusted),) = client.query(
        f"""
SELECT count(), sum(input_tokens + output_tokens), sum(cost_usd),
       (SELECT sum(difference_usd) FROM price_adjustments FINAL WHERE {between("event_time")})
FROM usage_events FINAL
WHERE {between("event_time")}""",  # noqa: S608 - fixed text
        {"start_ms": month.start_ms, "end_ms": month.end_ms},
    )
    return int(events), int(tokens), nano_from_usd(str(cost)) + nano_from_usd(str(adjusted or 0))


def read_booked_sums(client: Client, origin: str, runs: Sequence[int]) -> tuple[int, int, NanoUsd]:
    """What was booked of a month so far: (events, tokens in and out, cost)."""
    ((events, tokens, cost),) = client.query(
        """
SELECT sum(events), sum(input_tokens + output_tokens), sum(cost_usd)
FROM closed_lines
WHERE origin_period = {origin:String} AND run IN {runs:Array(UInt64)}""",
        {"origin": origin, "runs": list(runs)},
    )
    return int(events), int(tokens), nano_from_usd(str(cost))


def read_line_sums(client: Client, runs: Sequence[int]) -> list[SumRow]:
    """The lines of some runs, added up for bills."""
    rows = client.query(
        """
SELECT run, organisation, department, project, model, kind, origin_period,
       sum(events), sum(unpriced_events), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM closed_lines
WHERE run IN {runs:Array(UInt64)}
GROUP BY run, organisation, department, project, model, kind, origin_period
ORDER BY run, organisation, department, project, model, kind, origin_period""",
        {"runs": list(runs)},
    )
    return [
        SumRow._make([*row[:5], LineKind(row[5]), *row[6:11], nano_from_usd(str(row[11]))])
        for row in rows
    ]


def read_days(client: Client, runs: Sequence[int], period: str) -> list[DayRow]:
    """Cost by day of the usage of a month, for charts."""
    rows = client.query(
        """
SELECT organisation, department, toString(day), sum(cost_usd)
FROM closed_lines
WHERE run IN {runs:Array(UInt64)} AND origin_period = {period:String}
GROUP BY organisation, department, day
ORDER BY organisation, department, day""",
        {"runs": list(runs), "period": period},
    )
    return [DayRow._make((*row[:3], nano_from_usd(str(row[3])))) for row in rows]


def read_scope_totals(client: Client, runs: Iterable[int], origin: str) -> dict[str, Total]:
    """Booked totals of a month by scope, to compare with those of the streams.

    Without adjustments: the streams count by the prices that are frozen on the events.
    """
    rows = client.query(
        """
SELECT arrayJoin(arrayConcat(
           [concat('organisation:', organisation),
            concat('department:', organisation, '/', department),
            concat('key:', organisation, '/', key)],
           if(project = '', [], [concat('project:', organisation, '/', project)]))) AS scope,
       sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(events), sum(unpriced_events)
FROM closed_lines
WHERE run IN {runs:Array(UInt64)} AND origin_period = {origin:String} AND kind != {rerate:String}
GROUP BY scope""",
        {"runs": list(runs), "origin": origin, "rerate": LineKind.RERATE.value},
    )
    return {row[0]: Total(nano_from_usd(str(row[1])), *map(int, row[2:])) for row in rows}
