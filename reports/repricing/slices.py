"""Reads the parts of a period that are small enough to be read at once.

ClickHouse holds groups in memory; a slice bounds that, and the memory of the reader.
"""

from __future__ import annotations

from meterline.backends.clickhouse.client import Client
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.core.query import between
from meterline.reports.repricing.core.slices import EventSlice, pack
from meterline.schemas.periods import DAY_MS


def read_event_slices(client: Client, period: ReportPeriod) -> list[EventSlice]:
    """The slices of a period that have events, in order.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        f"""
SELECT intDiv(toUnixTimestamp64Milli(event_time), {DAY_MS}) AS day, count()
FROM usage_events WHERE {between("event_time")} GROUP BY day ORDER BY day""",  # noqa: S608 - fixed text
        {"start_ms": period.start_ms, "end_ms": period.end_ms},
    )
    return list(pack(((int(day), int(count)) for day, count in rows), period))
