"""Re-rating on the real engine: adjustments, attribution, open and closed months."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.pricing.catalogue_reader import catalogue_files, load_catalogue
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.attribution.core.question import Attribution, AttributionSource, read_axis
from meterline.reports.attribution.reader import read_attribution
from meterline.reports.close.close import CloseOutcome, close_month
from meterline.reports.repricing.catalogue_archive import (
    UnknownVersionError,
    archive_catalogue,
    read_catalogue,
    read_versions,
)
from meterline.reports.repricing.core.scenario import Scenario
from meterline.reports.repricing.rerate import (
    RerateDependencies,
    RerateError,
    RerateReason,
    Rerating,
    rerate,
)
from meterline.reports.repricing.whatif import price_scenario
from meterline.schemas.audit import AuditEntry
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import Calendar
from meterline.schemas.usage import UsageEvent
from tests.close_store import (
    CATALOGUE,
    CUT_OFF_MS,
    DECEMBER_CUT_OFF_MS,
    NOVEMBER_MS,
    OCTOBER_MS,
    CloseHarness,
    october_events,
    store_events,
    usage,
)

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
OCTOBER = ReportPeriod("2026-10", OCTOBER_MS, NOVEMBER_MS)
LATER_MS = DECEMBER_CUT_OFF_MS
CORRECTED = b"""{"catalogue_version": "corrected", "entries": [
 {"seller": "openai", "model": "gpt-4.1", "prices": [
  {"effective_from": "2020-01-01", "tiers": [{"input": "2.00", "output": "8.00"}]},
  {"effective_from": "2026-10-15", "tiers": [{"input": "1.50", "output": "7.000001"}]}]},
 {"seller": "openai", "model": "brand-new", "prices": [
  {"effective_from": "2020-01-01", "tiers": [{"input": "1.00", "output": "2.00"}]}]}]}"""


class Books:
    """One database and what was written into the audit log."""

    def __init__(self, client: Client) -> None:
        self.client, self.writer = client, Client(client.config)
        self.audit: list[AuditEntry] = []

    def rerate(self, catalogue: Catalogue, now_ms: int, *, dry_run: bool = False) -> Rerating:
        dependencies = RerateDependencies(self.client, self.writer, self.audit.append)
        why = RerateReason("finance", "list price was wrong", now_ms)
        return rerate(dependencies, catalogue, OCTOBER, why, dry_run=dry_run)

    def total(self, sql: str) -> int:
        return nano_from_usd(str(self.client.query(sql)[0][0] or 0))

    def attributed(
        self, source: AttributionSource = AttributionSource.USAGE_EVENTS
    ) -> dict[str, tuple[int, int]]:
        axis = "department" if source is AttributionSource.SPEND_WINDOWS else "model"
        question = Attribution(OCTOBER, Calendar("UTC"), (read_axis(axis),), source=source)
        return {
            line.group[0]: (line.cost_nano_usd, line.sums.unpriced_events)
            for line in read_attribution(self.client, question).lines
        }


@pytest.fixture
def books(store: Client) -> Iterator[Books]:
    """An own database per test, with the tables."""
    made = Books(store)
    yield made
    made.writer.close()


@pytest.fixture
def corrected() -> Catalogue:
    """Half of October's gpt-4.1 cheaper, and a price for a model that had none."""
    return build_catalogue([("corrected.json", CORRECTED)])


@pytest.fixture
def events() -> list[UsageEvent]:
    """October, a tenth of it without a price."""
    unpriced = [
        usage(number, model="brand-new", provider="openai") for number in range(1_000, 1_020)
    ]
    return [*october_events(), *unpriced]


def charged(events: list[UsageEvent], catalogue: Catalogue) -> int:
    """By the catalogue where it has a price, else by the one in use: rated one by one."""
    total = 0
    for event in events:
        cost, priced = catalogue.price(event)
        total += cost if priced else CATALOGUE.price(event)[0]
    return total


def test_adjustments_sum_to_the_difference_and_events_stay(
    books: Books, corrected: Catalogue, events: list[UsageEvent]
) -> None:
    """A dry run writes nothing; adjustments hold exactly the difference, once however often they
    are made; attribution counts them from every source; the events keep their prices."""
    store_events(books.client, events, 0)
    books.client.command(
        "INSERT INTO usage_changes SELECT DISTINCT organisation, department, toDate(event_time), "
        "'usage.events-0', 1 FROM usage_events"
    )
    frozen = sum(CATALOGUE.price(event)[0] for event in events)
    wanted = charged(events, corrected)
    tried = books.rerate(corrected, LATER_MS, dry_run=True)
    assert tried.total.difference_nano_usd == wanted - frozen != 0
    assert tried.total.newly_priced == 20
    adjusted = "SELECT sum(difference_usd) FROM price_adjustments FINAL"
    assert books.total(adjusted) == 0
    assert books.audit == []

    done = books.rerate(corrected, LATER_MS)
    assert done.total == tried.total
    assert books.total(adjusted) == wanted - frozen
    assert books.total("SELECT sum(cost_usd) FROM usage_events FINAL") == frozen
    assert books.attributed()["brand-new"][1] == 0
    for source in (
        AttributionSource.USAGE_EVENTS,
        AttributionSource.USAGE_DAYS,
        AttributionSource.SPEND_WINDOWS,
    ):
        assert sum(cost for cost, _ in books.attributed(source).values()) == wanted, source
    (entry,) = books.audit
    assert (entry.action, entry.reason) == ("usage.rerated", "list price was wrong")

    again = books.rerate(corrected, LATER_MS + 1)
    assert again.groups == {}
    assert len(books.audit) == 1
    # What-if starts from what is charged now.
    same = price_scenario(books.client, Scenario(corrected, everything=True), OCTOBER, ())
    assert (same.total.now_nano_usd, same.total.saving_nano_usd) == (wanted, 0)
    # Back to the prices in use: the new price of what had none stays, the rest cancels.
    books.rerate(CATALOGUE, LATER_MS + 2)
    priced_since = charged(events[200:], corrected)
    assert books.total(adjusted) == priced_since


def test_an_interrupted_run_is_finished_by_the_next(
    books: Books, corrected: Catalogue, events: list[UsageEvent]
) -> None:
    """A part of the adjustments lost, the same command writes just that part."""
    store_events(books.client, events, 0)
    done = books.rerate(corrected, LATER_MS)
    wanted = books.total("SELECT sum(difference_usd) FROM price_adjustments FINAL")
    books.client.command(
        "ALTER TABLE price_adjustments DELETE WHERE cityHash64(event_id) % 2 = 0 "
        "SETTINGS mutations_sync = 1"
    )
    rest = books.rerate(corrected, LATER_MS + 1)
    assert 0 < rest.total.events < done.total.events
    assert books.total("SELECT sum(difference_usd) FROM price_adjustments FINAL") == wanted


def test_fresh_events_and_missing_reasons_are_left_alone(
    books: Books, corrected: Catalogue, events: list[UsageEvent]
) -> None:
    """What the streams may still take back is not adjusted; without a reason nothing is."""
    store_events(books.client, events, 0)
    early = books.rerate(corrected, OCTOBER_MS)
    assert (early.unsettled, early.groups) == (len(events), {})
    dependencies = RerateDependencies(books.client, books.writer, books.audit.append)
    with pytest.raises(RerateError, match="--reason"):
        rerate(dependencies, corrected, OCTOBER, RerateReason("finance", " ", LATER_MS))


def test_an_open_month_closes_at_the_adjusted_price(
    books: Books, corrected: Catalogue, events: list[UsageEvent], tmp_path: Path
) -> None:
    """A month re-rated before its close is billed at the new prices, and no drift is seen."""
    store_events(books.client, events, 0)
    books.rerate(corrected, LATER_MS)
    result = close_month(
        CloseHarness(books.client, tmp_path).dependencies(), "2026-10", CUT_OFF_MS, actor="finance"
    )
    assert (result.outcome, result.blockers) == (CloseOutcome.CLOSED, ())
    assert books.total("SELECT sum(cost_usd) FROM closed_lines") == charged(events, corrected)
    assert books.client.query("SELECT sum(unpriced_events) FROM closed_lines") == [(0,)]


def test_a_closed_month_gets_the_difference_in_the_next(
    books: Books, corrected: Catalogue, events: list[UsageEvent], tmp_path: Path
) -> None:
    """Booked lines stay; the next month that is closed books exactly the difference, once."""
    store_events(books.client, [*events, usage(5_000, time_ms=NOVEMBER_MS + 1)], 0)
    harness = CloseHarness(books.client, tmp_path)
    first = close_month(harness.dependencies(), "2026-10", CUT_OFF_MS, actor="finance")
    assert first.outcome is CloseOutcome.CLOSED
    frozen = sum(CATALOGUE.price(event)[0] for event in events)
    assert books.total("SELECT sum(cost_usd) FROM closed_lines") == frozen
    books.rerate(corrected, LATER_MS)
    again = close_month(harness.dependencies(), "2026-10", LATER_MS, actor="finance")
    assert (again.outcome, again.manifest_sha256) == (CloseOutcome.ALREADY, first.manifest_sha256)
    november = close_month(harness.dependencies(), "2026-11", LATER_MS, actor="finance")
    assert november.outcome is CloseOutcome.CLOSED
    booked = books.client.query(
        "SELECT kind, sum(cost_usd) FROM closed_lines "
        "WHERE booked_period = '2026-11' AND origin_period = '2026-10' GROUP BY kind"
    )
    assert booked == [("rerate", Decimal(charged(events, corrected) - frozen).scaleb(-9))]


def test_any_catalogue_that_was_in_use_can_be_asked_for(books: Books, tmp_path: Path) -> None:
    """Files are kept once per version and come back as the same catalogue; an unknown, ambiguous
    or tampered version is refused by name."""
    old = tmp_path / "contract.json"
    old.write_bytes(CORRECTED)
    assert archive_catalogue(books.client, catalogue_files(), OCTOBER_MS)
    assert archive_catalogue(books.client, catalogue_files([old]), OCTOBER_MS + 1)
    assert not archive_catalogue(books.client, catalogue_files([old]), OCTOBER_MS + 2)
    shipped, contract = read_versions(books.client)
    assert (shipped.version, shipped.used_since_ms) == (CATALOGUE.version, OCTOBER_MS)
    found = read_catalogue(books.client, contract.version)
    assert (found.version, found.cards) == (contract.version, load_catalogue([old]).cards)
    name = contract.version.rpartition("+")[0]
    assert read_catalogue(books.client, name).version == contract.version
    with pytest.raises(UnknownVersionError, match="2026-11"):
        read_catalogue(books.client, "2025-01")

    old.write_bytes(CORRECTED.replace(b"1.50", b"1.60"))
    archive_catalogue(books.client, catalogue_files([old]), OCTOBER_MS + 3)
    with pytest.raises(UnknownVersionError, match="any of"):
        read_catalogue(books.client, name)
    books.client.command(
        "ALTER TABLE price_catalogues UPDATE content = replaceAll(content, '1.50', '1.51') "
        "WHERE true SETTINGS mutations_sync = 1"
    )
    with pytest.raises(UnknownVersionError, match="do not match its hash"):
        read_catalogue(books.client, contract.version)
