"""Mappings of the policy file, and the types of their fields.

Used by the compiler (`control.policy`) and by the channel and rule kinds of `alerting`, which
declare the fields of their own entries.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from meterline.schemas.money import MoneyError, NanoUsd, nano_from_usd, usd_text

# JSON's safe integer, as for token counts.
COUNT_MAX = 2**53
PERCENT_MAX = 1_000
NAME_LENGTH_MAX = 200
TEMPLATE_LENGTH_MAX = 4_000

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Percent = Annotated[int, Field(ge=1, le=PERCENT_MAX)]
Text = Annotated[str, Field(max_length=NAME_LENGTH_MAX)]
Template = Annotated[str, Field(max_length=TEMPLATE_LENGTH_MAX)]

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


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,7})([smhd])", re.ASCII)


def read_duration(value: Any) -> int:
    """Seconds of "90s", "5m", "1h" or "7d"; ValueError says what is wrong."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        message = f"must be a duration such as 30s, 5m, 1h or 7d; got {value!r}"
        raise ValueError(message)
    return int(found[1]) * _UNIT_SECONDS[found[2]]


Duration = Annotated[int, BeforeValidator(read_duration)]


class Entry(BaseModel):
    """A mapping of the file: unknown fields are errors, and an empty value counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: content for name, content in value.items() if content is not None}
