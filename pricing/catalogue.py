"""The catalogue: rate cards found by seller and model, compiled for rating.

One catalogue is immutable; a change of prices is another catalogue with another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from meterline.pricing.names import (
    SELLER_FALLBACKS,
    SELLER_PREFERENCE,
    fold,
    model_candidates,
    seller_name,
)
from meterline.pricing.rate_card import CatalogueError, RateCard, ServiceTier, read_cards
from meterline.pricing.rating import (
    Plan,
    Rated,
    TariffPeriod,
    UnratedReason,
    compile_periods,
    price_by,
    rate_by,
)
from meterline.schemas.money import NanoUsd
from meterline.schemas.usage import UsageEvent

PLANS_MAX = 16_384
"""Resolved (provider, model, response model, service tier). A miss costs about 20 us; names come
from outside, so the cache is emptied when it is full rather than grown."""
VERSION_HASH_LENGTH = 8

_TIER_ALIASES = {
    "batch": ServiceTier.BATCH,
    "priority": ServiceTier.PRIORITY,
    "fast": ServiceTier.PRIORITY,
    "flex": ServiceTier.FLEX,
}


class Catalogue:
    """Rate cards of all sellers under one version."""

    def __init__(self, name: str, cards: Iterable[RateCard], digest: str) -> None:
        """Index the cards; a later card replaces an earlier one of the same seller and model."""
        self.version = f"{name}+{digest[:VERSION_HASH_LENGTH]}"
        self._cards: dict[tuple[str, str], RateCard] = {}
        for card in cards:
            key = seller_name(card.seller), fold(card.model)
            self._cards.pop(key, None)  # so that the order is that of the last word
            self._cards[key] = card
        self._names = _index(self._cards)
        known = [seller for seller in SELLER_PREFERENCE if seller in self._names]
        self._sellers = (*known, *sorted(self._names.keys() - set(known)))
        self._plans: dict[tuple[str, str, str, str], Plan] = {}

    @property
    def cards(self) -> tuple[RateCard, ...]:
        """Every card, in the order of seller and model."""
        return tuple(self._cards[key] for key in sorted(self._cards))

    def rate(self, event: UsageEvent) -> Rated:
        """What the event costs by the prices in force at its own time; never raises."""
        return rate_by(event, self._plan_of(event), self.version)

    def price(self, event: UsageEvent) -> tuple[NanoUsd, bool]:
        """`rate` for those who need only the cost and whether there was a price."""
        return price_by(event, self._plan_of(event).periods)

    def _plan_of(self, event: UsageEvent) -> Plan:
        key = (event.provider, event.model, event.response_model, event.service_tier)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(*key)
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def find(self, model: str, provider: str = "") -> RateCard | UnratedReason:
        """The card that prices a model; without a provider, by the documented preference.

        An event's `openai/gpt-4.1` without a provider is taken as openai's, if that is a seller.
        """
        if provider:
            seller = seller_name(provider)
            if seller not in self._names and seller not in SELLER_FALLBACKS:
                return UnratedReason.UNKNOWN_PROVIDER
            sellers: Sequence[str] = (seller, *SELLER_FALLBACKS.get(seller, ()))
        else:
            head = seller_name(model.partition("/")[0]) if "/" in model else ""
            sellers = (head, *self._sellers)
        candidates = tuple(model_candidates(model))
        for seller in sellers:
            names = self._names.get(seller, {})
            for candidate in candidates:
                if candidate in names:
                    return self._cards[seller, names[candidate]]
        return UnratedReason.UNKNOWN_MODEL

    def tariffs(self, model: str, provider: str, service_tier: str) -> tuple[TariffPeriod, ...]:
        """All periods by which a model of a seller is charged; none where it has no price."""
        return self._plan(provider, model, "", service_tier).periods

    def _plan(self, provider: str, model: str, response_model: str, service_tier: str) -> Plan:
        card = self.find(model, provider)
        if isinstance(card, UnratedReason) and response_model:
            # A deployment's private name says nothing; the answer's model does.
            answered = self.find(response_model, provider)
            card = card if isinstance(answered, UnratedReason) else answered
        if isinstance(card, UnratedReason):
            return Plan((), card, model, "")
        tier = _TIER_ALIASES.get(service_tier.strip().lower(), ServiceTier.STANDARD)
        return Plan(tier_periods(card, tier), None, card.model, card.seller)


def tier_periods(card: RateCard, tier: ServiceTier) -> tuple[TariffPeriod, ...]:
    """Periods to search for a service tier: its own first, then standard where it has none."""
    own = compile_periods(p for p in card.periods if p.service_tier is tier)
    if tier is ServiceTier.STANDARD:
        return own
    standard = (p for p in card.periods if p.service_tier is ServiceTier.STANDARD)
    return own + compile_periods(standard)


def build_catalogue(contents: Iterable[tuple[str, bytes]]) -> Catalogue:
    """Build a catalogue of (file name, content) pairs; CatalogueError with every fault."""
    digest = hashlib.sha256()
    names: list[str] = []
    cards: list[RateCard] = []
    faults: list[str] = []
    for file_name, content in contents:
        digest.update(hashlib.sha256(content).digest())
        try:
            name, read = read_cards(content)
        except CatalogueError as error:
            faults.extend(f"{file_name}: {fault}" for fault in error.faults)
            continue
        names.append(name)
        cards.extend(read)
    if faults:
        raise CatalogueError(faults)
    # The overrides are part of the shipped version; an operator's files show in its name.
    shown = [name for name in names if name != "overrides"]
    return Catalogue("+".join(shown) or "empty", cards, digest.hexdigest())


def _index(cards: dict[tuple[str, str], RateCard]) -> dict[str, dict[str, str]]:
    """Seller to folded name to folded model: later aliases win, a model's own name always does."""
    names: dict[str, dict[str, str]] = {}
    for (seller, model), card in cards.items():
        names.setdefault(seller, {}).update(dict.fromkeys(map(fold, card.aliases), model))
    for seller, model in cards:
        names[seller][model] = model
    return names
