"""Sums that hold for every input: allocation, statements, journals, layouts."""

import csv
import io
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from meterline.reports.booking.core.allocation import allocate, round_parts
from meterline.reports.booking.core.currency import Exchange
from meterline.reports.booking.core.inputs import DepartmentInput, FrozenInputs
from meterline.reports.booking.core.statement import statements_of
from meterline.reports.booking.core.values import LineKind, SumRow
from meterline.reports.close.core.bill import bills
from meterline.reports.erp.core.journal import check_balance, journal_of
from meterline.reports.erp.core.layouts import documents, layout_bytes
from meterline.reports.erp.core.payload import payloads
from meterline.schemas.finance import FinancePolicy, JournalLayout, LayoutType

AMOUNTS = st.integers(-(10**15), 10**15)
DEPARTMENTS = ("research", "support", "platform", "sales")


@given(st.lists(AMOUNTS), st.integers(1, 10**12))
def test_rounded_parts_sum_to_the_rounded_total(amounts: list[int], unit: int) -> None:
    """Parts sum to the total rounded half to even, and each is off by less than one unit."""
    parts = round_parts(amounts, unit)
    exact = sum(amounts)
    assert abs(sum(parts) * unit - exact) * 2 <= unit or not amounts
    assert all(
        abs(part * unit - amount) < unit for part, amount in zip(parts, amounts, strict=True)
    )


@given(AMOUNTS, st.lists(st.integers(0, 10**6), min_size=1).filter(any))
def test_allocated_parts_sum_to_the_total(total: int, weights: list[int]) -> None:
    """Nothing is lost or made, and who weighs nothing bears nothing."""
    parts = allocate(total, weights)
    assert sum(parts) == total
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if not weight)


@st.composite
def sum_rows(draw: st.DrawFn) -> list[SumRow]:
    """Lines of one run, of two organisations."""
    count = draw(st.integers(1, 12))
    return [
        SumRow(
            1,
            draw(st.sampled_from(["acme", "globex"])),
            draw(st.sampled_from(DEPARTMENTS)),
            draw(st.sampled_from(["", "p1", "p2"])),
            draw(st.sampled_from(["m1", "m2", "m3"])),
            *draw(
                st.sampled_from(
                    [
                        (LineKind.USAGE, "2026-10"),
                        (LineKind.LATE, "2026-09"),
                        (LineKind.RESTATEMENT, "2026-10"),
                    ]
                )
            ),
            draw(st.integers(-5, 50)),
            0,
            draw(st.integers(0, 10**6)),
            draw(st.integers(0, 10**6)),
            draw(AMOUNTS),
        )
        for _ in range(count)
    ]


@st.composite
def inputs(draw: st.DrawFn) -> FrozenInputs:
    """Frozen inputs with any currency, shared costs and unmapped departments."""
    currency = draw(st.sampled_from(["USD", "CNY", "JPY", "KWD"]))
    rate = draw(st.integers(1, 10**14))
    shared = []
    if draw(st.booleans()):
        weights = draw(
            st.dictionaries(st.sampled_from(DEPARTMENTS), st.integers(0, 9), min_size=1).filter(
                lambda each: any(each.values())
            )
        )
        shared = [{"organisation": "acme", "department": "platform", "weights": weights}]
    policy = FinancePolicy.model_validate({"currency": currency, "shared": shared})
    return FrozenInputs(
        period="2026-10",
        time_zone="UTC",
        start_ms=0,
        end_ms=1,
        run=1,
        revision=1,
        draft=False,
        closed_at_ms=0,
        price_version="v",
        exchange=Exchange(currency, f"{Decimal(rate).scaleb(-10):f}", "spot", "2026-10-31", "x"),
        finance=policy.model_dump(mode="json"),
        organisations={},
        departments=[
            DepartmentInput("acme", name, "", center, 10**9)
            for name, center in zip(DEPARTMENTS, ("CC-1", "", "CC-3", "CC-4"), strict=True)
        ],
        origins=[],
        booked_runs=[],
        prices=[],
    )


@given(sum_rows(), inputs())
def test_every_level_sums_to_the_one_above(rows: list[SumRow], frozen: FrozenInputs) -> None:
    """Departments, parts, origins, projects and models sum exactly, in dollars and in cents."""
    exchange = frozen.exchange
    for statement in statements_of(rows, frozen):
        cost = sum(row.cost_nano_usd for row in rows if row.organisation == statement.organisation)
        assert statement.total.usage.cost_nano_usd == cost
        assert (
            2 * abs(statement.total.minor * exchange.unit - exchange.exact(cost)) <= exchange.unit
        )
        assert statement.total.minor == sum(each.total.minor for each in statement.departments)
        for each in statement.departments:
            for parts, whole in (
                ([each.own, *each.shared.values()], each.total),
                (each.origins.values(), each.own),
                (each.projects.values(), each.own),
                (each.models.values(), each.own),
            ):
                assert sum(part.minor for part in parts) == whole.minor
                assert sum(part.usage.cost_nano_usd for part in parts) == whole.usage.cost_nano_usd


@given(sum_rows(), inputs())
def test_journals_balance_and_match_the_bill(rows: list[SumRow], frozen: FrozenInputs) -> None:
    """Debits equal credits, the expense side is the bill's total, and so is what is pushed."""
    statements = statements_of(rows, frozen)
    totals = {bill.organisation: bill.total for bill in bills([(frozen, statements)], [])}
    for statement in statements:
        journal = journal_of(statement, frozen)
        check_balance(journal)
        booked = sum(line.debit - line.credit for line in journal.lines if line.account != "2100")
        assert booked == statement.total.minor == totals[statement.organisation].minor
        suspense = {line.department for line in journal.lines if line.account == "9999"}
        assert suspense <= {"support"} or statement.organisation == "globex"
        pushed = sum(Decimal(each.body["amount"]) for each in payloads(statement, frozen))
        assert pushed == Decimal(frozen.exchange.text(statement.total.minor))


@given(sum_rows(), inputs(), st.sampled_from(list(LayoutType)), st.integers(2, 5))
def test_upload_files_balance(
    rows: list[SumRow], frozen: FrozenInputs, layout: LayoutType, items_max: int
) -> None:
    """What a ledger reads balances, also where a long journal is divided into documents."""
    columns = {
        LayoutType.NETSUITE: ("Debit", "Credit"),
        LayoutType.WORKDAY: ("DebitAmount", "CreditAmount"),
    }
    for statement in statements_of(rows, frozen):
        journal = journal_of(statement, frozen)
        content = layout_bytes(journal, JournalLayout(id="x", type=layout)).decode()
        read = list(csv.DictReader(io.StringIO(content, newline="")))
        if layout is LayoutType.SAP:
            assert sum(Decimal(row["AmountInTransactionCurrency"]) for row in read) == 0
        else:
            debit, credit = columns[layout]
            assert sum(Decimal(row[debit] or 0) for row in read) == sum(
                Decimal(row[credit] or 0) for row in read
            )
        parts = list(documents(journal, items_max))
        assert all(len(part.lines) <= items_max for part in parts)
        booked = [line for part in parts for line in part.lines if line.account != "2100"]
        assert sum(line.debit - line.credit for line in booked) == statement.total.minor
