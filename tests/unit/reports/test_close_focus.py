"""FOCUS rows: what the validator says, and that token classes sum to the line."""

import csv
import io
from datetime import date

import pytest
from focus_data_toolkit.model.validator import lint_focus_1_4_structure
from hypothesis import given
from hypothesis import strategies as st

from meterline.reports.booking.core.currency import Exchange
from meterline.reports.booking.core.inputs import DepartmentInput, FrozenInputs, PriceInput
from meterline.reports.focus.core.focus_lines import FocusLine
from meterline.reports.focus.core.focus_rows import COLUMNS, RowMaker
from meterline.reports.focus.core.split import split_cost
from meterline.reports.focus.datasets import billing_period_bytes
from meterline.schemas.finance import FinancePolicy
from meterline.schemas.money import nano_from_usd

PRICE = PriceInput(
    "openai",
    "gpt-4.1",
    "",
    0,
    0,
    2**62,
    (2_000_000, 8_000_000, 500_000, 2_000_000, 2_000_000, 2_000_000, 8_000_000),
    (2_500_000, 9_000_000, 500_000, 2_500_000, 2_500_000, 2_500_000, 9_000_000),
)
INPUTS = FrozenInputs(
    period="2026-10",
    time_zone="Europe/Berlin",
    start_ms=1_790_805_600_000,
    end_ms=1_793_487_600_000,
    run=1,
    revision=1,
    draft=False,
    closed_at_ms=1_793_685_600_000,
    price_version="v",
    exchange=Exchange("CNY", "7.1", "contract", "2026-01-01", "treasury"),
    finance=FinancePolicy().model_dump(mode="json"),
    organisations={"acme": "Acme"},
    departments=[DepartmentInput("acme", "research", "Research", "CC-1", None)],
    origins=[],
    booked_runs=[],
    prices=[PRICE],
)
TOKENS = (600, 300, 0, 0, 0, 200, 0)
COST = (600 * 2_000_000 + 300 * 500_000 + 200 * 8_000_000) // 1000


def line(**fields: object) -> FocusLine:
    values = {
        "day": date(2026, 10, 25),  # 25 hours in Berlin
        "organisation": "acme",
        "department": "research",
        "project": "=cmd|' /C calc'!A0",
        "team": "",
        "environment": "production",
        "key": "k-1",
        "key_name": "",
        "model": "gpt-4.1",
        "provider": "openai",
        "service_tier": "",
        "tier_floor": 0,
        "price_version": "v",
        "correction_reason": "",
        "tags": '{"feature":"chat"}',
        "kind": "usage",
        "origin_period": "2026-10",
        "events": 3,
        "unpriced": 0,
        "tokens": TOKENS,
        "cost_nano_usd": COST,
    }
    return FocusLine._make((values | fields)[name] for name in FocusLine._fields)


def rows(*lines: FocusLine) -> list[dict[str, str]]:
    maker = RowMaker(INPUTS)
    text = "".join(row for each in lines for row in maker.rows(each))
    made = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    return [dict(zip(COLUMNS, row, strict=True)) for row in made]


def test_validator_finds_nothing_wrong() -> None:
    """Usage, corrections, unpriced and negative lines pass the lint of FOCUS 1.4."""
    made = rows(
        line(),
        line(kind="late", origin_period="2026-09", day=date(2026, 9, 30)),
        line(events=1, unpriced=1, cost_nano_usd=0, provider="nobody", model="x"),
        line(
            kind="restatement", events=-1, tokens=(-600, 0, 0, 0, 0, 0, 0), cost_nano_usd=-1_200_000
        ),
        line(cost_nano_usd=5),  # by prices that are not those frozen
    )
    report = lint_focus_1_4_structure("cost and usage", made)
    assert report.ok, report.messages()
    text = billing_period_bytes(INPUTS).decode()
    periods = list(csv.DictReader(io.StringIO(text, newline="")))
    assert lint_focus_1_4_structure("billing period", periods).ok
    assert periods[0]["BillingPeriodStatus"] == "Closed"


def test_validator_is_not_blind() -> None:
    """A row with a wrong category or a missing cost does not pass: the lint means something."""
    broken = rows(line())
    broken[0]["ChargeCategory"] = "Usages"
    assert not lint_focus_1_4_structure("cost and usage", broken).ok
    broken = rows(line())
    broken[0]["BilledCost"] = ""
    assert not lint_focus_1_4_structure("cost and usage", broken).ok


def test_row_says_what_peers_leave_out() -> None:
    """Month as billing period, tokens as quantity, unit prices, list cost, both currencies."""
    given, read, out = rows(line())
    assert (given["BillingPeriodStart"], given["BillingPeriodEnd"]) == (
        "2026-09-30T22:00:00Z",
        "2026-10-31T23:00:00Z",
    )
    assert (given["ChargePeriodStart"], given["ChargePeriodEnd"]) == (
        "2026-10-24T22:00:00Z",
        "2026-10-25T23:00:00Z",
    )
    assert (given["ConsumedQuantity"], given["ConsumedUnit"]) == ("600", "Tokens")
    assert (given["PricingQuantity"], given["PricingUnit"]) == ("0.0006", "1000000 Tokens")
    assert (given["ContractedUnitPrice"], given["ListUnitPrice"]) == ("2", "2.5")
    assert (given["BilledCost"], given["ListCost"]) == ("0.001200000", "0.001500000")
    assert (given["x_ReportingCost"], given["x_ReportingCurrency"], given["x_ExchangeRate"]) == (
        "0.00852",
        "CNY",
        "7.1",
    )
    assert read["SkuMeter"] == "Cached Input Tokens"
    assert [each["x_RequestCount"] for each in (given, read, out)] == ["3", "0", "0"]
    assert given["x_Project"] == "'=cmd|' /C calc'!A0"
    assert given["Tags"].startswith('{"environment":"production","feature":"chat","project"')


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=7, max_size=7),
    st.integers(-(10**15), 10**15),
    st.integers(0, 50),
    st.booleans(),
)
def test_token_classes_sum_to_the_line(
    tokens: list[int], cost: int, events: int, priced: bool
) -> None:
    """Whatever the tokens, prices and cost, the rows of a line cost what the line costs."""
    one = line(tokens=tuple(tokens), cost_nano_usd=cost, events=events)
    assert sum(split_cost(one, PRICE if priced else None).costs) == cost
    made = rows(one if priced else one._replace(model="unknown"))
    assert sum(nano_from_usd(row["BilledCost"]) for row in made) == cost
    assert sum(int(row["x_RequestCount"]) for row in made) == events


@pytest.mark.parametrize("error", [-3, 0, 3])
def test_split_distinguishes_priced_from_allocated(error: int) -> None:
    """A cost within one rounding per event is priced; a frozen other price is allocated."""
    assert split_cost(line(cost_nano_usd=COST + error), PRICE).how == "priced"
    assert split_cost(line(cost_nano_usd=COST + 4), PRICE).how == "allocated"
