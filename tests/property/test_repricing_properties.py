"""Other prices: groups of like requests cost what each request costs by itself."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from meterline.pricing.catalogue import build_catalogue
from meterline.reports.repricing.core.scenario import Request, Scenario, event_of, price_cuts
from meterline.reports.repricing.core.whatif import CostComparison, price_row
from meterline.schemas.money import usd_text

START_MS = 1_790_812_800_000  # 2026-10-01T00:00Z
DAY_MS = 86_400_000
END_MS = START_MS + 31 * DAY_MS
PRICES = b"""{"catalogue_version": "p", "entries": [
 {"seller": "openai", "model": "m", "prices": [
  {"effective_from": "2026-10-02", "tiers": [{"input": "0.333333", "output": "1.1"}]},
  {"effective_from": "2026-10-20", "tiers": [{"input": "0.777777", "output": "2.000001"},
   {"start_input_tokens": 10, "input": "9.999999", "output": "3.3", "cache_read": "0.5"}]}]}]}"""
CATALOGUE = build_catalogue([("p.json", PRICES)])
SCENARIO = Scenario(CATALOGUE, everything=True)
COUNTS = st.integers(0, 12)
REQUESTS = st.builds(
    Request,
    time_ms=st.integers(START_MS, END_MS - 1),
    model=st.just("m"),
    model_sent=st.just("m"),
    provider=st.sampled_from(["openai", ""]),
    response_model=st.just(""),
    service_tier=st.sampled_from(["", "batch"]),
    input_tokens=st.integers(12, 24),
    output_tokens=COUNTS,
    cache_read_tokens=COUNTS,
    cache_write_tokens=st.just(0),
    cache_write_1h_tokens=st.just(0),
    input_audio_tokens=st.just(0),
    output_audio_tokens=st.integers(0, 1),
)


@given(st.lists(REQUESTS, max_size=60))
def test_the_same_prices_save_exactly_nothing(requests: list[Request]) -> None:
    """Grouped as ClickHouse groups them, requests cost to the nano-dollar what they cost alone."""
    cuts = price_cuts(CATALOGUE, START_MS, END_MS)
    groups: defaultdict[tuple[object, ...], list[Request]] = defaultdict(list)
    for request in requests:
        piece = max(cut for cut in cuts if cut <= request.time_ms)
        groups[piece, *request[1:]].append(request)
    total = CostComparison()
    for members in groups.values():
        rated = [CATALOGUE.price(event_of(each)) for each in members]
        first = members[0]._replace(time_ms=min(each.time_ms for each in members))
        unpriced = sum(not priced for _, priced in rated)
        cost = usd_text(sum(cost for cost, _ in rated))
        _, compared = price_row(SCENARIO, (*first, len(members), unpriced, cost), 0)
        assert compared.unpriced_now == compared.unpriced_then == unpriced
        total.add(compared)
    assert total.requests == len(requests)
    assert total.saving_nano_usd == 0
