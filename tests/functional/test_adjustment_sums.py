"""Adjustments on the real engine, for any usage and any prices: they are exactly the difference."""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from focus_data_toolkit.model.validator import lint_focus_1_4_structure
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.close.close import CloseOutcome, close_month, reopen_month
from meterline.reports.repricing.rerate import RerateDependencies, RerateReason, rerate
from meterline.schemas.money import nano_from_usd
from meterline.schemas.usage import UsageEvent
from meterline.sinks.migrate import migrate
from tests.close_store import (
    CATALOGUE,
    CUT_OFF_MS,
    NOVEMBER_MS,
    OCTOBER_MS,
    CloseHarness,
    store_events,
    usage,
)
from tests.servers import running_clickhouse

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
OCTOBER = ReportPeriod("2026-10", OCTOBER_MS, NOVEMBER_MS)
# Each is a whole close or three on a real server: few, and the nightly profile has more.
EXAMPLES = 5 if settings().max_examples < 1_000 else 50
PRICES = st.decimals("0", "90", places=6).map(lambda price: f"{price:f}")
_TABLES = (
    "usage_events", "price_adjustments", "closed_lines", "closed_periods", "spend_windows",
)  # fmt: skip


def priced(input_usd: str, output_usd: str, since: str = "2020-01-01") -> Catalogue:
    """Other prices for one of the three models, and a price for one that has none."""
    entries = [
        {
            "seller": "openai",
            "model": model,
            "prices": [
                {
                    "effective_from": since,
                    "tiers": [{"input": input_usd, "output": output_usd}],
                }
            ],
        }
        for model in ("gpt-4.1", "brand-new")
    ]
    content = json.dumps({"catalogue_version": "tried", "entries": entries}).encode()
    return build_catalogue([("tried.json", content)])


EVENTS = st.lists(
    st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=12, unique_by=lambda e: e[0]
).map(
    lambda drawn: [
        usage(number, model="brand-new", provider="openai") if unpriced else usage(number)
        for number, unpriced in drawn
    ]
)
CATALOGUES = st.lists(
    st.builds(priced, PRICES, PRICES, st.sampled_from(["2020-01-01", "2026-10-15"])),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:
    """Two connections: re-rating writes while it reads."""
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        first, second = (Client(ClickHouseConfig(host, port)) for _ in range(2))
        migrate(first)
        yield first, second
        first.close()
        second.close()


def total(client: Client, sql: str) -> int:
    return nano_from_usd(str(client.query(sql)[0][0] or 0))


def charged(events: list[UsageEvent], catalogues: list[Catalogue]) -> int:
    """By the newest catalogue that has a price; one by one."""
    cost = 0
    for event in events:
        found = (each.price(event) for each in reversed([CATALOGUE, *catalogues]))
        cost += next((price for price, known in found if known), 0)
    return cost


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(EVENTS, CATALOGUES, st.integers(0, 2))
@example([usage(0), usage(4)], [priced("1.5", "7.000001"), priced("0", "0")], 1)
def test_adjustments_are_the_difference_and_lines_the_total(
    store: tuple[Client, Client],
    events: list[UsageEvent],
    catalogues: list[Catalogue],
    closed_after: int,
) -> None:
    """Re-rated any number of times, before or after a close: adjustments sum to the new total
    less the old one, lines of all revisions sum to the new total, files to their lines."""
    client, writer = store
    for table in _TABLES:
        client.command(f"TRUNCATE TABLE {table}")
    store_events(client, events, 0)
    frozen = sum(CATALOGUE.price(event)[0] for event in events)
    dependencies = RerateDependencies(client, writer, lambda _entry: None)
    clock = itertools.count(CUT_OFF_MS)
    with tempfile.TemporaryDirectory() as folder:
        harness = CloseHarness(client, Path(folder))
        closes, wanted = 0, frozen
        for number, catalogue in enumerate(catalogues):
            if number == closed_after:
                closes += close(harness, next(clock))
            rerate(dependencies, catalogue, OCTOBER, RerateReason("ana", "tried", next(clock)))
            wanted = charged(events, catalogues[: number + 1])
            assert total(client, "SELECT sum(cost_usd) FROM usage_events FINAL") == frozen
            adjusted = total(client, "SELECT sum(difference_usd) FROM price_adjustments FINAL")
            assert adjusted == wanted - frozen
        if closes:
            reopen_month(
                harness.dependencies(), "2026-10", next(clock), actor="ana", reason="prices"
            )
        closes += close(harness, next(clock))
        assert total(client, "SELECT sum(cost_usd) FROM closed_lines WHERE NOT draft") == wanted
        check_files(harness.root / "2026-10", closes, wanted)


def close(harness: CloseHarness, now_ms: int) -> int:
    result = close_month(harness.dependencies(), "2026-10", now_ms, actor="ana")
    assert result.outcome is CloseOutcome.CLOSED, result.blockers
    return 1


def check_files(month: Path, revisions: int, wanted: int) -> None:
    """The last bill is the whole month; journals and FOCUS rows of all revisions sum to it."""
    last = month / f"r{revisions}"
    bills = [json.loads(path.read_bytes()) for path in last.glob("*/bill.json")]
    assert sum(nano_from_usd(each["summary"]["cost_usd"]) for each in bills) == wanted
    for bill in bills:
        amount = Decimal(bill["summary"]["amount"])
        assert sum(Decimal(each["amount"]) for each in bill["departments"]) == amount
        booked = Decimal(0)
        for path in month.glob(f"r*/{bill['organisation']}/journal.json"):
            lines = json.loads(path.read_bytes())["lines"]
            sides = [Decimal(each["debit"]) - Decimal(each["credit"]) for each in lines]
            assert sum(sides) == 0
            booked += sum(
                side for each, side in zip(lines, sides, strict=True) if each["account"] != "2100"
            )
        assert booked == amount
    billed = 0
    for path in month.glob("r*/*/focus-cost-and-usage.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        billed += sum(nano_from_usd(row["BilledCost"]) for row in rows)
        report = lint_focus_1_4_structure("cost and usage", rows)
        assert report.ok, report.messages()
    assert billed == wanted
