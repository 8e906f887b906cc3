"""Pure: other prices for the same requests. `pricing` alone says what a request costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meterline.pricing.catalogue import Catalogue
from meterline.pricing.names import fold
from meterline.pricing.rate_card import RateCard
from meterline.schemas.errors import MeterlineError
from meterline.schemas.money import NanoUsd
from meterline.schemas.usage import UsageEvent

# Names come from outside, so the cache is emptied when full rather than grown.
_KNOWN_MAX = 4_096
SWAPS_MAX = 50
"""Models replaced at once; an analyst names a handful."""


class ScenarioError(MeterlineError, ValueError):
    """A scenario that cannot be priced; the message says why."""


class Swap(NamedTuple):
    """Requests to one model, priced as if another had served them."""

    old: str
    new: str
    """As written: a model, or `seller/model` for a certain seller's price."""


class Request(NamedTuple):
    """What decides the price of a request; equal requests cost the same."""

    time_ms: int
    model: str
    """Canonical, as stored."""
    model_sent: str
    provider: str
    response_model: str
    service_tier: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int


def read_swap(text: str) -> Swap:
    """A swap as written: `gpt-4.1=deepseek-v3.2`.

    Raises:
        ScenarioError: not of that form.
    """
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (equals and old and new):
        message = f"{text!r} is no replacement: write OLD=NEW, such as gpt-4.1=deepseek-v3.2"
        raise ScenarioError(message)
    return Swap(old, new)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Prices to try: models replaced, or all requests by another catalogue, or both."""

    catalogue: Catalogue
    swaps: tuple[Swap, ...] = ()
    everything: bool = False
    """Price all requests by the catalogue; otherwise only those of replaced models."""
    _names: dict[str, Swap] = field(default_factory=dict, init=False)
    _known: dict[str, Swap | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Check the models; ScenarioError if one has no price, or is replaced twice."""
        if len(self.swaps) > SWAPS_MAX:
            message = f"{len(self.swaps)} replaced models, at most {SWAPS_MAX}"
            raise ScenarioError(message)
        for swap in self.swaps:
            if not isinstance(self.catalogue.find(swap.new), RateCard):
                message = (
                    f"no price of {swap.new!r}: `meterline rates show {swap.new}` names near ones"
                )
                raise ScenarioError(message)
            name = self._canonical(swap.old)
            if name in self._names:
                message = f"{swap.old!r} is replaced twice"
                raise ScenarioError(message)
            self._names[name] = swap

    def concerned(self, models: Sequence[str]) -> list[str]:
        """Those of the stored model names whose requests get another price."""
        return [name for name in models if self.everything or self._swap(name) is not None]

    def price(self, request: Request) -> tuple[NanoUsd, bool]:
        """What one such request would cost, and whether there is a price for it."""
        swap = self._swap(request.model)
        if swap is None:
            return self.catalogue.price(event_of(request))
        # The seller is that of the new model, and the old answer's model says nothing of it.
        replaced = request._replace(model_sent=swap.new, provider="", response_model="")
        return self.catalogue.price(event_of(replaced))

    def _swap(self, model: str) -> Swap | None:
        if model not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[model] = self._names.get(self._canonical(model))
        return self._known[model]

    def _canonical(self, model: str) -> str:
        card = self.catalogue.find(model)
        return fold(card.model if isinstance(card, RateCard) else model)


def event_of(request: Request) -> UsageEvent:
    """The event for rating; fields that a request lacks do not affect its price."""
    return UsageEvent(
        id="-",
        organisation="",
        key="",
        time_ms=request.time_ms,
        model=request.model_sent,
        provider=request.provider,
        response_model=request.response_model,
        service_tier=request.service_tier,
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        cache_read_tokens=request.cache_read_tokens,
        cache_write_tokens=request.cache_write_tokens,
        cache_write_1h_tokens=request.cache_write_1h_tokens,
        input_audio_tokens=request.input_audio_tokens,
        output_audio_tokens=request.output_audio_tokens,
    )


def price_cuts(catalogue: Catalogue, start_ms: int, end_ms: int) -> list[int]:
    """Moments at which any price changes within `[start_ms, end_ms)`, the start first.

    Between two of them the time of a request does not matter to its price.
    """
    moments = {
        moment
        for card in catalogue.cards
        for period in card.periods
        for moment in (period.from_ms, period.to_ms)
        if start_ms < moment < end_ms
    }
    return [start_ms, *sorted(moments)]
