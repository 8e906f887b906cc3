"""Rating against genai-prices, the oracle, over the whole shipped catalogue."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Usage

from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.pricing.importer import CONTEXTS, SkipReason, import_catalogue
from meterline.pricing.rate_card import RateCard, ServiceTier, read_cards
from meterline.schemas.usage import UsageEvent

SHIPPED = resources.files("meterline.pricing.catalogues")
SAMPLES_PER_CARD = 4
ORACLE: dict[tuple[str, str], ModelInfo] = {
    (provider.id, model.id): model for provider in providers for model in provider.models
}
OVERRIDDEN = {("deepseek", "deepseek-v3.2")}
"""Reviewed in overrides.json: the oracle has a reseller's price."""
FLOAT_NOISE_PLACES = 6
"""The oracle's cache-write prices of some Gemini models on OpenRouter are thirds (0.0833...); a
price list has six places."""


def _moment(card: RateCard, draw: random.Random) -> datetime:
    """A time anywhere, or right at a change of price."""
    starts = [period.from_ms for period in card.periods]
    if draw.random() < 0.5:
        at_ms = draw.choice(starts) + draw.choice((0, 1, 3_600_000))
        return datetime.fromtimestamp(at_ms / 1000, UTC)
    day = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=draw.randrange(1100))
    return day + timedelta(milliseconds=draw.randrange(86_400_000))


def _usage(prices: ModelPrice, draw: random.Random) -> dict[str, Any]:
    """Consistent token counts, small and huge, with the parts inside the whole."""
    left = whole = draw.choice((0, 1, 999, 200_000, 200_001, draw.randrange(2_000_000)))
    parts: dict[str, int] = {}
    names = ["cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"]
    if prices.cache_audio_read_mtok is None:
        names.append("input_audio_tokens")
    elif draw.random() < 0.5:
        # The oracle wants the overlap of audio and cache spelled out, which events do not say.
        names = ["input_audio_tokens"]
    for name in draw.sample(names, draw.randrange(len(names) + 1)):
        parts[name] = draw.randrange(left + 1)
        left -= parts[name]
    output = draw.choice((0, 1, 17, draw.randrange(100_000)))
    parts["output_audio_tokens"] = draw.randrange(output + 1) if draw.random() < 0.3 else 0
    return {"input_tokens": whole, "output_tokens": output, **parts}


def _oracle_nano(prices: ModelPrice, usage: dict[str, int]) -> int:
    counted = dict(usage)
    # Their cache writes include those of an hour; ours are apart.
    counted["cache_write_tokens"] = usage.get("cache_write_tokens", 0) + usage.get(
        "cache_write_1h_tokens", 0
    )
    total = prices.calc_price(Usage(**counted))["total_price"]
    return int((total * 10**9).to_integral_value(ROUND_HALF_EVEN))


def _is_noisy(prices: ModelPrice) -> bool:
    return any(
        isinstance(price, Decimal)
        and price.scaleb(FLOAT_NOISE_PLACES) != price.scaleb(FLOAT_NOISE_PLACES).to_integral_value()
        for price in vars(prices).values()
    )


@pytest.mark.parametrize("seed", range(2))
def test_rating_agrees_with_the_oracle(seed: int) -> None:
    """Every shipped model costs to the nano-dollar what genai-prices says, at any time and tier."""
    draw = random.Random(seed)
    catalogue = load_catalogue()
    compared = 0
    noisy = set()
    for card in catalogue.cards:
        if (card.seller, card.model) in OVERRIDDEN:
            continue
        model = ORACLE[card.seller, card.model]
        for _ in range(SAMPLES_PER_CARD):
            moment = _moment(card, draw)
            service_tier = draw.choice(tuple(ServiceTier))
            prices = model.get_prices(moment, CONTEXTS.get(service_tier))
            if _is_noisy(prices):
                noisy.add(card.model)
                continue
            usage = _usage(prices, draw)
            sent = UsageEvent(
                id="1",
                time_ms=int(moment.timestamp() * 1000),
                organisation="acme",
                key="k",
                model=card.model,
                provider=card.seller,
                service_tier=service_tier.value,
                **usage,
            )
            rated = catalogue.rate(sent)
            assert rated.priced, card.model
            assert rated.model == card.model
            expected = _oracle_nano(prices, usage)
            assert rated.cost_nano_usd == expected, (card.seller, card.model, moment, usage)
            compared += 1
    assert compared > 0.97 * SAMPLES_PER_CARD * len(catalogue.cards)
    assert all("gemini" in model for model in noisy)


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue()


def test_oracle_names_resolve_alike(shipped: Catalogue) -> None:
    """Of the oracle's own names of shipped models, each gives that model at that seller."""
    for card in shipped.cards:
        found = shipped.find(card.model, card.seller)
        assert found == card
        for alias in card.aliases:
            assert shipped.find(alias, card.seller) == card


def test_shipped_file_is_what_the_importer_makes(tmp_path: Path) -> None:
    """The shipped catalogue is the importer's output, unedited, and what it left out is said."""
    out = tmp_path / "2026-11.json"
    report = import_catalogue(out, name="2026-11")
    assert out.read_bytes() == (SHIPPED / "2026-11.json").read_bytes()
    assert report.models == len(read_cards(out.read_bytes())[1])
    assert sum(report.sellers.values()) == report.models
    skipped = {(each.seller, each.model): each.reason for each in report.skipped}
    assert skipped["deepseek", "deepseek-chat"] is SkipReason.TIME_OF_DAY
    assert skipped["openai", "whisper-1"] is SkipReason.OTHER_METER
    assert skipped["perplexity", "sonar"] is SkipReason.OTHER_METER
    assert all("cache_write" in note for note in report.quantised)
    assert out.stat().st_size < 1_000_000


def test_import_of_one_seller(tmp_path: Path) -> None:
    """An import can be limited to some sellers, and its file loads on its own."""
    out = tmp_path / "x.json"
    report = import_catalogue(out, name="only", sellers=["x-ai"])
    catalogue = build_catalogue([("x.json", out.read_bytes())])
    assert {card.seller for card in catalogue.cards} == {"x-ai"}
    assert len(catalogue.cards) == report.models
