"""The finance policy: close dates, currencies, accounts, shared costs, journals and the receiver.

Published as one object of control.policies under the id `finance`; written in the policy file
under `finance:`. A close freezes the object it used.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FINANCE_ID = "finance"
BASE_CURRENCY = "USD"
"""Of all prices, costs and budgets."""

RATE_PLACES_MAX = 10
"""Decimal places of an exchange rate; published ones have four to six."""
RATE_MAX = 10**9
# Every tag key splits lines further; beyond five a statement is no longer readable.
TAG_KEYS_MAX = 5
# The last day that every month has.
CLOSE_DAY_MAX = 28
_CURRENCY = re.compile(r"[A-Z]{3}")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_PLACE = re.compile(r"\{([^{}]*)\}")

# ISO 4217, where the minor unit is not a hundredth.
_WITHOUT_MINOR = frozenset(
    [
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ]
)
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})

JOURNAL_FIELDS = frozenset(
    {
        "account", "amount", "company", "control_total", "cost_center", "credit", "currency",
        "date", "debit", "debit_credit", "department", "external_line_id", "header_text",
        "journal_id", "journal_key", "ledger", "line_no", "memo", "origin_period", "period", "reference",
        "signed_amount", "source", "usd", "rate",
    }
)  # fmt: skip
"""What a column of a journal layout may be made of."""


def minor_digits(currency: str) -> int:
    """Decimal places of a currency's smallest unit: 2 for USD and CNY, 0 for JPY, 3 for KWD."""
    if currency in _WITHOUT_MINOR:
        return 0
    return 3 if currency in _THOUSANDTHS else 2


class RateKind(StrEnum):
    """The kind of an exchange rate."""

    CONTRACT = "contract"
    """Agreed; holds from its date until the next."""
    SPOT = "spot"
    """Of one day; taken if it is at most a week older than the month's end."""
    MONTHLY_AVERAGE = "monthly_average"
    """Of the month that its date lies in."""


class LayoutType(StrEnum):
    """Ledgers whose column names are known."""

    NETSUITE = "netsuite"
    WORKDAY = "workday"
    SAP = "sap"


def _currency(value: str) -> str:
    if not _CURRENCY.fullmatch(value):
        message = f"must be an ISO 4217 code, such as USD or CNY; got {value!r}"
        raise ValueError(message)
    return value


def _rate(value: str) -> str:
    try:
        amount = Decimal(value)
        fits = amount.is_finite() and 0 < amount <= RATE_MAX
        fits = fits and int(amount.as_tuple().exponent) >= -RATE_PLACES_MAX
    except InvalidOperation:
        fits = False
    if not fits:
        message = f"must be a positive decimal with at most {RATE_PLACES_MAX} places; got {value!r}"
        raise ValueError(message)
    return value


def _date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError as error:
        message = f"must be a date, such as 2026-10-31; got {value!r}"
        raise ValueError(message) from error
    return value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        message = f"must be a time of day, such as 06:00; got {value!r}"
        raise ValueError(message)
    return value


def _environment_name(value: str) -> str:
    if value and not _ENVIRONMENT_NAME.fullmatch(value):
        message = "must be the name of an environment variable, never the secret itself"
        raise ValueError(message)
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        message = "must be http(s)://HOST/... without a user name"
        raise ValueError(message)
    return value


def _columns(value: dict[str, str]) -> dict[str, str]:
    for name, template in value.items():
        strange = set(_PLACE.findall(template)) - JOURNAL_FIELDS
        if strange:
            message = (
                f"column {name!r}: {{{min(strange)}}} is not a journal field; "
                f"known: {', '.join(sorted(JOURNAL_FIELDS))}"
            )
            raise ValueError(message)
    return value


def _weights(value: dict[str, int]) -> dict[str, int]:
    if not value or min(value.values()) < 0 or not any(value.values()):
        message = "must name at least one department with a weight above 0, and none below"
        raise ValueError(message)
    return value


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExchangeRate(_Wire):
    """Units of `quote` per US dollar."""

    kind: RateKind = RateKind.CONTRACT
    quote: Annotated[str, AfterValidator(_currency)]
    rate: Annotated[str, AfterValidator(_rate)]
    as_of: Annotated[str, AfterValidator(_date)]
    source: str = ""


class JournalAccounts(_Wire):
    """Accounts and names that every journal line needs."""

    expense: str = "6300"
    clearing: str = "2100"
    suspense: str = "9999"
    """Account of costs without a cost centre; a month with such lines is not closed."""
    ledger: str = "ACTUALS"
    source: str = "METERLINE"
    companies: dict[str, str] = Field(default_factory=dict)
    """Organisation to the company's name in the ledger; its id where left out."""


class JournalLayout(_Wire):
    """One journal file: a known ledger's columns, with the changes of `columns`."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    type: LayoutType
    columns: Annotated[dict[str, str], AfterValidator(_columns)] = Field(default_factory=dict)
    """Header to a text with journal fields in braces; an empty text removes the column."""


class SharedCost(_Wire):
    """One department's cost, allocated to others by weight."""

    organisation: str
    department: str
    weights: Annotated[dict[str, int], AfterValidator(_weights)]


class PushTarget(_Wire):
    """Receiver of one JSON object per department and closed month."""

    url: Annotated[str, AfterValidator(_url)]
    token_env: Annotated[str, AfterValidator(_environment_name)] = ""
    """Name of the environment variable that holds the bearer token."""
    allow_private_address: bool = False


class FinancePolicy(_Wire):
    """The finance section of policy; the default closes in US dollars on the third day at 06:00."""

    kind: Literal["finance"] = "finance"
    version: int = 1
    close_day: Annotated[int, Field(ge=1, le=CLOSE_DAY_MAX)] = 3
    close_time: Annotated[str, AfterValidator(_time)] = "06:00"
    currency: Annotated[str, AfterValidator(_currency)] = BASE_CURRENCY
    rate_kind: RateKind = RateKind.CONTRACT
    rates: tuple[ExchangeRate, ...] = ()
    tag_keys: Annotated[tuple[str, ...], Field(max_length=TAG_KEYS_MAX)] = ()
    accounts: JournalAccounts = JournalAccounts()
    journals: tuple[JournalLayout, ...] = tuple(
        JournalLayout(id=each.value, type=each) for each in LayoutType
    )
    shared: tuple[SharedCost, ...] = ()
    push: PushTarget | None = None
