"""What verification asks ClickHouse, as values: SQL text and parameters.

All sums are taken of the raw events under FINAL, the path that shares nothing with the streams but
the decoder, the rates and the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.periods import MINUTE_MS, WindowKind
from schemas.scopes import UNASSIGNED

QUARTER_MS = 15 * MINUTE_MS
"""Every time zone's offset since 2020 is a multiple of it: a quarter of an hour lies in exactly one
hour, day and month, so quarters can be summed to any of them."""


class Statement(NamedTuple):
    """One statement."""

    sql: str
    parameters: Mapping[str, object]


_SCOPES = """arrayFilter(scope -> scope != '', [
        concat('organisation:', organisation),
        concat('department:', organisation, '/', if(department = '', {unassigned:String}, department)),
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
) -> Statement:
    """Sums of raw events by scope and slice of time, those of the run apart from others.

    Rows: scope, slice start in ms, whether of the run, cost in dollars, input tokens, output
    tokens, events.
    """
    sql = f"""
SELECT scope,
       intDiv(toUnixTimestamp64Milli(event_time), {{grain_ms:Int64}}) * {{grain_ms:Int64}} AS start_ms,
       startsWith(event_id, {{prefix:String}}) AS own,
       sum(cost_usd), sum(input_tokens), sum(output_tokens), count()
FROM usage_events FINAL
ARRAY JOIN {_SCOPES} AS scope
WHERE organisation = {{organisation:String}} AND {_TIMES}
GROUP BY scope, start_ms, own"""  # noqa: S608 - constants of this module; values are bound
    return Statement(
        sql,
        {
            "organisation": organisation,
            "prefix": f"{run_id}-",
            "unassigned": UNASSIGNED,
            "grain_ms": grain_ms,
            "first_ms": first_ms,
            "end_ms": end_ms,
        },
    )


def run_identity(organisation: str, run_id: str) -> Statement:
    """How many distinct ids of the run there are, and their XOR of xxh64; one row."""
    return Statement(
        """
SELECT count(), groupBitXor(xxHash64(event_id))
FROM (
    SELECT DISTINCT event_id FROM usage_events FINAL
    WHERE organisation = {organisation:String} AND startsWith(event_id, {prefix:String})
)""",
        {"organisation": organisation, "prefix": f"{run_id}-"},
    )


def run_ids(organisation: str, run_id: str) -> Statement:
    """Every distinct id of the run."""
    return Statement(
        """
SELECT DISTINCT event_id FROM usage_events FINAL
WHERE organisation = {organisation:String} AND startsWith(event_id, {prefix:String})""",
        {"organisation": organisation, "prefix": f"{run_id}-"},
    )


def window_sums(organisation: str, kind: WindowKind, first_ms: int, end_ms: int) -> Statement:
    """Sums over shards of the stored snapshots of one window kind.

    Rows: scope, window start in ms, cost in dollars, input tokens, output tokens, events.
    """
    return Statement(
        """
SELECT scope, toUnixTimestamp64Milli(window_start) AS start_ms,
       sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(events)
FROM spend_windows FINAL
WHERE window_kind = {kind:String} AND organisation = {organisation:String}
  AND window_start >= fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')
  AND window_start < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')
GROUP BY scope, start_ms""",
        {
            "kind": kind.value,
            "organisation": organisation,
            "first_ms": first_ms,
            "end_ms": end_ms,
        },
    )
