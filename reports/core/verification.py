"""Queries that count and list the stored events of a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from meterline.reports.core.query import Query, between
from meterline.schemas.money import NanoUsd

# Ids of one page: 4 MB of answers at 40 bytes each.
IDS_PER_PAGE = 100_000


# A report names examples, not a list of a million.
EXAMPLES_MAX = 10


@dataclass(frozen=True, slots=True)
class EventRange:
    """Events in `[start_ms, end_ms)`, of one organisation or all, maybe by the start of their id."""

    start_ms: int
    end_ms: int
    organisation: str = ""
    id_prefix: str = ""
    """Of one run of a generator, where several share the time."""

    def where(self) -> Query:
        """The condition and its parameters."""
        conditions = [
            between("event_time"),
        ]
        parameters: dict[str, object] = {"start_ms": self.start_ms, "end_ms": self.end_ms}
        if self.organisation:
            conditions.append("organisation = {organisation:String}")
            parameters["organisation"] = self.organisation
        if self.id_prefix:
            conditions.append("startsWith(event_id, {id_prefix:String})")
            parameters["id_prefix"] = self.id_prefix
        return Query(" AND ".join(conditions), parameters)


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """How many events are stored, how many distinct ids they have, and what they cost."""

    range: EventRange

    def build(self) -> Query:
        """One row of (rows, distinct ids, cost)."""
        condition, parameters = self.range.where()
        sql = f"""
SELECT count(), uniqExact(event_id), sum(cost_usd)
FROM usage_events FINAL
WHERE {condition}"""  # noqa: S608 - only fixed text is put in; values are bound
        return Query(sql, parameters)


@dataclass(frozen=True, slots=True)
class StoredIds:
    """One page of the stored ids, in order, with how many rows have each."""

    range: EventRange
    after: str = ""
    limit: int = IDS_PER_PAGE

    def build(self) -> Query:
        """Rows of (id, rows)."""
        condition, parameters = self.range.where()
        sql = f"""
SELECT event_id, count()
FROM usage_events FINAL
WHERE {condition} AND event_id > {{after:String}}
GROUP BY event_id
ORDER BY event_id
LIMIT {{limit:UInt64}}"""  # noqa: S608 - only fixed text is put in; values are bound
        return Query(sql, parameters | {"after": self.after, "limit": self.limit})


class StoredEventCount(NamedTuple):
    """Answer of StoredEvents."""

    rows: int
    distinct_ids: int
    cost_nano_usd: NanoUsd


class IdCheck(NamedTuple):
    """Sent against stored."""

    missing: int
    """Ids sent and not stored."""
    extra: int
    """Rows too many: ids never sent, and further rows of ids that were."""
    missing_examples: tuple[str, ...]
    extra_examples: tuple[str, ...]
