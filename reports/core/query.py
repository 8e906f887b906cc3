"""Queries as values, and the conditions that they share."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Query(NamedTuple):
    """SQL with `{name:Type}` placeholders, and the values that are bound to them."""

    sql: str
    parameters: dict[str, object]


class QueryBuilder(Protocol):
    """A query that is not text yet."""

    def build(self) -> Query:
        """The SQL and its parameters."""


def between(column: str) -> str:
    """The condition that a time lies in `[start_ms, end_ms)`, which are bound under these names."""
    return (
        f"{column} >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')\n"
        f"  AND {column} < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')"
    )
