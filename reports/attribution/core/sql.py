"""Pure: attribution questions to SQL and bound parameters.

Every answer has the headings of `REPORTED` after the window's start and one column per axis, and
last the cost of the whole window, of which a row's cost is a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from meterline.reports.attribution.core.period import Granularity
from meterline.reports.attribution.core.question import (
    DEPARTMENT_GRAIN,
    Attribution,
    AttributionSource,
    Axis,
    Dimension,
    rollup_kind,
    scope_type,
    windows_of,
)
from meterline.reports.core.query import Query, between
from meterline.schemas.measures import REPORTED
from meterline.schemas.periods import MINUTE_MS, WindowKind
from meterline.schemas.scopes import ScopeType


class StaleBucket(NamedTuple):
    """The unit that is replaced at once in usage_days: a department's UTC day."""

    organisation: str
    department: str
    day: date


class StaleRollup(NamedTuple):
    """What is not in usage_days yet and is read from the events."""

    days: tuple[date, ...] = ()
    """UTC days with too many stale buckets: the whole day is read from the events."""
    cells: tuple[StaleBucket, ...] = ()


def build(question: Attribution, stale: StaleRollup = StaleRollup()) -> Query:  # noqa: B008 - immutable
    """The statement that answers a question.

    Args:
        question: axes, period and filters.
        stale: of `usage_days` only: buckets to read from the events, all others from the roll-up.

    Returns:
        Rows of (window start ms, a value per axis of `by`, a sum per measure of REPORTED, cost of the window).
    """
    parameters = _common(question)
    inner = _inner(question, stale, parameters)
    groups = ", ".join(["start_ms", *_group_names(question)])
    sums = ", ".join(f"sum({each.heading}) AS {each.heading}_" for each in REPORTED)
    sql = f"""
SELECT {groups}, {sums}, sum(sum(cost_usd)) OVER (PARTITION BY start_ms) AS window_cost_usd
FROM ({inner})
GROUP BY {groups}
ORDER BY start_ms, cost_usd_ DESC, {groups}
LIMIT {{limit:UInt64}}"""  # noqa: S608 - only fixed text is put in; values are bound
    return Query(sql, parameters | {"limit": question.limit})


def _inner(question: Attribution, stale: StaleRollup, parameters: dict[str, object]) -> str:
    source = _from_source(question, stale, parameters)
    return f"{source}\nUNION ALL\n{_from_adjustments(question, parameters)}"


def _from_source(question: Attribution, stale: StaleRollup, parameters: dict[str, object]) -> str:
    match question.chosen:
        case AttributionSource.SPEND_WINDOWS:
            return _from_windows(question, parameters)
        case AttributionSource.USAGE_DAYS:
            return _from_days(question, stale, parameters)
        case AttributionSource.USAGE_EVENTS:
            return _from_events(question, parameters)


def build_peaks(question: Attribution) -> Query:
    """The busiest minute of every row: (window start, axes, requests, tokens), its greatest values.

    Minutes come from spend_windows where a scope answers the question, else from the events.
    """
    parameters = _common(question)
    names = _group_names(question)
    groups = ", ".join(["start_ms", *names])
    kind = scope_type(question)
    if kind is not None:
        selected = ", ".join(
            [f"{_start('window_start', question)} AS start_ms", *_scope_columns(question, kind)]
        )
        minutes = f"""
SELECT {selected}, window_start AS minute,
       sum(events) AS requests, sum(input_tokens + output_tokens) AS tokens
FROM spend_windows FINAL
WHERE {_windows_where(question, WindowKind.MINUTE, kind, parameters)}
GROUP BY {groups}, minute"""  # noqa: S608 - only fixed text is put in; values are bound
    else:
        selected = ", ".join(
            [f"{_start('event_time', question)} AS start_ms", *_event_columns(question, parameters)]
        )
        minutes = f"""
SELECT {selected}, intDiv(toUnixTimestamp64Milli(event_time), {MINUTE_MS}) AS minute,
       count() AS requests, sum(input_tokens + output_tokens) AS tokens
FROM usage_events FINAL
WHERE {_events_where(question, parameters)}
GROUP BY {groups}, minute"""  # noqa: S608 - only fixed text is put in; values are bound
    sql = f"""
SELECT {groups}, max(requests), max(tokens)
FROM ({minutes})
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound
    return Query(sql, parameters)


def build_stale(question: Attribution) -> Query:
    """Buckets of the period that changed since they were rolled up: (organisation, department, day).

    Most days are settled, which their sums show: the versions of a bucket's invalidations only
    grow, so those of a day add up to the rolled-up ones only where every bucket is up to date. Only
    the other days are compared bucket by bucket, which costs ten times as much. The rolled-up
    versions are read before the invalidations: a roll-up that happens in between then cannot make
    up for another bucket's invalidation.
    """
    parameters = _common(question)
    filters = _filters(question, parameters, only=(Dimension.ORGANISATION, Dimension.DEPARTMENT))
    sql = f"""
SELECT organisation, department, cell_day
FROM (
    SELECT organisation, department, cell_day, sum(newest) AS changed
    FROM (
        SELECT organisation, department, cell_day, shard, max(version) AS newest
        FROM usage_changes
        WHERE {_CELL_DAYS}{filters} AND cell_day GLOBAL IN (
            SELECT cell_day
            FROM (
                SELECT cell_day, -toInt128(version) AS marked
                FROM usage_day_cells FINAL
                WHERE {_CELL_DAYS}{filters} AND time_zone = {{time_zone:String}}
                UNION ALL
                SELECT cell_day, toInt128(version)
                FROM usage_changes FINAL
                WHERE {_CELL_DAYS}{filters}
            )
            GROUP BY cell_day
            HAVING sum(marked) != 0
        )
        GROUP BY organisation, department, cell_day, shard
    )
    GROUP BY organisation, department, cell_day
)
WHERE (organisation, department, cell_day, changed) GLOBAL NOT IN (
    SELECT organisation, department, cell_day, version
    FROM usage_day_cells FINAL
    WHERE {_CELL_DAYS}{filters} AND time_zone = {{time_zone:String}}
)
ORDER BY cell_day, organisation, department"""  # noqa: S608 - fixed text; values are bound
    return Query(sql, parameters | {"time_zone": question.calendar.time_zone})


_CELL_DAYS = (
    "cell_day >= toDate(fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')) "
    "AND cell_day <= toDate(fromUnixTimestamp64Milli({end_ms:Int64} - 1, 'UTC'))"
)


def _common(question: Attribution) -> dict[str, object]:
    return {
        "start_ms": question.period.start_ms,
        "end_ms": question.period.end_ms,
        "starts": [window.start_ms for window in windows_of(question)],
    }


def _start(column: str, question: Attribution) -> str:
    if question.granularity is Granularity.TOTAL:
        return "{start_ms:Int64}"
    return f"roundDown(toUnixTimestamp64Milli({column}), {{starts:Array(Int64)}})"


def _group_names(question: Attribution) -> list[str]:
    return [f"axis_{number}" for number in range(len(question.by))]


def _filters(
    question: Attribution,
    parameters: dict[str, object],
    only: Sequence[Dimension] | None = None,
    columns: dict[Dimension, str] | None = None,
) -> str:
    conditions = []
    for number, each in enumerate(question.filters):
        if only is not None and each.axis.dimension not in only:
            continue
        name = f"filter_{number}"
        column = (columns or {}).get(each.axis.dimension) or axis_expression(
            each.axis, f"filter_tag_{number}", parameters
        )
        conditions.append(f" AND {column} IN {{{name}:Array(String)}}")
        parameters[name] = list(each.values)
    return "".join(conditions)


def axis_expression(axis: Axis, name: str, parameters: dict[str, object]) -> str:
    """The column of an axis; a tag's name is bound as the parameter `name`."""
    if axis.dimension is not Dimension.TAG:
        return f"`{axis.dimension.value}`"
    parameters[name] = axis.tag
    return f"tags[{{{name}:String}}]"


def _event_columns(question: Attribution, parameters: dict[str, object]) -> list[str]:
    return [
        f"toString({axis_expression(axis, f'tag_{number}', parameters)}) AS axis_{number}"
        for number, axis in enumerate(question.by)
    ]


def _events_where(question: Attribution, parameters: dict[str, object]) -> str:
    return between("event_time") + _filters(question, parameters)


def _from_events(question: Attribution, parameters: dict[str, object], also: str = "") -> str:
    groups = ", ".join(["start_ms", *_group_names(question)])
    selected = ",\n       ".join(
        [
            f"{_start('event_time', question)} AS start_ms",
            *_event_columns(question, parameters),
            *(f"{each.signed_events_sql} AS {each.heading}" for each in REPORTED),
        ]
    )
    return f"""
SELECT {selected}
FROM usage_events FINAL
WHERE {_events_where(question, parameters)}{also}
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound


def _from_adjustments(question: Attribution, parameters: dict[str, object]) -> str:
    """What re-rating changed: no source has it, because the prices on events stay."""
    groups = ", ".join(["start_ms", *_group_names(question)])
    selected = ",\n       ".join(
        [
            f"{_start('event_time', question)} AS start_ms",
            *_event_columns(question, parameters),
            *(f"{each.adjustments_sql} AS {each.heading}" for each in REPORTED),
        ]
    )
    return f"""
SELECT {selected}
FROM price_adjustments FINAL
WHERE {_events_where(question, parameters)}
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound


# After `department:acme/`, in bytes as ClickHouse's substring counts.
_IDENTIFIER = "substring(scope, length(scope_type) + length(organisation) + 3)"


def _scope_columns(question: Attribution, kind: ScopeType) -> list[str]:
    columns = _columns_of(kind)
    return [
        f"toString({columns[axis.dimension]}) AS axis_{number}"
        for number, axis in enumerate(question.by)
    ]


def _columns_of(kind: ScopeType) -> dict[Dimension, str]:
    columns = {Dimension.ORGANISATION: "organisation"}
    if kind is not ScopeType.ORGANISATION:
        columns[Dimension(kind.value)] = _IDENTIFIER
    return columns


def _windows_where(
    question: Attribution, kind: WindowKind, scope: ScopeType, parameters: dict[str, object]
) -> str:
    filters = _filters(question, parameters, columns=_columns_of(scope))
    parameters["kind"] = kind.value
    parameters["scope_type"] = scope.value
    exact = _exact_scopes(question, scope)
    if exact:
        # The whole scope is in the sorting key, an identifier cut out of it is not.
        parameters["scopes"] = exact
        filters += " AND scope IN {scopes:Array(String)}"
    return (
        "window_kind = {kind:String} AND scope_type = {scope_type:String} "
        f"AND {between('window_start')}{filters}"
    )


# More scopes than this are no faster as a list than as a filter.
_EXACT_SCOPES_MAX = 100


def _exact_scopes(question: Attribution, scope: ScopeType) -> list[str]:
    values = {each.axis.dimension: each.values for each in question.filters}
    organisations = values.get(Dimension.ORGANISATION, ())
    if scope is ScopeType.ORGANISATION:
        found = [f"{scope.value}:{name}" for name in organisations]
    else:
        identifiers = values.get(Dimension(scope.value), ())
        found = [f"{scope.value}:{name}/{each}" for name in organisations for each in identifiers]
    return found if len(found) <= _EXACT_SCOPES_MAX else []


def _from_windows(question: Attribution, parameters: dict[str, object]) -> str:
    kind = scope_type(question)
    assert kind is not None, "checked when the question was made"
    groups = ", ".join(["start_ms", *_group_names(question)])
    selected = ",\n       ".join(
        [
            f"{_start('window_start', question)} AS start_ms",
            *_scope_columns(question, kind),
            *(f"{each.rollup_sql} AS {each.heading}" for each in REPORTED),
        ]
    )
    return f"""
SELECT {selected}
FROM spend_windows FINAL
WHERE {_windows_where(question, rollup_kind(question), kind, parameters)}
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound


# Noon, because some zones skip midnight when daylight saving begins.
_DAY_NOON = "(toDateTime64(day, 3, {time_zone:String}) + toIntervalHour(12))"


def _from_days(question: Attribution, stale: StaleRollup, parameters: dict[str, object]) -> str:
    wanted = {axis.dimension for axis in question.axes}
    grain = "department" if wanted <= DEPARTMENT_GRAIN else "key"
    groups = ", ".join(["start_ms", *_group_names(question)])
    selected = ",\n       ".join(
        [
            f"{_start(_DAY_NOON, question)} AS start_ms",
            *_event_columns(question, parameters),
            *(f"{each.rollup_sql} AS {each.heading}" for each in REPORTED),
        ]
    )
    filters = _filters(question, parameters)
    parameters |= {"grain": grain, "time_zone": question.calendar.time_zone}
    skipped, read = _stale_conditions(stale, parameters)
    sql = f"""
SELECT {selected}
FROM usage_days
WHERE grain = {{grain:String}} AND {_CELL_DAYS} AND time_zone = {{time_zone:String}}
  AND day >= toDate(fromUnixTimestamp64Milli({{start_ms:Int64}}), {{time_zone:String}})
  AND day <= toDate(fromUnixTimestamp64Milli({{end_ms:Int64}} - 1), {{time_zone:String}})
  AND (organisation, department, cell_day, attempt) GLOBAL IN (
      SELECT organisation, department, cell_day, attempt
      FROM usage_day_cells FINAL
      WHERE {_CELL_DAYS} AND time_zone = {{time_zone:String}}{skipped}
  ){filters}
GROUP BY {groups}"""  # noqa: S608 - only fixed text is put in; values are bound
    if read:
        sql += f"\nUNION ALL\n{_from_events(question, parameters, read)}"
    return sql


def _stale_conditions(stale: StaleRollup, parameters: dict[str, object]) -> tuple[str, str]:
    """What the roll-up leaves out, and what the events are read for instead: exact complements."""
    skipped, read = [], []
    if stale.days:
        parameters["stale_days"] = list(stale.days)
        skipped.append("cell_day NOT IN {stale_days:Array(Date)}")
        read.append("toDate(event_time) IN {stale_days:Array(Date)}")
    if stale.cells:
        parameters["stale_organisations"] = [cell.organisation for cell in stale.cells]
        parameters["stale_departments"] = [cell.department for cell in stale.cells]
        parameters["stale_cell_days"] = [cell.day for cell in stale.cells]
        cells = (
            "(SELECT arrayJoin(arrayZip({stale_organisations:Array(String)}, "
            "{stale_departments:Array(String)}, {stale_cell_days:Array(Date)})))"
        )
        skipped.append(f"(organisation, department, cell_day) NOT IN {cells}")
        read.append(f"(organisation, department, toDate(event_time)) IN {cells}")
    return (
        "".join(f"\n        AND {condition}" for condition in skipped),
        f"\n  AND ({' OR '.join(read)})" if read else "",
    )
