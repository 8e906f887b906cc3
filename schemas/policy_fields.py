"""Dollars in the policy file: read from their text exactly, to the nano-dollar."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator

from meterline.schemas.money import MoneyError, NanoUsd, nano_from_usd, usd_text

# A trillion dollars: more is a slip of the keyboard, and all sums stay printable.
AMOUNT_USD_MAX = 10**12


def read_usd(value: Any) -> NanoUsd:
    """Dollars as written to nano-dollars, exactly; ValueError says what is wrong."""
    if not isinstance(value, str):
        message = "must be an amount of dollars, such as 1000 or 0.25"
        raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueError
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        message = f"must be an amount of dollars, such as 1000 or 0.25; got {value!r}"
        raise ValueError(message) from error
    if amount.is_finite() and amount < 0:
        message = f"must not be negative; got {value}"
        raise ValueError(message)
    # Before scaling: the exponent of "1e999999999" would make an integer that fills the memory.
    if not amount.is_finite() or amount > AMOUNT_USD_MAX:
        message = f"must be at most {AMOUNT_USD_MAX:,} dollars; got {value}"
        raise ValueError(message)
    try:
        return nano_from_usd(value)
    except MoneyError as error:
        message = f"is finer than a nano-dollar (nine decimal places); got {value}"
        raise ValueError(message) from error


Usd = Annotated[NanoUsd, BeforeValidator(read_usd)]


def plain_usd(nano_usd: NanoUsd) -> str:
    """Dollars as a person would write them: "1000", "0.25"."""
    return usd_text(nano_usd).rstrip("0").rstrip(".")
