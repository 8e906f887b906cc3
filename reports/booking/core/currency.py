"""Pure: the exchange rate of a close, and exact amounts in another currency."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from meterline.schemas.errors import MeterlineError
from meterline.schemas.finance import (
    BASE_CURRENCY,
    RATE_PLACES_MAX,
    ExchangeRate,
    FinancePolicy,
    RateKind,
    minor_digits,
)
from meterline.schemas.money import NANO_DIGITS, NanoUsd

SPOT_AGE_DAYS_MAX = 7
"""Markets close for less than a week; an older rate is not the month's."""
_SCALE = 10**RATE_PLACES_MAX
_EXACT_UNIT = 10 ** (NANO_DIGITS + RATE_PLACES_MAX)


# A close has one rate and needs it for every row.
@lru_cache(maxsize=16)
def _factor(rate: str) -> int:
    return int(Decimal(rate).scaleb(RATE_PLACES_MAX))


class NoRateError(MeterlineError, ValueError):
    """No exchange rate of the wanted kind fits the month; the message says what to add."""


class Exchange(NamedTuple):
    """US dollars to the currency of bills and journals."""

    currency: str
    rate: str
    """Units of the currency per US dollar, as it was written."""
    kind: str
    as_of: str
    source: str

    @property
    def factor(self) -> int:
        """The rate as a whole number of 10**-RATE_PLACES_MAX."""
        return _factor(self.rate)

    @property
    def digits(self) -> int:
        """Decimal places of the currency."""
        return minor_digits(self.currency)

    @property
    def unit(self) -> int:
        """How many steps of `exact` make one minor unit of the currency."""
        return int(_SCALE * 10 ** (NANO_DIGITS - self.digits))

    def exact(self, nano_usd: NanoUsd) -> int:
        """The amount in 10**-(9 + RATE_PLACES_MAX) of the currency: nothing is rounded."""
        return nano_usd * self.factor

    def text(self, minor: int) -> str:
        """Whole minor units as a plain decimal: "-12.30"."""
        sign = "-" if minor < 0 else ""
        whole, fraction = divmod(abs(minor), 10**self.digits)
        return f"{sign}{whole}.{fraction:0{self.digits}d}" if self.digits else f"{sign}{whole}"

    def exact_text(self, nano_usd: NanoUsd) -> str:
        """The exact amount in the currency as a plain decimal, without trailing zeros."""
        amount = self.exact(nano_usd)
        whole, rest = divmod(abs(amount), _EXACT_UNIT)
        sign = "-" if amount < 0 else ""
        places = NANO_DIGITS + RATE_PLACES_MAX
        return f"{sign}{whole}.{rest:0{places}d}".rstrip("0") if rest else f"{sign}{whole}"


NO_EXCHANGE = Exchange(BASE_CURRENCY, "1", "none", "", "")


def exchange_for(policy: FinancePolicy, last_day: date) -> Exchange:
    """The rate for the month that ends with `last_day`.

    Raises:
        NoRateError: policy has none that fits.
    """
    if policy.currency == BASE_CURRENCY:
        return NO_EXCHANGE
    found = _newest(policy, last_day)
    if found is None:
        message = (
            f"no {policy.rate_kind.value} rate {BASE_CURRENCY}/{policy.currency} for "
            f"{last_day:%Y-%m}: add one under finance.rates in the policy file"
        )
        raise NoRateError(message)
    return Exchange(policy.currency, found.rate, found.kind.value, found.as_of, found.source)


def _newest(policy: FinancePolicy, last_day: date) -> ExchangeRate | None:
    fitting = _fitting(policy.rates, policy.currency, policy.rate_kind, last_day)
    return max(fitting, key=lambda each: each.as_of, default=None)


def _fitting(
    rates: Iterable[ExchangeRate], currency: str, kind: RateKind, last_day: date
) -> Iterable[ExchangeRate]:
    earliest = {
        RateKind.CONTRACT: date.min,
        RateKind.SPOT: last_day - timedelta(days=SPOT_AGE_DAYS_MAX),
        RateKind.MONTHLY_AVERAGE: last_day.replace(day=1),
    }[kind]
    for each in rates:
        matches = each.quote == currency and each.kind is kind
        if matches and earliest <= date.fromisoformat(each.as_of) <= last_day:
            yield each
