"""Pure: the bytes of an export to rows of (day, model, key) with exact integers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, NamedTuple

from meterline.reports.providers.core.layouts import (
    ExportError,
    ProviderExportFormat,
    ProviderLayout,
    choose_layout,
)
from meterline.schemas.money import NANO_PER_USD, NanoUsd, divide_half_even

RECORDS_MAX = 1_000_000
"""Of one import: a year of days, models and keys of a large account; read whole into memory."""
# A quintillion tokens or dollars, and more places than any price: anything beyond is not a number
# that an export holds, and its digits would fill the memory.
_EXPONENT_MAX = 18
_PLACES_MAX = 40
COUNT_MAX = 2**62

Record = Mapping[str, Any]


class ProviderRowKind(StrEnum):
    """Whether a row counts usage or states a cost."""

    USAGE = "usage"
    COST = "cost"


class ProviderRow(NamedTuple):
    """A provider's counts of one UTC day, model and key."""

    provider: str
    kind: ProviderRowKind
    day: date
    model: str
    """As the provider names it; empty where the day is all that is known: a day without usage, or
    a cost of no model."""
    key: str = ""
    project: str = ""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano_usd: NanoUsd = 0


@dataclass(frozen=True, slots=True)
class ProviderExport:
    """One parsed file."""

    layout: ProviderLayout
    rows: tuple[ProviderRow, ...]


def read_export(
    content: bytes, form: ProviderExportFormat, own: ProviderLayout | None = None
) -> ProviderExport:
    """Read one file; JSON (a page, a list of pages, or one page a line) or CSV.

    Args:
        content: of the file.
        form: its format; AUTO detects it by the columns.
        own: a layout given with --columns, instead.

    Raises:
        ExportError: it has none of these formats, or a value is malformed.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: {error}"
        raise ExportError(message) from error
    records = list(_limited(_json_records(text) if text.lstrip()[:1] in "{[" else _csv(text)))
    used = [each for each in records if not each.keys() <= _BUCKET]
    layout = own or choose_layout(form, {name for each in used for name in each})
    lacking = layout.needed - {name for each in used for name in each}
    if lacking:
        message = f"the file has no column {', '.join(sorted(lacking))}"
        raise ExportError(message)
    rows = [row for number, each in enumerate(records, 1) for row in _rows(layout, each, number)]
    return ProviderExport(layout, tuple(rows))


_BUCKET = frozenset({"start_time", "end_time", "starting_at", "ending_at"})


def _limited(records: Iterable[Record]) -> Iterator[Record]:
    for number, each in enumerate(records):
        if number >= RECORDS_MAX:
            message = f"more than {RECORDS_MAX:,} records: import it in parts, whole days each"
            raise ExportError(message)
        yield each


def _csv(text: str) -> Iterator[Record]:
    try:
        yield from csv.DictReader(io.StringIO(text, newline=""), strict=True)
    except csv.Error as error:
        message = f"not CSV: {error}"
        raise ExportError(message) from error


def _json_records(text: str) -> Iterator[Record]:
    """One record per result, with the times of its bucket; a bucket without results gives one."""
    for page in _pages(text):
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            message = "JSON without pages of buckets: {data: [{..., results: [...]}]}"
            raise ExportError(message)
        for bucket in buckets:
            times = {name: bucket[name] for name in _BUCKET if name in bucket}
            results = bucket.get("results")
            if not isinstance(results, list):
                message = "a bucket without results"
                raise ExportError(message)
            yield from ({**times, **_flat(each)} for each in results)
            if not results:
                yield times


def _pages(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_float=Decimal)
    at = 0
    text = text.strip()
    try:
        while at < len(text):
            value, after = decoder.raw_decode(text, at)
            yield from value if isinstance(value, list) else (value,)
            at = after + len(text[after:]) - len(text[after:].lstrip())
    except (json.JSONDecodeError, RecursionError) as error:
        message = f"not JSON: {error}"
        raise ExportError(message) from error


def _flat(result: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in result.items() if isinstance(result, dict) else ():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat


def _rows(layout: ProviderLayout, record: Record, number: int) -> Iterator[ProviderRow]:
    try:
        if layout.has_tokens:
            yield _usage(layout, record)
        if layout.cost:
            yield _charge(layout, record)
    except ExportError as error:
        message = f"record {number}: {error}"
        raise ExportError(message) from error


def _usage(layout: ProviderLayout, record: Record) -> ProviderRow:
    day, model, key, project = _named(layout, record)
    columns = (layout.requests, layout.input, layout.output, layout.cache_read, layout.cache_write)
    counts = [sum(_count(record.get(column)) for column in each) for each in columns]
    if not model and any(counts):
        message = "usage without a model: ask the provider for it grouped by model"
        raise ExportError(message)
    return ProviderRow(layout.provider, ProviderRowKind.USAGE, day, model, key, project, *counts)


def _charge(layout: ProviderLayout, record: Record) -> ProviderRow:
    day, model, key, project = _named(layout, record)
    currency = str(record.get(layout.currency) or "usd")
    if currency.lower() != "usd":
        message = f"a cost in {currency}: only US dollars can be compared"
        raise ExportError(message)
    cost = sum(_cost(record.get(each), layout.units_per_usd) for each in layout.cost)
    return ProviderRow(
        layout.provider, ProviderRowKind.COST, day, model, key, project, cost_nano_usd=cost
    )


def _named(layout: ProviderLayout, record: Record) -> tuple[date, str, str, str]:
    model = str(record.get(layout.model) or "").strip()
    if layout.model_ends_at_comma:
        model = model.partition(",")[0].strip()
    key, project = (str(record.get(each) or "") for each in (layout.key, layout.project))
    return _day(record.get(layout.day)), model, key, project


def _day(value: Any) -> date:
    text = str(value or "").strip()
    try:
        if text.isdigit():
            return datetime.fromtimestamp(int(text), UTC).date()
        if "T" not in text:
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError, OSError) as error:
        message = f"{text!r} is no day: seconds since 1970, 2026-10-31 or RFC 3339"
        raise ExportError(message) from error


def _number(value: Any) -> Decimal:
    if value is None or value == "":
        return Decimal(0)
    try:
        number = Decimal(value if isinstance(value, int | Decimal) else str(value).strip())
    except InvalidOperation as error:
        message = f"{value!r} is no number"
        raise ExportError(message) from error
    places = number.as_tuple().exponent
    if not isinstance(places, int) or number.adjusted() > _EXPONENT_MAX or places < -_PLACES_MAX:
        message = f"{value!r} is no number that an export can hold"
        raise ExportError(message)
    return number


def _count(value: Any) -> int:
    number = _number(value)
    if number != number.to_integral_value() or not 0 <= number < COUNT_MAX:
        message = f"{value!r} is no count"
        raise ExportError(message)
    return int(number)


def _cost(value: Any, units_per_usd: int) -> NanoUsd:
    numerator, denominator = _number(value).as_integer_ratio()
    return divide_half_even(numerator * NANO_PER_USD, denominator * units_per_usd)


def days_of(rows: Sequence[ProviderRow]) -> tuple[date, date] | None:
    """First and last day; None without rows."""
    days = [row.day for row in rows]
    return (min(days), max(days)) if days else None


def import_digest(rows: Sequence[ProviderRow]) -> str:
    """SHA-256 of an import in any order of its rows: what a repeated import is recognised by."""
    return hashlib.sha256("\n".join(map(_canonical, sorted(rows))).encode()).hexdigest()


def _canonical(row: ProviderRow) -> str:
    # Stored digests depend on these bytes, so they must not follow the names of the classes.
    kind = f"<Kind.{row.kind.name}: {row.kind.value!r}>"
    fields = [
        f"{name}={kind if name == 'kind' else repr(value)}" for name, value in row._asdict().items()
    ]
    return f"ProviderRow({', '.join(fields)})"
