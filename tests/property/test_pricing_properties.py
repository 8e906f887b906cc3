"""Laws of rating."""

from __future__ import annotations

from dataclasses import astuple
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meterline.pricing.catalogue_reader import load_catalogue
from meterline.pricing.rate_card import RateCard
from meterline.pricing.rating import PICO_PER_NANO, Tariff, cost_pico_usd
from meterline.schemas.usage import UsageEvent

CATALOGUE = load_catalogue()
CARDS = CATALOGUE.cards
PRICES = st.integers(0, 200_000_000)
TOKENS = st.integers(0, 2_000_000)
TIMES = st.integers(1_600_000_000_000, 1_900_000_000_000)
PARTS = ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


@st.composite
def quantities(draw: st.DrawFn) -> dict[str, int]:
    """Token counts as a relay may send them: parts inside their wholes, audio anywhere."""
    parts = {name: draw(TOKENS) for name in PARTS}
    whole = sum(parts.values()) + draw(TOKENS)
    output = draw(TOKENS)
    return {
        **parts,
        "input_tokens": whole,
        "input_audio_tokens": draw(st.integers(0, whole)),
        "output_tokens": output,
        "output_audio_tokens": draw(st.integers(0, output)),
    }


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    """Any prices."""
    return Tariff(0, *(draw(PRICES) for _ in range(7)))


def event(counts: dict[str, int], time_ms: int = 1_790_000_000_000, **names: str) -> UsageEvent:
    fields: dict[str, Any] = {"model": "m", **names, **counts}
    return UsageEvent(id="1", time_ms=time_ms, organisation="a", key="k", **fields)


def negated(fields: dict[str, int]) -> dict[str, int]:
    return {name: -count for name, count in fields.items()}


@given(tariffs(), quantities())
def test_every_token_is_charged_once(tariff: Tariff, counts: dict[str, int]) -> None:
    """With one price for all classes, the cost is that price times all tokens."""
    flat = Tariff(0, *(tariff.input,) * 7)
    tokens = counts["input_tokens"] + counts["output_tokens"]
    assert cost_pico_usd(event(counts), flat) == tokens * tariff.input


@given(tariffs(), quantities())
def test_cost_lies_between_the_cheapest_and_dearest_class(
    tariff: Tariff, counts: dict[str, int]
) -> None:
    """No mix of classes costs less than the cheapest or more than the dearest price: never < 0."""
    tokens = counts["input_tokens"] + counts["output_tokens"]
    cost = cost_pico_usd(event(counts), tariff)
    prices = astuple(tariff)[1:]
    assert tokens * min(prices) <= cost <= tokens * max(prices)


@given(tariffs(), quantities())
def test_reversal_cancels_exactly(tariff: Tariff, counts: dict[str, int]) -> None:
    """An event and its full reversal cost zero together, before any rounding."""
    assert cost_pico_usd(event(negated(counts)), tariff) == -cost_pico_usd(event(counts), tariff)


@given(tariffs(), quantities(), st.integers(0, 10**9))
def test_more_output_never_costs_less(tariff: Tariff, counts: dict[str, int], more: int) -> None:
    """Cost does not fall when output grows."""
    grown = {**counts, "output_tokens": counts["output_tokens"] + more}
    assert cost_pico_usd(event(grown), tariff) >= cost_pico_usd(event(counts), tariff)


@given(st.sampled_from(CARDS), quantities(), TIMES, st.sampled_from(["", "batch", "priority"]))
def test_rounding_is_within_half_a_nano(
    card: RateCard, counts: dict[str, int], time_ms: int, tier: str
) -> None:
    """The rated cost differs from the exact one by at most half a nano-dollar, either sign."""
    model, seller = card.model, card.seller
    sent = event(counts, time_ms, model=model, provider=seller, service_tier=tier)
    rated = CATALOGUE.rate(sent)
    back = event(negated(counts), time_ms, model=model, provider=seller, service_tier=tier)
    assert CATALOGUE.rate(back).cost_nano_usd == -rated.cost_nano_usd
    plan = CATALOGUE._plans[seller, model, "", tier]
    period = next(each for each in plan.periods if each.from_ms <= time_ms < each.to_ms)
    size = counts["input_tokens"]
    tariff = next((t for t in period.tiers if size > t.above_input_tokens), period.base)
    exact = Fraction(cost_pico_usd(sent, tariff), PICO_PER_NANO)
    assert abs(exact - rated.cost_nano_usd) <= Fraction(1, 2)


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=40), st.text(max_size=10))
def test_rating_never_raises(model: str, provider: str, response: str, tier: str) -> None:
    """Whatever the names are, an event is rated or says why not, the same each time."""
    sent = event(
        {"input_tokens": 1000},
        model=model,
        provider=provider,
        response_model=response,
        service_tier=tier,
    )
    rated = CATALOGUE.rate(sent)
    assert rated == CATALOGUE.rate(sent)
    assert rated.priced is (rated.reason is None)
    if not rated.priced:
        assert (rated.cost_nano_usd, rated.model) == (0, model)
