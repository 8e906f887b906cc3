"""The summed measures: every place that adds by hand or by position adds what MEASURES lists.

A measure that is added to one place only fails here, by the name of the place that lacks it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from meterline.reports.attribution.core.answer import Answer, AttributionLine
from meterline.reports.attribution.core.period import read_period
from meterline.reports.attribution.core.question import Attribution, AttributionSource, read_axis
from meterline.reports.attribution.core.table import columns_of, rows_of
from meterline.schemas.measures import (
    MEASURES,
    REPORT_COLUMNS,
    REPORTED,
    Measure,
    MeasureUnit,
    ReportColumn,
    Sums,
    columns_sql,
    events_sql,
    read_sums,
    rollup_sql,
)
from meterline.schemas.periods import Calendar
from meterline.schemas.spend import SnapshotKey, Totals, merged, sums_of
from meterline.schemas.tables import SPEND_WINDOWS, USAGE_DAYS, USAGE_EVENTS, Table
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.sinks.core.control_rows import spend_block, spend_window
from meterline.sinks.core.usage_rows import usage_block, usage_rows
from meterline.sinks.migrate import shipped
from meterline.streams.core.entries import CELL_SUMS, LedgerEntry, add_cell, add_to_entry
from tests import streams_model
from tests.streams_model import T0, Message, Process, event, factory, rate

NAMES = [each.name for each in MEASURES]
NEWEST = len(MEASURES)
"""The position after the sums: the newest event's time."""
# Numbers of which no two sums are equal, unless the same is summed.
EVENTS = [
    event(
        number,
        input_tokens=2**20 + number,
        output_tokens=2**10 + number,
        cache_read_tokens=3 * number,
        cache_write_tokens=5 + number,
        cache_write_1h_tokens=70 + number,
        reasoning_tokens=11 * number,
        model=model,
        department="d",
        key="k",
    )
    for number, model in enumerate(("gpt-4.1", "unknown", "gpt-4.1", "unknown", "unknown"))
]


def expected(events: list[UsageEvent]) -> Sums:
    """The sums by `Measure.of_event`."""
    return Sums(*(sum(each.of_event(one, *rate(one)) for one in events) for each in MEASURES))


def test_no_two_measures_of_the_sample_are_equal() -> None:
    """The sample distinguishes every measure: a swapped pair shows."""
    assert len(set(expected(EVENTS))) == len(MEASURES)


def test_totals_on_the_wire_have_the_order_of_the_measures() -> None:
    """Tag and end of the window, then the sums in their order, then the newest event."""
    fields = ("epoch", "offset", "end_ms", *NAMES, "last_event_ms")
    assert Totals.__struct_fields__ == fields
    assert LedgerEntry.__struct_fields__ == fields


@pytest.mark.parametrize("position", range(len(MEASURES) + 1))
def test_the_ledgers_loops_add_every_measure_at_its_place(position: int) -> None:
    """`add_cell` and `add_to_entry` add each place to its own, and keep the newest event's time."""
    assert len(MEASURES) + 1 == CELL_SUMS
    cell = [0] * CELL_SUMS
    cell[position] = 7
    total = [1] * CELL_SUMS
    add_cell(total, cell)
    grown = [8 if at == position != NEWEST else 1 for at in range(CELL_SUMS)]
    grown[NEWEST] = 7 if position == NEWEST else 1
    assert total == grown
    entry = LedgerEntry(0, 0, 0, *[1] * CELL_SUMS)
    add_to_entry(entry, cell)
    assert list(msgspec.structs.astuple(entry))[3:] == grown


def test_the_ledger_counts_every_measure() -> None:
    """What a flush writes of events is what the measures say of them, in every scope."""
    process = Process([], factory())
    process.apply([Message(streams_model.batch("r/1", 1, EVENTS), T0 + 1_000_000)], 0)
    process.flush()
    found = streams_model.snapshots(process.changelog)
    month = [totals for key, totals in found.items() if key.kind == "month"]
    assert len(month) == 3
    for totals in month:
        assert sums_of(totals) == expected(EVENTS)
        assert totals.last_event_ms == max(one.time_ms for one in EVENTS)


def evaluated(measure: Measure, rows: list[dict[str, Any]]) -> int:
    """A measure's SQL over rows of usage_events, as ClickHouse would answer it."""
    if measure.events_sql == "count()":
        return len(rows)
    if measure.events_sql == "countIf(NOT priced)":
        return sum(not row["priced"] for row in rows)
    found = re.fullmatch(r"sum\(([\w +]+)\)", measure.events_sql)
    assert found is not None, f"{measure.name}: teach this test its SQL"
    return sum(row[column] for column in found[1].split(" + ") for row in rows)


class _Price:
    def __init__(self, one: UsageEvent) -> None:
        self.cost_nano_usd, self.priced = rate(one)
        self.model, self.price_version = one.model, "v1"


def test_the_sink_stores_what_every_measure_sums() -> None:
    """The rows of usage_events, summed by the measures' SQL, are the events by `of_event`."""
    value = msgspec.json.encode(UsageBatch(lane="r/1", seq=1, events=tuple(EVENTS)))
    message = usage_rows(value, T0, 0, 0, 0, _Price)
    assert message is not None
    block = usage_block([message])
    given = dict(zip((column.name for column in block.columns), block.data, strict=True))
    nothing = [0] * block.rows
    rows = [
        {column.name: given.get(column.name, nothing)[row] for column in USAGE_EVENTS.columns}
        for row in range(block.rows)
    ]
    assert Sums(*(evaluated(each, rows) for each in MEASURES)) == expected(EVENTS)


def test_a_window_row_has_every_measure_in_its_column() -> None:
    """The sink writes each sum of a snapshot into the column that the roll-up SQL reads."""
    totals = Totals(0, 1, T0, *range(10, 10 + CELL_SUMS))
    window = spend_window(
        msgspec.json.encode(("user:acme/ana", "day", T0, "0")), msgspec.json.encode(totals)
    )
    assert window is not None
    assert window.key == SnapshotKey("user:acme/ana", "day", T0, "0")
    block = spend_block([window])
    row = {column.name: data[0] for column, data in zip(block.columns, block.data, strict=True)}
    assert Sums(*(row[each.column] for each in MEASURES)) == sums_of(totals)


@pytest.mark.parametrize("table", [SPEND_WINDOWS, USAGE_DAYS])
def test_both_roll_ups_have_every_measure(table: Table) -> None:
    """The migrations create the columns of all measures, in their order, with the type written."""
    text = "\n".join(each.template for each in shipped())
    created = re.search(
        rf"CREATE TABLE IF NOT EXISTS {{local:{table.name}}}(.*?)\nENGINE", text, re.DOTALL
    )
    assert created is not None
    added = re.findall(rf"ALTER TABLE {{local:{table.name}}}.*ADD COLUMN IF NOT EXISTS (.*)", text)
    lines = [line.split() for line in [*created[1].splitlines(), *added] if line.strip()]
    columns = {each.column for each in MEASURES}
    assert [line[0] for line in lines if line[0] in columns] == [each.column for each in MEASURES]
    types = {column.name: column.type for column in table.columns}
    for line in lines:
        if line[0] in columns:
            assert " ".join(line[1:]).startswith(types[line[0]])


def test_the_analysts_view_sums_every_measure() -> None:
    """`analyst_spend` has each measure under its heading in reports."""
    text = "\n".join(each.template for each in shipped())
    views = re.findall(r"VIEW analyst_spend .*?FROM spend_windows", text, re.DOTALL)
    for each in MEASURES:
        assert f"{each.rollup_sql} AS {each.heading}" in views[-1]


def test_select_lists() -> None:
    """The SQL of all measures: over events, over roll-ups, and the columns themselves."""
    assert events_sql(MEASURES) == (
        "sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), "
        "sum(cache_write_tokens + cache_write_1h_tokens), sum(reasoning_tokens), count(), "
        "countIf(NOT priced)"
    )
    assert rollup_sql(MEASURES) == (
        "sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), "
        "sum(cache_write_tokens), sum(reasoning_tokens), sum(events), sum(unpriced_events)"
    )
    assert columns_sql(MEASURES) == (
        "cost_usd, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, "
        "reasoning_tokens, events, unpriced_events"
    )


def test_sums_come_back_from_the_answer_of_the_store() -> None:
    """Money is read exactly from dollars, the rest as integers; a missing value is refused."""
    values = [1, 2, 3, 4, 5, 6, 7, "0.000000009"]
    assert read_sums(REPORTED, values) == Sums(9, 2, 3, 4, 5, 6, 1, 7)
    assert read_sums(MEASURES[:2], ["1.5", 3]) == Sums(1_500_000_000, 3)
    with pytest.raises(ValueError, match="shorter"):
        read_sums(REPORTED, values[:-1])


def test_sums_add_and_subtract_every_measure() -> None:
    """Adding what was subtracted gives the sums as they were; nothing is left out."""
    left, right = Sums(*range(100, 100 + NEWEST)), Sums(*range(1, 1 + NEWEST))
    assert left.minus(right) == (99,) * NEWEST
    assert left.minus(right).plus(right) == left


def test_merged_shards_keep_the_tag_of_the_first() -> None:
    """The sums of two shards are added, and the newest event is the newer of both."""
    left, right = Totals(1, 5, 9, *range(CELL_SUMS)), Totals(2, 7, 8, *[10] * CELL_SUMS)
    assert merged(left, right) == Totals(1, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 10)


def test_every_measure_is_reported() -> None:
    """No measure is left out of a report, and none stands there twice."""
    assert sorted(REPORTED) == sorted(MEASURES)
    headings = [each.heading for each in REPORT_COLUMNS]
    assert headings[: len(REPORTED)] == [each.heading for each in REPORTED]
    assert len(set(headings)) == len(headings)


def test_a_derived_report_column_is_one_line() -> None:
    """A column computed from the sums needs no change of SQL, of an answer or of a table."""
    calendar = Calendar("UTC")
    question = Attribution(
        read_period("2026-10", calendar, T0), calendar, (read_axis("department"),)
    )
    sums = expected(EVENTS)
    line = AttributionLine(question.period.start_ms, question.period.end_ms, ("d",), sums, 0)
    answer = Answer(question, AttributionSource.USAGE_EVENTS, (line,))
    derived = ReportColumn(
        "tokens", MeasureUnit.TOKENS, lambda each: each.input_tokens + each.output_tokens
    )
    numbers = (*REPORT_COLUMNS, derived)
    row = next(rows_of(answer, numbers))
    found = dict(zip((column.name for column in columns_of(answer, numbers)), row, strict=True))
    assert found["tokens"] == sums.input_tokens + sums.output_tokens
    assert [found[each.heading] for each in REPORTED] == [
        getattr(sums, each.name) for each in REPORTED
    ]
