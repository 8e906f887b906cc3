"""Reads totals of spend from ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.totals import (
    ALL_SCOPES,
    WINDOWS_PER_QUERY_MAX,
    CurrentSpend,
    EventTotals,
    LastEvent,
    StreamTotals,
    Total,
    WindowScope,
    total_of,
)
from meterline.schemas.periods import Window, WindowKind
from meterline.schemas.scopes import ScopeType


def read_stream_totals(client: Client, question: StreamTotals) -> dict[WindowScope, Total]:
    """Query the totals that the streams counted.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(*question.build())
    return {WindowScope(question.kind, row[0], row[1]): total_of(row[2:]) for row in rows}


def read_event_totals(
    client: Client,
    kind: WindowKind,
    windows: Sequence[Window],
    scope_types: Sequence[ScopeType] = ALL_SCOPES,
    organisation: str = "",
) -> dict[WindowScope, Total]:
    """Query the totals of the raw events, in as many queries as the windows need.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    totals: dict[WindowScope, Total] = {}
    for first in range(0, len(windows), WINDOWS_PER_QUERY_MAX):
        part = windows[first : first + WINDOWS_PER_QUERY_MAX]
        question = EventTotals(kind, part, scope_types, organisation)
        for row in client.query(*question.build()):
            totals[WindowScope(kind, row[0], row[1])] = total_of(row[2:])
    return totals


def read_current_spend(client: Client, question: CurrentSpend) -> dict[WindowScope, Total]:
    """Query what was spent in the given windows.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(*question.build())
    return {WindowScope(WindowKind(row[0]), row[1], row[2]): total_of(row[3:]) for row in rows}


def read_last_event_ms(client: Client) -> int:
    """Time of the newest stored event, 0 where there is none."""
    return int(client.query(*LastEvent().build())[0][0])
