"""Imported exports and Meterline's counts in ClickHouse, by UTC day and model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.reports.providers.core.exports import ProviderRow, ProviderRowKind, import_digest
from meterline.reports.providers.core.variance import Contributor, Counts, ModelDay
from meterline.schemas.money import nano_from_usd
from meterline.schemas.tables import PROVIDER_USAGE

CONTRIBUTORS_MAX = 3
"""Keys named per flagged day and model: the first ones to review."""
_COLUMNS = [InsertColumn(*column) for column in PROVIDER_USAGE.columns]
_NEWEST = """
FROM provider_usage FINAL
WHERE provider = {provider:String} AND day >= {first:Date} AND day <= {last:Date}
  AND (account, kind, day, import_id) IN (
      SELECT account, kind, day, max(import_id) FROM provider_usage
      WHERE provider = {provider:String} AND day >= {first:Date} AND day <= {last:Date}
      GROUP BY account, kind, day)"""


class DayRange(NamedTuple):
    """UTC days, both inside."""

    first: date
    last: date


def store_import(client: Client, rows: Sequence[ProviderRow], account: str, now_ms: int) -> bool:
    """Store one import; False if exactly this is what is stored of its days already.

    All rows go in one block: a crash leaves the import whole or absent.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    digest = import_digest(rows)
    if _is_stored(client, rows, account, digest):
        return False
    lines = [
        (row.provider, account, row.kind.value, row.day, now_ms, number, digest, *row[3:])
        for number, row in enumerate(rows)
    ]
    data = [list(column) for column in zip(*lines, strict=True)]
    client.insert(PROVIDER_USAGE.name, _COLUMNS, data, f"{account}/{now_ms}/{digest}")
    return True


def _is_stored(client: Client, rows: Sequence[ProviderRow], account: str, digest: str) -> bool:
    days = {(row.provider, row.kind, row.day) for row in rows}
    first, last = min(day for _, _, day in days), max(day for _, _, day in days)
    stored = client.query(
        """
SELECT provider, kind, day, argMax(toString(digest), import_id)
FROM provider_usage
WHERE account = {account:String} AND day >= {first:Date} AND day <= {last:Date}
GROUP BY provider, kind, day""",
        {"account": account, "first": first, "last": last},
    )
    found = {(row[0], ProviderRowKind(row[1]), row[2]): row[3] for row in stored}
    return all(found.get(day) == digest for day in days)


def read_provider_counts(
    client: Client, provider: str, days: DayRange
) -> list[tuple[ProviderRowKind, ModelDay, Counts]]:
    """The provider's counts, by kind, day and model as it names it.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        f"""
SELECT kind, day, toString(model), sum(requests), sum(input_tokens), sum(output_tokens),
       toString(sum(cost_usd))
{_NEWEST}
GROUP BY kind, day, model ORDER BY kind, day, model""",
        {"provider": provider, **days._asdict()},
    )
    return [
        (
            ProviderRowKind(row[0]),
            ModelDay(row[1], row[2]),
            Counts(row[3], row[4], row[5], nano_from_usd(row[6])),
        )
        for row in rows
    ]


_DAYS = "toDate(event_time) >= {first:Date} AND toDate(event_time) <= {last:Date}"


def read_own_counts(client: Client, days: DayRange) -> list[tuple[str, ModelDay, Counts]]:
    """What was counted and is billed, by provider as sent, UTC day and stored model.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        f"""
SELECT toString(provider), toDate(event_time) AS day, toString(model), count(), sum(input_tokens),
       sum(output_tokens), toString(sum(cost_usd))
FROM usage_events FINAL WHERE {_DAYS}
GROUP BY provider, day, model ORDER BY day, model, provider""",  # noqa: S608 - fixed text
        days._asdict(),
    )
    return [
        (row[0], ModelDay(row[1], row[2]), Counts(row[3], row[4], row[5], nano_from_usd(row[6])))
        for row in rows
    ]


def read_contributors(
    client: Client, day: date, names: Sequence[tuple[str, str]]
) -> tuple[Contributor, ...]:
    """The keys behind one day's usage of some (provider, model) as stored, to review first.

    First those whose provider responses differ most from what was counted; then the largest.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        f"""
SELECT organisation, key, count(), sum(input_tokens + output_tokens) AS tokens,
       sumIf(provider_input_tokens + provider_output_tokens - input_tokens - output_tokens,
             provider_input_tokens + provider_output_tokens > 0) AS reported,
       toString(sum(cost_usd))
FROM usage_events FINAL
WHERE {_DAYS} AND provider IN {{providers:Array(String)}} AND model IN {{models:Array(String)}}
GROUP BY organisation, key
ORDER BY abs(reported) DESC, tokens DESC, organisation, key
LIMIT {CONTRIBUTORS_MAX}""",  # noqa: S608 - fixed text
        {
            "first": day,
            "last": day,
            "providers": sorted({provider for provider, _ in names}),
            "models": sorted({model for _, model in names}),
        },
    )
    return tuple(Contributor._make((*row[:5], nano_from_usd(row[5]))) for row in rows)
