"""Booked lines in ClickHouse: statements that write them, and sums of them.

A run books, for its own month and for every earlier closed month, the difference between what the
raw events say now and what was booked before:

    lines = events of the origin month, up to the frozen positions
          + adjustments of their prices                             -  lines booked so far

So the first close of a month books all of it, a later one only what came late or was corrected,
and a repeated run books nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.reports.close.core.months import Month
from meterline.reports.totals import Query, Total
from meterline.schemas.money import NanoUsd, nano_from_usd


class LineKind(StrEnum):
    """Why a line was booked."""

    USAGE = "usage"
    """Usage of the month, in its first close."""
    LATE = "late"
    """Of an earlier month: came, or was corrected, after its close."""
    RESTATEMENT = "restatement"
    """Of the month itself, in a revision."""
    RERATE = "rerate"
    """Difference between what a re-rating charges and the prices frozen on the events."""


# Name, and how it is read from the raw events. What identifies a line, without its run and kind.
_DIMENSIONS: Mapping[str, str] = {
    "day": "toDate(event_time, {time_zone:String})",
    "organisation": "organisation",
    "department": "department",
    "project": "project",
    "team": "team",
    "environment": "environment",
    "key": "key",
    "model": "model",
    "provider": "provider",
    "service_tier": "service_tier",
    "tier_floor": "toInt64(roundDown(abs(input_tokens), {tier_floors:Array(UInt64)}))",
    "price_version": "price_version",
    "correction_reason": "correction_reason",
    "tags": (
        "toJSONString(mapSort(mapFilter((name, value) -> has({tag_keys:Array(String)}, name), tags)))"
    ),
}
_MEASURES: Mapping[str, str] = {
    "events": "toInt64(1)",
    "unpriced_events": "toInt64(NOT priced)",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "cost_usd": "toDecimal128(cost_usd, 9)",
}
_NO_TAGS = "''"
# Of price_adjustments: money alone, and requests that are no longer without a price.
_ADJUSTED: Mapping[str, str] = {
    **dict.fromkeys(_MEASURES, "toInt64(0)"),
    "unpriced_events": "-toInt64(newly_priced)",
    "cost_usd": "toDecimal128(difference_usd, 9)",
}
_ADJUSTED_REASON = "reason"
_MONTH_TIMES = """event_time >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
  AND event_time < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"""
# The place of an event in the log, as the sink stores it: see migration 0001.
_POSITION = "9223372036854775807 - bitShiftRight(version, 1)"


class CloseRun(NamedTuple):
    """Whose lines are written."""

    run: int
    booked_period: str
    draft: bool


@dataclass(frozen=True, slots=True)
class Booking:
    """One origin month of one run."""

    run: CloseRun
    kind: LineKind
    origin: Month
    positions: Mapping[int, int]
    """Source partition to the first position that is not booked."""
    booked_runs: Sequence[int]
    """Closed runs, whose lines of the origin month are taken off."""
    time_zone: str
    tier_floors: Sequence[int]
    tag_keys: Sequence[str]

    def build(self) -> Query:
        """The INSERT and its parameters."""
        dimensions = dict(_DIMENSIONS)
        if not self.tag_keys:
            dimensions["tags"] = _NO_TAGS
        names = [*dimensions, "key_name", *_MEASURES]
        raw = ", ".join(
            f"{expression} AS {name}_"
            for name, expression in {**dimensions, "key_name": "key_name", **_MEASURES}.items()
        )
        adjusted = {**dimensions, "correction_reason": _ADJUSTED_REASON}
        adjustments = ", ".join(
            f"{expression} AS {name}_"
            for name, expression in {**adjusted, "key_name": "key_name", **_ADJUSTED}.items()
        )
        source = f"""
    SELECT {{kind:String}} AS kind_, {raw}
    FROM usage_events FINAL
    WHERE event_time >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
      AND event_time < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')
      AND {_POSITION} < transform(source_partition, {{partitions:Array(UInt16)}},
                                  {{limits:Array(Int64)}}, toInt64(0))
    UNION ALL
    SELECT '{LineKind.RERATE.value}' AS kind_, {adjustments}
    FROM price_adjustments FINAL
    WHERE {_MONTH_TIMES}"""  # noqa: S608
        if self.booked_runs:
            booked = ", ".join([*dimensions, "key_name", *(f"-{name}" for name in _MEASURES)])
            source += f"""
    UNION ALL
    SELECT if(kind = '{LineKind.RERATE.value}', kind, {{kind:String}}), {booked}
    FROM closed_lines
    WHERE origin_period = {{origin:String}} AND run IN {{booked_runs:Array(UInt64)}}"""  # noqa: S608
        groups = ", ".join(f"{name}_" for name in dimensions)
        sums = ", ".join(f"sum({name}_) AS {name}_sum" for name in _MEASURES)
        changed = " OR ".join(f"{name}_sum != 0" for name in _MEASURES)
        sql = f"""
INSERT INTO closed_lines (booked_period, run, draft, kind, origin_period, {", ".join(names)})
SELECT {{booked_period:String}}, {{run:UInt64}}, {{draft:UInt8}}, kind_, {{origin:String}},
       {groups}, max(key_name_), {sums}
FROM ({source}
)
GROUP BY kind_, {groups}
HAVING {changed}"""  # noqa: S608 - only fixed text is put in; values are bound
        return Query(sql, self._parameters())

    def _parameters(self) -> dict[str, object]:
        ordered = sorted(self.positions.items())
        parameters: dict[str, object] = {
            "booked_period": self.run.booked_period,
            "run": self.run.run,
            "draft": int(self.run.draft),
            "kind": self.kind.value,
            "origin": self.origin.name,
            "time_zone": self.time_zone,
            "start_ms": self.origin.start_ms,
            "end_ms": self.origin.end_ms,
            "partitions": [partition for partition, _ in ordered],
            "limits": [limit for _, limit in ordered],
            "tier_floors": list(self.tier_floors),
        }
        if self.tag_keys:
            parameters["tag_keys"] = list(self.tag_keys)
        if self.booked_runs:
            parameters["booked_runs"] = list(self.booked_runs)
        return parameters


def read_positions(client: Client, month: Month) -> dict[int, int]:
    """The first free position of every source partition, by what is stored of a month."""
    rows = client.query(
        f"""
SELECT source_partition, max({_POSITION}) + 1
FROM usage_events
WHERE event_time >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
  AND event_time < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')
GROUP BY source_partition ORDER BY source_partition""",  # noqa: S608 - fixed text
        {"start_ms": month.start_ms, "end_ms": month.end_ms},
    )
    return {int(partition): int(limit) for partition, limit in rows}


def read_month_sums(client: Client, month: Month) -> tuple[int, int, NanoUsd]:
    """What a month's events and adjustments say now: (events, tokens in and out, cost)."""
    ((events, tokens, cost, adjusted),) = client.query(
        f"""
SELECT count(), sum(input_tokens + output_tokens), sum(cost_usd),
       (SELECT sum(difference_usd) FROM price_adjustments FINAL WHERE {_MONTH_TIMES})
FROM usage_events FINAL
WHERE {_MONTH_TIMES}""",  # noqa: S608 - fixed text
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


class SumRow(NamedTuple):
    """Booked money and usage of one department's project and model, by why it was booked."""

    run: int
    organisation: str
    department: str
    project: str
    model: str
    kind: LineKind
    origin_period: str
    requests: int
    unpriced: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: NanoUsd


def read_sums(client: Client, runs: Sequence[int]) -> list[SumRow]:
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


class DayRow(NamedTuple):
    """What a department used on one day of its month."""

    organisation: str
    department: str
    day: str
    cost_nano_usd: NanoUsd


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
