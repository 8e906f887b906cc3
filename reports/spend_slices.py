"""Spend per scope and slice of time, in the order of time: what a back-test is fed with.

From the window rows where streams have counted: a minute's row is exact. From the raw events where
there are none (data that was loaded, or a pipeline without streams): summed per minute by
ClickHouse, which is as exact, as every window begins on a UTC minute.
"""

from __future__ import annotations

from collections.abc import Iterator

from meterline.backends.clickhouse.client import Client
from meterline.reports.core.spend_slices import SPAN_MS_MAX, SliceQuery, StoredSpendSlice
from meterline.schemas.money import NanoUsd


def read_spend_slices(client: Client, question: SliceQuery) -> Iterator[StoredSpendSlice]:
    """All slices in the order of time, a day per query.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    for start_ms in range(question.start_ms, question.end_ms, SPAN_MS_MAX):
        end_ms = min(start_ms + SPAN_MS_MAX, question.end_ms)
        part = SliceQuery(question.scopes, start_ms, end_ms, question.hourly, question.from_events)
        for row in client.query(*part.build()):
            # Nano-dollars as ClickHouse has them: text and Decimal are slow, row by row.
            yield StoredSpendSlice(int(row[0]), str(row[1]), NanoUsd(int(row[2])), int(row[3]))
