"""Rate cards: what a seller charges for a model, from when to when.

    card (seller, model)
      └─ period  [effective_from, effective_to) of one service tier, never overlapping
           └─ tier   from `start_input_tokens` of a single request: a cliff, all tokens at its price
                └─ prices per token class, pico-USD per token

A price is written as a decimal string of USD per million tokens with at most six places; that is
a whole number of pico-USD per token, so rating is exact integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import pairwise

import msgspec

from meterline.pricing.names import fold, seller_name
from meterline.schemas.errors import MeterlineError

PRICE_PLACES = 6
"""Decimal places of USD per million tokens; real price lists need no more."""
PRICE_USD_MAX = 1_000_000
"""A million dollars per million tokens: a higher price is a unit mistake (per token, in cents)."""
ENTRIES_MAX = 50_000
"""Twenty times the shipped catalogue; bounds memory against a runaway file."""
OPEN_END_MS = 2**62
"""End of a period that has none yet."""


class ServiceTier(StrEnum):
    """How fast a request is served, and so what it costs."""

    STANDARD = "standard"
    BATCH = "batch"
    PRIORITY = "priority"
    FLEX = "flex"


class CatalogueError(MeterlineError, ValueError):
    """A catalogue file that cannot be used; `faults` lists everything wrong with it."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep the faults for a report of one line each."""
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices of each token class, pico-USD per token; a None falls back to a wider class.

    cache_write_1h falls back to cache_write, and every class of input to `input`; output_audio
    to `output`.
    """

    start_input_tokens: int
    """The tier applies to a request with more input tokens than this; 0 for the base tier."""
    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None


@dataclass(frozen=True, slots=True)
class PricePeriod:
    """Prices of one service tier in `[from_ms, to_ms)`; `tiers` rise by their start."""

    service_tier: ServiceTier
    from_ms: int
    to_ms: int
    tiers: tuple[TokenPrices, ...]


@dataclass(frozen=True, slots=True)
class RateCard:
    """Everything one seller charges for one model; `model` is the canonical name."""

    seller: str
    model: str
    aliases: tuple[str, ...]
    periods: tuple[PricePeriod, ...]
    source: str = ""
    """Where the prices come from: free text."""


class TierEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tier as a file has it."""

    input: str
    output: str
    start_input_tokens: int = 0
    cache_read: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    input_audio: str | None = None
    output_audio: str | None = None


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One period as a file has it; dates are RFC 3339 full dates in UTC."""

    effective_from: str
    tiers: list[TierEntry]
    effective_to: str | None = None
    """Exclusive; left out, the next period of the same service tier ends this one."""
    service_tier: ServiceTier = ServiceTier.STANDARD


class CardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One card as a file has it."""

    seller: str
    model: str
    prices: list[PriceEntry]
    aliases: list[str] = []
    source: str = ""


class CatalogueFile(msgspec.Struct, frozen=True):
    """A whole file; entries are decoded one by one, so that each can be wrong on its own."""

    catalogue_version: str
    entries: list[msgspec.Raw]
    generated_from: str = ""


_file_decoder = msgspec.json.Decoder(CatalogueFile)
_entry_decoder = msgspec.json.Decoder(CardEntry)


def read_cards(content: bytes) -> tuple[str, list[RateCard]]:
    """Read one catalogue file.

    Returns:
        The version's given name and the cards in their order.

    Raises:
        CatalogueError: with every fault of every entry.
    """
    try:
        file = _file_decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CatalogueError([f"not a catalogue file: {error}"]) from error
    faults: list[str] = []
    if not file.catalogue_version.strip():
        faults.append("catalogue_version must not be empty")
    if len(file.entries) > ENTRIES_MAX:
        faults.append(f"{len(file.entries)} entries, at most {ENTRIES_MAX}")
        raise CatalogueError(faults)
    cards: list[RateCard] = []
    for position, raw in enumerate(file.entries):
        try:
            cards.append(_card(_entry_decoder.decode(raw)))
        except msgspec.MsgspecError as error:
            faults.append(f"entries[{position}]: {error}")
        except CatalogueError as error:
            faults.extend(f"entries[{position}] {fault}" for fault in error.faults)
    faults.extend(_ambiguous(cards))
    if faults:
        raise CatalogueError(faults)
    return file.catalogue_version, cards


def _ambiguous(cards: list[RateCard]) -> Iterable[str]:
    """Names that two cards of one file and seller answer to; across files the later one wins."""
    holders: dict[tuple[str, str], str] = {}
    for card in cards:
        for name in sorted({card.model, *card.aliases}):
            holder = holders.setdefault((seller_name(card.seller), fold(name)), card.model)
            if holder is not card.model:
                yield f"{card.seller}: {name!r} names both {holder} and {card.model}"


def price_pico(text: str) -> int:
    """Read USD per million tokens as pico-USD per token.

    Raises:
        CatalogueError: not a plain decimal of 0 to PRICE_USD_MAX with at most six places.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise CatalogueError([f"price {text!r} is not a decimal number"]) from error
    if not amount.is_finite() or amount < 0 or amount > PRICE_USD_MAX:
        raise CatalogueError([f"price {text!r} is not between 0 and {PRICE_USD_MAX}"])
    scaled = amount.scaleb(PRICE_PLACES)
    if scaled != scaled.to_integral_value():
        raise CatalogueError([f"price {text!r} has more than {PRICE_PLACES} decimal places"])
    return int(scaled)


def price_text(pico: int) -> str:
    """Spell a price as USD per million tokens: "2.00", "0.2288"."""
    whole, fraction = divmod(pico, 10**PRICE_PLACES)
    digits = f"{fraction:0{PRICE_PLACES}d}".rstrip("0")
    return f"{whole}.{digits:0<2}"


def _card(entry: CardEntry) -> RateCard:
    where = f"{entry.seller}/{entry.model}"
    faults: list[str] = []
    if not entry.seller.strip() or not entry.model.strip():
        faults.append("seller and model must not be empty")
    if not all(alias.strip() for alias in entry.aliases):
        faults.append("an alias must not be empty")
    if not entry.prices:
        faults.append("no prices")
    periods: list[PricePeriod] = []
    for tier in ServiceTier:
        dated = [price for price in entry.prices if price.service_tier is tier]
        try:
            periods.extend(_periods(tier, dated))
        except CatalogueError as error:
            faults.extend(error.faults)
    if faults:
        raise CatalogueError([f"({where}): {fault}" for fault in faults])
    return RateCard(entry.seller, entry.model, tuple(entry.aliases), tuple(periods), entry.source)


def _periods(tier: ServiceTier, entries: list[PriceEntry]) -> Iterable[PricePeriod]:
    faults: list[str] = []
    periods: list[PricePeriod] = []
    for entry in entries:
        try:
            start = _date_ms(entry.effective_from)
            end = OPEN_END_MS if entry.effective_to is None else _date_ms(entry.effective_to)
            if end <= start:
                faults.append(f"{tier}: effective_to {entry.effective_to} is not after its start")
            periods.append(PricePeriod(tier, start, end, _tiers(entry.tiers)))
        except CatalogueError as error:
            faults.extend(f"{tier} from {entry.effective_from}: {f}" for f in error.faults)
    periods.sort(key=lambda period: period.from_ms)
    closed: list[PricePeriod] = []
    for period, following in pairwise(periods):
        if period.from_ms == following.from_ms or OPEN_END_MS > period.to_ms > following.from_ms:
            faults.append(f"{tier}: two prices hold from {_date_text(following.from_ms)}")
        end = min(period.to_ms, following.from_ms)
        closed.append(PricePeriod(tier, period.from_ms, end, period.tiers))
    if faults:
        raise CatalogueError(faults)
    return [*closed, *periods[-1:]]


def _tiers(entries: list[TierEntry]) -> tuple[TokenPrices, ...]:
    starts = [entry.start_input_tokens for entry in entries]
    if not starts or starts[0] != 0 or any(left >= right for left, right in pairwise(starts)):
        raise CatalogueError(["tiers must start at 0 input tokens and rise"])
    return tuple(_token_prices(entry) for entry in entries)


def _token_prices(entry: TierEntry) -> TokenPrices:
    faults: list[str] = []

    def read(name: str, text: str | None) -> int | None:
        try:
            return None if text is None else price_pico(text)
        except CatalogueError as error:
            faults.extend(f"{name}: {fault}" for fault in error.faults)
            return None

    prices = TokenPrices(
        start_input_tokens=entry.start_input_tokens,
        input=read("input", entry.input) or 0,
        output=read("output", entry.output) or 0,
        cache_read=read("cache_read", entry.cache_read),
        cache_write=read("cache_write", entry.cache_write),
        cache_write_1h=read("cache_write_1h", entry.cache_write_1h),
        input_audio=read("input_audio", entry.input_audio),
        output_audio=read("output_audio", entry.output_audio),
    )
    if faults:
        raise CatalogueError(faults)
    return prices


def _date_ms(text: str) -> int:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise CatalogueError([f"{text!r} is not a date like 2026-10-31"]) from error
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def _date_text(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
