"""Rating: one event and a catalogue to money. Integers only, one rounding per event.

    input   = uncached text + uncached audio + cache reads + cache writes (5 min) + (1 h)
    output  = text (reasoning included) + audio
    pico    = sum of each part times its price           exact
    nano    = pico / 1000, half to even                  the only rounding

A part without a price of its own is charged as the wider class it belongs to. Audio that does not
fit beside the cached tokens is cached audio and charged as a cache read, because events do not say
how much audio was cached.

Never rate sums: a context tier is a cliff on one request's input tokens, so summed tokens would
land in the wrong tier. A correction is rated in the tier of its own size: to move a request
across a tier, reverse it whole and send it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from meterline.pricing.rate_card import PricePeriod, TokenPrices
from meterline.schemas.money import NanoUsd, divide_half_even
from meterline.schemas.usage import UsageEvent

PICO_PER_NANO: Final = 1000
_UNPRICED: Final = (0, False)


class UnratedReason(StrEnum):
    """Why an event has no price; it is counted, flagged and can be rated later."""

    UNKNOWN_PROVIDER = "unknown_provider"
    """The event names a seller of whom the catalogue has nothing."""
    UNKNOWN_MODEL = "unknown_model"
    NO_RATE = "no_rate"
    """The model is known, but had no price at the event's time."""


class Rated(msgspec.Struct, frozen=True, gc=False):
    """What an event costs. An unpriced event costs 0 and says why; it is never silently free."""

    cost_nano_usd: NanoUsd
    priced: bool
    reason: UnratedReason | None
    model: str
    """The canonical model, or the name as sent where it is unknown."""
    price_version: str
    seller: str = ""
    """Whose price was applied; empty where unpriced."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of one tier, every class filled in, pico-USD per token."""

    above_input_tokens: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    output_audio: int


class TariffPeriod(NamedTuple):
    """Tariffs that hold in `[from_ms, to_ms)`: the base, and the tiers above it, highest first."""

    from_ms: int
    to_ms: int
    base: Tariff
    tiers: tuple[Tariff, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that (provider, model, service tier) come down to; newest period first."""

    periods: tuple[TariffPeriod, ...]
    reason: UnratedReason | None
    model: str
    seller: str


def compile_periods(periods: Iterable[PricePeriod]) -> tuple[TariffPeriod, ...]:
    """Fill in the missing classes and order the periods for lookup, newest first."""
    compiled: list[TariffPeriod] = []
    for period in sorted(periods, key=lambda each: each.from_ms, reverse=True):
        base, *tiers = (_tariff(prices) for prices in period.tiers)
        compiled.append(TariffPeriod(period.from_ms, period.to_ms, base, tuple(reversed(tiers))))
    return tuple(compiled)


def _tariff(prices: TokenPrices) -> Tariff:
    def known(price: int | None, wider: int) -> int:
        return wider if price is None else price

    cache_write = known(prices.cache_write, prices.input)
    return Tariff(
        above_input_tokens=prices.start_input_tokens,
        input=prices.input,
        output=prices.output,
        cache_read=known(prices.cache_read, prices.input),
        cache_write=cache_write,
        cache_write_1h=known(prices.cache_write_1h, cache_write),
        input_audio=known(prices.input_audio, prices.input),
        output_audio=known(prices.output_audio, prices.output),
    )


def rate_by(event: UsageEvent, plan: Plan, price_version: str) -> Rated:
    """Rate one event by its plan; pure, never raises."""
    cost_nano_usd, priced = price_by(event, plan.periods)
    if not priced:
        reason = plan.reason or UnratedReason.NO_RATE
        return Rated(0, priced=False, reason=reason, model=plan.model, price_version=price_version)
    # Positional: keywords cost a tenth of the whole function here.
    return Rated(cost_nano_usd, True, None, plan.model, price_version, plan.seller)  # noqa: FBT003


def price_by(event: UsageEvent, periods: tuple[TariffPeriod, ...]) -> tuple[NanoUsd, bool]:
    """What an event costs, and whether it had a price; pure, never raises."""
    time_ms = event.time_ms
    # Unpacked, because names of a NamedTuple cost more than the comparison.
    for from_ms, to_ms, base, tiers in periods:
        if from_ms <= time_ms < to_ms:
            tariff = _tier_of(abs(event.input_tokens), base, tiers) if tiers else base
            return divide_half_even(cost_pico_usd(event, tariff), PICO_PER_NANO), True
    return _UNPRICED


def _tier_of(input_tokens: int, base: Tariff, tiers: tuple[Tariff, ...]) -> Tariff:
    for tier in tiers:
        if input_tokens > tier.above_input_tokens:
            return tier
    return base


def cost_pico_usd(event: UsageEvent, tariff: Tariff) -> int:
    """The exact cost of one event by one tariff, pico-USD; linear but for cached audio."""
    cost = event.output_tokens * tariff.output
    uncached = event.input_tokens
    read = event.cache_read_tokens
    written = event.cache_write_tokens
    written_1h = event.cache_write_1h_tokens
    if read or written or written_1h:
        uncached -= read + written + written_1h
        cost += (
            read * tariff.cache_read
            + written * tariff.cache_write
            + written_1h * tariff.cache_write_1h
        )
    if event.input_audio_tokens:
        audio = _uncached_audio(event.input_audio_tokens, uncached, event.input_tokens - uncached)
        cost += audio * (tariff.input_audio - tariff.input)
    if event.output_audio_tokens:
        cost += event.output_audio_tokens * (tariff.output_audio - tariff.output)
    return cost + uncached * tariff.input


def _uncached_audio(audio: int, uncached: int, cached: int) -> int:
    """Audio tokens that were not cached; odd in its arguments, so a reversal cancels exactly."""
    if audio < 0:
        return -_uncached_audio(-audio, -uncached, -cached)
    overlap = min(max(audio - uncached, 0), max(cached, 0))
    return audio - overlap
