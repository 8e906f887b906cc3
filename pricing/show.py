"""A model's prices at a moment, as a table and as JSON."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from meterline.pricing.catalogue import Catalogue
from meterline.pricing.rate_card import (
    OPEN_END_MS,
    PricePeriod,
    RateCard,
    ServiceTier,
    TokenPrices,
    price_text,
)
from meterline.pricing.rating import UnratedReason
from meterline.schemas.errors import MeterlineError

SUGGESTIONS_MAX = 5


class RateNotFoundError(MeterlineError, LookupError):
    """No price for this model, provider and moment; the message names near misses."""

    def __init__(self, message: str, reason: UnratedReason) -> None:
        """Keep the reason that rating would give."""
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """Prices of one service tier and context tier."""

    service_tier: str
    above_input_tokens: int
    effective_from: str
    effective_to: str | None
    usd_per_million: Mapping[str, str | None]
    """By token class; None where the wider class's price applies."""


@dataclass(frozen=True, slots=True)
class RateCardView:
    """The prices in force at one moment."""

    seller: str
    model: str
    aliases: tuple[str, ...]
    at: str
    price_version: str
    source: str
    rows: tuple[PriceRow, ...]

    def as_json(self) -> dict[str, object]:
        """Plain values, ready for a JSON encoder."""
        return asdict(self)


TOKEN_CLASSES = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "output_audio",
)


def show(catalogue: Catalogue, model: str, at_ms: int, provider: str | None = None) -> RateCardView:
    """The prices of a model at a moment.

    Args:
        catalogue: where to look.
        model: any spelling of it.
        at_ms: UTC ms.
        provider: whose price; None takes the maker's first.

    Raises:
        RateNotFoundError: nothing is known, or nothing was in force then.
    """
    card = catalogue.find(model, provider or "")
    if isinstance(card, UnratedReason):
        raise RateNotFoundError(_unknown(catalogue, model, provider, card), card)
    rows = tuple(
        _row(period, tier)
        for service_tier in ServiceTier
        for period in card.periods
        if period.service_tier is service_tier and period.from_ms <= at_ms < period.to_ms
        for tier in period.tiers
    )
    if not rows:
        message = f"{card.seller}/{card.model} has no price at {_day(at_ms)}"
        raise RateNotFoundError(message, UnratedReason.NO_RATE)
    source = card.source or catalogue.version
    return RateCardView(
        card.seller, card.model, card.aliases, _day(at_ms), catalogue.version, source, rows
    )


def _row(period: PricePeriod, tier: TokenPrices) -> PriceRow:
    prices = {name: getattr(tier, name) for name in TOKEN_CLASSES}
    return PriceRow(
        period.service_tier.value,
        tier.start_input_tokens,
        _day(period.from_ms),
        None if period.to_ms >= OPEN_END_MS else _day(period.to_ms),
        {name: None if price is None else price_text(price) for name, price in prices.items()},
    )


def _unknown(catalogue: Catalogue, model: str, provider: str | None, reason: UnratedReason) -> str:
    cards: tuple[RateCard, ...] = catalogue.cards
    if reason is UnratedReason.UNKNOWN_PROVIDER:
        sellers = ", ".join(sorted({card.seller for card in cards}))
        return f"no prices of provider {provider!r}; known: {sellers}"
    names = sorted({card.model for card in cards})
    near = difflib.get_close_matches(model, names, SUGGESTIONS_MAX)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return f"no price of model {model!r}{f' by {provider}' if provider else ''}{hint}"


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
