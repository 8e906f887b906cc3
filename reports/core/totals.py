"""Totals of spend: from the replaceable window rows, and once more from the raw events.

Every query is a value: `build()` gives the SQL and its bound parameters. Sums of money are taken
under FINAL, and come back as exact integers of nano-USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from meterline.reports.core.query import Query, between
from meterline.schemas.measures import (
    COST,
    EVENTS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    UNPRICED_EVENTS,
    events_sql,
    rollup_sql,
)
from meterline.schemas.money import NanoUsd
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.scopes import ScopeType

# Starts of windows are sent in the request's URL, 14 bytes each; the server's bound is 1 MB.
WINDOWS_PER_QUERY_MAX = 4_000


class WindowScope(NamedTuple):
    """The key of a total: kind and start of its window, and its scope."""

    kind: WindowKind
    start_ms: int
    scope: str


class Total(NamedTuple):
    """Cost, tokens and events of one scope and window."""

    cost_nano_usd: NanoUsd
    input_tokens: int
    output_tokens: int
    events: int
    unpriced_events: int


_TOTALLED = (COST, INPUT_TOKENS, OUTPUT_TOKENS, EVENTS, UNPRICED_EVENTS)
assert Total._fields == tuple(each.name for each in _TOTALLED)
ALL_SCOPES = tuple(ScopeType)


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """Totals per scope and window as the streams counted them: sums of the shards."""

    kind: WindowKind
    start_ms: int
    """Windows that begin in `[start_ms, end_ms)`."""
    end_ms: int
    scope_types: Sequence[ScopeType] = ALL_SCOPES
    organisation: str = ""
    """Empty for all."""

    def build(self) -> Query:
        """Rows of (start_ms, scope, cost, input, output, events, unpriced)."""
        sql = f"""
SELECT toUnixTimestamp64Milli(window_start) AS start_ms, scope,
       {rollup_sql(_TOTALLED)}
FROM spend_windows FINAL
WHERE window_kind = {{kind:String}}
  AND {between("window_start")}
  AND scope_type IN {{scope_types:Array(String)}}{_organisation(self.organisation)}
GROUP BY start_ms, scope
ORDER BY start_ms, scope"""  # noqa: S608 - only fixed text is put in; values are bound
        parameters: dict[str, object] = {
            "kind": self.kind.value,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "scope_types": [each.value for each in self.scope_types],
        }
        return Query(sql, parameters | _organisation_parameter(self.organisation))


# One array of scopes per event and type; a missing project or user has none.
SCOPES_OF_EVENT: Mapping[ScopeType, str] = MappingProxyType(
    {
        ScopeType.ORGANISATION: "[concat('organisation:', organisation)]",
        ScopeType.DEPARTMENT: "[concat('department:', organisation, '/', department)]",
        ScopeType.PROJECT: (
            "if(project = '', [], [concat('project:', organisation, '/', project)])"
        ),
        ScopeType.USER: "if(user = '', [], [concat('user:', organisation, '/', user)])",
        ScopeType.KEY: "[concat('key:', organisation, '/', key)]",
    }
)


@dataclass(frozen=True, slots=True)
class EventTotals:
    """The same totals from the raw events: a second path, to compare with the first."""

    kind: WindowKind
    windows: Sequence[Window]
    """Consecutive calendar windows, at most WINDOWS_PER_QUERY_MAX; see `windows_between`."""
    scope_types: Sequence[ScopeType] = ALL_SCOPES
    organisation: str = ""

    def build(self) -> Query:
        """Rows of (start_ms, scope, cost, input, output, events, unpriced)."""
        scopes = ", ".join(SCOPES_OF_EVENT[each] for each in self.scope_types)
        sql = f"""
SELECT roundDown(toUnixTimestamp64Milli(event_time), {{starts:Array(Int64)}}) AS start_ms,
       arrayJoin(arrayConcat({scopes})) AS scope,
       {events_sql(_TOTALLED)}
FROM usage_events FINAL
WHERE {between("event_time")}{_organisation(self.organisation)}
GROUP BY start_ms, scope
ORDER BY start_ms, scope"""  # noqa: S608 - only fixed text is put in; values are bound
        parameters: dict[str, object] = {
            "starts": [window.start_ms for window in self.windows],
            "start_ms": self.windows[0].start_ms,
            "end_ms": self.windows[-1].end_ms,
        }
        return Query(sql, parameters | _organisation_parameter(self.organisation))


@dataclass(frozen=True, slots=True)
class CurrentSpend:
    """What the scopes of some types spent in given windows, from the window rows: for status."""

    windows: Sequence[Window]
    scope_types: Sequence[ScopeType]

    def build(self) -> Query:
        """Rows of (kind, start_ms, scope, cost, input, output, events, unpriced)."""
        sql = f"""
SELECT window_kind, toUnixTimestamp64Milli(window_start) AS start_ms, scope,
       {rollup_sql(_TOTALLED)}
FROM spend_windows FINAL
WHERE (window_kind, toUnixTimestamp64Milli(window_start)) IN
      (SELECT tupleElement(each, 1), tupleElement(each, 2)
       FROM (SELECT arrayJoin(arrayZip({{kinds:Array(String)}}, {{starts:Array(Int64)}})) AS each))
  AND window_kind IN {{kinds:Array(String)}}
  AND window_start >= fromUnixTimestamp64Milli({{first_ms:Int64}}, 'UTC')
  AND scope_type IN {{scope_types:Array(String)}}
GROUP BY window_kind, start_ms, scope
ORDER BY window_kind, start_ms, scope"""  # noqa: S608 - only fixed text is put in; values are bound
        return Query(
            sql,
            {
                "kinds": [window.kind.value for window in self.windows],
                "starts": [window.start_ms for window in self.windows],
                "first_ms": min(window.start_ms for window in self.windows),
                "scope_types": [each.value for each in self.scope_types],
            },
        )


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The newest event that is stored; no FINAL, because a repeated row has the same time."""

    def build(self) -> Query:
        """One row of (event time, append time), UTC ms; both 0 where nothing is stored."""
        return Query(
            "SELECT toUnixTimestamp64Milli(max(event_time)), max(received_ms) FROM usage_events "
            "WHERE is_deleted = 0",
            {},
        )


def windows_between(
    calendar: Calendar, kind: WindowKind, start_ms: int, end_ms: int
) -> list[Window]:
    """The consecutive windows of one kind that touch `[start_ms, end_ms)`."""
    found: list[Window] = []
    at = start_ms
    while at < end_ms:
        window = calendar.window(kind, at)
        found.append(window)
        at = window.end_ms
    return found


def total_of(row: Sequence[object]) -> Total:
    """The total of a row that ends with (cost, input, output, events, unpriced)."""
    return Total(*(each.read(value) for each, value in zip(_TOTALLED, row, strict=True)))


def _organisation(name: str) -> str:
    return "\n  AND organisation = {organisation:String}" if name else ""


def _organisation_parameter(name: str) -> dict[str, object]:
    return {"organisation": name} if name else {}
