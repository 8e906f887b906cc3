"""What the rules ask of the stored events, on the real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from meterline.alerting.top_contributors import ClickHouseStore
from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.schemas.alert import TopContributor
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import DAY_MS, HOUR_MS, Calendar, WindowKind
from meterline.sinks.migrate import migrate
from tests.servers import running_clickhouse

# A loaded machine takes its time to start a store.
pytestmark = [pytest.mark.functional, pytest.mark.timeout(240)]
NOW_MS = 1_793_000_000_000
TODAY = Calendar().window(WindowKind.DAY, NOW_MS)
PATIENCE_SECONDS = 100
CENT = NANO_PER_USD // 100


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseConfig]:
    """Seven days of a dollar a day and model, and a day on which one key runs away."""
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        config = ClickHouseConfig(host, port)
        client = Client(config)
        migrate(client)
        rows = [
            ("k-1", model, TODAY.start_ms - days * DAY_MS + HOUR_MS, "0.700000001")
            for days in range(1, 8)
            for model in ("small", "large")
        ]
        rows += [
            # In the same part of the day before, and after it: only the first is usual.
            ("k-2", "small", TODAY.start_ms - DAY_MS + HOUR_MS, "7"),
            ("k-2", "small", NOW_MS - DAY_MS + 1, "1000"),
            ("k-1", "large", NOW_MS - 5, "12.500000001"),
            ("k-1", "small", NOW_MS - 4, "0.100000000"),
            ("k-2", "small", NOW_MS - 3, "1.250000000"),
            ("k-2", "small", NOW_MS, "99"),
        ]
        for number, (key, model, at_ms, usd) in enumerate(rows):
            client.command(
                "INSERT INTO usage_events (organisation, department, key, model, event_time, "
                "event_id, cost_usd, priced) SELECT 'acme', 'research', {key:String}, "
                "{model:String}, fromUnixTimestamp64Milli({at:Int64}, 'UTC'), {id:String}, "
                "toDecimal64({usd:String}, 9), true",
                {"key": key, "model": model, "at": at_ms, "id": f"e{number}", "usd": usd},
            )
        client.close()
        yield config


@pytest.fixture
def store(config: ClickHouseConfig) -> Iterator[ClickHouseStore]:
    """The store as the worker has it."""
    store = ClickHouseStore(Client(config))
    yield store
    store.close()


def test_drivers_are_exact_and_the_greatest_comes_first(store: ClickHouseStore) -> None:
    """Key and model with what they spent and usually spend, to the nano-dollar."""
    for scope in ("department:acme/research", "organisation:acme"):
        assert answered(store, scope) == (
            TopContributor(
                key="k-1",
                model="large",
                spent_nano_usd=1_250 * CENT + 1,
                usual_nano_usd=70 * CENT + 1,
            ),
            TopContributor(
                key="k-2", model="small", spent_nano_usd=125 * CENT, usual_nano_usd=NANO_PER_USD
            ),
        )


def test_drivers_are_of_the_scope_alone(store: ClickHouseStore) -> None:
    """Another key is not asked for, and a scope without events has none."""
    assert [driver.key for driver in answered(store, "key:acme/k-2")] == ["k-2"]
    assert answered(store, "key:acme/k-9") == ()
    assert answered(store, "key:other/k-1") == ()


def answered(store: ClickHouseStore, scope: str) -> tuple[TopContributor, ...]:
    """The drivers, patiently: a loaded machine may take longer than an alert waits."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            return store.contributors(scope, TODAY.start_ms, NOW_MS)
        except TimeoutError:
            time.sleep(0.1)
    pytest.fail("no answer")
