"""Dividing money so that the parts always sum to the whole: the largest remainder method.

round_parts   exact amounts to whole units, with a given total
allocate      a total by weights
"""

from __future__ import annotations

from collections.abc import Sequence

from meterline.schemas.money import divide_half_even


def round_parts(amounts: Sequence[int], unit: int, total_units: int | None = None) -> list[int]:
    """Round exact amounts to units so that they sum to the rounded total.

    Every part is rounded down; the units that are then missing go to the largest remainders, the
    first of equals first. So each part is off by less than one unit, and parts of a part that was
    rounded so can be rounded again.

    Args:
        amounts: of any sign.
        unit: how many of the amounts' steps make one unit; positive.
        total_units: what the parts sum to; without it, their exact sum, rounded half to even.

    Returns:
        Whole units, in the order of the amounts; nothing for nothing.
    """
    if not amounts:
        return []
    if total_units is None:
        total_units = divide_half_even(sum(amounts), unit)
    floors = [amount // unit for amount in amounts]
    missing = total_units - sum(floors)
    every, rest = divmod(missing, len(amounts))
    order = sorted(range(len(amounts)), key=lambda at: (-(amounts[at] % unit), at))
    favoured = set(order[:rest])
    return [floor + every + (at in favoured) for at, floor in enumerate(floors)]


def allocate(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a total by weights that are not negative and not all zero; the parts sum to it."""
    whole = sum(weights)
    return round_parts([total * weight for weight in weights], whole, total)
