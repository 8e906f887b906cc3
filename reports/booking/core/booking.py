"""The statement that books the lines of one origin month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meterline.reports.booking.core.months import Month
from meterline.reports.booking.core.values import CloseRun, LineKind
from meterline.reports.core.query import Query, between

# The place of an event in the log, as the sink stores it: see migration 0001.
POSITION = "9223372036854775807 - bitShiftRight(version, 1)"
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
    WHERE {between("event_time")}
      AND {POSITION} < transform(source_partition, {{partitions:Array(UInt16)}},
                                  {{limits:Array(Int64)}}, toInt64(0))
    UNION ALL
    SELECT '{LineKind.RERATE.value}' AS kind_, {adjustments}
    FROM price_adjustments FINAL
    WHERE {between("event_time")}"""  # noqa: S608
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
