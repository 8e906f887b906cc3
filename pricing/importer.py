"""Make a catalogue from the prices bundled with genai-prices (an optional dependency).

What cannot be said exactly by a rate card is left out and reported, never approximated: an
unknown model is flagged as unpriced, a wrong price is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meterline.pricing.names import fold
from meterline.pricing.rate_card import (
    PRICE_PLACES,
    CardEntry,
    PriceEntry,
    ServiceTier,
    TierEntry,
    price_text,
    read_cards,
)
from meterline.schemas.errors import MeterlineError

if TYPE_CHECKING:
    from genai_prices import types as genai

SELLERS: tuple[str, ...] = (
    "anthropic",
    "aws",
    "azure",
    "cerebras",
    "cohere",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "meta",
    "minimax",
    "mistral",
    "moonshotai",
    "openai",
    "openrouter",
    "perplexity",
    "together",
    "x-ai",
    "zai",
)
"""Sellers that are imported by default."""

FIRST_DAY = date(2020, 1, 1)
"""Prices without a start hold from the earliest event time there is."""

CONTEXTS: Mapping[ServiceTier, Mapping[str, str]] = {
    ServiceTier.BATCH: {"processing": "batch"},
    ServiceTier.PRIORITY: {"service_tier": "priority"},
    ServiceTier.FLEX: {"service_tier": "flex"},
}

_METERS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
}
# Priced beside tokens, per call of a tool; usage events do not count these.
_IGNORED = frozenset({"web_searches_kcount", "storage_searches_kcount", "cache_audio_read_mtok"})


class SkipReason(StrEnum):
    """Why a model of the source is not in the catalogue."""

    TIME_OF_DAY = "time_of_day"
    """The price depends on the hour."""
    OTHER_METER = "other_meter"
    """Something besides tokens of text and audio is charged: images, pages, requests, hours."""
    NO_TOKEN_PRICE = "no_token_price"  # noqa: S105 - tokens of text, not a secret
    DUPLICATE_NAME = "duplicate_name"
    """Another model of the seller has the same name after folding."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """One model left out."""

    seller: str
    model: str
    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import made and what it left out."""

    catalogue_version: str
    generated_from: str
    models: int
    sellers: Mapping[str, int]
    skipped: tuple[Skipped, ...]
    quantised: tuple[str, ...] = field(default=())
    """Prices with more than six places (float noise of the source), rounded half to even."""


class ImportUnavailableError(MeterlineError, RuntimeError):
    """The package genai-prices is not installed."""


class _UnfitError(MeterlineError, ValueError):
    def __init__(self, reason: SkipReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def import_catalogue(out: Path, *, name: str, sellers: Iterable[str] = SELLERS) -> ImportReport:
    """Write a catalogue file of genai-prices' bundled data, one card per line.

    Args:
        out: the file to write.
        name: its catalogue_version, by convention year and month.
        sellers: provider ids of genai-prices.

    Raises:
        ImportUnavailableError: genai-prices is not installed.
        OSError: the file cannot be written.
    """
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        message = "rates import needs the package genai-prices: pip install genai-prices"
        raise ImportUnavailableError(message) from error
    generated_from = f"genai-prices {metadata.version('genai-prices')}"
    wanted = set(sellers)
    state = _Import()
    for provider in providers:
        if provider.id in wanted:
            state.take(provider.id, provider.models)
    content = _file(name, generated_from, state.entries)
    read_cards(content)  # what is written can be read, or nothing is written
    out.write_bytes(content)
    return ImportReport(
        name,
        generated_from,
        len(state.entries),
        dict(Counter(entry.seller for entry in state.entries)),
        tuple(state.skipped),
        tuple(state.quantised),
    )


def _file(name: str, generated_from: str, entries: list[CardEntry]) -> bytes:
    head = msgspec.json.encode({"catalogue_version": name, "generated_from": generated_from})
    lines = b",\n".join(msgspec.json.encode(entry) for entry in entries)
    return head[:-1] + b',"entries":[\n' + lines + b"\n]}\n"


class _Import:
    """Entries and reports gathered over all sellers."""

    def __init__(self) -> None:
        self.entries: list[CardEntry] = []
        self.skipped: list[Skipped] = []
        self.quantised: list[str] = []

    def take(self, seller: str, models: Iterable[genai.ModelInfo]) -> None:
        """Convert all models of one seller."""
        listed = sorted(models, key=lambda model: model.id)
        own_names = {fold(model.id) for model in listed}
        taken: set[str] = set()
        for model in listed:
            try:
                entry = self._entry(seller, model, own_names | taken)
            except _UnfitError as unfit:
                self.skipped.append(Skipped(seller, model.id, unfit.reason, unfit.detail))
                continue
            if fold(model.id) in taken:
                detail = "also the name or alias of another model"
                skipped = Skipped(seller, model.id, SkipReason.DUPLICATE_NAME, detail)
                self.skipped.append(skipped)
                continue
            taken.update({fold(model.id), *map(fold, entry.aliases)})
            self.entries.append(entry)

    def _entry(self, seller: str, model: genai.ModelInfo, names: set[str]) -> CardEntry:
        aliases: dict[str, str] = {}
        for alias in _names(model.match):
            spelled = alias.strip("@:/ ").lower()
            if spelled and fold(spelled) not in names:
                aliases.setdefault(fold(spelled), spelled)
        prices: list[PriceEntry] = []
        for tier in ServiceTier:
            prices.extend(self._prices(seller, model, tier))
        return CardEntry(seller, model.id, prices, sorted(aliases.values()))

    def _prices(
        self, seller: str, model: genai.ModelInfo, tier: ServiceTier
    ) -> Iterator[PriceEntry]:
        context = CONTEXTS.get(tier)
        previous: list[TierEntry] | None = None
        for day in sorted(_starts(model, context)):
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
            prices = model.get_prices(moment, context)
            where = f"{seller}/{model.id}"
            tiers = self._tiers(where, prices)
            if tier is not ServiceTier.STANDARD and previous is None:
                standard = self._tiers(where, model.get_prices(moment))
                if tiers == standard:
                    continue  # the variant has not begun: the standard price answers
            if tiers != previous:
                previous = tiers
                yield PriceEntry(day.isoformat(), tiers, service_tier=tier)

    def _tiers(self, where: str, prices: genai.ModelPrice) -> list[TierEntry]:
        meters = _meters(where, prices)
        starts = {0}
        for price in meters.values():
            if not isinstance(price, Decimal):
                starts.update(tier.start for tier in price.tiers)
        return [
            TierEntry(
                start_input_tokens=start,
                **{
                    _METERS[meter]: self._text(f"{where} {meter}", _at(price, start))
                    for meter, price in meters.items()
                },
            )
            for start in sorted(starts)
        ]

    def _text(self, where: str, price: Decimal) -> str:
        exact = price.scaleb(PRICE_PLACES)
        rounded = exact.to_integral_value(ROUND_HALF_EVEN)
        if rounded != exact:
            note = f"{where}: {price}"
            if note not in self.quantised:
                self.quantised.append(note)
        return price_text(int(rounded))


def _meters(where: str, prices: genai.ModelPrice) -> dict[str, Decimal | genai.TieredPrices]:
    found: dict[str, Decimal | genai.TieredPrices] = {
        meter: price
        for meter, price in vars(prices).items()
        if price is not None and not meter.startswith("_") and meter not in _IGNORED
    }
    others = sorted(found.keys() - _METERS.keys())
    if others:
        raise _UnfitError(SkipReason.OTHER_METER, ", ".join(others))
    if not found and where.endswith(":free"):
        return {"input_mtok": Decimal(0), "output_mtok": Decimal(0)}
    if "input_mtok" not in found:
        raise _UnfitError(SkipReason.NO_TOKEN_PRICE, "no price of input tokens")
    found.setdefault("output_mtok", Decimal(0))  # embeddings and the like have no output
    return found


def _at(price: Decimal | genai.TieredPrices, start: int) -> Decimal:
    """The price of a request just above a tier's start."""
    if isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= start and start > 0]
    return reached[-1] if reached else price.base


def _starts(model: genai.ModelInfo, context: Mapping[str, str] | None) -> set[date]:
    """Days on which a price of this context may change."""
    from genai_prices.types import StartDateConstraint  # noqa: PLC0415 - an optional extra

    constraints = []
    if isinstance(model.prices, list):
        constraints += [price.constraint for price in model.prices]
    relevant = [
        variant
        for variant in model.price_variants or ()
        if context is not None and variant.when.items() <= context.items()
    ]
    if context is not None and not relevant:
        return set()
    constraints += [variant.constraint for variant in relevant]
    days = {FIRST_DAY}
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            days.add(max(constraint.start_date, FIRST_DAY))
        elif constraint is not None:
            raise _UnfitError(SkipReason.TIME_OF_DAY, "the price depends on the hour")
    return days


def _names(match: object) -> Iterator[str]:
    """Names in a match clause; looser clauses (starts with, contains) give their text as a name."""
    for part in ("equals", "starts_with", "ends_with", "contains"):
        text = getattr(match, part, None)
        if isinstance(text, str):
            yield text
    for clause in getattr(match, "or_", None) or ():
        yield from _names(clause)
