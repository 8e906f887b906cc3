"""Rating: what one event costs, by hand-computed examples."""

from __future__ import annotations

from typing import Any

import pytest

from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.pricing.rating import UnratedReason
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.usage import UsageEvent

NOVEMBER = parse_rfc3339("2026-11-21T12:00:00Z")


def event(model: str, provider: str = "", **fields: Any) -> UsageEvent:
    fields.setdefault("time_ms", NOVEMBER)
    return UsageEvent(
        id="r-1", organisation="acme", key="k-1", model=model, provider=provider, **fields
    )


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue()


CARDS = b"""{"catalogue_version": "test", "entries": [
 {"seller": "maker", "model": "Tall-1.5", "aliases": ["tall"], "prices": [
   {"effective_from": "2026-01-01", "tiers": [
     {"input": "3.00", "output": "15", "cache_read": "0.30", "cache_write": "3.75",
      "cache_write_1h": "6", "input_audio": "10", "output_audio": "20"},
     {"start_input_tokens": 200000, "input": "6", "output": "22.5"}]},
   {"effective_from": "2026-10-01", "tiers": [{"input": "1", "output": "2"}]},
   {"effective_from": "2026-10-15", "effective_to": "2026-11-01", "service_tier": "batch",
    "tiers": [{"input": "0.5", "output": "1"}]}]},
 {"seller": "maker", "model": "odd", "prices": [
   {"effective_from": "2020-01-01", "tiers": [{"input": "0.000001", "output": "0.0005"}]}]},
 {"seller": "reseller", "model": "tall-1.5", "prices": [
   {"effective_from": "2020-01-01", "tiers": [{"input": "9", "output": "9"}]}]}
]}"""
SUMMER = parse_rfc3339("2026-07-01T00:00:00Z")


@pytest.fixture(scope="module")
def small() -> Catalogue:
    return build_catalogue([("test.json", CARDS)])


@pytest.mark.parametrize(
    ("model", "provider", "nano_usd"),
    [
        # One million tokens in and one out would be the listed dollars; these are 1,000 and 100.
        ("gpt-4.1", "openai", 2_000_000 + 800_000),
        ("claude-sonnet-4.5", "anthropic", 3_000_000 + 1_500_000),
        ("gemini-2.5-flash", "google", 300_000 + 250_000),
        ("deepseek-v3.2", "deepseek", 280_000 + 42_000),
    ],
)
def test_shipped_list_prices(shipped: Catalogue, model: str, provider: str, nano_usd: int) -> None:
    """The four models of the documentation cost what their sellers list."""
    for named in (provider, ""):
        rated = shipped.rate(event(model, named, input_tokens=1000, output_tokens=100))
        assert (rated.priced, rated.reason, rated.cost_nano_usd) == (True, None, nano_usd)
        assert rated.seller == provider


@pytest.mark.parametrize(
    ("spelling", "provider", "canonical", "seller"),
    [
        ("gpt-4.1-2025-04-14", "openai", "gpt-4.1", "openai"),
        ("GPT-4.1", "", "gpt-4.1", "openai"),
        ("openai/gpt-4.1", "", "gpt-4.1", "openai"),
        ("gpt-4.1", "azure", "gpt-4.1", "openai"),
        ("claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5", "anthropic"),
        ("claude-sonnet-4.5", "", "claude-sonnet-4-5", "anthropic"),
        ("claude-sonnet-4-5@20250929", "gcp.vertex_ai", "claude-sonnet-4-5", "google"),
        ("models/gemini-2.5-flash", "google", "gemini-2.5-flash", "google"),
        ("gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash", "google"),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws.bedrock",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws",
        ),
        ("deepseek/deepseek-v3.2", "openrouter", "deepseek/deepseek-v3.2", "openrouter"),
    ],
)
def test_spellings_resolve(
    shipped: Catalogue, spelling: str, provider: str, canonical: str, seller: str
) -> None:
    """Aliases, dated snapshots and paths come down to one canonical model of the right seller."""
    rated = shipped.rate(event(spelling, provider, input_tokens=1))
    assert (rated.priced, rated.model, rated.seller) == (True, canonical, seller)


@pytest.mark.parametrize(
    ("model", "provider", "reason"),
    [
        ("gpt-99", "openai", UnratedReason.UNKNOWN_MODEL),
        ("gpt-4.1-turbo-ultra", "", UnratedReason.UNKNOWN_MODEL),
        ("", "", UnratedReason.UNKNOWN_MODEL),
        ("///", "", UnratedReason.UNKNOWN_MODEL),
        ("gpt-4.1", "corner-shop", UnratedReason.UNKNOWN_PROVIDER),
    ],
)
def test_unknown_names_stay_as_sent(
    shipped: Catalogue, model: str, provider: str, reason: UnratedReason
) -> None:
    """An unknown model costs nothing, keeps its name and says why it has no price."""
    rated = shipped.rate(event(model, provider, input_tokens=1000))
    assert (rated.cost_nano_usd, rated.priced, rated.reason) == (0, False, reason)
    assert (rated.model, rated.seller, rated.price_version) == (model, "", shipped.version)


def test_response_model_names_a_private_deployment(shipped: Catalogue) -> None:
    """A deployment name that says nothing is priced by the model that answered."""
    sent = event("my-deployment", "azure", response_model="gpt-4.1-2025-04-14", input_tokens=1000)
    assert shipped.rate(sent).cost_nano_usd == 2_000_000


def test_price_by_event_time(small: Catalogue) -> None:
    """The price in force at the event's own millisecond applies, start inclusive, end exclusive."""
    change = parse_rfc3339("2026-10-01T00:00:00Z")
    costs = [
        small.rate(event("tall", "maker", time_ms=at, input_tokens=1000)).cost_nano_usd
        for at in (change - 1, change)
    ]
    assert costs == [3_000_000, 1_000_000]


def test_before_the_first_price_there_is_no_rate(small: Catalogue) -> None:
    """A known model before its first price is unpriced, not free and not guessed."""
    early = parse_rfc3339("2025-12-31T23:59:59.999Z")
    rated = small.rate(event("tall", "maker", time_ms=early, input_tokens=1000))
    assert (rated.priced, rated.reason) == (False, UnratedReason.NO_RATE)
    assert rated.model == "Tall-1.5"


def test_service_tier_falls_back_to_standard(small: Catalogue) -> None:
    """A service tier is priced by its own period where it has one, else by the standard price."""
    days = ("2026-10-14", "2026-10-20", "2026-11-02")
    costs = [
        small.rate(
            event(
                "tall",
                "maker",
                time_ms=parse_rfc3339(f"{day}T00:00:00Z"),
                service_tier="batch",
                input_tokens=1000,
            )
        ).cost_nano_usd
        for day in days
    ]
    assert costs == [1_000_000, 500_000, 1_000_000]


@pytest.mark.parametrize(
    ("input_tokens", "nano_usd"), [(200_000, 600_000_000), (200_001, 1_200_006_000)]
)
def test_context_tier_is_a_cliff(small: Catalogue, input_tokens: int, nano_usd: int) -> None:
    """One token above a tier's start, all tokens of the request are charged at that tier."""
    rated = small.rate(event("tall", "maker", time_ms=SUMMER, input_tokens=input_tokens))
    assert rated.cost_nano_usd == nano_usd


def test_token_classes_are_disjoint(small: Catalogue) -> None:
    """Cached, written and audio tokens are charged once, each at its own price."""
    rated = small.rate(
        event(
            "tall",
            "maker",
            time_ms=SUMMER,
            input_tokens=1000,
            cache_read_tokens=100,
            cache_write_tokens=200,
            cache_write_1h_tokens=300,
            input_audio_tokens=50,
            output_tokens=500,
            reasoning_tokens=400,
            output_audio_tokens=60,
        )
    )
    pico = 350 * 3_000_000 + 50 * 10_000_000 + 100 * 300_000 + 200 * 3_750_000 + 300 * 6_000_000
    pico += 440 * 15_000_000 + 60 * 20_000_000
    assert rated.cost_nano_usd * 1000 == pico


def test_audio_beyond_the_uncached_part_is_a_cache_read(small: Catalogue) -> None:
    """Audio that does not fit beside the cached tokens is charged as cached, not twice."""
    rated = small.rate(
        event(
            "tall",
            "maker",
            time_ms=SUMMER,
            input_tokens=100,
            cache_read_tokens=80,
            input_audio_tokens=100,
        )
    )
    assert rated.cost_nano_usd == 80 * 300 + 20 * 10_000


def test_missing_classes_cost_the_wider_class(small: Catalogue) -> None:
    """Without prices of their own, cached tokens and audio cost what plain tokens cost."""
    parts = {
        "input_tokens": 1000,
        "cache_read_tokens": 200,
        "cache_write_tokens": 300,
        "cache_write_1h_tokens": 100,
        "input_audio_tokens": 400,
    }
    assert small.rate(event("tall", "maker", **parts)).cost_nano_usd == 1_000_000


def test_one_rounding_half_to_even(small: Catalogue) -> None:
    """The sum of pico-dollars is rounded once, half to even."""
    # 0.0005 USD per million output tokens is 500 pico-USD per token: half a nano-dollar each.
    costs = [
        small.rate(event("odd", "maker", output_tokens=count)).cost_nano_usd
        for count in (1, 2, 3, 5)
    ]
    assert costs == [0, 1, 2, 2]


def test_correction_in_the_tier_of_its_own_size(small: Catalogue) -> None:
    """Reversing a request takes back exactly what it cost, its tier included."""
    sent = event("tall", "maker", time_ms=SUMMER, input_tokens=250_001, output_tokens=3)
    reversal = event(
        "tall",
        "maker",
        time_ms=SUMMER,
        input_tokens=-250_001,
        output_tokens=-3,
        corrects_id="r-1",
    )
    assert small.rate(reversal).cost_nano_usd == -small.rate(sent).cost_nano_usd


def test_seller_decides_the_price(small: Catalogue) -> None:
    """The same model costs what the named seller charges for it."""
    rated = small.rate(event("tall-1.5", "reseller", input_tokens=1000))
    assert rated.cost_nano_usd == 9_000_000


def test_plan_cache_is_bounded(small: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless new model names neither grow the cache without end nor change any answer."""
    monkeypatch.setattr("meterline.pricing.catalogue.PLANS_MAX", 8)
    catalogue = build_catalogue([("test.json", CARDS)])
    for number in range(50):
        catalogue.rate(event(f"invented-{number}"))
        assert len(catalogue._plans) <= 8
        rated = catalogue.rate(event("tall", "maker", input_tokens=1000))
        assert rated == small.rate(event("tall", "maker", input_tokens=1000))
