"""Money: integers of nano-US-dollars, and the one function that rounds.

1 USD = 1_000_000_000 nano-USD. Python integers do not overflow, so sums are exact at any size.
Outside Meterline's topics money is a decimal string ("0.005504000"), because JavaScript
loses integers above 2**53 (9.0 million dollars in nano-USD).
"""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from typing import TypeAlias

from meterline.schemas.errors import MeterlineError

NanoUsd: TypeAlias = int
"""An amount in nano-USD; negative for corrections."""

NANO_PER_USD = 1_000_000_000
NANO_DIGITS = 9

# The default context would round silently at 28 digits; this one refuses to round at all.
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])


class MoneyError(MeterlineError, ValueError):
    """An amount that is not exactly representable in nano-USD."""


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide exactly and round half to even: the only rounding of money in Meterline.

    Args:
        numerator: any integer.
        denominator: a positive integer.

    Returns:
        The integer nearest to numerator / denominator; the even one of two equally near.
    """
    if denominator <= 0:
        message = f"denominator must be positive, got {denominator}"
        raise MoneyError(message)
    quotient, remainder = divmod(numerator, denominator)
    if not remainder:
        return quotient
    doubled = remainder * 2
    if doubled > denominator or (doubled == denominator and quotient & 1):
        return quotient + 1
    return quotient


def nano_from_usd(amount: str | int | Decimal) -> NanoUsd:
    """Read dollars exactly; a float is refused by type.

    Raises:
        MoneyError: not a finite number, or finer than a nano-dollar.
    """
    try:
        scaled = Decimal(amount, _EXACT).scaleb(NANO_DIGITS, _EXACT)
    except (DecimalException, ValueError) as error:
        message = f"not an amount of dollars: {amount!r}"
        raise MoneyError(message) from error
    if not scaled.is_finite() or scaled != scaled.to_integral_value(context=_EXACT):
        message = f"not a whole number of nano-dollars: {amount!r}"
        raise MoneyError(message)
    return int(scaled)


def usd_decimal(nano_usd: NanoUsd) -> Decimal:
    """The exact amount in dollars, with nine places."""
    return Decimal(nano_usd).scaleb(-NANO_DIGITS, _EXACT)


def usd_text(nano_usd: NanoUsd) -> str:
    """The exact amount as a plain decimal string with nine places: "-0.000000001"."""
    sign = "-" if nano_usd < 0 else ""
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"


def usd_display(nano_usd: NanoUsd, places: int = 2) -> str:
    """The amount for display: "$1,234.57"; rounded half to even, never to be read back.

    Args:
        nano_usd: the amount.
        places: decimal places shown, 0 to 9.
    """
    unit = 10 ** (NANO_DIGITS - places)
    rounded = divide_half_even(abs(nano_usd), unit)
    whole, fraction = divmod(rounded, 10**places)
    sign = "-" if nano_usd < 0 and rounded else ""
    tail = f".{fraction:0{places}d}" if places else ""
    return f"{sign}${whole:,}{tail}"
