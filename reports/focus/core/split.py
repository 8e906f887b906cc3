"""How a booked line's exact cost falls on its token classes; pure."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter, mul
from typing import NamedTuple

from meterline.reports.booking.core.allocation import allocate, round_parts
from meterline.reports.booking.core.inputs import PriceInput
from meterline.reports.focus.core.focus_lines import TOKEN_CLASSES, FocusLine
from meterline.schemas.money import NanoUsd

PRICED, ALLOCATED = "priced", "allocated"
PICO_PER_NANO = 1000
_by_class = itemgetter(*(place for _, _, place in TOKEN_CLASSES))


class Split(NamedTuple):
    """How a line's cost falls on its token classes."""

    costs: list[NanoUsd]
    how: str


def split_cost(line: FocusLine, price: PriceInput | None) -> Split:
    """Divide the exact cost; the parts sum to it."""
    if price is None or line.unpriced == line.events:
        return Split(_by_weight(line.cost_nano_usd, line.tokens), ALLOCATED)
    pico = list(map(mul, line.tokens, _by_class(price.contracted)))
    difference = sum(pico) - line.cost_nano_usd * PICO_PER_NANO
    # Nearly all lines: prices are whole nano-dollars per token, and nothing was rounded.
    if not difference and not any(part % PICO_PER_NANO for part in pico):
        return Split([part // PICO_PER_NANO for part in pico], PRICED)
    # One rounding per event, of at most half a nano-dollar.
    if abs(difference) <= PICO_PER_NANO * abs(line.events):
        used = [at for at, tokens in enumerate(line.tokens) if tokens]
        parts = round_parts([pico[at] for at in used], PICO_PER_NANO, line.cost_nano_usd)
        costs = [0] * len(pico)
        for at, part in zip(used, parts, strict=True):
            costs[at] = part
        return Split(costs, PRICED) if used else Split([line.cost_nano_usd, *costs[1:]], PRICED)
    return Split(_by_weight(line.cost_nano_usd, pico), ALLOCATED)


def _by_weight(cost: int, weights: Sequence[int]) -> list[int]:
    if any(weights) and min(weights) >= 0:
        return allocate(cost, weights)
    if any(weights) and max(weights) <= 0:
        return allocate(cost, [-each for each in weights])
    return [cost, *([0] * (len(weights) - 1))]
