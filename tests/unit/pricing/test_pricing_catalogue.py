"""Catalogue files: what is accepted, what is refused, what overrides what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.pricing.rate_card import CatalogueError, RateCard, price_pico, price_text, read_cards
from meterline.pricing.show import RateNotFoundError, show
from meterline.schemas.periods import parse_rfc3339
from meterline.schemas.usage import UsageEvent

NOW = parse_rfc3339("2026-11-21T12:00:00Z")


def card(**fields: Any) -> dict[str, Any]:
    price = {"effective_from": "2026-01-01", "tiers": [{"input": "1", "output": "2"}]}
    return {"seller": "s", "model": "m", "prices": [price], **fields}


def file(*cards: object, version: str = "v1") -> bytes:
    return json.dumps({"catalogue_version": version, "entries": cards}).encode()


def price(start: str, **fields: Any) -> dict[str, Any]:
    return {"effective_from": start, "tiers": [{"input": "1", "output": "2"}], **fields}


def tier(**fields: Any) -> dict[str, Any]:
    return {"effective_from": "2026-01-01", "tiers": [{"input": "1", "output": "2", **fields}]}


def cost(catalogue: Catalogue, model: str, provider: str = "") -> int:
    sent = UsageEvent(
        id="1",
        time_ms=NOW,
        organisation="acme",
        key="k",
        model=model,
        provider=provider,
        input_tokens=1_000_000,
    )
    return catalogue.rate(sent).cost_nano_usd


@pytest.mark.parametrize(
    ("text", "pico"), [("2.00", 2_000_000), ("0", 0), ("0.000001", 1), ("0.2288", 228_800)]
)
def test_prices_are_exact(text: str, pico: int) -> None:
    """A price of at most six places is a whole number of pico-dollars, and spells back."""
    assert price_pico(text) == pico
    assert price_pico(price_text(pico)) == pico


@pytest.mark.parametrize("text", ["-1", "NaN", "Infinity", "1e9", "0.0000001", "two", ""])
def test_bad_prices_are_refused(text: str) -> None:
    """Negative, unbounded, too fine or unreadable prices are refused."""
    with pytest.raises(CatalogueError):
        price_pico(text)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (card(prices=[]), "no prices"),
        (card(seller=" "), "must not be empty"),
        (card(aliases=[""]), "alias must not be empty"),
        (card(prices=[tier(input="x")]), "input: price 'x' is not a decimal number"),
        (card(prices=[tier(cache_read="1.1234567")]), "more than 6 decimal places"),
        (card(prices=[tier(input=2.5)]), "Expected `str`, got `float`"),
        (card(prices=[tier(cache_raed="1")]), "unknown field `cache_raed`"),
        (card(prices=[price("2026-13-01")]), "is not a date"),
        (card(prices=[price("2026-01-01"), price("2026-01-01")]), "two prices hold"),
        (
            card(prices=[price("2026-01-01", effective_to="2026-03-01"), price("2026-02-01")]),
            "two prices hold from 2026-02-01",
        ),
        (card(prices=[price("2026-01-01", effective_to="2026-01-01")]), "is not after its start"),
        (card(prices=[price("2026-01-01", service_tier="gold")]), "Invalid enum value"),
        (
            card(prices=[{"effective_from": "2026-01-01", "tiers": []}]),
            "tiers must start at 0",
        ),
    ],
)
def test_faults_are_named(entry: dict[str, Any], fault: str) -> None:
    """Each kind of wrong entry is refused with its place and reason."""
    with pytest.raises(CatalogueError) as caught:
        read_cards(file(entry))
    assert any(fault in found and "entries[0]" in found for found in caught.value.faults)


def test_all_faults_at_once() -> None:
    """A file with three wrong entries is refused with all three, and no good one is used."""
    wrong = file(card(prices=[]), card(), card(model="n", prices=[price("x")]), "nonsense")
    with pytest.raises(CatalogueError) as caught:
        build_catalogue([("mine.json", wrong), ("other.json", b"{}")])
    places = [fault.split(" ")[1].rstrip(":") for fault in caught.value.faults]
    assert places == ["entries[0]", "entries[2]", "entries[3]", "not"]
    assert all(fault.startswith(("mine.json: ", "other.json: ")) for fault in caught.value.faults)


def test_one_name_for_two_models_is_refused() -> None:
    """Two models of one seller that answer to the same name cannot be distinguished."""
    with pytest.raises(CatalogueError, match="names both"):
        read_cards(file(card(model="a", aliases=["x.1"]), card(model="b", aliases=["X-1"])))


def test_periods_follow_each_other() -> None:
    """A period without an end is ended by the next of the same service tier."""
    entry = card(
        prices=[
            price("2026-05-01"),
            price("2026-01-01", effective_to="2026-02-01"),
            price("2026-03-01", service_tier="batch"),
        ]
    )
    (read,) = read_cards(file(entry))[1]
    assert isinstance(read, RateCard)
    spans = [(each.service_tier.value, each.from_ms, each.to_ms) for each in read.periods]
    day = parse_rfc3339
    assert spans[0] == ("standard", day("2026-01-01T00:00:00Z"), day("2026-02-01T00:00:00Z"))
    assert spans[1][1] == day("2026-05-01T00:00:00Z")
    assert spans[2][:2] == ("batch", day("2026-03-01T00:00:00Z"))
    assert spans[1][2] == spans[2][2] == 2**62


def test_later_files_override(tmp_path: Path) -> None:
    """A relay's own price replaces the list price of the same seller and model, and no other."""
    mine = tmp_path / "mine.json"
    own = card(seller="openai", model="gpt-4.1", prices=[tier(input="1.5")])
    mine.write_bytes(file(own, version="acme-contract"))
    catalogue = load_catalogue([mine])
    assert cost(catalogue, "gpt-4.1", "openai") == 1_500_000_000
    assert cost(catalogue, "gpt-4.1-mini", "openai") == cost(load_catalogue(), "gpt-4.1-mini")
    assert catalogue.version.startswith("2026-11+acme-contract+")


def test_own_alias_wins_over_the_shipped_one(tmp_path: Path) -> None:
    """A private model may take over a name that a list-price model has as an alias."""
    mine = tmp_path / "mine.json"
    own = card(seller="openai", model="tuned", aliases=["gpt-4.1-2025-04-14"])
    mine.write_bytes(file(own, version="acme"))
    catalogue = load_catalogue([mine])
    assert cost(catalogue, "gpt-4.1-2025-04-14", "openai") == 1_000_000_000
    assert cost(catalogue, "gpt-4.1", "openai") == 2_000_000_000


def test_version_follows_the_content() -> None:
    """The version has the given name, and another hash for any other content."""
    one = build_catalogue([("a", file(card()))])
    same = build_catalogue([("b", file(card()))])
    other = build_catalogue([("a", file(card(prices=[tier(input="1.01")])))])
    assert one.version == same.version
    assert one.version.startswith("v1+")
    assert one.version != other.version


def test_without_provider_the_maker_is_preferred() -> None:
    """An event without a provider is priced by the documented order of sellers."""
    cards = [
        card(seller=seller, prices=[tier(input=text)])
        for seller, text in (("zebra", "5"), ("openrouter", "4"), ("anthropic", "3"))
    ]
    assert cost(build_catalogue([("a", file(*cards))]), "m") == 3_000_000_000
    assert cost(build_catalogue([("a", file(*cards[:2]))]), "m") == 4_000_000_000


def test_show_gives_all_tiers_in_force() -> None:
    """Showing a model gives every service and context tier in force at that moment, and only it."""
    view = show(load_catalogue(), "claude-sonnet-4.5", NOW)
    assert (view.seller, view.model) == ("anthropic", "claude-sonnet-4-5")
    standard = [row for row in view.rows if row.service_tier == "standard"]
    assert standard[0].usd_per_million["input"] == "3.00"
    assert standard[0].usd_per_million["output"] == "15.00"
    assert standard[0].effective_to is None
    assert json.loads(json.dumps(view.as_json()))["rows"]
    seller = show(load_catalogue(), "deepseek-v3.2", NOW, "deepseek")
    assert "DeepSeek" in seller.source


@pytest.mark.parametrize(
    ("model", "provider", "says"),
    [
        ("gpt-4.11", None, "did you mean gpt-4.1"),
        ("gpt-4.1", "corner-shop", "known: anthropic, aws"),
        ("gpt-99x", "openai", "no price of model 'gpt-99x' by openai"),
    ],
)
def test_show_helps_when_nothing_is_found(model: str, provider: str | None, says: str) -> None:
    """An unknown model or provider is answered with what is known."""
    with pytest.raises(RateNotFoundError, match=says):
        show(load_catalogue(), model, NOW, provider)


def test_show_outside_all_periods() -> None:
    """A model without a price at that moment is named, with the moment."""
    catalogue = build_catalogue([("a", file(card()))])
    with pytest.raises(RateNotFoundError, match=r"s/m has no price at 2025-01-01"):
        show(catalogue, "m", parse_rfc3339("2025-01-01T00:00:00Z"))
