"""What-if on the real engine, against plain Python."""

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.attribution.core.question import read_axis
from meterline.reports.repricing.core.scenario import Scenario, Swap
from meterline.reports.repricing.whatif import price_scenario
from tests.close_store import (
    CATALOGUE,
    NOVEMBER_MS,
    OCTOBER_MS,
    october_events,
    store_events,
    usage,
)

pytestmark = pytest.mark.functional
OCTOBER = ReportPeriod("2026-10", OCTOBER_MS, NOVEMBER_MS)
DEAR = b"""{"catalogue_version": "dear", "entries": [
 {"seller": "openai", "model": "gpt-4.1", "prices": [
  {"effective_from": "2020-01-01", "tiers": [{"input": "2.00", "output": "8.00"}]},
  {"effective_from": "2026-10-15", "tiers": [{"input": "3.00", "output": "9.000001"},
   {"start_input_tokens": 100000, "input": "6.00", "output": "18.00"}]}]},
 {"seller": "openai", "model": "odd", "prices": [
  {"effective_from": "2026-10-10", "tiers": [{"input": "1.00", "output": "2.00"}]}]}]}"""


@pytest.fixture
def dear() -> Catalogue:
    """Other prices from the middle of the month on, with a context tier."""
    return build_catalogue([("dear.json", DEAR)])


def test_the_catalogue_in_use_saves_exactly_nothing(store: Client) -> None:
    """What-if at the prices that were charged changes no group by a nano-dollar."""
    store_events(store, october_events(), 0)
    scenario = Scenario(load_catalogue(), everything=True)
    answer = price_scenario(store, scenario, OCTOBER, (read_axis("department"), read_axis("model")))
    assert len(answer.groups) == 12
    assert answer.total.requests == 200
    assert answer.total.now_nano_usd > 0
    assert {each.saving_nano_usd for each in answer.groups.values()} == {0}


def test_another_catalogue_is_exact_over_price_changes_and_tiers(
    store: Client, dear: Catalogue
) -> None:
    """Sums over groups of like requests equal every request rated by itself, sent twice or not."""
    events = october_events(300)
    store_events(store, events, 0)
    store_events(store, events[:50], 1_000)
    answer = price_scenario(
        store, Scenario(dear, everything=True), OCTOBER, (read_axis("tag:feature"),)
    )
    expected: dict[tuple[str, ...], list[int]] = {}
    for event in events:
        now = CATALOGUE.rate(event)
        then = dear.rate(event)
        sums = expected.setdefault((event.tags["feature"],), [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += now.cost_nano_usd
        sums[2] += then.cost_nano_usd if then.priced else now.cost_nano_usd
        sums[3] += not then.priced
    found = {
        group: [each.requests, each.now_nano_usd, each.then_nano_usd, each.unpriced_then]
        for group, each in answer.groups.items()
    }
    assert found == expected


def test_a_model_is_replaced_and_the_others_left_out(store: Client) -> None:
    """Requests to the old model are priced as the new one's; nothing else is in the answer."""
    events = [*october_events(60), usage(61, model="openai/GPT-4.1", provider="")]
    store_events(store, events, 0)
    scenario = Scenario(CATALOGUE, (Swap("gpt-4.1", "deepseek-v3.2"),))
    answer = price_scenario(store, scenario, OCTOBER, ())
    swapped = [event for event in events if CATALOGUE.rate(event).model == "gpt-4.1"]
    replaced = [usage(int(e.id[2:-2]), model="deepseek-v3.2", provider="deepseek") for e in swapped]
    assert answer.total.requests == len(swapped) == 21
    assert answer.total.now_nano_usd == sum(CATALOGUE.rate(e).cost_nano_usd for e in swapped)
    assert answer.total.then_nano_usd == sum(CATALOGUE.rate(e).cost_nano_usd for e in replaced)
    assert answer.total.saving_nano_usd > 0
