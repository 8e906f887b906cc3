"""What verification asks ClickHouse beyond what reports ask: the run apart from other traffic.

All sums are taken of the raw events under FINAL, the path that shares nothing with the streams but
the decoder, the rates and the log.
"""

from __future__ import annotations

from meterline.operations.replay.truth import VERIFIED
from meterline.reports.core.query import Query
from meterline.schemas.measures import events_sql
from meterline.schemas.periods import MINUTE_MS

QUARTER_MS = 15 * MINUTE_MS
"""Every time zone's offset since 2020 is a multiple of it: a quarter of an hour lies in exactly one
hour, day and month, so quarters can be summed to any of them."""


_SCOPES = """arrayFilter(scope -> scope != '', [
        concat('organisation:', organisation),
        concat('department:', organisation, '/', department),
        concat('key:', organisation, '/', key),
        if(project = '', '', concat('project:', organisation, '/', project)),
        if(user = '', '', concat('user:', organisation, '/', user))
    ])"""

_TIMES = (
    "event_time >= fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC') "
    "AND event_time < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"
)


def event_sums(
    organisation: str, run_id: str, first_ms: int, end_ms: int, *, grain_ms: int
) -> Query:
    """Sums of raw events by scope and slice of time, those of the run apart from others.

    Rows: scope, slice start in ms, whether of the run, a sum per measure of VERIFIED.
    """
    sql = f"""
SELECT scope,
       intDiv(toUnixTimestamp64Milli(event_time), {{grain_ms:Int64}}) * {{grain_ms:Int64}} AS start_ms,
       startsWith(event_id, {{prefix:String}}) AS own,
       {events_sql(VERIFIED)}
FROM usage_events FINAL
ARRAY JOIN {_SCOPES} AS scope
WHERE organisation = {{organisation:String}} AND {_TIMES}
GROUP BY scope, start_ms, own"""  # noqa: S608 - constants of this module; values are bound
    return Query(
        sql,
        {
            "organisation": organisation,
            "prefix": f"{run_id}-",
            "grain_ms": grain_ms,
            "first_ms": first_ms,
            "end_ms": end_ms,
        },
    )
