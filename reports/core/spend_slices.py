"""Spend per scope and slice of time, as a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meterline.reports.core.query import Query, between
from meterline.reports.core.totals import SCOPES_OF_EVENT
from meterline.schemas.money import NanoUsd
from meterline.schemas.periods import HOUR_MS, MINUTE_MS

# One query answers at most this much time: a day of minutes of 1,000 scopes is 1.4 million rows,
# 100 MB in memory.
SPAN_MS_MAX = 24 * HOUR_MS


class StoredSpendSlice(NamedTuple):
    """What one scope spent in one slice."""

    start_ms: int
    scope: str
    cost_nano_usd: NanoUsd
    tokens: int


@dataclass(frozen=True, slots=True)
class SliceQuery:
    """Which spend: `[start_ms, end_ms)` in slices of a minute or an hour."""

    scopes: Sequence[str]
    start_ms: int
    end_ms: int
    hourly: bool = False
    from_events: bool = False

    def build(self) -> Query:
        """Rows of (start_ms, scope, cost, tokens), in the order of time."""
        parameters: dict[str, object] = {
            "scopes": list(self.scopes),
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
        }
        if not self.from_events:
            parameters["kind"] = "hour" if self.hourly else "minute"
            return Query(_FROM_WINDOWS, parameters)
        parameters["slice_ms"] = HOUR_MS // 4 if self.hourly else MINUTE_MS
        return Query(_FROM_EVENTS, parameters)


_FROM_WINDOWS = f"""
SELECT toUnixTimestamp64Milli(window_start) AS start_ms, scope,
       toInt64(sum(cost_usd) * 1000000000), sum(input_tokens) + sum(output_tokens)
FROM spend_windows FINAL
WHERE window_kind = {{kind:String}} AND scope IN {{scopes:Array(String)}}
  AND {between("window_start")}
GROUP BY start_ms, scope
ORDER BY start_ms, scope"""  # noqa: S608 - only fixed text is put in; values are bound


_FROM_EVENTS = f"""
SELECT intDiv(toUnixTimestamp64Milli(event_time), {{slice_ms:Int64}}) * {{slice_ms:Int64}}
           AS start_ms,
       arrayJoin(arrayConcat({", ".join(SCOPES_OF_EVENT.values())})) AS scope,
       toInt64(sum(cost_usd) * 1000000000), sum(input_tokens) + sum(output_tokens)
FROM usage_events FINAL
WHERE {between("event_time")}
  AND scope IN {{scopes:Array(String)}}
GROUP BY start_ms, scope
ORDER BY start_ms, scope"""  # noqa: S608 - only fixed text is put in; values are bound
