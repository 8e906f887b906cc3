"""Reads attribution from ClickHouse."""

from __future__ import annotations

from dataclasses import replace

from meterline.backends.clickhouse.client import Client
from meterline.reports.attribution.core.answer import Answer, Peaks, line_of, stale_of
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    windows_of,
)
from meterline.reports.attribution.core.sql import (
    StaleRollup,
    build,
    build_peaks,
    build_stale,
)


def read_attribution(client: Client, question: Attribution) -> Answer:
    """Query ClickHouse; `usage_days` only as far as it is up to date.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    stale = StaleRollup()
    if question.chosen is AttributionSource.USAGE_DAYS:
        found = stale_of(client.query(*build_stale(question)))
        if found is None:
            question = replace(question, source=AttributionSource.USAGE_EVENTS)
        else:
            stale = found
    ends = {window.start_ms: window.end_ms for window in windows_of(question)}
    axes = len(question.by)
    lines = [line_of(row, axes, ends) for row in client.query(*build(question, stale))]
    return Answer(question, question.chosen, tuple(lines))


def with_peaks(client: Client, answer: Answer) -> Answer:
    """The same answer with the busiest minute of each row.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    axes = len(answer.question.by)
    found = {
        (row[0], *row[1 : 1 + axes]): Peaks(row[-2], row[-1])
        for row in client.query(*build_peaks(answer.question))
    }
    lines = [
        replace(line, peaks=found.get((line.start_ms, *line.group), Peaks(0, 0)))
        for line in answer.lines
    ]
    return replace(answer, lines=tuple(lines))
