"""Imported exports beside our events, on the real engine."""

from collections.abc import Iterator
from datetime import date

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.reports.providers.core.exports import ProviderRow, ProviderRowKind
from meterline.reports.providers.core.layouts import ExportError
from meterline.reports.providers.reconcile import Reconciliation, reconcile_provider
from meterline.reports.providers.store import DayRange, store_import
from meterline.schemas.periods import DAY_MS
from meterline.sinks.migrate import migrate
from tests.close_store import CATALOGUE, OCTOBER_MS, store_events, usage
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional
FIRST = date(2026, 10, 1)
SECOND = date(2026, 10, 2)
MODEL = "gpt-4.1-2025-04-14"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        events = [
            usage(
                number,
                time_ms=OCTOBER_MS + (number % 2) * DAY_MS,
                model="gpt-4.1",
                provider="openai" if number % 3 else "",
                key=f"k-{number % 5}",
                input_tokens=1_000,
                output_tokens=100,
                cache_read_tokens=0,
                provider_input_tokens=1_200 if number % 5 == 3 else 1_000,
                provider_output_tokens=100,
            )
            for number in range(100)
        ]
        azure = usage(1_000, time_ms=OCTOBER_MS, model="gpt-4.1", provider="azure")
        store_events(client, [*events, azure], 0, windows=False)
        store_events(client, events[:20], 5_000, windows=False)
        yield client
        client.close()


def said(day: date, tokens: int) -> ProviderRow:
    return ProviderRow("openai", ProviderRowKind.USAGE, day, MODEL, "", "", 50, tokens, 5_000)


def compared(client: Client, tolerance_ppm: int = 50_000) -> Reconciliation:
    return reconcile_provider(client, CATALOGUE, "openai", DayRange(FIRST, SECOND), tolerance_ppm)


def test_exports_are_compared_and_imported_once(client: Client) -> None:
    """Within the tolerance nothing is flagged; beyond it the keys behind it are named; the newest
    import of a day holds, and the same import twice is one."""
    with pytest.raises(ExportError, match="provider import"):
        compared(client)
    export = [said(FIRST, 50_500), said(SECOND, 60_000)]
    assert store_import(client, export, "", 1)
    assert not store_import(client, list(reversed(export)), "", 2)
    found = compared(client)
    assert [(each.cell.day, each.flagged) for each in found.variances] == [
        (FIRST, ()),
        (SECOND, ("input_tokens",)),
    ]
    measures = {each.name: each for each in found.variances[1].measures}
    assert (measures["input_tokens"].ours, measures["input_tokens"].theirs) == (50_000, 60_000)
    # Half of the k-3 are of each organisation. Their count is below what its requests' answers said: checked first.
    worst = found.variances[1].contributors[0]
    assert (worst.key, worst.reported_difference) == ("k-3", 5 * 200)
    assert len(found.variances[1].contributors) == 3
    assert [len(each.flagged) for each in compared(client, 0).variances] == [1, 1]

    # Costs of what is no model are named, and compared with nothing.
    costs = [
        ProviderRow("openai", ProviderRowKind.COST, FIRST, name, cost_nano_usd=70)
        for name in (MODEL, "web search")
    ]
    assert store_import(client, costs, "costs", 5)
    assert compared(client).other_costs == {"web search": 70}
    assert {each.cell.model for each in compared(client).variances} == {"gpt-4.1"}
    client.command(
        "ALTER TABLE provider_usage DELETE WHERE account = 'costs' SETTINGS mutations_sync = 1"
    )

    # A day that is imported again is replaced, whatever rows it had; other days stay.
    assert store_import(client, [said(SECOND, 50_000)], "", 3)
    assert compared(client).flagged == ()
    assert len(compared(client).variances) == 2
    # Another account of the same provider adds to it.
    assert store_import(client, [said(SECOND, 50_000)], "second", 4)
    assert compared(client).flagged[0].cell.day == SECOND
