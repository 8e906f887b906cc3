"""Unit prices of booked lines, frozen with a close."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meterline.pricing.catalogue import Catalogue
from meterline.pricing.rating import Tariff, TariffPeriod
from meterline.reports.booking.core.inputs import PriceInput

Prices = tuple[int, int, int, int, int, int, int]


class PricedModel(NamedTuple):
    """What lines of one run have in common that share prices."""

    provider: str
    model: str
    service_tier: str
    tier_floor: int
    from_ms: int
    to_ms: int


def tier_floors(catalogue: Catalogue) -> list[int]:
    """The least input tokens of every context tier of any model, 0 first.

    A tier applies above its start, so its floor is the start plus one.
    """
    starts = {
        tier.start_input_tokens + 1
        for card in catalogue.cards
        for period in card.periods
        for tier in period.tiers
        if tier.start_input_tokens
    }
    return [0, *sorted(starts)]


def prices_of(
    models: Iterable[PricedModel], contracted: Catalogue, listed: Catalogue
) -> list[PriceInput]:
    """The prices in force on those days; a model that has none is left out."""
    found: list[PriceInput] = []
    for one in models:
        ours = contracted.tariffs(one.model, one.provider, one.service_tier)
        public = listed.tariffs(one.model, one.provider, one.service_tier)
        for period in sorted(ours):
            if period.from_ms >= one.to_ms or period.to_ms <= one.from_ms:
                continue
            found.append(
                PriceInput(
                    provider=one.provider,
                    model=one.model,
                    service_tier=one.service_tier,
                    tier_floor=one.tier_floor,
                    from_ms=period.from_ms,
                    to_ms=period.to_ms,
                    contracted=_prices(_tier(period, one.tier_floor)),
                    listed=_listed(public, max(period.from_ms, one.from_ms), one.tier_floor),
                )
            )
    return found


def _listed(periods: Sequence[TariffPeriod], at_ms: int, tier_floor: int) -> Prices | None:
    for period in periods:
        if period.from_ms <= at_ms < period.to_ms:
            return _prices(_tier(period, tier_floor))
    return None


def _tier(period: TariffPeriod, tier_floor: int) -> Tariff:
    """The tariff of requests with at least `tier_floor` input tokens, below the next floor."""
    for tier in period.tiers:
        if tier_floor > tier.above_input_tokens:
            return tier
    return period.base


def _prices(tariff: Tariff) -> Prices:
    return (
        tariff.input,
        tariff.output,
        tariff.cache_read,
        tariff.cache_write,
        tariff.cache_write_1h,
        tariff.input_audio,
        tariff.output_audio,
    )
