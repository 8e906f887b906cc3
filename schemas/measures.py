"""The summed measures: what is added up over events, once for every reader and writer.

    of one event   `Measure.of_event`         its cost, its tokens of one class, or 1
    of a table     `Measure.events_sql`       the same sum over raw events
    of windows     `Measure.rollup_sql`       the sum over spend_windows or usage_days
    of a report    `REPORT_COLUMNS`           measures under their headings, and derived columns

MEASURES has the order of the wire (`schemas.spend.Totals`) and of the columns of both roll-ups.
The hot loops of `streams.core` and `sinks.core.usage_rows` add by position and stay hand-written;
tests/unit/schemas/test_schemas_measures.py compares them, and the migrations, with MEASURES.

To add a measure: a field of `UsageEvent`, a line here in MEASURES and in `Sums`, a field of
`Totals` and of the ledger's entry, a line in the hot loops, and a migration; the test names what is
missing. To add a report column that derives from measures: one line in DERIVED_COLUMNS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from operator import add, attrgetter, sub
from typing import Any, NamedTuple, TypeAlias

from meterline.schemas.money import nano_from_usd
from meterline.schemas.usage import UsageEvent


class MeasureUnit(StrEnum):
    """What a sum counts."""

    NANO_USD = "nano_usd"
    """A Decimal of US dollars in ClickHouse."""
    TOKENS = "tokens"
    EVENTS = "events"


OfEvent: TypeAlias = Callable[[UsageEvent, int, bool], int]
"""Of an event, its cost in nano-USD (0 without a price) and whether it has a price."""


class Measure(NamedTuple):
    """One quantity that is summed."""

    name: str
    """Field of `Sums` and of `schemas.spend.Totals`."""
    column: str
    """Column of spend_windows and of usage_days."""
    unit: MeasureUnit
    of_event: OfEvent
    """What one event adds."""
    events_sql: str
    """The sum over rows of usage_events."""
    heading: str
    """Column in reports."""
    adjustments_sql: str = "toInt64(0)"
    """What rows of price_adjustments add to it, for most measures nothing."""

    @property
    def rollup_sql(self) -> str:
        """The sum over rows of spend_windows or usage_days."""
        return f"sum({self.column})"

    @property
    def signed_events_sql(self) -> str:
        """`events_sql`, where sums of adjustments follow: they may be negative, a count is not."""
        return f"toInt64({self.events_sql})" if self.unit is MeasureUnit.EVENTS else self.events_sql

    def read(self, value: Any) -> int:
        """A sum as ClickHouse answers it."""
        return nano_from_usd(value) if self.unit is MeasureUnit.NANO_USD else int(value)


def _tokens(name: str, *fields: str) -> Measure:
    """Tokens of one class: the sum of some fields of an event, which are columns as well."""
    parts = fields or (name,)
    return Measure(
        name,
        name,
        MeasureUnit.TOKENS,
        lambda event, _cost, _priced: sum(getattr(event, part) for part in parts),
        f"sum({' + '.join(parts)})",
        name,
    )


COST = Measure(
    "cost_nano_usd",
    "cost_usd",
    MeasureUnit.NANO_USD,
    lambda _event, cost_nano_usd, _priced: cost_nano_usd,
    "sum(cost_usd)",
    "cost_usd",
    "sum(difference_usd)",
)
INPUT_TOKENS = _tokens("input_tokens")
OUTPUT_TOKENS = _tokens("output_tokens")
EVENTS = Measure(
    "events",
    "events",
    MeasureUnit.EVENTS,
    lambda _event, _cost, _priced: 1,
    "count()",
    "requests",
)
UNPRICED_EVENTS = Measure(
    "unpriced_events",
    "unpriced_events",
    MeasureUnit.EVENTS,
    lambda _event, _cost, priced: 0 if priced else 1,
    "countIf(NOT priced)",
    "unpriced",
    "-toInt64(sum(newly_priced))",
)

MEASURES = (
    COST,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    _tokens("cache_read_tokens"),
    _tokens("cache_write_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    _tokens("reasoning_tokens"),
    EVENTS,
    UNPRICED_EVENTS,
)

NEWEST_EVENT_SQL = "max(toUnixTimestamp64Milli(event_time))"
"""What follows the sums in `Totals`: no sum, the newest event time in ms."""


class Sums(NamedTuple):
    """A value of every measure, in their order; the same fields as `Totals` from its cost on."""

    cost_nano_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    events: int = 0
    unpriced_events: int = 0

    def plus(self, other: Sums) -> Sums:
        """Both together, measure by measure."""
        return Sums(*map(add, self, other))

    def minus(self, other: Sums) -> Sums:
        """What `other` lacks; negative where it has more."""
        return Sums(*map(sub, self, other))


assert Sums._fields == tuple(each.name for each in MEASURES), "a sum per measure, in their order"


def events_sql(measures: Iterable[Measure]) -> str:
    """The select list of sums over usage_events."""
    return ", ".join(each.events_sql for each in measures)


def rollup_sql(measures: Iterable[Measure]) -> str:
    """The select list of sums over spend_windows or usage_days."""
    return ", ".join(each.rollup_sql for each in measures)


def columns_sql(measures: Iterable[Measure]) -> str:
    """The columns of spend_windows or usage_days, as they are stored."""
    return ", ".join(each.column for each in measures)


def read_sums(measures: Sequence[Measure], values: Sequence[Any]) -> Sums:
    """What ClickHouse answered for `measures`, in their order; the other measures are 0.

    Raises:
        ValueError: not a value for every measure.
    """
    pairs = zip(measures, values, strict=True)
    return Sums(**{measure.name: measure.read(value) for measure, value in pairs})


# -- reports

REPORTED = (
    EVENTS,
    *(each for each in MEASURES if each.unit is MeasureUnit.TOKENS),
    UNPRICED_EVENTS,
    COST,
)
"""Every measure, in the order of a report's columns."""


class ReportColumn(NamedTuple):
    """A number in every row of a report."""

    heading: str
    unit: MeasureUnit
    of: Callable[[Sums], int]


DERIVED_COLUMNS: tuple[ReportColumn, ...] = ()
"""Columns computed from the sums, after those of the measures; a line makes a column:
`ReportColumn("tokens", MeasureUnit.TOKENS, lambda s: s.input_tokens + s.output_tokens)`."""

REPORT_COLUMNS = (
    *(ReportColumn(each.heading, each.unit, attrgetter(each.name)) for each in REPORTED),
    *DERIVED_COLUMNS,
)
